package path

import (
	"bytes"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"janus/interop/faults"
)

func open(t *testing.T, settings faults.Settings) *Path {
	t.Helper()
	p, err := New(settings, 1300)
	if err != nil {
		t.Skipf("no path can be made here: %v", err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestTCPGetsThroughWhatIsLost(t *testing.T) {
	p := open(t, faults.Settings{Loss: 5, Delay: time.Millisecond, Seed: 1})
	listener, err := net.Listen("tcp", p.Near+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		defer connection.Close()
		_, _ = io.Copy(connection, connection)
	}()
	var connection net.Conn
	p.Do(func() { connection, err = net.Dial("tcp", listener.Addr().String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	sent := bytes.Repeat([]byte("0123456789"), 20000)
	go func() {
		_, _ = connection.Write(sent)
		_ = connection.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(connection); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
	if out, in := p.Counts(); out.Lost == 0 || in.Lost == 0 {
		t.Errorf("nothing was lost: %+v, %+v", out, in)
	}
}

func TestNothingLeadsPastThePath(t *testing.T) {
	p := open(t, faults.Settings{Loss: 100})
	listener, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	for _, host := range []string{"127.0.0.1", p.Near} {
		p.Do(func() { _, err = net.DialTimeout("tcp", net.JoinHostPort(host, port), 200*time.Millisecond) })
		if err == nil {
			t.Errorf("%s was reached", host)
		}
	}
}

func TestAPathHasNotTheAddressesOfTheLast(t *testing.T) {
	first, err := New(faults.Settings{}, 1300)
	if err != nil {
		t.Skipf("no path can be made here: %v", err)
	}
	first.Close()
	if second := open(t, faults.Settings{}); second.Near == first.Near || second.Far == first.Far {
		t.Errorf("both are at %s and %s", first.Near, first.Far)
	}
}

func TestPathsExistSideBySideAndLeaveNothingBehind(t *testing.T) {
	first, second := open(t, faults.Settings{}), open(t, faults.Settings{})
	if first.Near == second.Near {
		t.Errorf("both are at %s", first.Near)
	}
	third, err := New(faults.Settings{}, 1300)
	if err != nil {
		t.Fatal(err)
	}
	third.Close()
	links, err := exec.Command("ip", "-4", "addr").CombinedOutput()
	if err != nil || strings.Contains(string(links), third.Near+" ") || !strings.Contains(string(links), first.Near+" ") {
		t.Errorf("%v: %s", err, links)
	}
}
