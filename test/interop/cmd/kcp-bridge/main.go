// kcp-bridge carries TCP connections on the streams of KCP clients, so that a client that
// speaks TCP plays over the ecosystem's Go stack:
//
//	kcp-bridge -gateway 127.0.0.1:17003 [the settings of the stack] [those of a bad line]
//
// It prints the port it listens on, on 127.0.0.1. Each TCP connection begins with one
// line, which is answered with one that begins with "ok" or "error":
//
//	session NAME [local=ADDRESS] [conv=NUMBER]
//	    open a stream on the session of that name, which is made where there is none; the
//	    answer has the session's UDP address and conv, and the stream's number. Behind
//	    it the connection is the stream, and they end together. Without NAME ("session -")
//	    the session is this stream's own and ends with it.
//	rebind NAME [local=ADDRESS]
//	    go on with that session from another UDP socket; the answer has its address
//	statistics NAME
//	    the answer is what KCP knows of the session
//	end NAME
//	    forget the session, which the other end is not told
//
// A stream that the gateway ended ends the TCP connection; where the session itself broke,
// it is reset.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"janus/interop/faults"
	"janus/interop/program"
	"janus/interop/stack"
)

// What the session of one stream is given to deliver its last bytes.
const linger = time.Second

// The size of a pump's buffer; all else that is held is bounded by the windows below.
const pumpBytes = 16 << 10

const longestCommand = 512

func main() {
	program.Begin("kcp-bridge")
	b := &bridge{settings: stack.Defaults(), sessions: map[string]*session{}}
	b.settings.Flags(flag.CommandLine)
	b.faults.Flags(flag.CommandLine)
	flag.StringVar(&b.gateway, "gateway", "127.0.0.1:17003", "`address` of the server")
	profile := flag.String("profile", "default", "default or low-latency: settings not given otherwise")
	program.Parse(func() bool { return b.profile(*profile) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	program.Serving(listener.Addr().(*net.TCPAddr).Port)
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go b.serve(connection.(*net.TCPConn))
	}
}

type bridge struct {
	settings stack.Settings
	faults   faults.Settings
	gateway  string

	mutex    sync.Mutex
	sessions map[string]*session
	made     uint64
}

type session struct {
	*stack.Session
	socket *faults.Socket
}

// profile sets what the command line has not set.
func (b *bridge) profile(name string) bool {
	switch name {
	case "default":
		return true
	case "low-latency":
		given := map[string]string{}
		flag.Visit(func(f *flag.Flag) { given[f.Name] = f.Value.String() })
		b.settings = stack.LowLatency()
		for name, value := range given {
			_ = flag.Set(name, value)
		}
		return true
	}
	return false
}

func (b *bridge) serve(connection *net.TCPConn) {
	r := bufio.NewReaderSize(connection, longestCommand)
	line, err := r.ReadSlice('\n')
	if err != nil {
		connection.Close()
		return
	}
	command, err := parse(string(line))
	if err == nil && command.verb == "session" {
		err = b.play(command, connection, r) // closes it, unless it fails
		if err == nil {
			return
		}
	} else if err == nil {
		err = b.manage(command, connection)
	}
	if err != nil {
		fmt.Fprintf(connection, "error %v\n", err)
	}
	connection.Close()
}

type command struct {
	verb, name, local string
	conv              *uint32
}

func parse(line string) (command, error) {
	words := strings.Fields(line)
	if len(words) < 2 {
		return command{}, fmt.Errorf("no command: %q", line)
	}
	c := command{verb: words[0], name: words[1]}
	for _, word := range words[2:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "local":
			c.local = value
		case "conv":
			number, err := strconv.ParseUint(value, 0, 32)
			if err != nil {
				return c, err
			}
			conv := uint32(number)
			c.conv = &conv
		default:
			return c, fmt.Errorf("no option: %q", word)
		}
	}
	return c, nil
}

func (b *bridge) manage(c command, connection io.Writer) error {
	b.mutex.Lock()
	s := b.sessions[c.name]
	if c.verb == "end" {
		delete(b.sessions, c.name)
	}
	b.mutex.Unlock()
	if s == nil {
		return fmt.Errorf("no session: %q", c.name)
	}
	switch c.verb {
	case "rebind":
		if err := s.socket.Rebind(c.local); err != nil {
			return err
		}
		fmt.Fprintf(connection, "ok %s\n", b.address(s))
	case "statistics":
		fmt.Fprintf(connection, "ok srtt=%d rto=%d streams=%d closed=%t\n",
			s.KCP.GetSRTT(), s.KCP.GetRTO(), s.NumStreams(), s.IsClosed())
	case "end":
		_ = s.Close()
		fmt.Fprintf(connection, "ok\n")
	default:
		return fmt.Errorf("no command: %q", c.verb)
	}
	return nil
}

// session is the one of that name, made where there is none that works.
func (b *bridge) session(c command) (*session, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if s := b.sessions[c.name]; s != nil && !s.IsClosed() {
		return s, nil
	}
	network := "udp4"
	if strings.HasPrefix(b.gateway, "[") {
		network = "udp6"
	}
	// Each session has its own faults, which are those of its place in the order.
	ofSession := b.faults
	ofSession.Seed += b.made
	b.made++
	socket, err := faults.ListenSocket(network, c.local, ofSession)
	if err != nil {
		return nil, err
	}
	conv := stack.NewConv()
	if c.conv != nil {
		conv = *c.conv
	}
	over, err := b.settings.DialOver(socket, conv, b.gateway)
	if err != nil {
		socket.Close()
		return nil, err
	}
	s := &session{over, socket}
	if c.name != "-" {
		b.sessions[c.name] = s
	}
	return s, nil
}

// address is the one of the session's socket as the gateway sees it.
func (b *bridge) address(s *session) string {
	local := s.socket.LocalAddr().(*net.UDPAddr)
	if !local.IP.IsUnspecified() {
		return local.String()
	}
	route, err := net.Dial("udp", b.gateway) // sends nothing
	if err != nil {
		return local.String()
	}
	defer route.Close()
	return (&net.UDPAddr{IP: route.LocalAddr().(*net.UDPAddr).IP, Port: local.Port}).String()
}

func (b *bridge) play(c command, connection *net.TCPConn, r *bufio.Reader) error {
	s, err := b.session(c)
	if err != nil {
		return err
	}
	if c.name == "-" {
		defer func() { time.AfterFunc(linger, func() { _ = s.Close() }) }()
	}
	stream, err := s.OpenStream()
	if err != nil {
		return err
	}
	fmt.Fprintf(connection, "ok %s %d %d\n", b.address(s), s.KCP.GetConv(), stream.ID())

	left := make(chan struct{}) // closed before the stream, when the client is done
	go func() {
		_, err := io.CopyBuffer(onlyWriter{stream}, onlyReader{r}, make([]byte, pumpBytes))
		if err != nil {
			// The stream takes nothing more, since the other end's FIN has come, say. What came
			// before that is still to be read, until which the stream stays open. And unread bytes
			// would turn the end of the connection into a reset.
			_, _ = io.Copy(io.Discard, r)
		}
		close(left)
		_ = stream.Close()
		_ = connection.Close()
	}()
	_, err = io.CopyBuffer(onlyWriter{connection}, onlyReader{stream}, make([]byte, pumpBytes))
	select {
	case <-left:
	default:
		if err == nil { // the other end's FIN
			_ = connection.CloseWrite()
		} else {
			_ = connection.SetLinger(0)
			_ = connection.Close()
		}
	}
	<-left
	return nil
}

// Without the methods by which io.Copy would go round the pump's buffer.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }
