// Package program is what the programs of this module have in common: how they speak, and how they
// end.
package program

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
)

// Begin has complaints begin with the program's name. To be called before flags are defined.
func Begin(name string) {
	log.SetFlags(0)
	log.SetPrefix(name + ": ")
}

// Serving tells where the program serves, in a line of its own, and has SIGINT and SIGTERM end it
// from here on with status 0.
func Serving(where any) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		os.Exit(0)
	}()
	fmt.Println(where)
}

// Parse reads the command line, which has options alone; ok says whether those given go together.
// It does not return where something is wrong.
func Parse(ok func() bool) {
	flag.Parse()
	if flag.NArg() > 0 || !ok() {
		flag.Usage()
		os.Exit(2)
	}
}
