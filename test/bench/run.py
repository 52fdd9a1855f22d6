#!/usr/bin/python3
"""Measures the gateway and prints `BENCH name value unit` lines.

    make bench [ONLY=group[,group]]

Groups: roundtrip, login, idle. Whatever is compared is measured in turns within one run, and
the medians of the turns are printed; so a ratio holds on a busy machine too, where an absolute
figure does not. Progress goes to standard error.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "system"))

from cryptography.hazmat.primitives import serialization  # noqa: E402
from janus import wire  # noqa: E402
from janus.programs import BIN, Gateway, Program, Roma, nodes_of, write_file  # noqa: E402

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
        from janus.patience import wait_for

        def running():
            if not os.path.exists(self.socket_path):
                return False
            status = self.ctl("status")
            return status["workers"]["running"] == WORKERS and status

        status = wait_for(running, "the workers to run", 30)
        host, _, port = status["listeners"][0]["address"].rpartition(":")
        self.address = (host, int(port))


class Rig:
    """The gateway and its backend, with keys for the load generator."""

    def __init__(self, directory):
        self.directory = directory
        self.programs = []

    def start(self):
        keys = wire.Keys()
        self.roma = self.add(Roma())
        self.gateway = self.add(QuietGateway(
            self.directory, keys, [dict(node, color=COLOR) for node in nodes_of(self.roma.address)],
            settings=SETTINGS))
        write_file(os.path.join(self.directory, "client.key"), keys.client.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()).decode())

    def add(self, program):
        self.programs.append(program)
        return program

    def stop(self):
        for program in reversed(self.programs):
            program.kill()
            for pid in program.session_pids():
                os.kill(pid, 9)

    def load(self, kind, *arguments, gateway=True):
        command = [os.path.join(BIN, "janus-bench"), kind, "--json", *arguments]
        if gateway:
            command += ["--connect", ":".join(map(str, self.gateway.address)),
                        "--keys", self.directory, "--color", COLOR,
                        "--pid-tree", str(self.gateway.pid)]
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
    import socket
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


def bench_roundtrip(rig):
    haproxy_pid, haproxy_address = start_haproxy(rig)
    common = ["--clients", str(CLIENTS), "--size", str(SIZE), "--duration", f"{TURN_S}s",
              "--warmup", "1s"]
    turns = {"roundtrip_128": [], "haproxy_128": [], "direct_128": []}
    for turn in range(TURNS):
        say(f"round trips, turn {turn + 1} of {TURNS}")
        turns["roundtrip_128"].append(rig.load("roundtrip", *common))
        turns["haproxy_128"].append(rig.load(
            "roundtrip", "--plain", "--connect", haproxy_address, "--pid-tree", str(haproxy_pid),
            *common, gateway=False))
        turns["direct_128"].append(rig.load(
            "direct", "--connect", rig.roma.address, *common, gateway=False))
        say(", ".join(f"{name} {results[-1].get('cpu_us', 0):.1f} us" for name, results in
                      turns.items() if name != "direct_128") + " of CPU for each")
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


# --- login ----------------------------------------------------------------------------------


def bench_login(rig):
    results = []
    for turn in range(TURNS):
        say(f"logins, turn {turn + 1} of {TURNS}")
        results.append(rig.load("login", "--duration", f"{TURN_S}s", "--warmup", "1s"))
    report("login.per_s", statistics.median(r["logins_per_s"] for r in results), "1/s")
    report("login.cpu_us", statistics.median(r["cpu_us"] for r in results), "us")


# --- idle -----------------------------------------------------------------------------------


def resident_bytes(gateway):
    """What all processes of the gateway hold; a page they share counts once (PSS)."""
    total = 0
    for pid in gateway.session_pids():
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total * 1024


def bench_idle(rig):
    # One message through each worker first, so that what is paid once is not counted.
    rig.load("roundtrip", "--clients", "50", "--duration", "1s", "--warmup", "0s")
    before = resident_bytes(rig.gateway)
    say(f"{IDLE_PLAYERS} players log in and say nothing more")
    command = [os.path.join(BIN, "janus-bench"), "idle", "--json", "--connect",
               ":".join(map(str, rig.gateway.address)), "--keys", rig.directory, "--color", COLOR,
               "--clients", str(IDLE_PLAYERS), "--source", "127.0.0.1-8", "--uid", "5000000"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    line = holder.stdout.readline()
    if not line:
        sys.exit("bench: the idle players did not come in")
    tunnels = rig.gateway.gauge("tunnels")
    held = resident_bytes(rig.gateway) - before
    holder.stdin.close()
    holder.wait(60)
    if tunnels < IDLE_PLAYERS:
        sys.exit(f"bench: only {tunnels} of {IDLE_PLAYERS} players have a tunnel")
    report("idle_player.bytes", held / IDLE_PLAYERS, "bytes")


GROUPS = {"roundtrip": bench_roundtrip, "login": bench_login, "idle": bench_idle}


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
