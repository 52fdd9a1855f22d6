package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"janus/interop/pb"
	"janus/interop/wire"
)

// command carries out a message of module 2 as janus-roma does (its --help lists them) and answers
// it; false when the stream is not to be read any further.
func (t *tunnel) command(reply *pb.TunnelResponse) bool {
	line := string(reply.Data)
	words := strings.Fields(line)
	var numbers []uint64
	for _, word := range words[min(1, len(words)):] {
		number, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			break
		}
		numbers = append(numbers, number)
	}
	word := ""
	if len(words) > 0 {
		word = words[0]
	}
	text := func(what string) bool {
		reply.Data = []byte(what)
		return t.answer(reply)
	}
	switch count := len(numbers); {
	case word == "delay" && count == 1:
		t.delay.Store(int64(time.Duration(numbers[0]) * time.Millisecond))
		return text("ok")
	case (word == "push" && (count == 2 || count == 3) || word == "flood" && count == 2) &&
		numbers[1] <= filler:
		var every time.Duration
		if count == 3 {
			every = time.Duration(numbers[2]) * time.Millisecond
		}
		going := text("ok")
		go t.push(numbers[0], numbers[1], every)
		return going
	case word == "size" && count >= 1 && numbers[0] <= largest:
		reply.Data = bytes.Repeat([]byte("janus "), int(numbers[0]/6+1))[:numbers[0]]
		if strings.Contains(line, "random") {
			_, _ = rand.Read(reply.Data) // never fails
		}
		return t.answer(reply)
	case word == "end":
		code, rest := uint64(0), ""
		if count > 0 {
			code = numbers[0]
			if parts := strings.SplitN(line, " ", 3); len(parts) == 3 {
				rest = parts[2]
			}
		}
		t.end(codes.Code(code), rest)
		return false
	case word == "logout" && count == 1:
		t.answer(&pb.TunnelResponse{Mod: wire.ModuleSystem, Seq: wire.SystemLogout,
			Data: wire.Fields{1: numbers[0]}.Encode()})
		t.end(codes.OK, "")
		return false
	case word == "garbage" && count == 1 && numbers[0] <= largest:
		return t.queue(answer{raw: bytes.Repeat([]byte{0xff}, int(numbers[0]))})
	case word == "stall":
		return false
	case word == "who":
		return text(t.who())
	case word == "count":
		t.lock.Lock()
		messages := t.messages[t.oid]
		t.lock.Unlock()
		return text(strconv.FormatUint(messages, 10))
	case word == "exit":
		os.Exit(1)
	}
	return text("error: no such command; janus-roma --help lists them")
}

// who is what the gateway told of the player, in lines "key=value".
func (t *tunnel) who() string {
	known, _ := metadata.FromIncomingContext(t.Context())
	var lines []string
	for key, values := range known {
		if strings.HasPrefix(key, prefixMD) {
			lines = append(lines, key+"="+strings.Join(values, ","))
		}
	}
	sort.Strings(lines)
	return fmt.Sprintf("address=%s\nmethod=%s\n%s", t.address, t.method, strings.Join(lines, "\n"))
}
