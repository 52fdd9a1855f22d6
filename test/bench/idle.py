"""The memory that a player takes who is logged in, has a tunnel and says nothing, to what one takes
in a gateway of the ecosystem's Go layers, which is what one would have otherwise."""

import sys

from figures import report, say
from janus.grpc_go import GoGate
from players import IdlePlayers
from rig import address_of, start_go_gate
from usage import memory_bytes

IDLE_PLAYERS = 10000


def open_tunnels(gateway):
    """After which nothing is kept that could be given back: Go's runtime does that at leisure."""
    return gateway.settle() if isinstance(gateway, GoGate) else gateway.gauge("tunnels")


def idle_player_bytes(rig, gateway, url, players, *arguments):
    """What each of so many costs a gateway that has served nobody yet."""
    # One message through each worker first, so that what is paid once is not counted.
    rig.load("roundtrip", "--clients", "50", "--duration", "1s", "--warmup", "0s", *arguments,
             gateway=gateway, url=url)
    open_tunnels(gateway)
    before = memory_bytes(gateway.session_pids())["pss"]
    say(f"{players} players log in over {url} and say nothing more")
    with IdlePlayers(rig, url, players, *arguments):
        tunnels = open_tunnels(gateway)
        held = memory_bytes(gateway.session_pids())["pss"] - before
    if tunnels < players:
        sys.exit(f"bench: only {tunnels} of {players} players have a tunnel")
    return held / players


def bench_idle(rig):
    url = "tcp://" + address_of(rig.gateway)
    ours = idle_player_bytes(rig, rig.gateway, url, IDLE_PLAYERS)
    report("idle_player.bytes", ours, "bytes")
    go_gate = start_go_gate(rig)
    if go_gate:
        url = "tcp://" + address_of(go_gate)
        theirs = idle_player_bytes(rig, go_gate, url, IDLE_PLAYERS)
        report("idle_player.go_bytes", theirs, "bytes")
        report("idle_player.ratio_to_go", ours / theirs, "ratio")
