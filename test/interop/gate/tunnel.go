package gate

import (
	"context"

	"github.com/go-pantheon/fabrica-util/compress"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"janus/interop/pb"
)

// tunnel is a player's stream to the backend.
type tunnel struct {
	player   *player
	stream   grpc.ClientStream
	requests chan *pb.TunnelRequest
	done     chan struct{}
}

// open lasts until ctx ends; when the stream ends before, so does the connection.
func (p *player) open(ctx context.Context) (*tunnel, error) {
	stream, err := p.gate.Backend.NewStream(ctx,
		&grpc.StreamDesc{StreamName: "Tunnel", ClientStreams: true, ServerStreams: true},
		"/player.intra.v1.TunnelService/Tunnel")
	if err != nil {
		return nil, err
	}
	t := &tunnel{p, stream, make(chan *pb.TunnelRequest, queued), make(chan struct{})}
	p.gate.Tunnels.Add(1)
	go func() {
		defer close(t.done)
		defer p.gate.Tunnels.Add(-1)
		_ = together(ctx, t.watch, t.send, t.receive)
	}()
	return t, nil
}

func (t *tunnel) watch(ctx context.Context) error {
	<-ctx.Done()
	return t.player.conn.Close()
}

func (t *tunnel) send(ctx context.Context) error {
	for {
		select {
		case request := <-t.requests:
			if err := t.stream.SendMsg(request); err != nil {
				return err
			}
		case <-ctx.Done():
			return t.stream.CloseSend()
		}
	}
}

func (t *tunnel) receive(ctx context.Context) error {
	for {
		response := &pb.TunnelResponse{}
		if err := t.stream.RecvMsg(response); err != nil {
			return err
		}
		packet := &pb.Packet{DataVersion: response.DataVersion, Obj: response.Obj,
			Mod: response.Mod, Seq: response.Seq, Index: response.Index}
		var err error
		if packet.Data, packet.Compress, err = compress.Compress(response.Data); err != nil {
			return err
		}
		plain, err := proto.Marshal(packet)
		if err != nil {
			return err
		}
		select {
		case t.player.replies <- plain:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
