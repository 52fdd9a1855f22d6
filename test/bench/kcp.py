"""KCP beside TCP: the CPU for a round trip, with FEC and without; the time of one on a line that
loses, for which players have KCP; and what idle players take, since KCP has timers for each.

The ecosystem's stack in Go does the same round trips, for what KCP itself has to cost."""

import sys
import time

from figures import median, median_ratio, report, rotated, say
from idle import IDLE_PLAYERS, idle_player_bytes
from janus.go import NoGo, program
from janus.kcp import KcpEcho, behind, no_path
from players import IdlePlayers
from rig import CLIENTS, SIZE
from usage import cpu_seconds

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
        for name in rotated(names, turn):
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
               median(results, "cpu_us"), "us")
    report("kcp.cpu_ratio", median_ratio(turns["kcp"], turns["tcp"], "cpu_us"), "ratio")
    report("kcp.nofec_cpu_ratio", median_ratio(turns["nofec"], turns["tcp"], "cpu_us"), "ratio")
    if echo:
        report("kcp.cpu_ratio_to_go", median_ratio(turns["kcp"], turns["go"], "cpu_us"), "ratio")
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
        report(f"kcp.loss_{name}_p99_ms", median(results, "p99_us") / 1000, "ms")
    report("kcp.loss_p99_ratio", median_ratio(turns["kcp"], turns["tcp"], "p99_us"), "ratio")
    gateway.abandon()


def bench_kcp_idle(rig):
    gateway = rig.add_gateway("kcp-idle")
    held = idle_player_bytes(rig, gateway, kcp_url(gateway), KCP_IDLE_PLAYERS)
    report("kcp.idle.bytes", held, "bytes")
    gateway.abandon()
    gateway = rig.add_gateway("kcp-idle-10k")
    say(f"{IDLE_PLAYERS} players log in over KCP and say nothing more for {KCP_IDLE_S} s")
    with IdlePlayers(rig, kcp_url(gateway), IDLE_PLAYERS):
        time.sleep(3)  # what the logins left behind
        used, begun = cpu_seconds(gateway.worker_pids().values()), time.monotonic()
        time.sleep(KCP_IDLE_S)
        used = cpu_seconds(gateway.worker_pids().values()) - used
        percent = 100 * used / (time.monotonic() - begun)
        if gateway.gauge("sessions") < IDLE_PLAYERS:
            sys.exit("bench: not all of the idle players are there any more")
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
