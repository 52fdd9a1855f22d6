package faults

import (
	"net"
	"sync"
	"time"
)

// Socket is a UDP socket behind a bad line, whose own socket can be exchanged for one
// with another port while the session above it goes on, as when a phone changes networks.
type Socket struct {
	network string
	out, in *Line // nil on a perfect line

	mutex  sync.RWMutex
	udp    *net.UDPConn
	closed bool

	arrived chan datagram
	done    chan struct{}
}

type datagram struct {
	body []byte
	from net.Addr
}

// Datagrams that came through and are not yet read; more are lost, as in the kernel.
const unread = 1024

// Larger than any datagram kcp-go takes.
const maxDatagram = 2048

// ListenSocket opens it on local, or on any port where that is "".
func ListenSocket(network, local string, settings Settings) (*Socket, error) {
	s := &Socket{network: network, arrived: make(chan datagram, unread), done: make(chan struct{})}
	udp, err := s.open(local)
	if err != nil {
		return nil, err
	}
	s.udp = udp
	if !settings.perfect() {
		s.out = NewLine(settings, 0, func(body []byte, about any) {
			_, _ = s.write(body, about.(net.Addr))
		})
		s.in = NewLine(settings, 1, func(body []byte, about any) {
			select {
			case s.arrived <- datagram{body, about.(net.Addr)}:
			default:
			}
		})
		go s.receive()
	}
	return s, nil
}

func (s *Socket) open(local string) (*net.UDPConn, error) {
	if local == "" {
		return net.ListenUDP(s.network, nil)
	}
	address, err := net.ResolveUDPAddr(s.network, local)
	if err != nil {
		return nil, err
	}
	return net.ListenUDP(s.network, address)
}

// Rebind goes on with a new socket. What was under way to the old one is lost.
func (s *Socket) Rebind(local string) error {
	udp, err := s.open(local)
	if err != nil {
		return err
	}
	s.mutex.Lock()
	old := s.udp
	if s.closed {
		old = udp
	} else {
		s.udp = udp
	}
	s.mutex.Unlock()
	return old.Close()
}

func (s *Socket) current() (*net.UDPConn, bool) {
	s.mutex.RLock()
	defer s.mutex.RUnlock()
	return s.udp, s.closed
}

// read skips the errors of sockets that are no longer the current one.
func (s *Socket) read(into []byte) (int, net.Addr, error) {
	for {
		udp, _ := s.current()
		n, from, err := udp.ReadFrom(into)
		if now, closed := s.current(); err == nil || now == udp || closed {
			return n, from, err
		}
	}
}

func (s *Socket) write(body []byte, to net.Addr) (int, error) {
	for {
		udp, _ := s.current()
		n, err := udp.WriteTo(body, to)
		if now, closed := s.current(); err == nil || now == udp || closed {
			return n, err
		}
	}
}

func (s *Socket) receive() {
	buffer := make([]byte, maxDatagram)
	for {
		n, from, err := s.read(buffer)
		if err != nil {
			return
		}
		s.in.Send(buffer[:n], from)
	}
}

func (s *Socket) ReadFrom(into []byte) (int, net.Addr, error) {
	if s.in == nil {
		return s.read(into)
	}
	select {
	case d := <-s.arrived:
		return copy(into, d.body), d.from, nil
	case <-s.done:
		return 0, nil, net.ErrClosed
	}
}

func (s *Socket) WriteTo(body []byte, to net.Addr) (int, error) {
	if s.out == nil {
		return s.write(body, to)
	}
	s.out.Send(body, to)
	return len(body), nil
}

func (s *Socket) Close() error {
	s.mutex.Lock()
	if s.closed {
		s.mutex.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	close(s.done)
	err := s.udp.Close()
	s.mutex.Unlock()
	if s.out != nil {
		s.out.Close()
		s.in.Close()
	}
	return err
}

func (s *Socket) LocalAddr() net.Addr {
	udp, _ := s.current()
	return udp.LocalAddr()
}

// Deadlines are kcp-go's own affair; it sets none on its socket.
func (s *Socket) SetDeadline(time.Time) error      { return nil }
func (s *Socket) SetReadDeadline(time.Time) error  { return nil }
func (s *Socket) SetWriteDeadline(time.Time) error { return nil }
