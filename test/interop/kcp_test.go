package interop

import (
	"bytes"
	"cmp"
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

// startKCP runs a gateway whose FEC is that of the clients' settings, and at which a login may
// take as long as its line makes it. With JANUS_INTEROP_PEER=go the Go stack takes its place,
// which shows whether a fault lies with the line and these tests.
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
				fmt.Sprintf(`limits = { handshake_timeout = "%[1]dms"; handshake_clock = "%[1]dms";`, kcpPatience.Milliseconds())+
				` messages_per_s = 0; bytes_per_s = 0; handshakes_per_s = 0; }; drain = { stop_spread = "0s"; };`)["kcp"]
	}
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	return port
}

// play moves the load and compares every byte that comes back; returns how many were moved.
func play(t *testing.T, k *keys, dial dial, l load) (moved int) {
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
	moved = 2 * each * l.clients * l.streams
	compared.Add(int64(moved))
	t.Logf("%d clients with %d streams, %.2f MB in %.1f s", l.clients, l.streams,
		float64(moved)/(1<<20), time.Since(begin).Seconds())
	return moved
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
// frames and the longest frame, and of bytes that follow from the stream's number. So does
// which length comes first: where each stream carries little, all together have them all.
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
	return &messages{random: rand.NewChaCha8(seed), left: total, all: total,
		number: int(dialog % uint64(len(lengths)))}
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

// badLine is what clients have to get through.
type badLine struct {
	name   string
	faults faults.Settings
	mtu    int     // 0 for 1500
	kcpMTU int     // 0 for the clients' own
	part   float64 // of the clients' share: it lets only so much through in a reasonable time
}

func (c kcpCase) through(line badLine) kcpCase {
	c.name += " through " + line.name
	c.faults = line.faults
	c.mtu = cmp.Or(line.mtu, 1500)
	c.settings.MTU = cmp.Or(line.kcpMTU, c.settings.MTU)
	c.load.share *= line.part
	return c
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
		{name: "with its defaults", settings: usual, gateway: usual, load: load{2, stack.Streams, 6, false}},
		{name: "with one stream", settings: usual, gateway: usual, load: load{2, 1, 3, false}},
		{name: "whose messages have no conn_id", settings: usual, gateway: usual, load: load{20, stack.Streams, 3, true}},
		{name: "with 16 streams", settings: usual, gateway: usual, load: load{2, 16, 5, false}},
		{name: "without FEC", settings: none, gateway: usual, load: load{2, stack.Streams, 3, false}},
		{name: "200 of them at once", settings: usual, gateway: usual, load: load{200, stack.Streams, 7, false}},
		{name: "without FEC", settings: none, gateway: none, load: load{2, stack.Streams, 4, false}},
		{name: "with FEC of 5 and 2", settings: withShards(5, 2), gateway: withShards(5, 2), load: load{2, stack.Streams, 3, false}},
		{name: "with FEC of 8 and 2", settings: withShards(8, 2), gateway: withShards(8, 2), load: load{2, stack.Streams, 3, false}},
		{name: "with the low-latency profile", settings: stack.LowLatency(), gateway: withShards(8, 2), load: load{2, stack.Streams, 3, false}},
	}, func(t *testing.T, port string, c kcpCase) {
		play(t, k, func() (*stack.Session, error) { return c.settings.Dial("127.0.0.1:" + port) }, c.load)
	})
}

func TestTheEcosystemsKCPClientGetsThroughABadLine(t *testing.T) {
	k := newKeys(t)
	usual, none := stack.Defaults(), withShards(0, 0)
	const ms = time.Millisecond
	// All of these go through each of the lines.
	clients := []kcpCase{
		{name: "clients with their defaults", settings: usual, gateway: usual, load: load{4, stack.Streams, 0.8, false}},
		{name: "clients with one stream", settings: usual, gateway: usual, load: load{4, 1, 0.8, false}},
		{name: "clients with 16 streams", settings: usual, gateway: usual, load: load{2, 16, 0.8, false}},
		{name: "200 clients at once", settings: usual, gateway: usual, load: load{200, stack.Streams, 3.2, false}},
		{name: "clients without the gateway's FEC", settings: none, gateway: usual, load: load{2, stack.Streams, 0.5, false}},
		{name: "clients without FEC", settings: none, gateway: none, load: load{2, stack.Streams, 0.7, false}},
		{name: "clients with FEC of 5 and 2", settings: withShards(5, 2), gateway: withShards(5, 2), load: load{2, stack.Streams, 0.7, false}},
		{name: "clients with FEC of 8 and 2", settings: withShards(8, 2), gateway: withShards(8, 2), load: load{2, stack.Streams, 0.7, false}},
	}
	lines := []badLine{
		{name: "1 % loss", faults: faults.Settings{Loss: 1, Delay: 5 * ms}, part: 1},
		{name: "10 % loss", faults: faults.Settings{Loss: 10, Delay: 5 * ms}, part: 1},
		{name: "30 % loss", faults: faults.Settings{Loss: 30, Delay: 5 * ms}, part: 1},
		{name: "packets out of order", faults: faults.Settings{Reorder: 25, Delay: 5 * ms}, part: 1},
		{name: "packets that come twice", faults: faults.Settings{Duplicate: 25, Delay: 5 * ms}, part: 1},
		{name: "50 ms of jitter", faults: faults.Settings{Delay: 50 * ms, Jitter: 50 * ms}, part: 0.5},
		{name: "1 Mbit per s", faults: faults.Settings{Rate: 1e6, Delay: 25 * ms}, part: 0.1},
		{name: "10 Mbit per s", faults: faults.Settings{Rate: 10e6, Delay: 25 * ms}, part: 0.4},
		{name: "an mtu of 1300", faults: faults.Settings{Loss: 1}, kcpMTU: 1300, mtu: 1336, part: 0.5},
		{name: "packets of up to 1300 bytes", faults: faults.Settings{Loss: 1}, mtu: 1300, part: 0.5},
		{name: "all of it", faults: faults.Settings{Loss: 10, Duplicate: 10, Reorder: 10,
			Delay: 25 * ms, Jitter: 25 * ms, Rate: 20e6}, part: 0.4},
	}
	var cases []kcpCase
	for _, c := range clients {
		for _, line := range lines {
			cases = append(cases, c.through(line))
		}
	}
	runCases(t, k, cases, func(t *testing.T, port string, c kcpCase) {
		before := kcp.DefaultSnmp.Copy()
		moved := play(t, k, dialThrough(t, c.settings, c.faults, c.mtu, port), c.load)
		after := kcp.DefaultSnmp.Copy()
		recovered := after.FECRecovered - before.FECRecovered
		t.Logf("the clients sent %d segments again and recovered %d by FEC",
			after.RetransSegs-before.RetransSegs, recovered)
		// With jitter a segment is sent again before its group's parity is there; and where
		// little is moved, it may be chance that nothing was recovered.
		if c.faults.Loss >= 10 && c.faults.Jitter == 0 && moved >= 1<<19 &&
			c.settings.DataShards > 0 && recovered == 0 {
			t.Error("nothing was recovered by FEC: the parity is not what the client takes it for")
		}
		if after.FECErrs != before.FECErrs {
			t.Errorf("%d errors of FEC in what the clients were sent", after.FECErrs-before.FECErrs)
		}
	})
	t.Logf("%.1f MB compared in all", float64(compared.Load())/(1<<20))
}

// dialThrough is by a path of its own, or where none can be made, with faults in the clients'
// sockets.
func dialThrough(t *testing.T, settings stack.Settings, f faults.Settings, mtu int, port string) dial {
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
