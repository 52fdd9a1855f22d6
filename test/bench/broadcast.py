"""A broadcast to 10,000 players: the CPU for each delivery, the time until the last one, and how
much longer another player's round trips take meanwhile.

A server that does nothing but the bare sends is measured beside it: these are the kernel's work,
which no gateway is spared."""

import http.client
import json
import os
import signal
import socket
import statistics
import sys
import threading

from figures import median, median_ratio, report, say
from janus.programs import BIN, Program
from janus.push import json_body
from players import Crowd, players_of
from rig import SIZE, TURN_S, TURNS, entrances_of, free_port

BROADCAST_PLAYERS = 10000
SEALED_EXTRA = 42  # bytes by which a sealed message of SIZE is longer than its data


def start_fan_server(rig):
    """What the bare sends of a broadcast cost: a server that does nothing else."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    server = rig.add(Program(
        [os.path.join(BIN, "janus-bench"), "fan-server", "--connect", address]))
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
    report("broadcast.deliveries_per_s_core", 1e6 / median(results, "cpu_us"), "1/s")
    report("broadcast.bare_sends_per_s_core", 1e6 / median(bare_results, "cpu_us"), "1/s")
    report("broadcast.ratio_to_bare_sends", median_ratio(results, bare_results, "cpu_us"), "ratio")
    report("broadcast.last_ms", median(results, "last_ms"), "ms")
    report("broadcast.p99_ratio", statistics.median(ratios), "ratio")
    report("broadcast.p99_ratio_beside_bare_sends", statistics.median(bare_ratios), "ratio")
