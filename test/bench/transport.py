"""What WebSocket, TLS and both take beside plain TCP: the CPU for a round trip, and the memory for
an idle player. Also how many TLS handshakes a core does in a second, full and resumed."""

import os
import sys

from figures import median, median_ratio, report, rotated, say
from idle import idle_player_bytes
from janus.certificates import Certificates
from rig import CLIENTS, SIZE

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
        for name in rotated(names, turn):
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
        report(f"{name}.cpu_us", median(results, "cpu_us"), "us")
    for name in ("ws", "tls", "wss"):
        report(f"{name}.cpu_ratio", median_ratio(turns[name], turns["tcp"], "cpu_us"), "ratio")
    # Of one core of the gateway.
    report("tls.handshakes_per_s", 1e6 / median(full, "cpu_us"), "1/s")
    report("tls.resumed_per_s", 1e6 / median(resumed, "cpu_us"), "1/s")
    gateway.abandon()
    for name in urls:
        gateway, fresh_urls = add_listening_gateway(rig, f"idle-{name}", certificates)
        held = idle_player_bytes(rig, gateway, fresh_urls[name], TRANSPORT_IDLE_PLAYERS, *trust)
        report(f"{name}.idle_kb", held / 1000, "KB")
        gateway.abandon()
