package gate

import (
	"context"
	"errors"
	"time"

	"github.com/go-pantheon/fabrica-util/compress"
	"google.golang.org/protobuf/proto"

	"janus/interop/pb"
	"janus/interop/wire"
)

// watch ends the other loops' waiting for the client when one of them has ended.
func (p *player) watch(ctx context.Context) error {
	<-ctx.Done()
	return p.conn.Close()
}

// tick has nothing to do in the ecosystem's gateway either; each of its players has it.
func (p *player) tick(ctx context.Context) error {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *player) read(ctx context.Context) error {
	for {
		if err := p.conn.SetDeadline(time.Now().Add(idleLimit)); err != nil {
			return err
		}
		body, err := wire.ReadFrame(p.r)
		if err != nil {
			return err
		}
		plain, err := p.cipher.Decrypt(body)
		if err != nil {
			return err
		}
		if err := p.handle(ctx, plain); err != nil {
			return err
		}
	}
}

func (p *player) handle(ctx context.Context, plain []byte) error {
	packet := &pb.Packet{}
	if err := proto.Unmarshal(plain, packet); err != nil {
		return err
	}
	if packet.Index != p.index {
		return errors.New("a message is missing")
	}
	p.index++
	if packet.Compress {
		var err error
		if packet.Data, err = compress.Decompress(packet.Data); err != nil {
			return err
		}
	}
	if packet.Obj == 0 {
		packet.Obj = p.uid
	}
	if p.tunnel == nil {
		var err error
		if p.tunnel, err = p.open(ctx); err != nil {
			return err
		}
	}
	request := &pb.TunnelRequest{Data: packet.Data, DataVersion: packet.DataVersion,
		Obj: packet.Obj, Mod: packet.Mod, Seq: packet.Seq, Index: packet.Index}
	select {
	case p.tunnel.requests <- request:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *player) write(ctx context.Context) error {
	for {
		select {
		case plain := <-p.replies:
			sealed, err := p.cipher.Encrypt(plain)
			if err != nil {
				return err
			}
			if err := wire.WriteFrame(p.w, sealed); err != nil {
				return err
			}
			if err := p.w.Flush(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
