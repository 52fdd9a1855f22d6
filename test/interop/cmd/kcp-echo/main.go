// kcp-echo is a server of the ecosystem's Go stack, for comparing what the layers cost:
// KCP, smux and frames, each sent back on its stream. It prints its address.
//
//	kcp-echo -listen 127.0.0.1:0 [-seal KEY | -login [-key FILE]] [the settings of the stack]
//
// Without either, bytes come back as they are. With -seal it opens each message with that
// key and seals its content anew. With -login every stream begins with the handshake, so
// that a client of the gateway can be its client: after it, messages are opened, decoded,
// encoded and sealed as in a gateway, with keys of the session. Whoever comes is let in.
// The handshake is signed with the private key in FILE (PEM), else with one made for it.
package main

import (
	"encoding/hex"
	"flag"
	"log"
	"os"

	"github.com/go-pantheon/fabrica-util/security/certificate"

	"janus/interop/echo"
	"janus/interop/program"
	"janus/interop/stack"
)

func main() {
	program.Begin("kcp-echo")
	settings := stack.Defaults()
	settings.Flags(flag.CommandLine)
	address := flag.String("listen", "127.0.0.1:0", "`address` of the UDP socket")
	seal := flag.String("seal", "", "AES `key` of 32 bytes, in hex, of all messages")
	login := flag.Bool("login", false, "begin each stream with the handshake")
	key := flag.String("key", "", "`file` of the server's private key")
	program.Parse(func() bool { return *seal == "" || !*login })

	server, err := choose(*seal, *login, *key)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := settings.Listen(*address)
	if err != nil {
		log.Fatal(err)
	}
	program.Serving(listener.Addr())
	log.Fatal(settings.Serve(listener, server.Serve))
}

func choose(seal string, login bool, file string) (*echo.Server, error) {
	switch {
	case login && file == "":
		keys, err := certificate.GenKeyPair()
		if err != nil {
			return nil, err
		}
		return echo.WithLogin(keys.Pri), nil
	case login:
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		key, err := certificate.ImportPriFromPEM(pem)
		return echo.WithLogin(key), err
	case seal != "":
		key, err := hex.DecodeString(seal)
		if err != nil {
			return nil, err
		}
		return echo.WithKey(key)
	default:
		return echo.Plain(), nil
	}
}
