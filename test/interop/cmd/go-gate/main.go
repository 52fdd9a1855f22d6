// go-gate is a gateway of the ecosystem's Go layers, for comparing what they cost (see package
// gate). It prints its address.
//
//	go-gate -backend HOST:PORT -account FILE -key FILE [-listen 127.0.0.1:0]
//
// After SIGUSR1 it gives all memory back that holds nothing, and says how many players and tunnels
// there are.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/go-pantheon/fabrica-util/security/aes"
	"github.com/go-pantheon/fabrica-util/security/certificate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"janus/interop/gate"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("go-gate: ")
	listen := flag.String("listen", "127.0.0.1:0", "`address` for clients")
	backend := flag.String("backend", "", "`address` of the game server")
	account := flag.String("account", "", "`file` with the key of the login tokens, 32 bytes")
	key := flag.String("key", "", "`file` of the server's private key")
	flag.Parse()
	if flag.NArg() > 0 || *backend == "" || *account == "" || *key == "" {
		flag.Usage()
		os.Exit(2)
	}
	g, err := newGate(*backend, *account, *key)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1)
	go func() {
		for one := range signals {
			if one != syscall.SIGUSR1 {
				os.Exit(0)
			}
			debug.FreeOSMemory()
			fmt.Printf("players %d tunnels %d\n", g.Players.Load(), g.Tunnels.Load())
		}
	}()
	fmt.Println(listener.Addr())
	log.Fatal(g.Serve(listener))
}

func newGate(backend, account, key string) (*gate.Gate, error) {
	secret, err := os.ReadFile(account)
	if err != nil {
		return nil, err
	}
	cipher, err := aes.NewAESCipher(secret)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(key)
	if err != nil {
		return nil, err
	}
	private, err := certificate.ImportPriFromPEM(pem)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(backend,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	return &gate.Gate{Account: cipher, Key: private, Backend: conn}, err
}
