// Package faults is a bad line: what is sent through it is lost, doubled, delayed,
// overtaken or held to a rate. Which packets are hit follows from a seed and from their
// order alone.
package faults

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Settings of a line; the zero value is a perfect one. Both directions of a path have
// the same settings and each their own line.
type Settings struct {
	Loss, Duplicate, Reorder float64 // percent of the packets
	Delay, Jitter            time.Duration
	Rate                     Rate // bits a second, 0 for no bound
	Queue                    int  // bytes that wait for their turn at that rate; more are lost
	Seed                     uint64
}

// A reordered packet is late by up to this time, besides Delay and Jitter.
const reorderHold = 20 * time.Millisecond

// Packets under way in one line: more than any delay needs, so that a flood finds an end.
const maxUnderWay = 65536

const defaultQueue = 64 << 10

// Flags makes every setting one of the command line.
func (s *Settings) Flags(flags *flag.FlagSet) {
	flags.Float64Var(&s.Loss, "loss", 0, "`percent` of the packets lost, each way")
	flags.Float64Var(&s.Duplicate, "dup", 0, "`percent` of the packets that come twice")
	flags.Float64Var(&s.Reorder, "reorder", 0, "`percent` of the packets held back so that later ones overtake them")
	flags.DurationVar(&s.Delay, "delay", 0, "`time` each packet takes, each way")
	flags.DurationVar(&s.Jitter, "jitter", 0, "`time` by which that varies, up and down")
	flags.Var(&s.Rate, "rate", "bits a second, as 500kbit or 1mbit; 0 for no bound")
	flags.IntVar(&s.Queue, "queue", defaultQueue, "`bytes` that wait for their turn at that rate")
	flags.Uint64Var(&s.Seed, "seed", 1, "of the choice of packets")
}

func (s *Settings) perfect() bool {
	return s.Loss == 0 && s.Duplicate == 0 && s.Reorder == 0 && s.Delay == 0 &&
		s.Jitter == 0 && s.Rate == 0
}

// Rate is a number of bits a second.
type Rate int64

func (r *Rate) String() string { return strconv.FormatInt(int64(*r), 10) }

// Set reads a number with kbit, mbit, gbit, bit or nothing behind it.
func (r *Rate) Set(text string) error {
	text = strings.TrimSuffix(strings.ToLower(text), "bit")
	scale := 1.0
	for suffix, value := range map[string]float64{"k": 1e3, "m": 1e6, "g": 1e9} {
		if rest, found := strings.CutSuffix(text, suffix); found {
			text, scale = rest, value
		}
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || value < 0 {
		return fmt.Errorf("not a rate")
	}
	*r = Rate(value * scale)
	return nil
}

// Counts of one line.
type Counts struct{ Sent, Lost, Duplicated, Reordered, Overflowed, Delivered uint64 }

// Line is one direction. Send may be called from any goroutine; what comes through is
// delivered from one.
type Line struct {
	settings Settings
	deliver  func(packet []byte, about any)
	now      func() time.Time

	mutex    sync.Mutex
	random   *rand.Rand
	underWay arrivals
	number   uint64
	busy     time.Time // until when earlier packets occupy the line
	counts   Counts
	wake     chan struct{}
	closed   bool
	ended    chan struct{}
}

// NewLine starts a line. direction tells the lines of one seed apart.
func NewLine(settings Settings, direction uint64, deliver func(packet []byte, about any)) *Line {
	if settings.Queue == 0 {
		settings.Queue = defaultQueue
	}
	l := &Line{
		settings: settings, deliver: deliver, now: time.Now,
		random: rand.New(rand.NewPCG(settings.Seed, direction)),
		wake:   make(chan struct{}, 1), ended: make(chan struct{}),
	}
	go l.run()
	return l
}

// Send copies the packet and whatever is about it into the line.
func (l *Line) Send(packet []byte, about any) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.closed {
		return
	}
	l.counts.Sent++
	// Every packet draws the same numbers, so that one setting does not move the others' choice.
	lost := l.random.Float64()*100 < l.settings.Loss
	twice := l.random.Float64()*100 < l.settings.Duplicate
	late := l.random.Float64()*100 < l.settings.Reorder
	jitter := time.Duration((l.random.Float64()*2 - 1) * float64(l.settings.Jitter))
	hold := time.Duration((1 - l.random.Float64()) * float64(reorderHold))

	// A packet that gets lost has used the line all the same.
	leaves, room := l.occupy(len(packet))
	if !room {
		l.counts.Overflowed++
		return
	}
	if lost {
		l.counts.Lost++
		return
	}
	due := leaves.Add(max(0, l.settings.Delay+jitter))
	if late {
		l.counts.Reordered++
		due = due.Add(hold)
	}
	copied := append([]byte(nil), packet...)
	l.push(arrival{due, 0, copied, about})
	if twice {
		l.counts.Duplicated++
		l.push(arrival{due.Add(hold), 0, copied, about})
	}
}

// occupy says when the last bit of so many bytes has left, or that they find no room.
func (l *Line) occupy(size int) (time.Time, bool) {
	now := l.now()
	if l.settings.Rate == 0 {
		return now, true
	}
	nsPerByte := float64(8*time.Second) / float64(l.settings.Rate)
	if l.busy.Before(now) {
		l.busy = now
	}
	if float64(l.busy.Sub(now)) > float64(l.settings.Queue)*nsPerByte {
		return now, false
	}
	l.busy = l.busy.Add(time.Duration(float64(size) * nsPerByte))
	return l.busy, true
}

func (l *Line) push(a arrival) {
	if len(l.underWay) >= maxUnderWay {
		l.counts.Overflowed++
		return
	}
	l.number++
	a.number = l.number
	heap.Push(&l.underWay, a)
	if l.underWay[0].number == a.number {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Counts so far.
func (l *Line) Counts() Counts {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.counts
}

// Close ends the line; what is under way is lost. Nothing is delivered afterwards.
func (l *Line) Close() {
	l.mutex.Lock()
	if !l.closed {
		l.closed = true
		close(l.wake)
	}
	l.mutex.Unlock()
	<-l.ended
}

func (l *Line) run() {
	defer close(l.ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		a, wait := l.next()
		if a != nil {
			l.deliver(a.packet, a.about)
			continue
		}
		timer.Reset(wait)
		select {
		case _, open := <-l.wake:
			if !open {
				return
			}
		case <-timer.C:
		}
	}
}

// next is the packet that is due, or how long there is none.
func (l *Line) next() (*arrival, time.Duration) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.closed || len(l.underWay) == 0 {
		return nil, time.Hour
	}
	if wait := l.underWay[0].due.Sub(l.now()); wait > 0 {
		return nil, wait
	}
	a := heap.Pop(&l.underWay).(arrival)
	l.counts.Delivered++
	return &a, 0
}

type arrival struct {
	due    time.Time
	number uint64
	packet []byte
	about  any
}

type arrivals []arrival

func (a arrivals) Len() int { return len(a) }
func (a arrivals) Less(i, j int) bool {
	if !a[i].due.Equal(a[j].due) {
		return a[i].due.Before(a[j].due)
	}
	return a[i].number < a[j].number
}
func (a arrivals) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *arrivals) Push(x any)   { *a = append(*a, x.(arrival)) }
func (a *arrivals) Pop() any {
	last := (*a)[len(*a)-1]
	(*a)[len(*a)-1] = arrival{}
	*a = (*a)[:len(*a)-1]
	return last
}
