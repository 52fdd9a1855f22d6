// Package stack puts KCP and smux on top of each other as the ecosystem's network
// library does: the same packages in the same versions, the same settings.
package stack

import (
	"crypto/rand"
	"encoding/binary"
	"flag"
	"io"
	"net"
	"time"

	"github.com/xtaci/kcp-go/v5"
	"github.com/xtaci/smux"
)

// Settings of both ends. Server only: DSCP and SocketBuffer.
type Settings struct {
	DataShards, ParityShards                int // 0 and 0: no FEC
	NoDelay, Interval, Resend, NoCongestion int
	SendWindow, ReceiveWindow, MTU          int
	AckNoDelay, WriteDelay                  bool
	DSCP, SocketBuffer                      int

	FrameBytes, ReceiveBuffer, StreamBuffer int
	KeepAlive, KeepAliveTimeout             time.Duration
}

// Streams a client of the ecosystem opens at once.
const Streams = 4

// Defaults are the ecosystem's.
func Defaults() Settings {
	return Settings{
		DataShards: 10, ParityShards: 3,
		NoDelay: 1, Interval: 10, Resend: 2, NoCongestion: 1,
		SendWindow: 128, ReceiveWindow: 128, MTU: 1400,
		AckNoDelay: true, WriteDelay: false,
		DSCP: 46, SocketBuffer: 8192,
		FrameBytes: 4096, ReceiveBuffer: 4 << 20, StreamBuffer: 65536,
		KeepAlive: 10 * time.Second, KeepAliveTimeout: 30 * time.Second,
	}
}

// LowLatency is the ecosystem's other profile.
func LowLatency() Settings {
	s := Defaults()
	s.DataShards, s.ParityShards = 8, 2
	s.Interval = 5
	s.SendWindow, s.ReceiveWindow, s.MTU = 256, 256, 1200
	s.SocketBuffer = 16384
	s.FrameBytes, s.ReceiveBuffer = 2048, 8<<20
	s.KeepAlive, s.KeepAliveTimeout = 5*time.Second, 15*time.Second
	return s
}

// Flags makes every setting one of the command line, with its present value as default.
func (s *Settings) Flags(flags *flag.FlagSet) {
	flags.IntVar(&s.DataShards, "data", s.DataShards, "data shards of a group, 0 for no FEC")
	flags.IntVar(&s.ParityShards, "parity", s.ParityShards, "parity shards of a group, 0 for no FEC")
	flags.IntVar(&s.NoDelay, "nodelay", s.NoDelay, "KCP's nodelay, 0 or 1")
	flags.IntVar(&s.Interval, "interval", s.Interval, "milliseconds between KCP's flushes")
	flags.IntVar(&s.Resend, "resend", s.Resend, "later acknowledgements before a segment is sent again")
	flags.IntVar(&s.NoCongestion, "nc", s.NoCongestion, "1: no congestion window")
	flags.IntVar(&s.SendWindow, "sndwnd", s.SendWindow, "send window, in segments")
	flags.IntVar(&s.ReceiveWindow, "rcvwnd", s.ReceiveWindow, "receive window, in segments")
	flags.IntVar(&s.MTU, "mtu", s.MTU, "bytes of KCP in a datagram, FEC's 8 not counted")
	flags.BoolVar(&s.AckNoDelay, "acknodelay", s.AckNoDelay, "acknowledge at once")
	flags.BoolVar(&s.WriteDelay, "writedelay", s.WriteDelay, "let writes wait for the next flush")
	flags.IntVar(&s.DSCP, "dscp", s.DSCP, "of a server's datagrams")
	flags.IntVar(&s.SocketBuffer, "sockbuf", s.SocketBuffer, "bytes of a server's socket buffers, 0 for the system's own")
	flags.IntVar(&s.FrameBytes, "frame", s.FrameBytes, "longest payload of a smux frame")
	flags.IntVar(&s.ReceiveBuffer, "smuxbuf", s.ReceiveBuffer, "bytes a smux session holds unread")
	flags.IntVar(&s.StreamBuffer, "streambuf", s.StreamBuffer, "window of each smux stream, in bytes")
	flags.DurationVar(&s.KeepAlive, "keepalive", s.KeepAlive, "time between smux's signs of life")
	flags.DurationVar(&s.KeepAliveTimeout, "keepalive-timeout", s.KeepAliveTimeout, "silence that ends a smux session")
}

func (s *Settings) smux() *smux.Config {
	return &smux.Config{
		Version: 2, KeepAliveInterval: s.KeepAlive, KeepAliveTimeout: s.KeepAliveTimeout,
		MaxFrameSize: s.FrameBytes, MaxReceiveBuffer: s.ReceiveBuffer,
		MaxStreamBuffer: s.StreamBuffer,
	}
}

func (s *Settings) apply(session *kcp.UDPSession) {
	session.SetNoDelay(s.NoDelay, s.Interval, s.Resend, s.NoCongestion)
	session.SetWindowSize(s.SendWindow, s.ReceiveWindow)
	session.SetMtu(s.MTU)
	session.SetACKNoDelay(s.AckNoDelay)
	session.SetWriteDelay(s.WriteDelay)
}

// Session is one KCP connection with smux on it.
type Session struct {
	*smux.Session
	KCP *kcp.UDPSession

	socket io.Closer // where kcp-go doesn't close it by itself
}

// Close forgets the session; nothing tells the other end.
func (s *Session) Close() error {
	err := s.Session.Close()
	if s.socket != nil {
		_ = s.socket.Close()
	}
	return err
}

// Dial is what a client of the ecosystem does. It takes whoever is heard first for its peer:
// where another gateway may still send to a port that its client has left, see DialOver.
func (s *Settings) Dial(address string) (*Session, error) {
	session, err := kcp.DialWithOptions(address, nil, s.DataShards, s.ParityShards)
	if err != nil {
		return nil, err
	}
	return s.client(session, nil)
}

// DialOver does the same over a socket of the caller's, which is closed with the session, and
// hears only its peer.
func (s *Settings) DialOver(socket net.PacketConn, conv uint32, address string) (*Session, error) {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, err
	}
	session, err := kcp.NewConn3(conv, to, nil, s.DataShards, s.ParityShards, onlyFrom{socket, to})
	if err != nil {
		return nil, err
	}
	return s.client(session, socket)
}

// onlyFrom drops what others send. kcp-go takes whoever is heard first for its peer from then
// on: on a machine where other gateways still send to ports that their clients have left, that
// may be one of these.
type onlyFrom struct {
	net.PacketConn
	peer *net.UDPAddr
}

func (o onlyFrom) ReadFrom(into []byte) (int, net.Addr, error) {
	for {
		n, from, err := o.PacketConn.ReadFrom(into)
		if err != nil {
			return n, from, err
		}
		if udp, ok := from.(*net.UDPAddr); !ok || udp.Port == o.peer.Port {
			return n, from, nil
		}
	}
}

// NewConv is a conversation id as kcp-go itself draws it.
func NewConv() uint32 {
	var raw [4]byte
	_, _ = rand.Read(raw[:]) // never fails
	return binary.LittleEndian.Uint32(raw[:])
}

func (s *Settings) client(session *kcp.UDPSession, socket io.Closer) (*Session, error) {
	s.apply(session)
	mux, err := smux.Client(session, s.smux())
	if err != nil {
		session.Close()
		return nil, err
	}
	return &Session{mux, session, socket}, nil
}

// Listen prepares a server's socket as the ecosystem's server does.
func (s *Settings) Listen(address string) (*kcp.Listener, error) {
	listener, err := kcp.ListenWithOptions(address, nil, s.DataShards, s.ParityShards)
	if err != nil {
		return nil, err
	}
	if s.DSCP != 0 {
		err = listener.SetDSCP(s.DSCP)
	}
	if err == nil && s.SocketBuffer != 0 {
		if err = listener.SetReadBuffer(s.SocketBuffer); err == nil {
			err = listener.SetWriteBuffer(s.SocketBuffer)
		}
	}
	if err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

// Serve calls serve for each stream of each client, in a goroutine of its own, and
// closes the stream when it returns. Serve itself returns when the listener ends.
func (s *Settings) Serve(listener *kcp.Listener, serve func(stream *smux.Stream)) error {
	for {
		session, err := listener.AcceptKCP()
		if err != nil {
			return err
		}
		s.apply(session)
		mux, err := smux.Server(session, s.smux())
		if err != nil {
			session.Close()
			return err
		}
		go s.streams(mux, serve)
	}
}

func (s *Settings) streams(mux *smux.Session, serve func(stream *smux.Stream)) {
	defer mux.Close()
	for {
		stream, err := mux.AcceptStream()
		if err != nil {
			return
		}
		go func() {
			defer stream.Close()
			serve(stream)
		}()
	}
}
