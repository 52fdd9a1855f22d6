"""What a scrape of a gateway with many sessions takes, from the request to the last byte: it comes
every few seconds as long as the gateway runs."""

import http.client
import os
import statistics
import subprocess
import sys
import time

from janus.programs import BIN
from rig import COLOR, report, say
from usage import cpu_seconds

SCRAPE_SESSIONS = 15000
SCRAPES = 50


def bench_scrape(rig):
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
