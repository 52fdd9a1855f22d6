package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc/stats"
)

// rawCodec leaves messages as they are, so that some can be sent that are none.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(message any) ([]byte, error) {
	raw, ok := message.([]byte)
	if !ok {
		return nil, fmt.Errorf("a %T can't be sent", message)
	}
	return raw, nil
}

func (rawCodec) Unmarshal(raw []byte, message any) error {
	into, ok := message.(*[]byte)
	if !ok {
		return fmt.Errorf("a %T can't be received", message)
	}
	*into = append([]byte(nil), raw...) // grpc-go uses its buffer again
	return nil
}

// connections says which there are.
type connections struct{ *roma }

type address struct{}

func (connections) TagConn(ctx context.Context, info *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, address{}, info.RemoteAddr.String())
}

func (c connections) HandleConn(ctx context.Context, event stats.ConnStats) {
	switch event.(type) {
	case *stats.ConnBegin:
		c.say("connected %s", ctx.Value(address{}))
	case *stats.ConnEnd:
		c.say("disconnected %s", ctx.Value(address{}))
	}
}

func (connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (connections) HandleRPC(context.Context, stats.RPCStats) {}
