"""A look-up in a table of 1,000,000 routes, alone and beside updates. One read at random of as much
memory is compared with it, since a look-up can't do with less."""

import statistics

from figures import median, report, say
from rig import TURNS


def bench_route(rig):
    results = []
    for turn in range(TURNS):
        say(f"look-ups in a table of 1,000,000 routes, turn {turn + 1} of {TURNS}")
        results.append(rig.load("routes", "--duration", "6s", gateway=False))
    report("route.lookup_ns", median(results, "lookup_ns"), "ns")
    report("route.memory_ns", median(results, "memory_ns"), "ns")
    report("route.lookup_to_memory_ratio", statistics.median(
        result["lookup_ns"] / result["memory_ns"] for result in results), "ratio")
    report("route.lookup_busy_ratio", median(results, "busy_ratio"), "ratio")
    report("route.table_mib", median(results, "bytes") / (1 << 20), "MiB")
