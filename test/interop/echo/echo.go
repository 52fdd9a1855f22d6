// Package echo is a server of frames that sends each back, with as much of a gateway's
// work around it as is asked for.
package echo

import (
	"bufio"
	"crypto/ed25519"
	"errors"
	"io"
	"log"
	"net"

	"github.com/go-pantheon/fabrica-util/security/aes"
	"github.com/xtaci/smux"

	"janus/interop/handshake"
	"janus/interop/wire"
)

// The size of the ecosystem's read and write buffers.
const buffer = 4096

// answer makes the reply to one message.
type answer func(body []byte) ([]byte, error)

// Server serves any number of streams at a time.
type Server struct {
	// begin does what comes before the first message of a stream.
	begin func(r io.Reader, w *bufio.Writer) (answer, error)
}

// Plain sends bytes back as they are.
func Plain() *Server {
	asItIs := func(body []byte) ([]byte, error) { return body, nil }
	return &Server{func(io.Reader, *bufio.Writer) (answer, error) { return asItIs, nil }}
}

// WithKey opens each message with that AES key, and seals it anew.
func WithKey(key []byte) (*Server, error) {
	cipher, err := aes.NewAESCipher(key)
	return &Server{func(io.Reader, *bufio.Writer) (answer, error) { return resealed(cipher), nil }}, err
}

// WithLogin begins each stream with the gateway's handshake, signed with key, and lets
// everybody in.
func WithLogin(key ed25519.PrivateKey) *Server {
	return &Server{func(r io.Reader, w *bufio.Writer) (answer, error) { return enter(r, w, key) }}
}

// Serve answers on one stream until it ends.
func (s *Server) Serve(stream *smux.Stream) {
	r, w := bufio.NewReaderSize(stream, buffer), bufio.NewWriterSize(stream, buffer)
	reply, err := s.begin(r, w)
	for err == nil {
		var body []byte
		if body, err = wire.ReadFrame(r); err != nil {
			break
		}
		if body, err = reply(body); err != nil {
			break
		}
		if err = wire.WriteFrame(w, body); err == nil {
			err = w.Flush()
		}
	}
	// How a stream ends is its client's affair; what does not belong on it is worth a line.
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, net.ErrClosed) {
		log.Printf("%s stream %d: %v", stream.RemoteAddr(), stream.ID(), err)
	}
}

func resealed(cipher *aes.Cipher) answer {
	return func(body []byte) ([]byte, error) {
		plain, err := cipher.Decrypt(body)
		if err != nil {
			return nil, err
		}
		return cipher.Encrypt(plain)
	}
}

// rewritten is what a gateway does between client and backend and back, without either.
func rewritten(cipher *aes.Cipher) answer {
	return func(body []byte) ([]byte, error) {
		plain, err := cipher.Decrypt(body)
		if err != nil {
			return nil, err
		}
		packet, err := wire.Decode(plain)
		if err != nil {
			return nil, err
		}
		return cipher.Encrypt(packet.Encode())
	}
}

func enter(r io.Reader, w *bufio.Writer, key ed25519.PrivateKey) (answer, error) {
	cipher, _, err := handshake.Serve(r, w, key)
	if err != nil {
		return nil, err
	}
	return rewritten(cipher), nil
}
