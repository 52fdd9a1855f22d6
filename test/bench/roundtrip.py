"""A message to the backend and its answer: the CPU that it takes the gateway, and the time.

Three others do the same beside it: HAProxy, which only copies bytes, before a plain echo; a gateway
of the ecosystem's Go layers, which does all that ours does; and a client on gRPC C core that goes
straight to the backend. How long it takes is compared with HAProxy at one rate for both: at full
load the faster one's round trips would be those of a higher rate."""

import os
import sys

from figures import median, median_ratio, report, say
from janus.programs import BIN, Program, write_file
from rig import CLIENTS, SIZE, TURN_S, TURNS, WORKERS, free_port, start_go_gate

HAPROXY = """
global
  nbthread {threads}
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 600s
  timeout server 600s
listen bench
  bind 127.0.0.1:{port}
  server echo {echo}
"""


def start_haproxy(rig):
    """HAProxy with as many threads as the gateway has workers, before a plain echo."""
    echo = f"127.0.0.1:{free_port()}"
    port = free_port()
    rig.add(Program([os.path.join(BIN, "janus-bench"), "echo-server", "--connect", echo])
            ).wait_log("listening")
    config = write_file(os.path.join(rig.directory, "haproxy.cfg"),
                        HAPROXY.format(threads=WORKERS, port=port, echo=echo))
    try:
        haproxy = rig.add(Program(["haproxy", "-f", config, "-db"]))
    except FileNotFoundError:
        sys.exit("bench: haproxy is missing: tools/setup bench installs it")
    return haproxy.pid, f"127.0.0.1:{port}"


def bench_roundtrip(rig):
    haproxy_pid, haproxy_address = start_haproxy(rig)
    go_gate = start_go_gate(rig)
    common = ["--clients", str(CLIENTS), "--size", str(SIZE), "--duration", f"{TURN_S}s",
              "--warmup", "1s"]
    turns = {"roundtrip_128": [], "haproxy_128": [], "direct_128": []}
    in_go = []
    for turn in range(TURNS):
        say(f"round trips, turn {turn + 1} of {TURNS}")
        turns["roundtrip_128"].append(rig.load("roundtrip", *common))
        turns["haproxy_128"].append(rig.load(
            "roundtrip", "--plain", "--connect", haproxy_address, "--pid-tree", str(haproxy_pid),
            *common, gateway=False))
        turns["direct_128"].append(rig.load(
            "direct", "--connect", rig.roma.address, *common, gateway=False))
        if go_gate:
            in_go.append(rig.load("roundtrip", *common, gateway=go_gate))
        shown = {"roundtrip_128": turns["roundtrip_128"], "haproxy_128": turns["haproxy_128"],
                 **({"in Go": in_go} if go_gate else {})}
        say(", ".join(f"{name} {results[-1]['cpu_us']:.1f} us" for name, results in shown.items())
            + " of CPU for each")
    for name, results in turns.items():
        cpu = "own_cpu_us" if name == "direct_128" else "cpu_us"
        report(f"{name}.msgs_per_s", median(results, "msgs_per_s"), "1/s")
        report(f"{name}.p50_us", median(results, "p50_us"), "us")
        report(f"{name}.p99_us", median(results, "p99_us"), "us")
        report(f"{name}.cpu_us", median(results, cpu), "us")
    ours = turns["roundtrip_128"]
    report("roundtrip_128.ratio_to_haproxy",
           median_ratio(ours, turns["haproxy_128"], "cpu_us"), "ratio")
    bench_latency(rig, 0.7 * median(ours, "msgs_per_s"), haproxy_pid, haproxy_address)
    if go_gate:
        report("roundtrip_128.go_cpu_us", median(in_go, "cpu_us"), "us")
        report("roundtrip_128.ratio_to_go", median_ratio(ours, in_go, "cpu_us"), "ratio")


def bench_latency(rig, rate, haproxy_pid, haproxy_address):
    """Both at one rate, which the gateway can keep: a part of the most that it does here."""
    common = ["--clients", str(CLIENTS), "--size", str(SIZE), "--rate", f"{rate:.0f}",
              "--duration", f"{TURN_S}s", "--warmup", "1s"]
    ours, theirs = [], []
    for turn in range(TURNS):
        say(f"{rate:.0f} round trips a second, turn {turn + 1} of {TURNS}")
        ours.append(rig.load("rate", *common))
        theirs.append(rig.load("rate", "--plain", "--connect", haproxy_address, "--pid-tree",
                               str(haproxy_pid), *common, gateway=False))
    report("roundtrip_128.rate_p99_us", median(ours, "p99_us"), "us")
    report("haproxy_128.rate_p99_us", median(theirs, "p99_us"), "us")
    report("roundtrip_128.p99_ratio_to_haproxy", median_ratio(ours, theirs, "p99_us"), "ratio")
