"""How CPU and memory grow with players who are there, each with a tunnel and a heartbeat.

What one of many takes is compared with what one of few does; and the memory at the end of the last
step with that at its beginning, which shows a leak."""

import os
import sys
import time

from figures import report, say
from players import IdlePlayers
from rig import address_of
from usage import cpu_seconds, memory_bytes

SCALE_STEPS = (1000, 5000, 10000, 15000)
SCALE_STEP_S = 20
SCALE_HOLD_S = float(os.environ.get("SCALE_HOLD_S", SCALE_STEP_S))  # of the last step
SCALE_HEARTBEAT_S = 10  # between two of one player


def kernel_memory():
    """What the kernel has allocated for itself, sockets above all; of the whole machine."""
    with open("/proc/meminfo") as meminfo:
        fields = {line.split()[0]: int(line.split()[1]) for line in meminfo}
    return (fields["Slab:"] + fields["KernelStack:"]) * 1024


def scale_figures(gateway, seconds):
    """What the gateway uses over so many seconds, and holds at their end."""
    workers = list(gateway.worker_pids().values())
    everyone = gateway.session_pids()
    begun, used, used_by_all = time.monotonic(), cpu_seconds(workers), cpu_seconds(everyone)
    time.sleep(seconds)  # the time is what is measured
    spent = time.monotonic() - begun
    if list(gateway.worker_pids().values()) != workers:
        sys.exit("bench: a worker died")
    return {"cpu_percent": 100 * (cpu_seconds(workers) - used) / spent,
            "cpu_percent_of_all": 100 * (cpu_seconds(everyone) - used_by_all) / spent,
            **memory_bytes(workers), "kernel": kernel_memory(),
            "all_pss": memory_bytes(gateway.session_pids())["pss"]}


def bench_scale(rig):
    gateway = rig.add_gateway("scale", {"limits": {"idle_timeout": f"{SCALE_HEARTBEAT_S * 6}s"}})
    # One message through each worker first, so that what is paid once is not counted.
    rig.load("roundtrip", "--clients", "50", "--duration", "1s", "--warmup", "0s", gateway=gateway)
    time.sleep(2)
    empty = scale_figures(gateway, SCALE_STEP_S)
    holders, steps, before = [], {}, 0
    try:
        for players in SCALE_STEPS:
            holders.append(IdlePlayers(
                rig, address_of(gateway), players - before, "--heartbeat", f"{SCALE_HEARTBEAT_S}s",
                "--warmup", "0s", first_uid=5000000 + before))
            before = players
            time.sleep(SCALE_HEARTBEAT_S)  # every player's first one, and what logins left behind
            last = players == SCALE_STEPS[-1]
            at_first = memory_bytes(gateway.worker_pids().values())["pss"]
            say(f"{players} players for {SCALE_HOLD_S if last else SCALE_STEP_S:.0f} s")
            steps[players] = scale_figures(gateway, SCALE_HOLD_S if last else SCALE_STEP_S)
            for what in ("sessions", "tunnels"):
                if gateway.gauge(what) != players:
                    sys.exit(f"bench: {gateway.gauge(what)} {what} in place of {players}")
            say(", ".join(f"{name} {value:.4g}" for name, value in steps[players].items()))
    finally:
        results = [holder.end() for holder in holders]
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
