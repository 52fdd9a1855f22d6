// go-roma is the stand-in for Roma's tunnel services over grpc-go: what janus-roma is over gRPC's
// C core, with the same options, commands and output, and with settings of its own for how a
// server deals with its connections. grpc-go's own words go to standard error.
//
//	go-roma --listen 127.0.0.1:0 [--log] [--max-streams 3] [--max-age 2s] ...
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// options beyond what grpc-go itself is told.
type options struct {
	delay    time.Duration
	fail     codes.Code
	failText string
	log      bool
	record   *os.File
}

type roma struct {
	options
	address string

	lock     sync.Mutex
	messages map[string]uint64 // of each object
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("go-roma: ")
	server, listener, err := setUp()
	if err != nil {
		log.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		server.Stop()
	}()
	fmt.Printf("go-roma: listening on %s\n", listener.Addr())
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}

func setUp() (*grpc.Server, net.Listener, error) {
	r := &roma{messages: map[string]uint64{}}
	listen := flag.String("listen", "127.0.0.1:0", "`address` to serve at")
	delay := flag.Int("delay", 0, "answer everything so many `ms` later")
	fail := flag.Int("fail", 0, "refuse each stream with this gRPC `status`")
	flag.StringVar(&r.failText, "fail-text", "told to fail", "and this `text`")
	flag.BoolVar(&r.log, "log", false, "say when a connection or a stream opens and ends")
	record := flag.String("record", "", "`file` to which each message is appended")
	cert := flag.String("tls-cert", "", "speak TLS with the certificate in this `file`")
	key := flag.String("tls-key", "", "and its key in this `file`")
	clients := flag.String("tls-client-ca", "", "`file` of the authority that clients need a certificate from")

	streams := flag.Uint("max-streams", 0, "streams allowed on a connection, 0 for any number")
	window := flag.Int("window", 0, "`bytes` of each stream's window, 0 for grpc-go's own choice")
	connWindow := flag.Int("connection-window", 0, "`bytes` of each connection's window")
	receive := flag.Int("max-receive", 0, "`bytes` of the largest message taken, 0 for grpc-go's 4 MiB")
	send := flag.Int("max-send", 0, "`bytes` of the largest message sent")
	age := flag.Duration("max-age", 0, "how long a connection may live until it is told to go away")
	grace := flag.Duration("max-age-grace", 0, "and how long its streams go on after that, 0 for ever")
	minPing := flag.Duration("min-ping", 5*time.Minute, "clients that ping more often are sent away")
	noStreams := flag.Bool("ping-without-streams", false, "clients may ping without a stream open")
	flag.Parse()
	if flag.NArg() > 0 {
		return nil, nil, errors.New("there are no arguments but options")
	}
	r.delay, r.fail = time.Duration(*delay)*time.Millisecond, codes.Code(*fail)

	settings := []grpc.ServerOption{
		grpc.ForceServerCodec(rawCodec{}), grpc.StatsHandler(connections{r}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: *age, MaxConnectionAgeGrace: *grace}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: *minPing, PermitWithoutStream: *noStreams}),
	}
	if *streams > 0 {
		settings = append(settings, grpc.MaxConcurrentStreams(uint32(*streams)))
	}
	if *window > 0 {
		settings = append(settings, grpc.InitialWindowSize(int32(*window)))
	}
	if *connWindow > 0 {
		settings = append(settings, grpc.InitialConnWindowSize(int32(*connWindow)))
	}
	if *receive > 0 {
		settings = append(settings, grpc.MaxRecvMsgSize(*receive))
	}
	if *send > 0 {
		settings = append(settings, grpc.MaxSendMsgSize(*send))
	}
	if *cert != "" {
		secure, err := credentialsOf(*cert, *key, *clients)
		if err != nil {
			return nil, nil, err
		}
		settings = append(settings, grpc.Creds(secure))
	}
	if *record != "" {
		var err error
		r.record, err = os.OpenFile(*record, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, nil, err
		}
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return nil, nil, err
	}
	r.address = listener.Addr().String()
	server := grpc.NewServer(settings...)
	for _, service := range []string{"player", "room"} {
		name := service + ".intra.v1.TunnelService"
		server.RegisterService(&grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil),
			Streams: []grpc.StreamDesc{{
				StreamName: "Tunnel", ServerStreams: true, ClientStreams: true,
				Handler: func(_ any, stream grpc.ServerStream) error {
					return r.serve(stream, "/"+name+"/Tunnel")
				}}}}, r)
	}
	return server, listener, nil
}

func credentialsOf(cert, key, clients string) (credentials.TransportCredentials, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}}
	if clients != "" {
		pem, err := os.ReadFile(clients)
		if err != nil {
			return nil, err
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate", clients)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return credentials.NewTLS(config), nil
}

// say is for what a test waits for.
func (r *roma) say(format string, arguments ...any) {
	if r.log {
		fmt.Printf(format+"\n", arguments...)
	}
}
