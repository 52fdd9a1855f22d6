// Package interop drives the gateway with the ecosystem's own Go code: keys,
// certificates, the key exchange, sealing and compression are fabrica-util's, KCP and smux
// those of the ecosystem's network library.
package interop

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-pantheon/fabrica-util/compress"
	"github.com/go-pantheon/fabrica-util/security/aes"
	"github.com/go-pantheon/fabrica-util/security/certificate"

	"janus/interop/wire"
)

const patience = 60 * time.Second

// keys are made and kept by the ecosystem's own packages, for both sides.
type keys struct {
	account *aes.Cipher
	server  *certificate.KeyPair
	client  *certificate.Cert
	secret  string // secret.conf
}

func newKeys(t *testing.T) *keys {
	t.Helper()
	accountKey := []byte("0123456789abcdef0123456789abcdef")
	account, err := aes.NewAESCipher(accountKey)
	must(t, err)
	server, err := certificate.GenKeyPair()
	must(t, err)
	serverPEM, err := certificate.ExportPriToPEM(server.Pri)
	must(t, err)
	client, err := certificate.CreateSelfSignedCert(pkix.Name{CommonName: "client"}, 1)
	must(t, err)
	escape := func(pem []byte) string { return strings.ReplaceAll(string(pem), "\n", "\\n") }
	return &keys{account, server, client, fmt.Sprintf(`secret = {
  account_aes_key = "%s";
  server_cert_version = 1;
  server_cert_private_key = "%s";
  client_cert_version = 1;
  client_cert = "%s";
};
`, accountKey, escape(serverPEM), escape(client.CertPEM))}
}

func (k *keys) token(uid uint64) (string, error) {
	content := wire.Fields{
		1: []byte(rand.Text()), 2: []byte("blue"), 3: uid, 4: uint64(7),
		5: uint64(time.Now().Add(time.Hour).Unix()), 7: uint64(1),
	}
	sealed, err := k.account.Encrypt(content.Encode())
	return base64.URLEncoding.EncodeToString(sealed), err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// --- The programs ------------------------------------------------------------

func buildDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("JANUS_BUILD")
	if dir == "" {
		dir = "build/release"
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join("..", "..", dir)
	}
	dir, err := filepath.Abs(dir)
	must(t, err)
	return dir
}

// start runs a program until the end of the test and returns the first line of
// its output that matches.
func start(t *testing.T, pattern, program string, arguments ...string) []string {
	t.Helper()
	command := exec.Command(filepath.Join(buildDir(t), "bin", program), arguments...)
	output, err := command.StdoutPipe()
	must(t, err)
	command.Stderr = command.Stdout
	must(t, command.Start())

	found := make(chan []string, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(output); lines.Scan(); {
			if match := regexp.MustCompile(pattern).FindStringSubmatch(lines.Text()); match != nil {
				select {
				case found <- match:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = command.Process.Kill()
			<-ended
		}
		if err := command.Wait(); err != nil {
			t.Errorf("%s: %v", program, err)
		}
	})
	select {
	case match := <-found:
		return match
	case <-ended:
		t.Fatalf("%s ended without a line that matches %q", program, pattern)
	case <-time.After(patience):
		t.Fatalf("%s printed no line that matches %q", program, pattern)
	}
	return nil
}

// startGateway runs janus-roma and janusd before it, with more settings than it needs for
// that; returns where clients connect, by transport.
func startGateway(t *testing.T, k *keys, server, more string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	roma := start(t, `(127\.0\.0\.1:[1-9]\d*)`, "janus-roma", "--listen", "127.0.0.1:0")[1]
	socket := filepath.Join(dir, "control.sock")
	config := filepath.Join(dir, "janus.conf")
	must(t, os.WriteFile(filepath.Join(dir, "secret.conf"), []byte(k.secret), 0o600))
	if engine := os.Getenv("JANUS_ENGINE"); engine != "" {
		more = fmt.Sprintf("tunnel = { engine = %q; };\n", engine) + more
	}
	must(t, os.WriteFile(config, []byte(fmt.Sprintf(`
server = { tcp = { addr = "127.0.0.1:0"; }; ws = { addr = "127.0.0.1:0"; }; grpc = { addr = "127.0.0.1:0"; };
           http = { addr = "127.0.0.1:0"; }; %s };
worker = { count = 2; };
control = { socket = "%s"; };
nodes = (
  { service = "roma.player.service"; addr = "%s"; color = "blue"; },
  { service = "roma.room.service"; addr = "%s"; color = "blue"; }
);
%s
@include "secret.conf"
`, server, socket, roma, roma, more)), 0o644))
	start(t, `event=ready\b`, "janusd", "-c", config)

	ctl := func(arguments ...string) ([]byte, error) {
		program := filepath.Join(buildDir(t), "bin", "janusctl")
		return exec.Command(program, append([]string{"--socket", socket}, arguments...)...).Output()
	}
	t.Cleanup(func() {
		if t.Failed() {
			stats, err := ctl("stats")
			t.Logf("the gateway counted (%v):\n%s", err, stats)
		}
	})
	output, err := ctl("status", "--json")
	must(t, err)
	var status struct {
		Listeners []struct{ Transport, Address string }
	}
	must(t, json.Unmarshal(output, &status))
	addresses := map[string]string{}
	for _, listener := range status.Listeners {
		addresses[listener.Transport] = listener.Address
	}
	return addresses
}

// --- A client ----------------------------------------------------------------

// client is a player over TCP with whom everything has to go well.
type client struct {
	*player
	t *testing.T
}

func login(t *testing.T, address string, k *keys, uid uint64) *client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	p, err := enter(conn, k, uid, 0)
	must(t, err)
	return &client{p, t}
}

func (c *client) send(mod, seq, obj uint64, data []byte, compressed bool) {
	c.t.Helper()
	must(c.t, c.player.send(mod, seq, obj, data, compressed))
}

func (c *client) receive() wire.Fields {
	c.t.Helper()
	packet, err := c.player.receive()
	must(c.t, err)
	return packet
}

func (c *client) expect(mod, seq uint64, data []byte) wire.Fields {
	c.t.Helper()
	packet, err := c.player.expect(mod, seq, data)
	must(c.t, err)
	return packet
}

// --- The tests ---------------------------------------------------------------

func TestTheEcosystemsKeysTokensAndSealsAreThoseOfTheGateway(t *testing.T) {
	k := newKeys(t)
	address := startGateway(t, k, "", "")["tcp"]

	t.Run("a login and messages in order", func(t *testing.T) {
		c := login(t, address, k, 10001)
		for i := range 100 {
			c.send(wire.ModuleUser, 1, 0, fmt.Appendf(nil, "message %d", i), false)
		}
		for i := range 100 {
			packet := c.expect(wire.ModuleUser, 1, fmt.Appendf(nil, "message %d", i))
			if packet.Number(wire.PacketObj) != 10001 {
				t.Fatalf("obj is %d", packet.Number(wire.PacketObj))
			}
		}
	})

	t.Run("a heartbeat", func(t *testing.T) {
		c := login(t, address, k, 10002)
		c.send(wire.ModuleSystem, wire.SystemHeartbeat, 0, wire.Fields{1: uint64(time.Now().Unix())}.Encode(), false)
		answer, err := wire.Decode(c.expect(wire.ModuleSystem, wire.SystemHeartbeat, nil).Bytes(wire.PacketData))
		must(t, err)
		if answer.Number(2) != 1 {
			t.Fatalf("the heartbeat's code is %d", answer.Number(2))
		}
	})

	t.Run("a message into a room", func(t *testing.T) {
		c := login(t, address, k, 10003)
		c.send(wire.ModuleRoom, 2, 4711, []byte("hello room"), false)
		if packet := c.expect(wire.ModuleRoom, 2, []byte("hello room")); packet.Number(wire.PacketObj) != 4711 {
			t.Fatalf("obj is %d", packet.Number(wire.PacketObj))
		}
	})

	t.Run("compressed both ways", func(t *testing.T) {
		c := login(t, address, k, 10004)
		text := bytes.Repeat([]byte("the same again, "), 4000)
		data, compressed, err := compress.Compress(text)
		must(t, err)
		if !compressed {
			t.Fatal("64 KB were not compressed")
		}
		c.send(wire.ModuleUser, 1, 0, data, true)
		if packet := c.expect(wire.ModuleUser, 1, text); packet.Number(wire.PacketCompress) != 1 {
			t.Fatal("64 KB came back without being compressed")
		}
	})

	t.Run("a kick by Roma", func(t *testing.T) {
		c := login(t, address, k, 10005)
		c.send(wire.ModuleDev, 1, 0, []byte("logout 4"), false)
		packet := c.receive()
		for packet.Number(wire.PacketMod) == wire.ModuleDev { // the stand-in may acknowledge first
			packet = c.receive()
		}
		if packet.Number(wire.PacketMod) != wire.ModuleSystem || packet.Number(wire.PacketSeq) != wire.SystemLogout {
			t.Fatalf("expected a logout, got %v", packet)
		}
		logout, err := wire.Decode(packet.Bytes(wire.PacketData))
		must(t, err)
		if logout.Number(1) != 4 {
			t.Fatalf("the logout's code is %d", logout.Number(1))
		}
		must(t, c.expectEnd())
	})
}
