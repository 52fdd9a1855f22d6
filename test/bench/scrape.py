"""How long a scrape of a gateway with many sessions takes, from the request to the last byte. It is
compared with nothing: it is what Prometheus waits for, every few seconds."""

import contextlib
import http.client
import statistics
import sys
import time

from figures import report, say
from players import IdlePlayers
from rig import address_of
from usage import cpu_seconds

SCRAPE_SESSIONS = 15000
SCRAPES = 50


def bench_scrape(rig):
    gateway = rig.add_gateway("scraped")
    say(f"{SCRAPE_SESSIONS} players log in and say nothing more")
    with contextlib.ExitStack() as there:
        for part in range(2):  # a process may have no more than 20,000 descriptors
            there.enter_context(IdlePlayers(rig, "tcp://" + address_of(gateway),
                                            SCRAPE_SESSIONS // 2,
                                            first_uid=5000000 + part * 1000000))
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
