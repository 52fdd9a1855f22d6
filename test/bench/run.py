#!/usr/bin/python3
"""Measures the gateway and prints `BENCH name value unit` lines.

    make bench [ONLY=group[,group]]

Groups: roundtrip, transport, kcp, login, idle, route, failover, broadcast, push, bystander, trace,
scrape, scale (SCALE_HOLD_S=600 in the environment holds its last step for 10 minutes).
Each is in the file of its name, which says what is measured against what (trace in tracing.py:
Python has a module trace itself).

Whatever is compared is measured in turns within one run, and the medians of the turns are printed;
so a ratio holds on a busy machine too, where an absolute figure does not. Progress goes to
standard error.
"""

import os
import sys
import tempfile

# The groups use what the system tests have: programs, servers, a client.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))

from broadcast import bench_broadcast  # noqa: E402
from bystander import bench_bystander  # noqa: E402
from failover import bench_failover  # noqa: E402
from idle import bench_idle  # noqa: E402
from kcp import bench_kcp  # noqa: E402
from login import bench_login  # noqa: E402
from push import bench_push  # noqa: E402
from rig import Rig  # noqa: E402
from roundtrip import bench_roundtrip  # noqa: E402
from route import bench_route  # noqa: E402
from scale import bench_scale  # noqa: E402
from scrape import bench_scrape  # noqa: E402
from tracing import bench_trace  # noqa: E402
from transport import bench_transport  # noqa: E402

GROUPS = {
    "roundtrip": bench_roundtrip,
    "transport": bench_transport,
    "kcp": bench_kcp,
    "login": bench_login,
    "idle": bench_idle,
    "route": bench_route,
    "failover": bench_failover,
    "broadcast": bench_broadcast,
    "push": bench_push,
    "bystander": bench_bystander,
    "trace": bench_trace,
    "scrape": bench_scrape,
    "scale": bench_scale,
}


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
