// lossy-path runs a command behind a bad line:
//
//	lossy-path -loss 5 -delay 25ms -- janus-bench roundtrip --connect {near}:17001
//
// The command runs in a network namespace of its own. Its only way out is a link to the
// machine's namespace, whose address there is put for each {near} in the command and into
// the environment as JANUS_PATH_NEAR; a server has to listen on all addresses, or on that
// one. The namespace, the link and the faults end with the command, whose exit status is
// lossy-path's. It takes root.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"janus/interop/faults"
	"janus/interop/path"
)

func main() {
	var settings faults.Settings
	settings.Flags(flag.CommandLine)
	mtu := flag.Int("mtu", 1500, "`bytes` of a packet on the path, IP header and all")
	report := flag.Bool("report", false, "say at the end what happened to the packets")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: lossy-path [options] -- COMMAND [ARGUMENT...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	p, err := path.New(settings, *mtu)
	if err != nil {
		fmt.Fprintf(os.Stderr, "lossy-path: %v\n", err)
		os.Exit(1)
	}
	status := run(p, flag.Args())
	if *report {
		out, in := p.Counts()
		fmt.Fprintf(os.Stderr, "lossy-path: to the near end %+v, from it %+v\n", out, in)
	}
	p.Close()
	os.Exit(status)
}

func run(p *path.Path, words []string) int {
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "{near}", p.Near)
	}
	command := exec.Command(words[0], words[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "JANUS_PATH_NEAR="+p.Near)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	var err error
	p.Do(func() { err = command.Start() })
	if err != nil {
		fmt.Fprintf(os.Stderr, "lossy-path: %v\n", err)
		return 127
	}
	go func() {
		for s := range signals {
			_ = command.Process.Signal(s)
		}
	}()
	err = command.Wait()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		fmt.Fprintf(os.Stderr, "lossy-path: %v\n", err)
		return 1
	}
	state := command.ProcessState.Sys().(syscall.WaitStatus)
	if state.Signaled() {
		return 128 + int(state.Signal())
	}
	return state.ExitStatus()
}
