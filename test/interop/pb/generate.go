// Package pb has the messages of proto/ that a gateway handles all the time, as Go programs
// have them.
package pb

//go:generate go build -o ../../../build/go/ google.golang.org/protobuf/cmd/protoc-gen-go
//go:generate protoc --plugin=../../../build/go/protoc-gen-go -I ../../../proto --go_out=. --go_opt=paths=source_relative,Mpacket.proto=janus/interop/pb,Mtunnel.proto=janus/interop/pb packet.proto tunnel.proto
