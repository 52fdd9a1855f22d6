"""A client over KCP whose address changes: at an end, unless kcp.roaming is on."""

import socket
import struct

import pytest
from janus import wire
from janus.kcp import Bridge
from janus.patience import wait_for
from janus.programs import Gateway, nodes_of
from test_drain import works

SHORT = {"keepalive_interval": "200ms", "keepalive_timeout": "1s"}


def roaming_gateway(start, backend, roaming=True, **worker):
    return start(Gateway, nodes=nodes_of(backend.address),
                 settings={"kcp": {"roaming": roaming}, "worker": {"count": 1, **worker}})


def test_without_roaming_another_address_is_the_end(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"kcp": SHORT, "worker": {"count": 1}})
    bridge = start(Bridge, gateway, keepalive="200ms", keepalive_timeout="1s")
    with bridge.player(42001, session="a") as player:
        works(player)
        bridge.rebind("a")
        assert player.receive() is None
        wait_for(lambda: gateway.closed("kcp_silent") == 1, "the gateway to notice")
        assert gateway.counter("kcp_roamed") == 0


def test_a_player_goes_on_from_another_address(start, backend):
    gateway = roaming_gateway(start, backend)
    bridge = start(Bridge, gateway)
    with bridge.player(42002, session="a") as first, bridge.player(42002, session="a") as second:
        works(first)
        for moves in range(1, 4):
            moved = bridge.rebind("a")
            assert moved != first.local
            works(first, b"from elsewhere")
            works(second, b"a sibling too")
            assert gateway.counter("kcp_roamed") == moves
        # One stream, one tunnel, and no login again.
        assert gateway.counter("logins") == 2
        assert gateway.gauge("sessions") == 2
    wait_for(lambda: gateway.gauge("connections") == 0, "the connection to end")


def test_it_is_found_by_whichever_worker_the_new_address_comes_to(start, backend):
    gateway = roaming_gateway(start, backend, count=3)
    bridge = start(Bridge, gateway)
    with bridge.player(42003, session="a") as player:
        while gateway.counter("kcp_handed_in") == 0:
            bridge.rebind("a")
            works(player, b"from elsewhere")
        moves = gateway.counter("kcp_roamed")
        works(player, b"and there it stays")
        assert gateway.counter("kcp_roamed") == moves


def datagram(conv, sn, frame, stream=3):
    """Plain KCP: one segment with one smux frame that holds a message."""
    payload = struct.pack("<BBHI", 2, 2, len(frame), stream) + frame
    return struct.pack("<IBBHIIII", conv, 81, 0, 128, 0, sn, 0, len(payload)) + payload


def talk(player):
    """Until what comes next can be no beginning any more."""
    for _ in range(20):
        works(player)


@pytest.mark.parametrize("what", ["recorded", "forged", "not sealed"])
def test_nobody_else_can_move_it(start, backend, what):
    """Who knows the conv, the window and an old message, or makes one up, moves nothing."""
    gateway = roaming_gateway(start, backend)
    bridge = start(Bridge, gateway)
    with bridge.player(42004, session="a") as player:
        packet = player.packet(wire.USER, 1, b"hello").encode()
        recorded = wire.frame(wire.seal(player.session_key, packet))
        player.send_raw(recorded)
        assert player.receive().data == b"hello"
        talk(player)
        frame = {"recorded": recorded, "forged": wire.frame(bytes(60)),
                 "not sealed": wire.frame(player.packet(wire.USER, 1, b"x", index=player.index)
                                             .encode())}[what]
        expected = gateway.ctl("session", "42004")["path"]["segments_in"]
        dropped = gateway.counter("kcp_dropped_unknown")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            # From just behind what has come to the end of what may come.
            for sn in range(expected - 2, expected + 100):
                stranger.sendto(datagram(player.conv, sn, frame), gateway.listener("kcp"))
        gateway.wait_counter("kcp_dropped_unknown", dropped + 1)
        works(player)
        assert gateway.counter("kcp_roamed") == 0


def test_who_has_the_key_and_the_next_index_moves_it(start, backend):
    """What the test before would do, if it could."""
    gateway = roaming_gateway(start, backend)
    bridge = start(Bridge, gateway)
    with bridge.player(42005, session="a") as player:
        talk(player)
        frame = wire.frame(wire.seal(player.session_key, player.packet(wire.USER, 1, b"x")
                                     .encode()))
        expected = gateway.ctl("session", "42005")["path"]["segments_in"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for sn in range(expected - 2, expected + 3):
                stranger.sendto(datagram(player.conv, sn, frame), gateway.listener("kcp"))
            gateway.wait_counter("kcp_roamed", 1)
