"""What keeps a player of KCP in, and what breaks one connection alone."""

import socket
import struct

import pytest
from janus.kcp import Bridge
from janus.patience import ms, patient, wait_for
from janus.programs import Gateway, nodes_of
from test_drain import works


def test_signs_of_life_of_the_connection_keep_no_player_in(start, backend):
    """The connection's NOPs and another stream's messages are none of a player who is silent."""
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"limits": {"idle_timeout": f"{ms(1.5)}ms"}})
    bridge = start(Bridge, gateway, keepalive="100ms", keepalive_timeout="10s")
    with bridge.player(47001, session="a") as silent, bridge.player(47002, session="a") as player:
        def talks_until_the_other_is_gone():
            works(player)
            return gateway.closed("idle_timeout") == 1
        wait_for(talks_until_the_other_is_gone, "the silent one to be closed")
        silent.receive_end()
        assert not silent.reset
        works(player)


SYN = struct.pack("<BBHI", 2, 0, 0, 3)


def datagram(conv, sn, payload):
    """Plain KCP: one segment."""
    return struct.pack("<IBBHIIII", conv, 81, 0, 128, 0, sn, 0, len(payload)) + payload


@pytest.mark.parametrize("frame", [
    struct.pack("<BBHI", 1, 0, 0, 5),             # version 1
    struct.pack("<BBHI", 2, 5, 0, 5),             # command 5
    struct.pack("<BBHI", 2, 0, 1, 5) + b"x",      # SYN with a payload
    struct.pack("<BBHI", 2, 4, 4, 3) + bytes(4),  # UPD of another length
])
def test_a_connection_that_breaks_smux_is_ended_and_no_other(gateway, backend, start, frame):
    bridge = start(Bridge, gateway)
    with bridge.player(47003) as player, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(patient(10))
        stranger.connect(gateway.listener("kcp"))
        with gateway.closes("smux_malformed", others_open=1):
            stranger.send(datagram(7, 0, SYN))
            assert stranger.recv(2048)  # it is there
            stranger.send(datagram(7, 1, frame))
        gateway.wait_gauge("connections", 1)
        works(player)
