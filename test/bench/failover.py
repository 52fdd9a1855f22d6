"""How soon a node that comes or goes matters to players: from its registration in etcd to its first
tunnel, and from its death to the last of 1,000 tunnels opened anew on another."""

import statistics
import sys
import time

from figures import report, say
from janus.etcd_server import Etcd
from janus.patience import wait_for
from janus.programs import Roma, etcd_settings, merged
from players import IdlePlayers
from rig import COLOR, TURNS, address_of

FAILOVER_PLAYERS = 1000


def bench_failover(rig):
    etcd = rig.add(Etcd())
    gateway = rig.add_gateway("etcd", merged(etcd_settings(*etcd.endpoints), {
        "tunnel": {"backoff": "5ms", "backoff_max": "5ms"}}), nodes=[])
    wait_for(lambda: gateway.link("etcd")["state"] == "watching", "etcd to be watched")
    first, again = [], []
    for turn in range(TURNS):
        say(f"a node comes and dies, turn {turn + 1} of {TURNS}")
        color = f"{COLOR}{turn}"
        node, other = rig.add(Roma()), rig.add(Roma())
        with gateway.player(uid=900000 + turn, color=color) as player:
            player.send(1, 1)  # waits for a node to come
            started = time.monotonic()
            etcd.register(node.address, color=color)
            player.receive()
            first.append((time.monotonic() - started) * 1000)
        with IdlePlayers(rig, address_of(gateway), FAILOVER_PLAYERS, color=color):
            etcd.register(other.address, color=color)
            wait_for(lambda: other.address in gateway.nodes(), "the other node")
            before = gateway.counter("tunnels_reopened")
            started = time.monotonic()
            node.kill()
            while gateway.counter("tunnels_reopened") < before + FAILOVER_PLAYERS:
                if time.monotonic() > started + 60:
                    sys.exit("bench: the tunnels were not opened anew")
            again.append((time.monotonic() - started) * 1000)
        other.kill()
    report("failover.first_tunnel_ms", statistics.median(first), "ms")
    report("failover.reopen_1000_ms", statistics.median(again), "ms")
