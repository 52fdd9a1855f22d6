// Package path is a bad line for everything that speaks IP: two ends of a link, one of
// them in a network namespace of its own, and between them faults. TCP and UDP go through
// it alike, and through nothing else, which is what makes them comparable on it.
//
// It needs the right to make network namespaces and TUN devices, as root has it.
package path

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"janus/interop/faults"
)

// The near end is a device of the namespace the program runs in; it gets the next free
// number there, and with it addresses out of those that are set aside for measuring
// (RFC 2544).
const nearDevice, farDevice = "janus-path%d", "path0"

const devices = 256

// Each path takes the next pair of its device's addresses: what servers still send to those
// who were at the end of the last one would take up room on this one.
const pairs = 127

var opened atomic.Uint32

// Path is such a link. Near is the address that those at the far end connect to.
type Path struct {
	Near, Far string

	near, far  *os.File
	out, in    *faults.Line // out: from the far end to the near one
	calls      chan func()
	pumps      sync.WaitGroup
	threadDone chan struct{}
}

// New makes a path whose packets are of up to mtu bytes.
func New(settings faults.Settings, mtu int) (*Path, error) {
	near, name, err := openDevice(nearDevice)
	if err != nil {
		return nil, err
	}
	var number int
	if _, err := fmt.Sscanf(name, nearDevice, &number); err != nil || number >= devices {
		near.Close()
		return nil, fmt.Errorf("%s: too many paths", name)
	}
	pair := 2 * (opened.Add(1) % pairs)
	p := &Path{
		Near: fmt.Sprintf("198.18.%d.%d", number, pair+1), Far: fmt.Sprintf("198.18.%d.%d", number, pair+2),
		near: near, calls: make(chan func()), threadDone: make(chan struct{}),
	}
	if err := configure(name, p.Near, p.Far, mtu); err != nil {
		near.Close()
		return nil, err
	}
	made := make(chan error)
	go p.thread(made, mtu)
	if err := <-made; err != nil {
		near.Close()
		return nil, err
	}
	p.out = faults.NewLine(settings, 0, func(packet []byte, _ any) { _, _ = p.near.Write(packet) })
	p.in = faults.NewLine(settings, 1, func(packet []byte, _ any) { _, _ = p.far.Write(packet) })
	p.pumps.Add(2)
	go p.pump(p.far, p.out, mtu)
	go p.pump(p.near, p.in, mtu)
	return p, nil
}

func openDevice(pattern string) (*os.File, string, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(pattern)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, "", fmt.Errorf("a TUN device: %w", err)
	}
	return os.NewFile(uintptr(fd), request.Name()), request.Name(), nil
}

// configure works on the namespace of the calling thread.
func configure(device, own, peer string, mtu int) error {
	if mtu < 576 {
		return errors.New("an mtu under 576 is not for IP")
	}
	return ip(
		fmt.Sprintf("addr add %s peer %s dev %s", own, peer, device),
		fmt.Sprintf("link set dev %s mtu %d txqueuelen 10000 up", device, mtu),
	)
}

func ip(commands ...string) error {
	for _, command := range commands {
		output, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", command, err, bytes.TrimSpace(output))
		}
	}
	return nil
}

// thread is the one in the far namespace; it ends with the goroutine that is locked to it.
func (p *Path) thread(made chan<- error, mtu int) {
	defer close(p.threadDone)
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err != nil {
		err = fmt.Errorf("a network namespace: %w", err)
	} else if p.far, _, err = openDevice(farDevice); err == nil {
		if err = configure(farDevice, p.Far, p.Near, mtu); err == nil {
			err = ip("link set dev lo up", "route add default via "+p.Near)
		}
		if err != nil {
			p.far.Close()
		}
	}
	made <- err
	if err != nil {
		return
	}
	for call := range p.calls {
		call()
	}
}

// Do calls f at the far end: sockets it opens and processes it starts are there, also
// when they are used later and elsewhere. It must not start goroutines for that.
func (p *Path) Do(f func()) {
	done := make(chan struct{})
	p.calls <- func() {
		defer close(done)
		f()
	}
	<-done
}

func (p *Path) pump(from *os.File, into *faults.Line, mtu int) {
	defer p.pumps.Done()
	packet := make([]byte, mtu)
	for {
		n, err := from.Read(packet)
		if err != nil {
			return
		}
		// The kernel's own chatter over IPv6 would only disturb which packets the faults hit.
		if n > 0 && packet[0]>>4 == 4 {
			into.Send(packet[:n], nil)
		}
	}
}

// Counts of both directions, that from the far end first.
func (p *Path) Counts() (out, in faults.Counts) { return p.out.Counts(), p.in.Counts() }

// Close takes the path away. What is still under way is lost.
func (p *Path) Close() {
	p.out.Close()
	p.in.Close()
	p.near.Close()
	p.far.Close()
	p.pumps.Wait()
	close(p.calls)
	<-p.threadDone
}
