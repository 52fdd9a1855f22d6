package interop

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/go-pantheon/fabrica-util/compress"
	"github.com/go-pantheon/fabrica-util/security/aes"
	"github.com/go-pantheon/fabrica-util/security/certificate"
	"github.com/go-pantheon/fabrica-util/security/ecdh"

	"janus/interop/wire"
)

// player is a client that has logged in, over whatever carries its bytes.
type player struct {
	conn    net.Conn
	session *aes.Cipher
	index   uint64
	connID  uint64 // of every message, 0 for none
}

// enter is the handshake.
func enter(conn net.Conn, k *keys, uid, connID uint64) (*player, error) {
	private, public, err := ecdh.GenKeyPair()
	if err != nil {
		return nil, err
	}
	signed, err := certificate.Sign(k.client.KeyPair.Pri, public[:])
	if err != nil {
		return nil, err
	}
	token, err := k.token(uid)
	if err != nil {
		return nil, err
	}
	question := wire.Fields{wire.PacketMod: uint64(wire.ModuleSystem),
		wire.PacketSeq: uint64(wire.SystemHandshake),
		wire.PacketData: wire.Fields{1: public[:], 2: signed.Sign, 3: []byte(token),
			4: uint64(7), 5: uint64(time.Now().Unix())}.Encode()}
	if connID != 0 {
		question[wire.PacketConn] = connID
	}
	if err := wire.WriteFrame(conn, question.Encode()); err != nil {
		return nil, err
	}
	body, err := wire.ReadFrame(conn)
	if err != nil {
		return nil, err
	}
	packet, err := wire.Decode(body)
	if err != nil {
		return nil, err
	}
	if packet.Number(wire.PacketMod) != wire.ModuleSystem ||
		packet.Number(wire.PacketSeq) != wire.SystemHandshake {
		return nil, fmt.Errorf("the answer to the handshake is %v", packet)
	}
	answer, err := wire.Decode(packet.Bytes(wire.PacketData))
	if err != nil {
		return nil, err
	}
	if !certificate.Verify(k.server.Pri.Public().(ed25519.PublicKey), answer.Bytes(1), answer.Bytes(2)) {
		return nil, errors.New("the gateway's signature does not verify")
	}
	peer, err := ecdh.ParseKey(answer.Bytes(1))
	if err != nil {
		return nil, err
	}
	shared, err := ecdh.ComputeSharedKey(private, peer)
	if err != nil {
		return nil, err
	}
	session, err := aes.NewAESCipher(shared)
	if err != nil {
		return nil, err
	}
	if answer.Number(5) != 1 {
		return nil, fmt.Errorf("start_index is %d", answer.Number(5))
	}
	return &player{conn, session, 1, connID}, nil
}

func (p *player) send(mod, seq, obj uint64, data []byte, compressed bool) error {
	packet := wire.Fields{wire.PacketMod: mod, wire.PacketSeq: seq, wire.PacketObj: obj,
		wire.PacketData: data, wire.PacketIndex: p.index}
	if p.connID != 0 {
		packet[wire.PacketConn] = p.connID
	}
	if compressed {
		packet[wire.PacketCompress] = uint64(1)
	}
	p.index++
	sealed, err := p.session.Encrypt(packet.Encode())
	if err != nil {
		return err
	}
	return wire.WriteFrame(p.conn, sealed)
}

func (p *player) receive() (wire.Fields, error) {
	body, err := wire.ReadFrame(p.conn)
	if err != nil {
		return nil, err
	}
	plain, err := p.session.Decrypt(body)
	if err != nil {
		return nil, err
	}
	packet, err := wire.Decode(plain)
	if err != nil {
		return nil, err
	}
	if packet.Number(wire.PacketCompress) == 1 {
		packet[wire.PacketData], err = compress.Decompress(packet.Bytes(wire.PacketData))
	}
	return packet, err
}

// expect is for the next packet; data nil is any.
func (p *player) expect(mod, seq uint64, data []byte) (wire.Fields, error) {
	packet, err := p.receive()
	if err != nil {
		return nil, err
	}
	if packet.Number(wire.PacketMod) != mod || packet.Number(wire.PacketSeq) != seq {
		return nil, fmt.Errorf("expected mod %d seq %d, got %v", mod, seq, packet)
	}
	if data != nil && !bytes.Equal(packet.Bytes(wire.PacketData), data) {
		return nil, fmt.Errorf("expected %d bytes back, got %d others", len(data), len(packet.Bytes(wire.PacketData)))
	}
	return packet, nil
}

// expectEnd is for a connection that the gateway has ended.
func (p *player) expectEnd() error {
	if n, err := p.conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("the connection did not end: %d bytes, %v", n, err)
	}
	return nil
}
