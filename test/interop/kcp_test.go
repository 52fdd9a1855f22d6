package interop

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xtaci/kcp-go/v5"
	"github.com/xtaci/smux"

	"janus/interop/echo"
	"janus/interop/faults"
	"janus/interop/path"
	"janus/interop/stack"
	"janus/interop/wire"
)

// What these tests move in all, in both directions, where JANUS_INTEROP_MB says nothing else.
const defaultMB = 100

// For a whole exchange over a bad line, where one lost packet after the other is nothing wrong.
const kcpPatience = 3 * time.Minute

// A client sends no more than this ahead of the answers.
const ahead = 8

// dial makes one client's KCP session.
type dial func() (*stack.Session, error)

// load is what is to be moved: so many clients at once, with so many streams each.
type load struct {
	clients, streams int
	share            float64 // of what all tests move, in percent
	nameless         bool    // the messages do not say by conn_id which stream they are of
}

var compared atomic.Int64

func totalBytes(t *testing.T) int {
	t.Helper()
	text := os.Getenv("JANUS_INTEROP_MB")
	if text == "" {
		return defaultMB << 20
	}
	megabytes, err := strconv.ParseFloat(text, 64)
	must(t, err)
	return int(megabytes * (1 << 20))
}

// startKCP runs a gateway whose FEC is that of the clients' settings. With
// JANUS_INTEROP_PEER=go the Go stack takes its place, which shows whether a fault lies with
// the line and these tests.
func startKCP(t *testing.T, k *keys, clients stack.Settings) (port string) {
	t.Helper()
	var address string
	if os.Getenv("JANUS_INTEROP_PEER") == "go" {
		settings := clients
		settings.SocketBuffer = 1 << 20 // the default loses bursts by design
		listener, err := settings.Listen("0.0.0.0:0")
		must(t, err)
		t.Cleanup(func() { listener.Close() })
		go settings.Serve(listener, echo.WithLogin(k.server.Pri).Serve)
		address = listener.Addr().String()
	} else {
		address = startGateway(t, k,
			`kcp = { addr = "0.0.0.0:0"; };`,
			fmt.Sprintf("kcp = { data_shards = %d; parity_shards = %d; };\n", clients.DataShards, clients.ParityShards)+
				`limits = { messages_per_s = 0; bytes_per_s = 0; handshakes_per_s = 0; }; drain = { stop_spread = "0s"; };`)["kcp"]
	}
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	return port
}

// play moves the load and compares every byte that comes back.
func play(t *testing.T, k *keys, dial dial, l load) {
	t.Helper()
	each := int(float64(totalBytes(t)) * l.share / 100 / 2 / float64(l.clients*l.streams))
	begin := time.Now()
	var all sync.WaitGroup
	failures := make(chan error, l.clients)
	for i := range l.clients {
		all.Add(1)
		go func() {
			defer all.Done()
			if err := playClient(k, dial, uint64(20001+i), l, each); err != nil {
				failures <- fmt.Errorf("client %d: %w", i, err)
			}
		}()
	}
	all.Wait()
	close(failures)
	shown := 0
	for err := range failures {
		if shown++; shown <= 5 {
			t.Error(err)
		}
	}
	if shown > 5 {
		t.Errorf("%d clients failed in all", shown)
	}
	moved := 2 * each * l.clients * l.streams
	compared.Add(int64(moved))
	t.Logf("%d clients with %d streams, %.2f MB in %.1f s", l.clients, l.streams,
		float64(moved)/(1<<20), time.Since(begin).Seconds())
}

// playClient opens its streams at once, as the ecosystem's client does, and uses all.
func playClient(k *keys, dial dial, uid uint64, l load, each int) error {
	session, err := dial()
	if err != nil {
		return err
	}
	defer session.Close()
	opened := make([]*smux.Stream, l.streams)
	for i := range opened {
		if opened[i], err = session.OpenStream(); err != nil {
			return err
		}
		if err = opened[i].SetDeadline(time.Now().Add(kcpPatience)); err != nil {
			return err
		}
	}
	failures := make(chan error, l.streams)
	for i, stream := range opened {
		go func() {
			// The ecosystem numbers a client's dialogs so.
			dialog := uid*100 + uint64(i) + 1
			err := playStream(stream, k, uid, dialog, each, l.nameless)
			if err != nil {
				err = fmt.Errorf("stream %d: %w", stream.ID(), err)
				stream.Close() // the partner of its sender or receiver ends too
			}
			failures <- err
		}()
	}
	for range opened {
		err = errors.Join(err, <-failures)
	}
	for _, stream := range opened {
		stream.Close()
	}
	return err
}

func playStream(stream *smux.Stream, k *keys, uid, dialog uint64, each int, nameless bool) error {
	p, err := enter(stream, k, uid, dialog)
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if nameless {
		p.connID = 0
	}
	sent := make(chan error, 1)
	room := make(chan struct{}, ahead)
	go func() {
		messages := newMessages(dialog, each)
		for data := messages.next(); data != nil; data = messages.next() {
			room <- struct{}{}
			if err := p.send(wire.ModuleUser, 1, 0, data, false); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	messages := newMessages(dialog, each)
	for data := messages.next(); data != nil; data = messages.next() {
		packet, err := p.receive()
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", messages.before(data), err)
		}
		if packet.Number(wire.PacketMod) != wire.ModuleUser {
			return fmt.Errorf("after %d bytes: got %v", messages.before(data), packet)
		}
		if !bytes.Equal(packet.Bytes(wire.PacketData), data) {
			return fmt.Errorf("after %d bytes: others than were sent", messages.before(data))
		}
		<-room
	}
	return <-sent
}

// messages are those of one stream: of lengths that meet the edges of segments, smux
// frames and the longest frame, and of bytes that follow from the stream's number.
type messages struct {
	random *rand.ChaCha8
	left   int
	all    int
	number int
}

// Sealing and the packet around the data take up to 60 bytes.
var lengths = []int{1, 5, 64, 1313, 1376, 128, 4030, 4031, 4032, 4092, 300, 9000, 16, 16320}

func newMessages(dialog uint64, total int) *messages {
	var seed [32]byte
	copy(seed[:], strconv.FormatUint(dialog, 10))
	return &messages{random: rand.NewChaCha8(seed), left: total, all: total}
}

func (m *messages) next() []byte {
	if m.left <= 0 {
		return nil
	}
	data := make([]byte, min(m.left, lengths[m.number%len(lengths)]))
	_, _ = m.random.Read(data) // never fails
	m.number++
	m.left -= len(data)
	return data
}

func (m *messages) before(data []byte) int { return m.all - m.left - len(data) }

// --- The tests ---------------------------------------------------------------

// kcpCase is one exchange; gateway is what the settings of the gateway are taken from.
type kcpCase struct {
	name     string
	settings stack.Settings
	gateway  stack.Settings
	faults   faults.Settings
	mtu      int
	load     load
}

// runCases starts one gateway for those in a row that can have the same. There is never a
// second one at a time: what it still sent to a port that its client has left would be taken
// by a new client of that port for its peer's.
func runCases(t *testing.T, k *keys, cases []kcpCase, run func(t *testing.T, port string, c kcpCase)) {
	t.Helper()
	shards := func(c kcpCase) [2]int { return [2]int{c.gateway.DataShards, c.gateway.ParityShards} }
	for first := 0; first < len(cases); {
		after := first + 1
		for after < len(cases) && shards(cases[after]) == shards(cases[first]) {
			after++
		}
		t.Run(fmt.Sprintf("gateway with %d+%d", shards(cases[first])[0], shards(cases[first])[1]), func(t *testing.T) {
			port := startKCP(t, k, cases[first].gateway)
			for _, c := range cases[first:after] {
				t.Run(c.name, func(t *testing.T) { run(t, port, c) })
			}
		})
		first = after
	}
}

func withShards(data, parity int) stack.Settings {
	s := stack.Defaults()
	s.DataShards, s.ParityShards = data, parity
	return s
}

func TestTheEcosystemsKCPClientGetsThrough(t *testing.T) {
	k := newKeys(t)
	usual, none := stack.Defaults(), withShards(0, 0)
	runCases(t, k, []kcpCase{
		{name: "with its defaults", settings: usual, gateway: usual, load: load{2, stack.Streams, 10, false}},
		{name: "with one stream", settings: usual, gateway: usual, load: load{2, 1, 5, false}},
		{name: "whose messages have no conn_id", settings: usual, gateway: usual, load: load{20, stack.Streams, 5, true}},
		{name: "with 16 streams", settings: usual, gateway: usual, load: load{2, 16, 7, false}},
		{name: "without FEC", settings: none, gateway: usual, load: load{2, stack.Streams, 4, false}},
		{name: "200 of them at once", settings: usual, gateway: usual, load: load{200, stack.Streams, 12, false}},
		{name: "without FEC", settings: none, gateway: none, load: load{2, stack.Streams, 6, false}},
		{name: "with FEC of 5 and 2", settings: withShards(5, 2), gateway: withShards(5, 2), load: load{2, stack.Streams, 4, false}},
		{name: "with FEC of 8 and 2", settings: withShards(8, 2), gateway: withShards(8, 2), load: load{2, stack.Streams, 4, false}},
		{name: "with the low-latency profile", settings: stack.LowLatency(), gateway: withShards(8, 2), load: load{2, stack.Streams, 6, false}},
	}, func(t *testing.T, port string, c kcpCase) {
		play(t, k, func() (*stack.Session, error) { return c.settings.Dial("127.0.0.1:" + port) }, c.load)
	})
}

func TestTheEcosystemsKCPClientGetsThroughABadLine(t *testing.T) {
	k := newKeys(t)
	usual := stack.Defaults()
	small := usual
	small.MTU = 1300
	const ms = time.Millisecond
	tenPercent := faults.Settings{Loss: 10, Delay: 5 * ms}
	cases := []kcpCase{
		{name: "with 1 % loss", settings: usual, faults: faults.Settings{Loss: 1, Delay: 5 * ms}, load: load{4, stack.Streams, 6, false}},
		{name: "with 10 % loss", settings: usual, faults: tenPercent, load: load{4, stack.Streams, 6, false}},
		{name: "with 30 % loss", settings: usual, faults: faults.Settings{Loss: 30, Delay: 5 * ms}, load: load{4, stack.Streams, 5, false}},
		{name: "with packets out of order", settings: usual, faults: faults.Settings{Reorder: 25, Delay: 5 * ms}, load: load{4, stack.Streams, 5, false}},
		{name: "with packets that come twice", settings: usual, faults: faults.Settings{Duplicate: 25, Delay: 5 * ms}, load: load{4, stack.Streams, 5, false}},
		{name: "with 50 ms of jitter", settings: usual, faults: faults.Settings{Delay: 50 * ms, Jitter: 50 * ms}, load: load{4, stack.Streams, 3, false}},
		{name: "at 1 Mbit/s", settings: usual, faults: faults.Settings{Rate: 1e6, Delay: 25 * ms}, load: load{1, stack.Streams, 0.2, false}},
		{name: "at 10 Mbit/s", settings: usual, faults: faults.Settings{Rate: 10e6, Delay: 25 * ms}, load: load{2, stack.Streams, 2, false}},
		{name: "with an mtu of 1300", settings: small, faults: faults.Settings{Loss: 1}, mtu: 1336, load: load{2, stack.Streams, 2, false}},
		{name: "with packets of up to 1300 bytes on the way", settings: usual, faults: faults.Settings{Loss: 1}, mtu: 1300, load: load{2, stack.Streams, 2, false}},
		{name: "with all of it", settings: usual, faults: faults.Settings{Loss: 10, Duplicate: 10, Reorder: 10,
			Delay: 25 * ms, Jitter: 25 * ms, Rate: 20e6}, load: load{4, stack.Streams, 2, false}},
		{name: "with 10 % loss and FEC of 8 and 2", settings: withShards(8, 2), faults: tenPercent, load: load{2, stack.Streams, 2, false}},
		{name: "with 10 % loss and FEC of 5 and 2", settings: withShards(5, 2), faults: tenPercent, load: load{2, stack.Streams, 2, false}},
		{name: "with 10 % loss and no FEC", settings: withShards(0, 0), faults: tenPercent, load: load{2, stack.Streams, 2, false}},
	}
	for i := range cases {
		cases[i].gateway = cases[i].settings
		if cases[i].mtu == 0 {
			cases[i].mtu = 1500
		}
	}
	runCases(t, k, cases, func(t *testing.T, port string, c kcpCase) {
		before := kcp.DefaultSnmp.Copy()
		play(t, k, badLine(t, c.settings, c.faults, c.mtu, port), c.load)
		after := kcp.DefaultSnmp.Copy()
		recovered := after.FECRecovered - before.FECRecovered
		t.Logf("the clients sent %d segments again and recovered %d by FEC",
			after.RetransSegs-before.RetransSegs, recovered)
		if c.faults.Loss >= 10 && c.settings.DataShards > 0 && recovered == 0 {
			t.Error("nothing was recovered by FEC: the parity is not what the client takes it for")
		}
		if after.FECErrs != before.FECErrs {
			t.Errorf("%d errors of FEC in what the clients were sent", after.FECErrs-before.FECErrs)
		}
	})
	t.Logf("%.1f MB compared in all", float64(compared.Load())/(1<<20))
}

// badLine is a path of its own, or where none can be made, faults in the clients' sockets.
func badLine(t *testing.T, settings stack.Settings, f faults.Settings, mtu int, port string) dial {
	t.Helper()
	f.Seed = 1
	line, err := path.New(f, mtu)
	if err == nil {
		t.Cleanup(func() {
			line.Close()
			out, in := line.Counts()
			t.Logf("to the gateway %+v, from it %+v", out, in)
		})
		return func() (session *stack.Session, err error) {
			line.Do(func() { session, err = settings.Dial(net.JoinHostPort(line.Near, port)) })
			return session, err
		}
	}
	t.Logf("the faults are made in the clients' sockets: %v", err)
	var clients atomic.Uint64
	return func() (*stack.Session, error) {
		ofClient := f
		ofClient.Seed = clients.Add(1)
		socket, err := faults.ListenSocket("udp4", "", ofClient)
		if err != nil {
			return nil, err
		}
		return settings.DialOver(socket, stack.NewConv(), "127.0.0.1:"+port)
	}
}
