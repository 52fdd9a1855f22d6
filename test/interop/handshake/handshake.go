// Package handshake is the gateway's part of the beginning of a client's stream.
package handshake

import (
	"bufio"
	"crypto/ed25519"
	"errors"
	"io"
	"time"

	"github.com/go-pantheon/fabrica-util/security/aes"
	"github.com/go-pantheon/fabrica-util/security/certificate"
	"github.com/go-pantheon/fabrica-util/security/ecdh"

	"janus/interop/wire"
)

// Serve reads the client's question and answers it, signed with key. It returns the session's
// cipher and the token, at which it does not look.
func Serve(r io.Reader, w *bufio.Writer, key ed25519.PrivateKey) (*aes.Cipher, []byte, error) {
	body, err := wire.ReadFrame(r)
	if err != nil {
		return nil, nil, err
	}
	packet, err := wire.Decode(body)
	if err != nil {
		return nil, nil, err
	}
	if packet.Number(wire.PacketMod) != wire.ModuleSystem ||
		packet.Number(wire.PacketSeq) != wire.SystemHandshake {
		return nil, nil, errors.New("the first message is no handshake")
	}
	question, err := wire.Decode(packet.Bytes(wire.PacketData))
	if err != nil {
		return nil, nil, err
	}
	peer, err := ecdh.ParseKey(question.Bytes(1))
	if err != nil {
		return nil, nil, err
	}
	private, public, err := ecdh.GenKeyPair()
	if err != nil {
		return nil, nil, err
	}
	shared, err := ecdh.ComputeSharedKey(private, peer)
	if err != nil {
		return nil, nil, err
	}
	signed, err := certificate.Sign(key, public[:])
	if err != nil {
		return nil, nil, err
	}
	cipher, err := aes.NewAESCipher(shared)
	if err != nil {
		return nil, nil, err
	}
	hello := wire.Fields{1: public[:], 2: signed.Sign, 3: uint64(time.Now().Unix()), 5: uint64(1)}
	packet[wire.PacketData] = hello.Encode()
	if err := wire.WriteFrame(w, packet.Encode()); err != nil {
		return nil, nil, err
	}
	return cipher, question.Bytes(3), w.Flush()
}
