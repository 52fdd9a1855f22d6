package interop

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
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
	"github.com/go-pantheon/fabrica-util/security/ecdh"
)

const patience = 60 * time.Second

// Field numbers of packet.Packet.
const (
	packetData, packetVersion, packetObj, packetMod = 1, 2, 3, 4
	packetSeq, packetIndex, packetCompress          = 5, 7, 20
)

const (
	moduleSystem, moduleDev, moduleUser, moduleRoom = 1, 2, 3, 6
	systemHandshake, systemHeartbeat, systemLogout  = 1, 2, 4
)

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

func (k *keys) token(t *testing.T, uid uint64) string {
	t.Helper()
	content := fields{
		1: []byte(rand.Text()), 2: []byte("blue"), 3: uid, 4: uint64(7),
		5: uint64(time.Now().Add(time.Hour).Unix()), 7: uint64(1),
	}
	sealed, err := k.account.Encrypt(content.encode())
	must(t, err)
	return base64.URLEncoding.EncodeToString(sealed)
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

// startGateway runs janus-roma and janusd before it; returns where clients connect.
func startGateway(t *testing.T, k *keys) string {
	t.Helper()
	dir := t.TempDir()
	roma := start(t, `(127\.0\.0\.1:[1-9]\d*)`, "janus-roma", "--listen", "127.0.0.1:0")[1]
	socket := filepath.Join(dir, "control.sock")
	config := filepath.Join(dir, "janus.conf")
	must(t, os.WriteFile(filepath.Join(dir, "secret.conf"), []byte(k.secret), 0o600))
	must(t, os.WriteFile(config, []byte(fmt.Sprintf(`
server = { tcp = { addr = "127.0.0.1:0"; }; ws = { addr = "127.0.0.1:0"; }; kcp = { addr = "127.0.0.1:0"; }; grpc = { addr = "127.0.0.1:0"; };
           http = { addr = "127.0.0.1:0"; }; };
worker = { count = 2; };
control = { socket = "%s"; };
nodes = (
  { service = "roma.player.service"; addr = "%s"; color = "blue"; },
  { service = "roma.room.service"; addr = "%s"; color = "blue"; }
);
@include "secret.conf"
`, socket, roma, roma)), 0o644))
	start(t, `event=ready\b`, "janusd", "-c", config)

	output, err := exec.Command(filepath.Join(buildDir(t), "bin", "janusctl"),
		"--socket", socket, "status", "--json").Output()
	must(t, err)
	var status struct {
		Listeners []struct{ Address string }
	}
	must(t, json.Unmarshal(output, &status))
	return status.Listeners[0].Address
}

// --- A client ----------------------------------------------------------------

type client struct {
	t       *testing.T
	conn    net.Conn
	session *aes.Cipher
	index   uint64
}

func login(t *testing.T, address string, k *keys, uid uint64) *client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	c := &client{t: t, conn: conn}

	private, public, err := ecdh.GenKeyPair()
	must(t, err)
	signed, err := certificate.Sign(k.client.KeyPair.Pri, public[:])
	must(t, err)
	c.write(fields{packetMod: uint64(moduleSystem), packetSeq: uint64(systemHandshake),
		packetData: fields{1: public[:], 2: signed.Sign, 3: []byte(k.token(t, uid)),
			4: uint64(7), 5: uint64(time.Now().Unix())}.encode()}.encode())

	packet, err := decode(c.read())
	must(t, err)
	if packet.number(packetMod) != moduleSystem || packet.number(packetSeq) != systemHandshake {
		t.Fatalf("the answer to the handshake is %v", packet)
	}
	answer, err := decode(packet.bytes(packetData))
	must(t, err)
	if !certificate.Verify(k.server.Pri.Public().(ed25519.PublicKey), answer.bytes(1), answer.bytes(2)) {
		t.Fatal("the gateway's signature does not verify")
	}
	peer, err := ecdh.ParseKey(answer.bytes(1))
	must(t, err)
	shared, err := ecdh.ComputeSharedKey(private, peer)
	must(t, err)
	c.session, err = aes.NewAESCipher(shared)
	must(t, err)
	if c.index = answer.number(5); c.index != 1 {
		t.Fatalf("start_index is %d", c.index)
	}
	return c
}

func (c *client) write(body []byte) {
	c.t.Helper()
	must(c.t, binary.Write(c.conn, binary.BigEndian, int32(len(body))))
	_, err := c.conn.Write(body)
	must(c.t, err)
}

func (c *client) read() []byte {
	c.t.Helper()
	var length int32
	must(c.t, binary.Read(c.conn, binary.BigEndian, &length))
	if length <= 0 || length > 16384 {
		c.t.Fatalf("a frame of %d bytes, which the ecosystem's clients refuse", length)
	}
	body := make([]byte, length)
	_, err := io.ReadFull(c.conn, body)
	must(c.t, err)
	return body
}

func (c *client) send(mod, seq, obj uint64, data []byte, compressed bool) {
	c.t.Helper()
	packet := fields{packetMod: mod, packetSeq: seq, packetObj: obj, packetData: data, packetIndex: c.index}
	if compressed {
		packet[packetCompress] = uint64(1)
	}
	c.index++
	sealed, err := c.session.Encrypt(packet.encode())
	must(c.t, err)
	c.write(sealed)
}

func (c *client) receive() fields {
	c.t.Helper()
	plain, err := c.session.Decrypt(c.read())
	must(c.t, err)
	packet, err := decode(plain)
	must(c.t, err)
	if packet.number(packetCompress) == 1 {
		packet[packetData], err = compress.Decompress(packet.bytes(packetData))
		must(c.t, err)
	}
	return packet
}

func (c *client) expect(mod, seq uint64, data []byte) fields {
	c.t.Helper()
	packet := c.receive()
	if packet.number(packetMod) != mod || packet.number(packetSeq) != seq {
		c.t.Fatalf("expected mod %d seq %d, got %v", mod, seq, packet)
	}
	if data != nil && !bytes.Equal(packet.bytes(packetData), data) {
		c.t.Fatalf("expected %d bytes back, got %d others", len(data), len(packet.bytes(packetData)))
	}
	return packet
}

// --- The tests ---------------------------------------------------------------

func TestTheEcosystemsKeysTokensAndSealsAreThoseOfTheGateway(t *testing.T) {
	k := newKeys(t)
	address := startGateway(t, k)

	t.Run("a login and messages in order", func(t *testing.T) {
		c := login(t, address, k, 10001)
		for i := range 100 {
			c.send(moduleUser, 1, 0, fmt.Appendf(nil, "message %d", i), false)
		}
		for i := range 100 {
			packet := c.expect(moduleUser, 1, fmt.Appendf(nil, "message %d", i))
			if packet.number(packetObj) != 10001 {
				t.Fatalf("obj is %d", packet.number(packetObj))
			}
		}
	})

	t.Run("a heartbeat", func(t *testing.T) {
		c := login(t, address, k, 10002)
		c.send(moduleSystem, systemHeartbeat, 0, fields{1: uint64(time.Now().Unix())}.encode(), false)
		answer, err := decode(c.expect(moduleSystem, systemHeartbeat, nil).bytes(packetData))
		must(t, err)
		if answer.number(2) != 1 {
			t.Fatalf("the heartbeat's code is %d", answer.number(2))
		}
	})

	t.Run("a message into a room", func(t *testing.T) {
		c := login(t, address, k, 10003)
		c.send(moduleRoom, 2, 4711, []byte("hello room"), false)
		if packet := c.expect(moduleRoom, 2, []byte("hello room")); packet.number(packetObj) != 4711 {
			t.Fatalf("obj is %d", packet.number(packetObj))
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
		c.send(moduleUser, 1, 0, data, true)
		if packet := c.expect(moduleUser, 1, text); packet.number(packetCompress) != 1 {
			t.Fatal("64 KB came back without being compressed")
		}
	})

	t.Run("a kick by Roma", func(t *testing.T) {
		c := login(t, address, k, 10005)
		c.send(moduleDev, 1, 0, []byte("logout 4"), false)
		packet := c.receive()
		for packet.number(packetMod) == moduleDev { // the stand-in may acknowledge first
			packet = c.receive()
		}
		if packet.number(packetMod) != moduleSystem || packet.number(packetSeq) != systemLogout {
			t.Fatalf("expected a logout, got %v", packet)
		}
		logout, err := decode(packet.bytes(packetData))
		must(t, err)
		if logout.number(1) != 4 {
			t.Fatalf("the logout's code is %d", logout.number(1))
		}
		if _, err := c.conn.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("the connection did not end: %v", err)
		}
	})
}
