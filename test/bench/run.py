#!/usr/bin/python3
"""Measures the gateway and prints `BENCH name value unit` lines.

    make bench [ONLY=group[,group]]

Groups: roundtrip, transport, kcp, login, idle, route, failover, broadcast, push, bystander, trace,
scrape, scale (SCALE_HOLD_S=600 in the environment holds its last step for 10 minutes).
Whatever is compared is measured in turns within one run, and the medians of the turns are printed;
so a ratio holds on a busy machine too, where an absolute figure does not. Progress goes to
standard error.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "system"))

from janus import wire  # noqa: E402
from janus.certificates import Certificates  # noqa: E402
from janus.etcd_server import Etcd  # noqa: E402
from janus.go import NoGo, program  # noqa: E402
from janus.grpc_go import GoGate  # noqa: E402
from janus.kcp import KcpEcho, behind, no_path  # noqa: E402
from janus.patience import wait_for  # noqa: E402
from janus.programs import (BIN, Gateway, Program, Roma, etcd_settings, merged,  # noqa: E402
                            nodes_of, redis_settings, write_file)
from janus.push import json_body  # noqa: E402
from janus.redis_server import Redis, player_key  # noqa: E402

CLIENTS = 200
SIZE = 128
TURNS = 5
TURN_S = 3
IDLE_PLAYERS = 10000
WORKERS = 2
COLOR = "bench"

# Without the limits that a load from one address would run into.
SETTINGS = {
    "worker": {"count": WORKERS},
    "log": {"level": "warn"},
    "limits": {
        "connections_per_address": 0,
        "handshakes_per_s": 0,
        "handshake_clock": "60s",  # some are made beforehand
        "tls_handshakes_per_s": 0,
        "messages_per_s": 0,
        "bytes_per_s": 0,
        "idle_timeout": "600s",
    },
}


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def report(name, value, unit):
    print(f"BENCH {name} {value:.4g} {unit}" if value < 1000 else
          f"BENCH {name} {value:.0f} {unit}", flush=True)


class QuietGateway(Gateway):
    """A gateway that says when it is ready, and little else: its log costs CPU too."""

    def start(self):
        Program.__init__(self, [os.path.join(BIN, "janusd"), "-c", self.config_path])
        self.await_workers()

    def await_workers(self):
        def running():
            if not os.path.exists(self.socket_path):
                return False
            status = self.ctl("status")
            return status["workers"]["running"] == WORKERS and status

        wait_for(running, "the workers to run", 30)
        self.address = self.listener("tcp")


class Rig:
    """The gateway and its backend, with keys for the load generator."""

    def __init__(self, directory):
        self.directory = directory
        self.programs = []

    def start(self):
        self.keys = wire.Keys()
        self.roma = self.add(Roma())
        self.gateway = self.add_gateway("gateway")
        self.key_directory = self.gateway.tool_keys()

    def add_gateway(self, name, settings=None, nodes=None, kind=QuietGateway):
        directory = os.path.join(self.directory, name)
        os.mkdir(directory)
        if nodes is None:
            nodes = [dict(node, color=COLOR) for node in nodes_of(self.roma.address)]
        return self.add(kind(directory, self.keys, nodes,
                                     settings=merged(SETTINGS, settings or {})))

    def add(self, program):
        self.programs.append(program)
        return program

    def stop(self):
        for program in reversed(self.programs):
            program.kill()
            for pid in program.session_pids() if hasattr(program, "session_pids") else []:
                os.kill(pid, 9)

    def load(self, kind, *arguments, gateway=True, url=None, path=None):
        """gateway: True for the rig's own, another one, or False; url: of another of its
        listeners than the first; path: what to put before the command."""
        command = [os.path.join(BIN, "janus-bench"), kind, "--json", *arguments]
        if gateway:
            target = self.gateway if gateway is True else gateway
            command += ["--connect", url or ":".join(map(str, target.address)),
                        "--keys", self.key_directory, "--color", COLOR,
                        "--pid-tree", str(target.pid)]
        command = path(command) if path else command
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=300)
        if done.returncode != 0:
            sys.exit(f"bench: {' '.join(command)} failed with {done.returncode}")
        return json.loads(done.stdout)


# --- roundtrip ------------------------------------------------------------------------------

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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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


def start_go_gate(rig):
    """A gateway of the ecosystem's Go layers, on as many cores as the gateway has workers; None
    where there is no Go."""
    try:
        program("go-gate")
    except NoGo as fault:
        say(f"no gateway in Go to compare with: {fault}")
        return None
    return rig.add(GoGate(rig.directory, rig.keys, rig.roma.address, WORKERS))


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
        median = {key: statistics.median(result[key] for result in results)
                  for key in ("msgs_per_s", "p50_us", "p99_us", cpu)}
        report(f"{name}.msgs_per_s", median["msgs_per_s"], "1/s")
        report(f"{name}.p50_us", median["p50_us"], "us")
        report(f"{name}.p99_us", median["p99_us"], "us")
        report(f"{name}.cpu_us", median[cpu], "us")
    report("roundtrip_128.ratio_to_haproxy", statistics.median(
        ours["cpu_us"] / theirs["cpu_us"]
        for ours, theirs in zip(turns["roundtrip_128"], turns["haproxy_128"])), "ratio")
    bench_latency(rig, 0.7 * statistics.median(r["msgs_per_s"] for r in turns["roundtrip_128"]),
                  haproxy_pid, haproxy_address)
    if go_gate:
        report("roundtrip_128.go_cpu_us", statistics.median(r["cpu_us"] for r in in_go), "us")
        report("roundtrip_128.ratio_to_go", statistics.median(
            ours["cpu_us"] / theirs["cpu_us"]
            for ours, theirs in zip(turns["roundtrip_128"], in_go)), "ratio")


def bench_latency(rig, rate, haproxy_pid, haproxy_address):
    """Both at one rate, which the gateway can keep: a part of the most that it does here."""
    common = ["--clients", str(CLIENTS), "--size", str(SIZE), "--rate", f"{rate:.0f}",
              "--duration", f"{TURN_S}s", "--warmup", "1s"]
    ours, theirs = [], []
    for turn in range(TURNS):
        say(f"{rate:.0f} round trips a second, turn {turn + 1} of {TURNS}")
        ours.append(rig.load("rate", *common)["p99_us"])
        theirs.append(rig.load("rate", "--plain", "--connect", haproxy_address, "--pid-tree",
                               str(haproxy_pid), *common, gateway=False)["p99_us"])
    report("roundtrip_128.rate_p99_us", statistics.median(ours), "us")
    report("haproxy_128.rate_p99_us", statistics.median(theirs), "us")
    report("roundtrip_128.p99_ratio_to_haproxy", statistics.median(
        mine / other for mine, other in zip(ours, theirs)), "ratio")


# --- login ----------------------------------------------------------------------------------


def bench_login(rig):
    redis = rig.add(Redis())
    with_redis = rig.add_gateway("redis", redis_settings(redis.address))
    results, results_redis = [], []
    for turn in range(TURNS):
        say(f"logins, turn {turn + 1} of {TURNS}")
        timing = ["--duration", f"{TURN_S}s", "--warmup", "1s"]
        results.append(rig.load("login", *timing))
        results_redis.append(rig.load("login", *timing, gateway=with_redis))
    report("login.per_s", statistics.median(r["logins_per_s"] for r in results), "1/s")
    report("login.cpu_us", statistics.median(r["cpu_us"] for r in results), "us")
    report("login.redis_per_s", statistics.median(r["logins_per_s"] for r in results_redis), "1/s")
    report("login.redis_ratio", statistics.median(
        theirs["logins_per_s"] / ours["logins_per_s"]
        for ours, theirs in zip(results, results_redis)), "ratio")


# --- idle -----------------------------------------------------------------------------------


def resident_bytes(gateway):
    """What all processes of the gateway hold; a page they share counts once (PSS)."""
    total = 0
    for pid in gateway.session_pids():
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total * 1024


def open_tunnels(gateway):
    """After which nothing is kept that could be given back: Go's runtime does that at leisure."""
    return gateway.settle() if isinstance(gateway, GoGate) else gateway.gauge("tunnels")


def idle_player_bytes(rig, gateway, url, players, *arguments):
    """What each of so many costs a gateway that has served nobody yet."""
    # One message through each worker first, so that what is paid once is not counted.
    rig.load("roundtrip", "--clients", "50", "--duration", "1s", "--warmup", "0s", *arguments,
             gateway=gateway, url=url)
    open_tunnels(gateway)
    before = resident_bytes(gateway)
    say(f"{players} players log in over {url} and say nothing more")
    command = [os.path.join(BIN, "janus-bench"), "idle", "--json", "--connect", url, "--keys",
               rig.key_directory, "--color", COLOR, "--clients", str(players), "--source",
               "127.0.0.1-8", "--uid", "5000000", *arguments]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    line = holder.stdout.readline()
    if not line:
        sys.exit("bench: the idle players did not come in")
    tunnels = open_tunnels(gateway)
    held = resident_bytes(gateway) - before
    holder.stdin.close()
    holder.wait(60)
    if tunnels < players:
        sys.exit(f"bench: only {tunnels} of {players} players have a tunnel")
    return held / players


def bench_idle(rig):
    url = "tcp://" + ":".join(map(str, rig.gateway.address))
    ours = idle_player_bytes(rig, rig.gateway, url, IDLE_PLAYERS)
    report("idle_player.bytes", ours, "bytes")
    go_gate = start_go_gate(rig)
    if go_gate:
        url = "tcp://" + ":".join(map(str, go_gate.address))
        theirs = idle_player_bytes(rig, go_gate, url, IDLE_PLAYERS)
        report("idle_player.go_bytes", theirs, "bytes")
        report("idle_player.ratio_to_go", ours / theirs, "ratio")


# --- transport ------------------------------------------------------------------------------

TRANSPORT_IDLE_PLAYERS = 2000
# Short and many, so that what is compared is close together on a machine that is busy by turns.
TRANSPORT_TURNS = 11


def add_listening_gateway(rig, name, certificates):
    """A gateway with each transport, and the URL of each. What is within TLS is TLS 1.3."""
    tls = {"enabled": True, "cert": certificates.server_cert, "key": certificates.server_key,
           "min_version": "1.3"}
    gateway = rig.add_gateway(name, {"server": {
        "ws": {"addr": "127.0.0.1:0"},
        "listeners": [{"transport": transport, "addr": "127.0.0.1:0", "tls": tls}
                      for transport in ("tcp", "ws")]}})
    schemes = {("tcp", False): "tcp://{}", ("ws", False): "ws://{}/ws",
               ("tcp", True): "tls://{}", ("ws", True): "wss://{}/ws"}
    urls = [schemes[one["transport"], one["tls"]].format(one["address"])
            for one in gateway.ctl("status")["listeners"] if one["transport"] in ("tcp", "ws")]
    return gateway, {url.partition(":")[0]: url for url in urls}


def bench_transport(rig):
    certificates = Certificates(os.path.join(rig.directory, "certificates"))
    trust = ["--tls-ca", certificates.ca]
    gateway, urls = add_listening_gateway(rig, "transport", certificates)
    timing = ["--duration", "1500ms", "--warmup", "500ms"]
    names = list(urls)
    turns = {name: [] for name in names}
    full, resumed = [], []
    for turn in range(TRANSPORT_TURNS):
        say(f"round trips over each transport, turn {turn + 1} of {TRANSPORT_TURNS}")
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            turns[name].append(rig.load("roundtrip", "--clients", str(CLIENTS), "--size", str(SIZE),
                                        *timing, *trust, gateway=gateway, url=urls[name]))
        say(", ".join(f"{name} {results[-1]['cpu_us']:.1f} us" for name, results in turns.items())
            + " of CPU for each")
        for results, more in ((full, []), (resumed, ["--resume"])):
            results.append(rig.load("handshake", *timing, *trust, *more, gateway=gateway,
                                    url=urls["tls"]))
            if not results[-1]["count"]:
                sys.exit("bench: no handshake was done")
    for name, results in turns.items():
        report(f"{name}.cpu_us", statistics.median(one["cpu_us"] for one in results), "us")
    for name in ("ws", "tls", "wss"):
        report(f"{name}.cpu_ratio", statistics.median(
            one["cpu_us"] / plain["cpu_us"]
            for one, plain in zip(turns[name], turns["tcp"])), "ratio")
    # Of one core of the gateway.
    report("tls.handshakes_per_s", 1e6 / statistics.median(one["cpu_us"] for one in full), "1/s")
    report("tls.resumed_per_s", 1e6 / statistics.median(one["cpu_us"] for one in resumed), "1/s")
    gateway.abandon()
    for name in urls:
        gateway, fresh_urls = add_listening_gateway(rig, f"idle-{name}", certificates)
        held = idle_player_bytes(rig, gateway, fresh_urls[name], TRANSPORT_IDLE_PLAYERS, *trust)
        report(f"{name}.idle_kb", held / 1000, "KB")
        gateway.abandon()


# --- kcp ------------------------------------------------------------------------------------

KCP_TURNS = 7
KCP_IDLE_PLAYERS = 2000
KCP_IDLE_S = 25  # of which each connection says something ten seconds apart
LOSSY_TURNS = 3
LOSSY = {"loss": 5, "delay": "25ms"}  # in each direction
LOSSY_CLIENTS = 50
LOSSY_S = 12


def kcp_url(gateway, host=None):
    own_host, port = gateway.listener("kcp")
    return f"kcp://{host or own_host}:{port}"


def bench_kcp_work(rig, gateways, echo):
    """What a round trip costs over KCP beside TCP, and beside the ecosystem's stack in Go."""
    turns = {name: [] for name in ("tcp", "kcp", "nofec", *(["go"] if echo else []))}
    names = list(turns)
    for turn in range(KCP_TURNS):
        say(f"round trips over KCP, turn {turn + 1} of {KCP_TURNS}")
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            load = ["roundtrip", "--clients", str(CLIENTS), "--size", str(SIZE), "--duration",
                    "1500ms", "--warmup", "500ms", *(["--kcp-fec", "off"] * (name == "nofec"))]
            if name == "go":
                url = "kcp://%s:%d" % echo.address
                result = rig.load(*load, "--connect", url, "--keys", rig.key_directory,
                                  "--pid-tree", str(echo.pid), gateway=False)
            else:
                gateway = gateways[name]
                before = gateway.total()["counters"]
                result = rig.load(*load, gateway=gateway,
                                  url=None if name == "tcp" else kcp_url(gateway))
                if name == "kcp":
                    datagrams_a_call = batches(before, gateway.total()["counters"])
            turns[name].append(result)
        say(", ".join(f"{name} {results[-1]['cpu_us']:.1f} us" for name, results in turns.items())
            + " of CPU for each")
    for name, results in turns.items():
        report(f"kcp.{name}_cpu_us" if name != "kcp" else "kcp.cpu_us",
               statistics.median(one["cpu_us"] for one in results), "us")

    def ratio(name, to):
        return statistics.median(one["cpu_us"] / other["cpu_us"]
                                 for one, other in zip(turns[name], turns[to]))

    report("kcp.cpu_ratio", ratio("kcp", "tcp"), "ratio")
    report("kcp.nofec_cpu_ratio", ratio("nofec", "tcp"), "ratio")
    if echo:
        report("kcp.cpu_ratio_to_go", ratio("kcp", "go"), "ratio")
    for name, value in datagrams_a_call.items():
        report(f"kcp.datagrams_{name}", value, "datagrams")


def batches(before, after):
    """Datagrams for each call of the kernel."""
    grown = {name: after[name] - before[name] for name in after if name.startswith("kcp_")}
    return {"a_read": grown["kcp_datagrams_in"] / max(grown["kcp_reads"], 1),
            "a_write": grown["kcp_datagrams_out"] / max(grown["kcp_writes"], 1)}


def bench_kcp_loss(rig):
    """Round trips on a line that loses, over KCP beside TCP."""
    gateway = rig.add_gateway("kcp-lossy", {"server": {"tcp": {"addr": "0.0.0.0:0"},
                                                       "kcp": {"addr": "0.0.0.0:0"}}})
    urls = {"tcp": "tcp://{near}:%d" % gateway.listener("tcp")[1],
            "kcp": kcp_url(gateway, "{near}")}
    turns = {name: [] for name in urls}
    for turn in range(LOSSY_TURNS):
        say(f"round trips on a line that loses {LOSSY['loss']} %, turn {turn + 1} of {LOSSY_TURNS}")
        for name, url in urls.items():
            turns[name].append(rig.load(
                "roundtrip", "--clients", str(LOSSY_CLIENTS), "--size", str(SIZE), "--duration",
                f"{LOSSY_S}s", "--warmup", "2s", gateway=gateway, url=url,
                path=lambda command: behind(command, **LOSSY)))
        say(", ".join(f"{name} p50 {results[-1]['p50_us'] / 1000:.0f}, p99 "
                      f"{results[-1]['p99_us'] / 1000:.0f} ms" for name, results in turns.items()))
    for name, results in turns.items():
        report(f"kcp.loss_{name}_p99_ms", statistics.median(one["p99_us"] / 1000
                                                            for one in results), "ms")
    report("kcp.loss_p99_ratio", statistics.median(
        kcp["p99_us"] / tcp["p99_us"] for kcp, tcp in zip(turns["kcp"], turns["tcp"])), "ratio")
    gateway.abandon()


def bench_kcp_idle(rig):
    gateway = rig.add_gateway("kcp-idle")
    held = idle_player_bytes(rig, gateway, kcp_url(gateway), KCP_IDLE_PLAYERS)
    report("kcp.idle.bytes", held, "bytes")
    gateway.abandon()
    gateway = rig.add_gateway("kcp-idle-10k")
    say(f"{IDLE_PLAYERS} players log in over KCP and say nothing more for {KCP_IDLE_S} s")
    holder = subprocess.Popen(
        [os.path.join(BIN, "janus-bench"), "idle", "--json", "--connect", kcp_url(gateway),
         "--keys", rig.key_directory, "--color", COLOR, "--clients", str(IDLE_PLAYERS), "--source",
         "127.0.0.1-8", "--uid", "5000000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if not holder.stdout.readline():
            sys.exit("bench: the idle players did not come in")
        time.sleep(3)  # what the logins left behind
        used, begun = cpu_seconds(gateway.worker_pids().values()), time.monotonic()
        time.sleep(KCP_IDLE_S)
        used = cpu_seconds(gateway.worker_pids().values()) - used
        percent = 100 * used / (time.monotonic() - begun)
        if gateway.gauge("sessions") < IDLE_PLAYERS:
            sys.exit("bench: not all of the idle players are there any more")
    finally:
        holder.stdin.close()
        holder.wait(60)
    report("kcp.idle_10k.cpu_percent", percent, "%")
    gateway.abandon()


def bench_kcp(rig):
    gateway = rig.add_gateway("kcp")
    without = rig.add_gateway("kcp-nofec", {"kcp": {"data_shards": 0, "parity_shards": 0}})
    try:
        program("kcp-echo")
        echo = rig.add(KcpEcho(rig.directory, rig.keys, sockbuf=4 << 20))
    except NoGo as fault:
        say(f"no Go server to compare with: {fault}")
        echo = None
    bench_kcp_work(rig, {"tcp": gateway, "kcp": gateway, "nofec": without}, echo)
    missing = "there is no Go" if echo is None else no_path()
    if missing:
        say(f"no line that loses: {missing}")
    else:
        bench_kcp_loss(rig)
    bench_kcp_idle(rig)


# --- route ----------------------------------------------------------------------------------


def bench_route(rig):
    results = []
    for turn in range(TURNS):
        say(f"look-ups in a table of 1,000,000 routes, turn {turn + 1} of {TURNS}")
        results.append(rig.load("routes", "--duration", "6s", gateway=False))
    median = {key: statistics.median(result[key] for result in results)
              for key in ("lookup_ns", "busy_ratio", "memory_ns", "bytes")}
    report("route.lookup_ns", median["lookup_ns"], "ns")
    report("route.memory_ns", median["memory_ns"], "ns")
    report("route.lookup_to_memory_ratio", statistics.median(
        result["lookup_ns"] / result["memory_ns"] for result in results), "ratio")
    report("route.lookup_busy_ratio", median["busy_ratio"], "ratio")
    report("route.table_mib", median["bytes"] / (1 << 20), "MiB")


# --- broadcast, push ------------------------------------------------------------------------

BROADCAST_PLAYERS = 10000
PUSH_PLAYERS = 1000
SEALED_EXTRA = 42  # bytes by which a sealed message of SIZE is longer than its data


class Crowd:
    """Players who receive what their load generator pushes through an entrance."""

    def __init__(self, kind, clients, size, *arguments):
        command = [os.path.join(BIN, "janus-bench"), kind, "--json", "--clients", str(clients),
                   "--size", str(size), "--source", "127.0.0.1-8", "--uid", "5000000", "--sid", "2",
                   *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def result(self):
        text = self.process.communicate()[0]
        if self.process.returncode != 0:
            sys.exit(f"bench: {' '.join(self.process.args)} failed")
        result = json.loads(text.splitlines()[-1])
        if result["failed"]:
            sys.exit(f"bench: {result['failed']:.0f} pushes failed")
        return result


def players_of(rig, gateway=None):
    gateway = gateway or rig.gateway
    return ["--connect", ":".join(map(str, gateway.address)), "--keys", rig.key_directory,
            "--color", COLOR, "--pid-tree", str(gateway.pid)]


def entrances_of(gateway):
    listeners = {one["transport"]: one["address"] for one in gateway.ctl("status")["listeners"]}
    return {kind: f"{kind}@{listeners[kind]}" for kind in ("grpc", "http")}


def start_fan_server(rig):
    """What the bare sends of a broadcast cost: a server that does nothing else."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    server = rig.add(Program([os.path.join(BIN, "janus-bench"), "fan-server", "--connect", address]))
    server.wait_log("listening")
    return ("127.0.0.1", port), ["--plain", "--connect", address, "--entrance", f"plain@{address}",
                                 "--pid-tree", str(server.pid)]


def unrelated_p99_us(rig, gateway=True, clients=1, path=None):
    return rig.load("rate", "--rate", "1000", "--clients", str(clients), "--size", str(SIZE),
                    "--duration", f"{TURN_S}s", "--warmup", "500ms", gateway=gateway,
                    path=path)["p99_us"]


def p99_during_broadcasts_us(size, arguments, broadcast, measure, players=BROADCAST_PLAYERS):
    """What measure() finds of unrelated players' round trips, while there is one broadcast a second
    to a crowd that does not run meanwhile: players have machines of their own."""
    crowd = Crowd("broadcast", players, size, *arguments, "--broadcasts", "1",
                  "--duration", "600s", "--warmup", "0s")
    if not crowd.process.stdout.readline():
        sys.exit("bench: the players did not come in")
    crowd.process.send_signal(signal.SIGSTOP)
    measured = threading.Event()
    reached = []

    def go_on():
        while not measured.wait(1):
            reached.append(broadcast())

    publisher = threading.Thread(target=go_on)
    publisher.start()
    p99_us = measure()
    measured.set()
    publisher.join()
    if not reached or min(reached) < players:
        sys.exit("bench: a broadcast did not reach the crowd")
    crowd.process.kill()
    crowd.process.wait()
    return p99_us


def broadcast_over(http_address):
    operations = http.client.HTTPConnection(http_address)
    operations.request("POST", "/broadcast", json.dumps(
        {"bodies": [json_body(bytes(SIZE))], "sid": 2}))
    answer = operations.getresponse()
    return int(json.loads(answer.read())["reached"])


def bench_broadcast(rig):
    ours = (SIZE, [*players_of(rig), "--entrance", entrances_of(rig.gateway)["grpc"]])
    fan_address, fan_arguments = start_fan_server(rig)
    bare = (SIZE + SEALED_EXTRA, fan_arguments)
    http_address = entrances_of(rig.gateway)["http"].split("@")[1]
    fan_client = socket.create_connection(fan_address)
    frame = (SIZE + SEALED_EXTRA).to_bytes(4, "big") + bytes(SIZE + SEALED_EXTRA)

    def broadcast():
        return broadcast_over(http_address)

    def measure():
        return unrelated_p99_us(rig)

    def bare_broadcast():
        fan_client.sendall(frame)
        return BROADCAST_PLAYERS  # TCP sees to it

    timing = ["--duration", f"{TURN_S}s", "--warmup", "1s"]
    results, bare_results, ratios, bare_ratios = [], [], [], []
    for turn in range(TURNS):
        say(f"{BROADCAST_PLAYERS} players get broadcasts, turn {turn + 1} of {TURNS}")
        for (size, arguments), got in ((ours, results), (bare, bare_results)):
            got.append(Crowd("broadcast", BROADCAST_PLAYERS, size, *arguments, *timing).result())
        say(f"{results[-1]['cpu_us']:.1f} us of CPU for each delivery, bare sends "
            f"{bare_results[-1]['cpu_us']:.1f}")
        quiet_us = measure()
        ratios.append(p99_during_broadcasts_us(*ours, broadcast, measure) / quiet_us)
        bare_ratios.append(p99_during_broadcasts_us(*bare, bare_broadcast, measure) / quiet_us)
        say(f"another player's p99 is {ratios[-1]:.1f} times as long meanwhile, beside bare sends "
            f"{bare_ratios[-1]:.1f}")
    report("broadcast.deliveries_per_s_core",
           1e6 / statistics.median(r["cpu_us"] for r in results), "1/s")
    report("broadcast.bare_sends_per_s_core",
           1e6 / statistics.median(r["cpu_us"] for r in bare_results), "1/s")
    report("broadcast.ratio_to_bare_sends", statistics.median(
        r["cpu_us"] / p["cpu_us"] for r, p in zip(results, bare_results)), "ratio")
    report("broadcast.last_ms", statistics.median(r["last_ms"] for r in results), "ms")
    report("broadcast.p99_ratio", statistics.median(ratios), "ratio")
    report("broadcast.p99_ratio_beside_bare_sends", statistics.median(bare_ratios), "ratio")


def bench_push(rig):
    redis = rig.add(Redis())
    gateway = rig.add_gateway("redis", redis_settings(redis.address))
    wait_for(lambda: gateway.link("topics")["state"] == "subscribed", "the topics")
    entrances = {"redis": f"redis@{redis.address}", **entrances_of(gateway)}
    results = {kind: [] for kind in entrances}
    for turn in range(TURNS):
        say(f"pushes to one player each, turn {turn + 1} of {TURNS}")
        for kind, entrance in entrances.items():
            results[kind].append(Crowd(
                "push", PUSH_PLAYERS, SIZE, *players_of(rig, gateway), "--entrance", entrance,
                "--topic", gateway.ctl("status")["advertise"], "--duration", f"{TURN_S}s",
                "--warmup", "1s").result())
    for kind, got in results.items():
        for key, unit in (("deliveries_per_s", "1/s"), ("cpu_us", "us"), ("p99_us", "us")):
            report(f"push.{kind}.{key}", statistics.median(result[key] for result in got), unit)


# --- bystander ------------------------------------------------------------------------------

BYSTANDER_TURNS = 3
BYSTANDERS = 8  # so that each worker has some
LONG_ANSWER_BYTES = 1000000
LONG_ANSWERS_PER_S = 20
BURST_LOGINS = 150
BURST_EVERY_S = 0.5
LONG_COLOR = "long"
CROWD = 4000
SCANNED_ROUTES = 100000
RESCAN_EVERY_S = 0.5


@contextlib.contextmanager
def repeated(work, every_s):
    """work() again and again meanwhile; gives how often it was."""
    over = threading.Event()
    done = []

    def go_on():
        while not over.is_set():
            started = time.monotonic()
            work()
            done.append(started)
            over.wait(max(0, started + every_s - time.monotonic()))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield done
    finally:
        over.set()
        thread.join()


def schedule(pid, policy, priority=0):
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setscheduler(int(task), policy, os.sched_param(priority))


@contextlib.contextmanager
def machines_of_their_own(first, last):
    """Bystanders, players, nodes and Redis do not share the gateway's cores: here, whoever takes
    part in a bystander's round trips comes before the gateway (the programs in `first`), and what
    makes the big work comes behind it (those in `last`, and this process with all that it starts
    meanwhile). Gives what makes a command one of the first."""
    try:
        for program in first:
            schedule(program.process.pid, os.SCHED_FIFO, 1)
    except PermissionError:
        say("no right to schedule: all share the cores as they come")
        yield None
        return
    for pid in (os.getpid(), *(program.process.pid for program in last)):
        schedule(pid, os.SCHED_IDLE)
    try:
        yield lambda command: ["chrt", "--fifo", "1", *command]
    finally:
        schedule(os.getpid(), os.SCHED_OTHER)


def p99_during_long_answers_us(gateway, measure):
    players = [gateway.player(uid=700000 + i, color=LONG_COLOR) for i in range(BYSTANDERS)]
    turn = iter(range(1 << 30))
    answered = []

    def ask():
        player = players[next(turn) % len(players)]
        player.send(wire.DEV, 1, b"size %d" % LONG_ANSWER_BYTES)
        answered.append(player.receive_body())

    before = gateway.counter("messages_deflated")
    with repeated(ask, 1 / LONG_ANSWERS_PER_S):
        p99_us = measure()
    if gateway.counter("messages_deflated") - before != len(answered):
        sys.exit("bench: not all long answers were compressed")
    for player in players:
        player.close()
    say(f"{len(answered)} long answers")
    return p99_us


class LoginBursts:
    """Logins whose messages are made beforehand and whose answers nobody looks at: players have
    machines of their own."""

    def __init__(self, gateway, bursts):
        self.address = gateway.address
        maker = gateway.client()
        with maker:
            self.frames = []
            for i in range(bursts * BURST_LOGINS):
                maker.exchange = wire.Exchange()
                token = gateway.keys.token(800000 + i, COLOR)
                self.frames.append(maker.handshake_frame(token=token))
        self.sockets = []

    def burst(self):
        for _ in range(min(BURST_LOGINS, len(self.frames))):
            one = socket.create_connection(self.address)
            one.sendall(self.frames.pop())
            self.sockets.append(one)

    def end(self):
        for one in self.sockets:
            one.close()


def p99_during_logins_us(gateway, measure):
    bursts = LoginBursts(gateway, int((TURN_S + 2) / BURST_EVERY_S))
    before = gateway.counter("logins")
    with repeated(bursts.burst, BURST_EVERY_S):
        p99_us = measure()
    came = len(bursts.sockets)
    wait_for(lambda: gateway.counter("logins") - before >= came, "the logins")
    bursts.end()
    say(f"{came} logins in bursts of {BURST_LOGINS}")
    return p99_us


def p99_during_scans_us(redis, measure):
    """A flush of another of Redis' databases makes the gateway read all routes anew."""
    client = redis.client()
    other = redis.client()
    other.select(1)

    def scan_steps():
        return client.info("commandstats")["cmdstat_scan"]["calls"]

    before = scan_steps()
    with repeated(other.flushdb, RESCAN_EVERY_S):
        p99_us = measure()
    say(f"{scan_steps() - before} steps of scans")
    return p99_us


def add_scanned_gateway(rig):
    redis = rig.add(Redis())
    pipe = redis.client(timeout=60).pipeline(transaction=False)
    for i in range(SCANNED_ROUTES):
        pipe.set(player_key(9000000 + i, COLOR), rig.roma.address, px=3600000)
    pipe.execute()
    settings = merged(redis_settings(redis.address),
                      {"route_table": {"capacity": {"player": 2 * SCANNED_ROUTES}}})
    return rig.add_gateway("scanned", settings), redis


def bench_bystander(rig):
    """How much longer a player's round trips take, at the 99th percentile, while something big is
    done for others."""
    scanned, redis = add_scanned_gateway(rig)
    slow_roma = rig.add(Roma())  # takes 2 ms for a long answer, in which it serves nobody else
    gateway = rig.add_gateway("busy", nodes=[
        dict(node, color=color) for roma, color in ((rig.roma, COLOR), (slow_roma, LONG_COLOR))
        for node in nodes_of(roma.address)])
    http_address = entrances_of(gateway)["http"].split("@")[1]
    crowd = [*players_of(rig, gateway), "--entrance", entrances_of(gateway)["grpc"]]
    big = {
        "compression": (gateway, lambda measure: p99_during_long_answers_us(gateway, measure)),
        "broadcast": (gateway, lambda measure: p99_during_broadcasts_us(
            SIZE, crowd, lambda: broadcast_over(http_address), measure, CROWD)),
        "logins": (gateway, lambda measure: p99_during_logins_us(gateway, measure)),
        "scan": (scanned, lambda measure: p99_during_scans_us(redis, measure)),
    }
    ratios = {name: [] for name in big}
    with machines_of_their_own(first=[rig.roma], last=[slow_roma, redis]) as path:
        for turn in range(BYSTANDER_TURNS):
            say(f"a bystander, turn {turn + 1} of {BYSTANDER_TURNS}")
            for name, (asked, p99_us) in big.items():
                def measure(asked=asked):
                    return unrelated_p99_us(rig, asked, BYSTANDERS, path)

                asked.wait_gauge("connections", 0)  # of those before
                quiet_us = measure()
                busy_us = p99_us(measure)
                ratios[name].append(busy_us / quiet_us)
                say(f"p99 {quiet_us:.0f} us alone, {busy_us:.0f} us beside: {name}")
    for name, got in ratios.items():
        report(f"bystander.{name}_p99_ratio", statistics.median(got), "ratio")


# --- failover -------------------------------------------------------------------------------

FAILOVER_PLAYERS = 1000


def bench_failover(rig):
    """From a node's registration in etcd to its first tunnel, and from a node's death to the last
    of 1,000 tunnels opened anew on another."""
    etcd = rig.add(Etcd())
    gateway = rig.add_gateway("etcd", merged(etcd_settings(*etcd.endpoints), {
        "tunnel": {"backoff": "5ms", "backoff_max": "5ms"}}), nodes=[])
    wait_for(lambda: gateway.link("etcd")["state"] == "watching", "etcd to be watched")
    first, again = [], []
    for turn in range(TURNS):
        say(f"a node comes and dies, turn {turn + 1} of {TURNS}")
        color = f"{COLOR}{turn}"
        node, other = rig.add(Roma()), rig.add(Roma())
        with gateway.player(uid=900000 + turn, color=color) as player:
            player.send(1, 1)  # waits for a node to come
            started = time.monotonic()
            etcd.register(node.address, color=color)
            player.receive()
            first.append((time.monotonic() - started) * 1000)
        command = [os.path.join(BIN, "janus-bench"), "idle", "--json", "--connect",
                   ":".join(map(str, gateway.address)), "--keys", rig.key_directory,
                   "--color", color, "--clients", str(FAILOVER_PLAYERS)]
        players = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if not players.stdout.readline():
            sys.exit("bench: the players did not come in")
        etcd.register(other.address, color=color)
        wait_for(lambda: other.address in gateway.nodes(), "the other node")
        before = gateway.counter("tunnels_reopened")
        started = time.monotonic()
        node.kill()
        while gateway.counter("tunnels_reopened") < before + FAILOVER_PLAYERS:
            if time.monotonic() > started + 60:
                sys.exit("bench: the tunnels were not opened anew")
        again.append((time.monotonic() - started) * 1000)
        players.stdin.close()
        players.wait(60)
        other.kill()
    report("failover.first_tunnel_ms", statistics.median(first), "ms")
    report("failover.reopen_1000_ms", statistics.median(again), "ms")


# --- trace ----------------------------------------------------------------------------------

TRACE_TURNS = 11
PLAIN = os.path.join(os.path.dirname(BIN), "..", "plain", "bin")


class PlainGateway(QuietGateway):
    """Built without tracing."""

    def start(self):
        Program.__init__(self, [os.path.join(PLAIN, "janusd"), "-c", self.config_path])
        self.await_workers()


def bench_trace(rig):
    from janus.otlp_receiver import OtlpReceiver
    receiver = OtlpReceiver()
    one_percent = {"trace": {"endpoint": receiver.url, "sampler": "traceidratio", "ratio": "0.01"}}
    gateways = {"plain": rig.add_gateway("plain", kind=PlainGateway),
                "off": rig.add_gateway("off"), "one_percent": rig.add_gateway("one", one_percent)}
    names = list(gateways)
    turns = {name: [] for name in names}
    for turn in range(TRACE_TURNS):
        say(f"round trips with and without tracing, turn {turn + 1} of {TRACE_TURNS}")
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            turns[name].append(rig.load("roundtrip", "--clients", str(CLIENTS), "--size", str(SIZE),
                                        "--duration", "1500ms", "--warmup", "500ms",
                                        gateway=gateways[name])["cpu_us"])
        say(", ".join(f"{name} {results[-1]:.2f} us" for name, results in turns.items()))
    for name in ("off", "one_percent"):
        report(f"trace.{name}_ratio", statistics.median(
            ours / plain for ours, plain in zip(turns[name], turns["plain"])), "ratio")
    receiver.stop()


# --- scrape -----------------------------------------------------------------------------------

SCRAPE_SESSIONS = 15000
SCRAPES = 50


def bench_scrape(rig):
    """What a scrape of a gateway with many sessions takes, from the request to the last byte."""
    gateway = rig.add_gateway("scraped")
    url = "tcp://" + ":".join(map(str, gateway.address))
    say(f"{SCRAPE_SESSIONS} players log in and say nothing more")
    holders = []
    try:
        for part in range(2):  # a process may have no more than 20,000 descriptors
            holder = subprocess.Popen(
                [os.path.join(BIN, "janus-bench"), "idle", "--json", "--connect", url, "--keys",
                 rig.key_directory, "--color", COLOR, "--clients", str(SCRAPE_SESSIONS // 2),
                 "--source", "127.0.0.1-8", "--uid", str(5000000 + part * 1000000)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            holders.append(holder)
            if not holder.stdout.readline():
                sys.exit("bench: the idle players did not come in")
        if gateway.gauge("sessions") < SCRAPE_SESSIONS:
            sys.exit("bench: not all of the players are there")
        host, port = gateway.listener("http")
        connection = http.client.HTTPConnection(host, port, timeout=30)
        took, cpu_before = [], cpu_seconds(gateway.worker_pids().values())
        for _ in range(SCRAPES):
            begun = time.monotonic()
            connection.request("GET", "/metrics")
            page = connection.getresponse().read()
            took.append((time.monotonic() - begun) * 1000)
        say(f"a page of {len(page)} bytes; the workers' CPU meanwhile: "
            f"{(cpu_seconds(gateway.worker_pids().values()) - cpu_before) * 1000:.0f} ms")
        report("scrape_15k.ms", statistics.median(took), "ms")
        report("scrape_15k.max_ms", max(took), "ms")
    finally:
        for holder in holders:
            holder.stdin.close()
            holder.wait(60)


# --- scale ------------------------------------------------------------------------------------

SCALE_STEPS = (1000, 5000, 10000, 15000)
SCALE_STEP_S = 20
SCALE_HOLD_S = float(os.environ.get("SCALE_HOLD_S", SCALE_STEP_S))  # of the last step
SCALE_HEARTBEAT_S = 10  # between two of one player


def exact_cpu_seconds(pids):
    """To the nanosecond, where cpu_seconds has the clock's ticks of 10 ms."""
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as schedstat:
                total += int(schedstat.read().split()[0])
    return total / 1e9


def worker_memory(gateway):
    """The workers' RSS and PSS in bytes."""
    rss = pss = 0
    for pid in gateway.worker_pids().values():
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            fields = {line.split()[0]: line.split()[1] for line in rollup if ":" in line}
        rss += int(fields["Rss:"]) * 1024
        pss += int(fields["Pss:"]) * 1024
    return {"rss": rss, "pss": pss}


def kernel_memory():
    """What the kernel has allocated for itself, sockets above all; of the whole machine."""
    with open("/proc/meminfo") as meminfo:
        fields = {line.split()[0]: int(line.split()[1]) for line in meminfo}
    return (fields["Slab:"] + fields["KernelStack:"]) * 1024


class Held:
    """Logged-in players with a tunnel each, who send heartbeats and nothing else."""

    def __init__(self, rig, gateway, count, first_uid):
        command = [os.path.join(BIN, "janus-bench"), "idle", "--json", "--connect",
                   ":".join(map(str, gateway.address)), "--keys", rig.key_directory, "--color",
                   COLOR, "--clients", str(count), "--uid", str(first_uid), "--source",
                   "127.0.0.1-8", "--heartbeat", f"{SCALE_HEARTBEAT_S}s", "--warmup", "0s"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self.process.stdout.readline()
        if not line or json.loads(line)["clients"] < count:
            sys.exit("bench: not all of the players came in")

    def result(self):
        self.process.stdin.close()
        text = self.process.stdout.read()
        self.process.wait(60)
        return json.loads(text.splitlines()[-1])


def scale_figures(gateway, seconds):
    """What the gateway uses over so many seconds, and holds at their end."""
    workers = list(gateway.worker_pids().values())
    everyone = gateway.session_pids()
    begun, used, used_by_all = (time.monotonic(), exact_cpu_seconds(workers),
                                exact_cpu_seconds(everyone))
    time.sleep(seconds)  # the time is what is measured
    spent = time.monotonic() - begun
    if list(gateway.worker_pids().values()) != workers:
        sys.exit("bench: a worker died")
    return {"cpu_percent": 100 * (exact_cpu_seconds(workers) - used) / spent,
            "cpu_percent_of_all": 100 * (exact_cpu_seconds(everyone) - used_by_all) / spent,
            **worker_memory(gateway), "all_pss": resident_bytes(gateway),
            "kernel": kernel_memory()}


def bench_scale(rig):
    """How CPU and memory grow with players who are there."""
    gateway = rig.add_gateway("scale", {"limits": {"idle_timeout": f"{SCALE_HEARTBEAT_S * 6}s"}})
    # One message through each worker first, so that what is paid once is not counted.
    rig.load("roundtrip", "--clients", "50", "--duration", "1s", "--warmup", "0s", gateway=gateway)
    time.sleep(2)
    empty = scale_figures(gateway, SCALE_STEP_S)
    holders, steps, before = [], {}, 0
    try:
        for players in SCALE_STEPS:
            holders.append(Held(rig, gateway, players - before, 5000000 + before))
            before = players
            time.sleep(SCALE_HEARTBEAT_S)  # every player's first one, and what logins left behind
            last = players == SCALE_STEPS[-1]
            at_first = worker_memory(gateway)["pss"]
            say(f"{players} players for {SCALE_HOLD_S if last else SCALE_STEP_S:.0f} s")
            steps[players] = scale_figures(gateway, SCALE_HOLD_S if last else SCALE_STEP_S)
            for what in ("sessions", "tunnels"):
                if gateway.gauge(what) != players:
                    sys.exit(f"bench: {gateway.gauge(what)} {what} in place of {players}")
            say(", ".join(f"{name} {value:.4g}" for name, value in steps[players].items()))
    finally:
        results = [holder.result() for holder in holders]
    lost = sum(result["lost"] + result["failed"] for result in results)
    if lost:
        sys.exit(f"bench: {lost:.0f} players were lost")

    def each(players, name):
        return (steps[players][name] - empty[name]) / players

    for players, figures in steps.items():
        report(f"scale.{players}.cpu_percent", figures["cpu_percent"], "%")
        report(f"scale.{players}.rss_mib", figures["rss"] / (1 << 20), "MiB")
        report(f"scale.{players}.pss_mib", figures["pss"] / (1 << 20), "MiB")
        report(f"scale.{players}.cpu_us_per_heartbeat",
               each(players, "cpu_percent") * 1e4 * SCALE_HEARTBEAT_S, "us")
        report(f"scale.{players}.player_bytes", each(players, "all_pss"), "bytes")
    most = SCALE_STEPS[-1]
    report("scale.empty.cpu_percent", empty["cpu_percent"], "%")
    report("scale.empty.pss_mib", empty["pss"] / (1 << 20), "MiB")
    # The load generator's sockets, and what else the machine does, are in this one.
    report("scale.kernel_bytes_per_player_with_clients", each(most, "kernel"), "bytes")
    report("scale.held_s", SCALE_HOLD_S, "s")
    report("scale.hold_growth", steps[most]["pss"] / at_first, "ratio")
    for name in ("heartbeats", "heartbeats_late"):
        report(f"scale.{name}", sum(result[name] for result in results), "heartbeats")
    # What one of many costs, to what one of few does. 1: it grows as the players do; less: with
    # few of them each message wakes a worker for itself.
    for few in SCALE_STEPS[:2]:
        for name, text in (("cpu_percent", "cpu"), ("rss", "rss"), ("all_pss", "pss")):
            report(f"scale.linearity_{text}.{most}_to_{few}",
                   each(most, name) / each(few, name), "ratio")


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


GROUPS = {"roundtrip": bench_roundtrip, "transport": bench_transport, "kcp": bench_kcp,
          "login": bench_login, "idle": bench_idle, "route": bench_route, "failover": bench_failover,
          "broadcast": bench_broadcast, "push": bench_push,
          "bystander": bench_bystander, "trace": bench_trace, "scrape": bench_scrape,
          "scale": bench_scale}


def main():
    chosen = sys.argv[1].split(",") if len(sys.argv) > 1 and sys.argv[1] else list(GROUPS)
    for name in chosen:
        if name not in GROUPS:
            sys.exit(f"bench: no group {name!r}; there are {', '.join(GROUPS)}")
    for name in chosen:
        # Each group begins with a gateway that nothing has been through.
        with tempfile.TemporaryDirectory(prefix="janus-bench-") as directory:
            rig = Rig(directory)
            try:
                rig.start()
                GROUPS[name](rig)
            finally:
                rig.stop()


if __name__ == "__main__":
    main()
