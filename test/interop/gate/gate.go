// Package gate is a gateway of the layers that the ecosystem's own has, to measure beside: its
// packages for keys, sealing and compression, protobuf and grpc-go, and between them what its
// network library (which is not to be had) has for each player: a reading and a writing loop over
// buffered I/O, a ticking one, a queue to the client, and for his tunnel another queue and two
// loops, all of the library's sizes. What else a gateway does is left out: limits, routes, rooms,
// pushes, logs and numbers.
package gate

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-pantheon/fabrica-util/security/aes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	"janus/interop/handshake"
	"janus/interop/wire"
)

const (
	queued         = 1024 // messages, each way
	handshakeLimit = 10 * time.Second
	idleLimit      = 600 * time.Second // as the benchmark gives the gateway
	tickEvery      = 10 * time.Second
)

// Gate serves any number of players.
type Gate struct {
	Account *aes.Cipher        // of login tokens
	Key     ed25519.PrivateKey // for the handshake
	Backend *grpc.ClientConn

	Players, Tunnels atomic.Int64
}

// Serve takes clients until the listener ends.
func (g *Gate) Serve(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go g.serve(conn)
	}
}

// player is one client that has logged in.
type player struct {
	gate    *Gate
	conn    net.Conn
	r       *bufio.Reader
	w       *bufio.Writer
	cipher  *aes.Cipher
	uid     int64
	index   int32       // of his next message
	replies chan []byte // packets, not yet sealed
	tunnel  *tunnel
}

func (g *Gate) serve(conn net.Conn) {
	defer conn.Close()
	p := &player{gate: g, conn: conn, r: bufio.NewReader(conn), w: bufio.NewWriter(conn), index: 1,
		replies: make(chan []byte, queued)}
	if conn.SetDeadline(time.Now().Add(handshakeLimit)) != nil {
		return
	}
	cipher, token, err := handshake.Serve(p.r, p.w, g.Key)
	if err != nil {
		return
	}
	known, err := g.login(token, conn)
	if err != nil {
		return
	}
	p.cipher = cipher
	p.uid, _ = strconv.ParseInt(known.Get("x-md-global-uid")[0], 10, 64) // formatted by login
	g.Players.Add(1)
	defer g.Players.Add(-1)
	// How a session ends is its client's affair.
	_ = together(metadata.NewOutgoingContext(context.Background(), known),
		p.watch, p.read, p.write, p.tick)
	if p.tunnel != nil {
		<-p.tunnel.done
	}
}

// login opens a token; returns what the backend is told of the player.
func (g *Gate) login(token []byte, conn net.Conn) (metadata.MD, error) {
	sealed, err := base64.URLEncoding.DecodeString(string(token))
	if err != nil {
		return nil, err
	}
	plain, err := g.Account.Decrypt(sealed)
	if err != nil {
		return nil, err
	}
	content, err := wire.Decode(plain)
	if err != nil {
		return nil, err
	}
	if int64(content.Number(5)) < time.Now().Unix() {
		return nil, errors.New("the token has expired")
	}
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		return nil, err
	}
	number := func(field protowire.Number) string {
		return strconv.FormatInt(int64(content.Number(field)), 10)
	}
	return metadata.Pairs("x-md-global-oid", number(3), "x-md-global-uid", number(3),
		"x-md-global-sid", number(4), "x-md-global-color", string(content.Bytes(2)),
		"x-md-global-status", number(7), "x-md-global-client-ip", host,
		"x-md-global-referer", "gate", "x-md-global-gate-referer", conn.RemoteAddr().String()), nil
}

// together runs loops until one of them ends, and waits until all have.
func together(ctx context.Context, loops ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, loop := range loops {
		running.Add(1)
		go func() {
			defer running.Done()
			cancel(loop(ctx))
		}()
	}
	running.Wait()
	return context.Cause(ctx)
}
