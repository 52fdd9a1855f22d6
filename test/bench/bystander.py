"""How much longer a player's round trips take, at the 99th percentile, while something big is done
for others: long answers are compressed, a broadcast goes out, many log in, all routes are read
anew. Each is compared with the same round trips just before, when nothing of it was done."""

import contextlib
import os
import socket
import statistics
import sys
import threading
import time

from broadcast import broadcast_over, p99_during_broadcasts_us, unrelated_p99_us
from figures import report, say
from janus import wire
from janus.patience import wait_for
from janus.programs import Roma, merged, nodes_of, redis_settings
from janus.redis_server import Redis, player_key
from players import players_of
from rig import COLOR, SIZE, TURN_S, entrances_of

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
