package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"janus/interop/pb"
	"janus/interop/wire"
)

const (
	waiting  = 256      // answers on one stream: then it is read no further
	filler   = 64 << 10 // the longest message that is sent unasked
	largest  = 64 << 20
	pushSeq  = 100
	prefixMD = "x-md-global-"
)

// answer is one message on its way out, or the stream's end.
type answer struct {
	raw []byte
	due time.Time
	end bool
	err error
}

type tunnel struct {
	*roma
	grpc.ServerStream
	method  string
	oid     string
	delay   atomic.Int64 // nanoseconds
	answers chan answer
	gone    chan struct{} // closed when nothing is sent any more
}

// serve is one stream, from its first message to its status.
func (r *roma) serve(stream grpc.ServerStream, method string) (err error) {
	t := &tunnel{roma: r, ServerStream: stream, method: method, oid: "?",
		answers: make(chan answer, waiting), gone: make(chan struct{})}
	t.delay.Store(int64(r.delay))
	known, _ := metadata.FromIncomingContext(stream.Context())
	if oid := known.Get(prefixMD + "oid"); len(oid) > 0 {
		t.oid = oid[0]
	}
	from, _ := peer.FromContext(stream.Context())
	r.say("opened oid=%s method=%s from=%s", t.oid, method, from.Addr)
	defer func() {
		cancelled := 0
		if stream.Context().Err() != nil {
			cancelled = 1
		}
		r.say("ended oid=%s status=%d cancelled=%d", t.oid, status.Code(err), cancelled)
	}()
	if err = r.check(known); err != nil {
		return err
	}
	defer close(t.gone)
	go t.read()
	return t.send()
}

// check is what Roma asks of a gateway before it takes a stream.
func (r *roma) check(known metadata.MD) error {
	if r.fail != codes.OK {
		return status.Error(r.fail, r.failText)
	}
	for _, key := range []string{"oid", "uid", "sid", "color", "client-ip", "referer", "gate-referer"} {
		if len(known.Get(prefixMD+key)) == 0 {
			return status.Errorf(codes.InvalidArgument, "metadata %s%s is missing", prefixMD, key)
		}
	}
	if one := known.Get(prefixMD + "status"); len(one) != 1 || one[0] != "1" {
		return status.Error(codes.PermissionDenied, "the player's status is not 1")
	}
	return nil
}

// --- Sending ----------------------------------------------------------------------------

func (t *tunnel) send() error {
	for {
		var next answer
		select {
		case next = <-t.answers:
		case <-t.Context().Done():
			return t.Context().Err()
		}
		if wait := time.Until(next.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-t.Context().Done():
				return t.Context().Err()
			}
		}
		if next.end {
			return next.err
		}
		if err := t.SendMsg(next.raw); err != nil {
			return err
		}
	}
}

// queue waits for room; false when nobody sends any more.
func (t *tunnel) queue(one answer) bool {
	if delay := time.Duration(t.delay.Load()); delay > 0 {
		one.due = time.Now().Add(delay)
	}
	select {
	case t.answers <- one:
		return true
	case <-t.gone:
		return false
	}
}

func (t *tunnel) answer(message *pb.TunnelResponse) bool {
	raw, err := proto.Marshal(message)
	if err != nil {
		return t.end(codes.Internal, err.Error())
	}
	return t.queue(answer{raw: raw})
}

func (t *tunnel) end(code codes.Code, text string) bool {
	return t.queue(answer{end: true, err: status.Error(code, text)}) // nil for OK
}

// push sends so many messages unasked, so far apart.
func (t *tunnel) push(count, size uint64, every time.Duration) {
	data := make([]byte, size)
	for ; count > 0; count-- {
		if !t.answer(&pb.TunnelResponse{Data: data, Mod: wire.ModuleUser, Seq: pushSeq}) {
			return
		}
		if every > 0 {
			select {
			case <-time.After(every):
			case <-t.gone:
				return
			}
		}
	}
}

// --- Receiving --------------------------------------------------------------------------

func (t *tunnel) read() {
	for {
		var raw []byte
		if err := t.RecvMsg(&raw); err != nil {
			if errors.Is(err, io.EOF) { // the gateway has no more to say: the object leaves
				err = nil
			}
			t.queue(answer{end: true, err: err})
			return
		}
		message := &pb.TunnelRequest{}
		if err := proto.Unmarshal(raw, message); err != nil {
			t.end(codes.InvalidArgument, "this is no tunnel message")
			return
		}
		t.note(message)
		if !t.handle(message) {
			return
		}
	}
}

// handle returns false when the stream is not to be read any further.
func (t *tunnel) handle(message *pb.TunnelRequest) bool {
	reply := &pb.TunnelResponse{Data: message.Data, DataVersion: message.DataVersion,
		Obj: message.Obj, Mod: message.Mod, Seq: message.Seq, Index: message.Index,
		ConnId: message.ConnId, FragId: message.FragId, FragCount: message.FragCount,
		FragIndex: message.FragIndex}
	switch {
	case message.Mod == wire.ModuleSystem && message.Seq == wire.SystemHeartbeat:
		reply.Data = wire.Fields{1: uint64(time.Now().Unix()), 2: uint64(1)}.Encode()
	case message.Mod == wire.ModuleDev:
		return t.command(reply)
	}
	return t.answer(reply)
}

func (t *tunnel) note(message *pb.TunnelRequest) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.messages[t.oid]++
	if t.record == nil {
		return
	}
	var text strings.Builder
	for _, b := range message.Data {
		if b >= ' ' && b <= '~' && b != '\\' {
			text.WriteByte(b)
		} else {
			fmt.Fprintf(&text, "\\x%02x", b)
		}
	}
	fmt.Fprintf(t.record, "%s\t%d\t%d\t%d\t%s\n", t.oid, message.Mod, message.Seq, message.Index, &text)
}
