package faults

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"time"
)

const packets = 20000

// through sends numbered packets and returns the numbers in the order of arrival.
func through(t *testing.T, settings Settings) ([]uint32, Counts) {
	t.Helper()
	var numbers []uint32
	line := NewLine(settings, 0, func(packet []byte, _ any) {
		numbers = append(numbers, binary.BigEndian.Uint32(packet))
	})
	for i := range uint32(packets) {
		line.Send(binary.BigEndian.AppendUint32(nil, i), nil)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		c := line.Counts()
		if c.Delivered == c.Sent-c.Lost-c.Overflowed+c.Duplicated {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not all came through: %+v", c)
		}
	}
	line.Close() // what was delivered is in numbers
	return numbers, line.Counts()
}

func near(t *testing.T, what string, got int, percent float64) {
	t.Helper()
	if wanted := packets * percent / 100; float64(got) < wanted*0.9 || float64(got) > wanted*1.1 {
		t.Errorf("%s: %d of %d, wanted %g %%", what, got, packets, percent)
	}
}

func TestAPerfectLineKeepsAllInOrder(t *testing.T) {
	numbers, _ := through(t, Settings{})
	if len(numbers) != packets || !slices.IsSorted(numbers) {
		t.Errorf("%d of %d packets, sorted: %t", len(numbers), packets, slices.IsSorted(numbers))
	}
}

func TestTheSameSeedHitsTheSamePackets(t *testing.T) {
	settings := Settings{Loss: 10, Duplicate: 5, Reorder: 5, Seed: 7}
	sorted := func() []uint32 {
		numbers, _ := through(t, settings)
		slices.Sort(numbers)
		return numbers
	}
	first := sorted()
	if !slices.Equal(first, sorted()) {
		t.Error("two runs lost different packets")
	}
	settings.Seed = 8
	if slices.Equal(first, sorted()) {
		t.Error("another seed lost the same packets")
	}
}

func TestEachFaultComesAsOftenAsAsked(t *testing.T) {
	_, c := through(t, Settings{Loss: 30, Seed: 1})
	near(t, "lost", int(c.Lost), 30)
	_, c = through(t, Settings{Duplicate: 10, Seed: 1})
	near(t, "twice", int(c.Duplicated), 10)
	numbers, c := through(t, Settings{Reorder: 20, Seed: 1})
	near(t, "late", int(c.Reordered), 20)
	if slices.IsSorted(numbers) {
		t.Error("nothing was overtaken")
	}
}

// With a clock that stands still, as many packets are taken as the queue holds, and each is
// due when those before it have left.
func TestARateHoldsBackAndOverflows(t *testing.T) {
	still := time.Now()
	line := NewLine(Settings{Rate: 8e6, Queue: 10000, Delay: time.Hour}, 0, func([]byte, any) {})
	defer line.Close()
	line.mutex.Lock()
	line.now = func() time.Time { return still }
	line.mutex.Unlock()
	for range 20 {
		line.Send(make([]byte, 1000), nil)
	}
	line.mutex.Lock()
	defer line.mutex.Unlock()
	// One more than the queue holds is on its way out.
	if len(line.underWay) != 11 || line.counts.Overflowed != 9 {
		t.Errorf("%d under way, %+v", len(line.underWay), line.counts)
	}
	last := slices.MaxFunc(line.underWay, func(a, b arrival) int { return a.due.Compare(b.due) })
	if after := last.due.Sub(still) - time.Hour; after != 11*time.Millisecond {
		t.Errorf("11000 bytes at 1 byte a microsecond took %v", after)
	}
}

func TestASocketGoesOnWithAnotherPort(t *testing.T) {
	for name, settings := range map[string]Settings{"": {}, "behind a line": {Delay: time.Microsecond}} {
		t.Run(name, func(t *testing.T) {
			peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			socket, err := ListenSocket("udp4", "127.0.0.1:0", settings)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			got := make(chan string, 1)
			go func() {
				buffer := make([]byte, 64)
				for {
					n, _, err := socket.ReadFrom(buffer)
					if err != nil {
						ended <- err
						return
					}
					got <- string(buffer[:n])
				}
			}()
			ports := map[int]bool{}
			for _, text := range []string{"before", "after"} {
				if _, err := socket.WriteTo([]byte(text), peer.LocalAddr()); err != nil {
					t.Fatal(err)
				}
				buffer := make([]byte, 64)
				n, from, err := peer.ReadFromUDP(buffer)
				if err != nil {
					t.Fatal(err)
				}
				ports[from.Port] = true
				if _, err := peer.WriteTo(buffer[:n], from); err != nil {
					t.Fatal(err)
				}
				if back := <-got; back != text {
					t.Errorf("%q came back as %q", text, back)
				}
				if err := socket.Rebind("127.0.0.1:0"); err != nil {
					t.Fatal(err)
				}
			}
			if len(ports) != 2 {
				t.Errorf("the ports were %v", ports)
			}
			socket.Close()
			if err := <-ended; err == nil {
				t.Error("reading went on after the end")
			}
		})
	}
}
