// Package interop drives the gateway with the ecosystem's own Go code: keys,
// certificates, the key exchange, sealing and compression are fabrica-util's; the
// framing and the messages are written here, from the definitions in proto/.
package interop

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// fields are the scalar fields of one protobuf message by number: numbers as
// uint64, text and bytes as []byte.
type fields map[protowire.Number]any

func (f fields) encode() []byte {
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

func decode(raw []byte) (fields, error) {
	out := fields{}
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

func (f fields) number(field protowire.Number) uint64 {
	value, _ := f[field].(uint64)
	return value
}

func (f fields) bytes(field protowire.Number) []byte {
	value, _ := f[field].([]byte)
	return value
}
