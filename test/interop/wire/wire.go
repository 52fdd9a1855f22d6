// Package wire is what the ecosystem's packages leave to its client library, which is
// not to be had: frames and messages, written from the definitions in proto/.
package wire

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
)

// MaxFrame is the longest body the ecosystem takes.
const MaxFrame = 16384

// Field numbers of packet.Packet.
const (
	PacketData, PacketVersion, PacketObj, PacketMod = 1, 2, 3, 4
	PacketSeq, PacketIndex, PacketConn              = 5, 7, 8
	PacketCompress                                  = 20
)

const (
	ModuleSystem, ModuleDev, ModuleUser, ModuleRoom = 1, 2, 3, 6
	SystemHandshake, SystemHeartbeat, SystemLogout  = 1, 2, 4
)

// WriteFrame writes length and body at once, as a buffered writer does that is flushed
// after each message.
func WriteFrame(w io.Writer, body []byte) error {
	framed := make([]byte, 4+len(body))
	binary.BigEndian.PutUint32(framed, uint32(len(body)))
	copy(framed[4:], body)
	_, err := w.Write(framed)
	return err
}

// ReadFrame refuses lengths that the ecosystem's own reader refuses.
func ReadFrame(r io.Reader) ([]byte, error) {
	var header [4]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	length := int32(binary.BigEndian.Uint32(header[:]))
	if length <= 0 || length > MaxFrame {
		return nil, fmt.Errorf("a frame of %d bytes", length)
	}
	body := make([]byte, length)
	_, err := io.ReadFull(r, body)
	return body, err
}

// Fields are the scalar fields of one protobuf message by number: numbers as
// uint64, text and bytes as []byte.
type Fields map[protowire.Number]any

func (f Fields) Encode() []byte {
	var out []byte
	for number := protowire.Number(1); number <= 20; number++ {
		switch value := f[number].(type) {
		case nil:
		case []byte:
			out = protowire.AppendTag(out, number, protowire.BytesType)
			out = protowire.AppendBytes(out, value)
		case uint64:
			out = protowire.AppendTag(out, number, protowire.VarintType)
			out = protowire.AppendVarint(out, value)
		default:
			panic(fmt.Sprintf("field %d is a %T", number, value))
		}
	}
	return out
}

func Decode(raw []byte) (Fields, error) {
	out := Fields{}
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		raw = raw[n:]
		switch kind {
		case protowire.VarintType:
			value, n := protowire.ConsumeVarint(raw)
			if n < 0 {
				return nil, protowire.ParseError(n)
			}
			out[number], raw = value, raw[n:]
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(raw)
			if n < 0 {
				return nil, protowire.ParseError(n)
			}
			out[number], raw = append([]byte{}, value...), raw[n:]
		default:
			return nil, fmt.Errorf("field %d has wire type %d", number, kind)
		}
	}
	return out, nil
}

func (f Fields) Number(field protowire.Number) uint64 {
	value, _ := f[field].(uint64)
	return value
}

func (f Fields) Bytes(field protowire.Number) []byte {
	value, _ := f[field].([]byte)
	return value
}
