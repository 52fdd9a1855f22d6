module janus/interop

go 1.24.4

require (
	github.com/go-pantheon/fabrica-util v0.0.36
	google.golang.org/protobuf v1.36.6
)

require (
	github.com/pkg/errors v0.9.1 // indirect
	golang.org/x/crypto v0.40.0 // indirect
)
