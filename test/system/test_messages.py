"""A player's messages on their way to Roma and back."""

import os
import socket
import time
import zlib

import pytest

from janus import wire
from janus.backend import Backend
from janus.programs import Gateway, node, nodes_of

SETTINGS = {"server": {"grpc": {"advertise": "10.9.8.7:19100"}}}


def test_a_message_arrives_at_roma_with_exactly_its_fields(gateway, backend):
    with gateway.player(32001) as client:
        client.ask(wire.USER, 4, b"hello", data_version=9)
        stream = backend.stream_of(32001)
        expected = wire.TunnelMessage(data=b"hello", data_version=9, obj=32001, mod=3, seq=4, index=1)
        assert stream.raw_requests == [expected.encode()]


def test_an_answer_comes_back_with_exactly_its_fields(gateway, backend):
    with gateway.player(32002) as client:
        client.ask(wire.USER, 1, b"first")
        backend.stream_of(32002).send(mod=5, seq=6, obj=32002, index=17, data=b"news", data_version=3)
        answer = client.receive()
        assert answer.encode() == wire.Packet(
            mod=5, seq=6, obj=32002, index=17, data=b"news", data_version=3).encode()


def test_a_stream_is_opened_with_all_its_metadata(gateway, backend):
    with gateway.player(32003, sid=12) as client:
        client.ask(wire.USER, 1)
        client.ask(wire.ROOM, 1, obj=555)
        player = backend.stream_of(32003).metadata
        room = backend.stream_of(32003, "room").metadata
        referer = player["x-md-global-referer"]
        assert {key: value for key, value in player.items() if key.startswith("x-md-")} == {
            "x-md-global-oid": "32003",
            "x-md-global-uid": "32003",
            "x-md-global-sid": "12",
            "x-md-global-status": "1",
            "x-md-global-color": "blue",
            "x-md-global-client-ip": client.name(),
            "x-md-global-referer": referer,
            "x-md-global-gate-referer": referer,
        }
        address, _, connection = referer.partition("#")
        assert address == "10.9.8.7:19100"
        assert int(connection) > 0
        assert room["x-md-global-oid"] == "555"
        assert room["x-md-global-uid"] == "32003"
        assert room["x-md-global-referer"] == referer


def test_each_connection_has_a_referer_of_its_own(gateway, backend):
    referers = set()
    for uid in range(32010, 32018):
        with gateway.player(uid) as client:
            client.ask(wire.USER, 1)
            referers.add(backend.stream_of(uid).metadata["x-md-global-referer"])
    assert len(referers) == 8


def test_the_tokens_status_reaches_roma(gateway, backend):
    with gateway.player(32020, status=3) as client:
        client.ask(wire.USER, 1)
        assert backend.stream_of(32020).metadata["x-md-global-status"] == "3"


def test_modules_other_than_the_rooms_share_the_player_tunnel(gateway, backend):
    with gateway.player(32021) as client:
        for mod in (1, 2, 3, 4, 5, 7, 1000):
            assert client.ask(mod, 2, b"m").mod == mod
        assert len(backend.streams_of(32021)) == 1


def test_each_room_has_a_tunnel_of_its_own(gateway, backend):
    with gateway.player(32022) as client:
        for room in (41, 42, 41):
            assert client.ask(wire.ROOM, 1, b"r", obj=room).obj == room
        rooms = backend.streams_of(32022, "room")
        assert sorted(len(stream.requests) for stream in rooms) == [1, 2]
        assert backend.streams_of(32022) == []


def test_two_players_in_one_room_have_a_tunnel_each(gateway, backend):
    with gateway.player(32023) as one, gateway.player(32024) as two:
        one.ask(wire.ROOM, 1, obj=77)
        two.ask(wire.ROOM, 1, obj=77)
        assert len(backend.streams_of(oid=77, kind="room")) == 2


def test_fragments_and_conn_id_pass_the_room_tunnel_both_ways(gateway, backend):
    with gateway.player(32025) as client:
        fields = {"conn_id": 4, "frag_id": 5, "frag_count": 3, "frag_index": 1}
        answer = client.ask(wire.ROOM, 1, b"part", obj=9, **fields)
        request = backend.stream_of(32025, "room").requests[0]
        assert {name: getattr(request, name) for name in fields} == fields
        assert {name: getattr(answer, name) for name in fields} == fields


def test_the_player_tunnel_has_no_place_for_fragments(gateway, backend):
    with gateway.player(32026) as client:
        client.ask(wire.USER, 1, b"part", conn_id=4, frag_id=5, frag_count=3, frag_index=1)
        assert backend.stream_of(32026).raw_requests == [
            wire.TunnelMessage(data=b"part", obj=32026, mod=3, seq=1, index=1).encode()]


def test_a_thousand_messages_stay_in_order(gateway, backend):
    with gateway.player(32027) as client:
        for number in range(1000):
            client.send(wire.USER, 1, b"%d" % number)
        assert [client.receive().data for _ in range(1000)] == [b"%d" % n for n in range(1000)]
        assert [m.index for m in backend.stream_of(32027).requests] == list(range(1, 1001))


def test_messages_sent_just_before_leaving_still_arrive(gateway, backend):
    with gateway.player(32028) as client:
        client.ask(wire.USER, 1, b"here")
        for number in range(50):
            client.send(wire.USER, 1, b"%d" % number)
        # To close with answers unread would be a reset, which may overtake what was sent.
        client.socket.shutdown(socket.SHUT_WR)
        client.receive_end()
    stream = backend.stream_of(32028)
    assert stream.ended.wait(30)
    assert [m.data for m in stream.requests[1:]] == [b"%d" % n for n in range(50)]


def test_leaving_ends_the_tunnels(gateway, backend):
    with gateway.player(32029) as client:
        client.ask(wire.USER, 1)
        client.ask(wire.ROOM, 1, obj=3)
        streams = [backend.stream_of(32029), backend.stream_of(32029, "room")]
    for stream in streams:
        assert stream.ended.wait(30)
    gateway.wait_gauge("tunnels", 0)


def test_a_heartbeat_is_a_message_like_any_other(gateway, backend):
    with gateway.player(32030) as client:
        beat = wire.CSHeartbeat(client_time=int(time.time())).encode()
        client.ask(wire.SYSTEM, wire.HEARTBEAT, beat)
        request = backend.stream_of(32030).requests[0]
        assert (request.mod, request.seq, request.data) == (1, 2, beat)


# --- Compression ----------------------------------------------------------------------------


def test_a_compressed_message_reaches_roma_inflated(gateway, backend):
    text = b"the same again and again, " * 500
    with gateway.player(32040) as client:
        client.send(wire.USER, 1, zlib.compress(text), compress=True)
        assert client.receive().data == text
        assert backend.stream_of(32040).requests[0].data == text
    assert gateway.counter("messages_inflated") >= 1


def test_an_answer_is_compressed_from_the_weak_threshold_on(gateway, backend):
    with gateway.player(32041) as client:
        client.ask(wire.USER, 1)
        stream = backend.stream_of(32041)
        for size, compressed in ((10239, False), (10240, True), (100000, True)):
            data = bytes(size)
            stream.send(mod=3, seq=1, data=data)
            packet = client.receive()
            assert packet.compress == compressed
            assert packet.data == data
    assert gateway.counter("messages_deflated") >= 2


def test_the_thresholds_and_levels_are_those_of_the_configuration(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"compress": {"weak": 1000, "strong": 5000}, "worker": {"count": 1}})
    with gateway.player(32042) as client:
        client.ask(wire.USER, 1)
        stream = backend.stream_of(32042)
        for size, header in ((999, None), (1000, b"\x78\x01"), (4999, b"\x78\x01"), (5000, b"\x78\x9c")):
            stream.send(mod=3, seq=1, data=b"ab" * (size // 2) + b"c" * (size % 2))
            packet = client.receive()
            assert (packet.raw_data[:2] if packet.compress else None) == header
            assert len(packet.data) == size


def test_what_comes_behind_a_long_answer_arrives_behind_it(gateway, backend):
    before = gateway.counter("messages_deflated_in_slices")
    with gateway.player(32043) as client, gateway.player(32044) as other:
        client.ask(wire.USER, 1)
        other.ask(wire.USER, 1)
        stream = backend.stream_of(32043)
        expected = []
        for seq, size in enumerate((3000000, 10, 20000, 500000, 12000, 0, 1000000), 100):
            data = b"round and round " * (size // 16)
            stream.send(mod=3, seq=seq, data=data)
            expected.append((seq, data))
        other.ask(wire.USER, 1)
        for seq, data in expected:
            packet = client.receive()
            assert packet.seq == seq
            assert packet.data == data
        client.ask(wire.USER, 1)
    assert gateway.counter("messages_deflated_in_slices") - before >= 4


# --- What can't be delivered ----------------------------------------------------------------


def test_an_answer_too_large_for_a_client_becomes_an_error(gateway, backend):
    before = gateway.counter("messages_too_large")
    with gateway.player(32050) as client:
        client.ask(wire.USER, 1)
        stream = backend.stream_of(32050)
        stream.send(mod=4, seq=8, data=os.urandom(20000))
        error = client.receive_error()
        assert (error.mod, error.seq) == (4, 8)
        stream.send(mod=4, seq=9, data=b"small")
        assert client.receive().data == b"small"
    gateway.wait_counter("messages_too_large", before + 1)
    gateway.wait_log("message_too_large")


def test_the_size_limit_is_judged_on_the_sealed_message(gateway, backend):
    with gateway.player(32051) as client:
        client.ask(wire.USER, 1)
        stream = backend.stream_of(32051)
        # Random data does not shrink; Packet{data, mod, seq} adds 3 + 2 + 2 bytes, a seal 28.
        for size in range(16330, 16390):
            stream.send(mod=4, seq=8, data=os.urandom(size))
        errors = []
        for _ in range(60):
            packet = client.receive()  # asserts that no frame is over 16384 bytes
            errors.append((packet.mod, packet.seq) == (1, 3))
        assert errors == sorted(errors) and True in errors and False in errors
        assert errors.index(True) + 16330 == 16384 - 28 - 7 + 1


def test_a_logout_from_roma_reaches_the_client_and_ends_the_session(gateway, backend):
    for code in (0, 3, 4, 5):
        with gateway.closes("roma_logout"):
            with gateway.player(32060 + code) as client:
                client.ask(wire.USER, 1)
                backend.stream_of(32060 + code).send(
                    mod=1, seq=4, data=wire.SCServerLogout(code=code).encode())
                assert client.receive_end() == code


# --- Configuration alone --------------------------------------------------------------------


def test_a_team_tunnel_is_added_by_configuration_alone(start, backend):
    types = [
        {"name": "player", "service": "roma.player.service",
         "method": "/player.intra.v1.TunnelService/Tunnel", "default": True,
         "own_object_only": True, "main": True},
        {"name": "room", "service": "roma.room.service",
         "method": "/room.intra.v1.TunnelService/Tunnel", "modules": [6], "fragments": True},
        {"name": "team", "service": "roma.team.service",
         "method": "/team.intra.v1.TunnelService/Tunnel", "modules": [7, 70], "fragments": True},
    ]
    gateway = start(Gateway, settings={"tunnel": {"types": types}}, nodes=[
        *nodes_of(backend.address), node(backend.address, "roma.team.service")])
    with gateway.player(32070) as client:
        for mod in (7, 70):
            assert client.ask(mod, 1, b"team", obj=12, frag_id=3).frag_id == 3
        assert client.ask(wire.USER, 1, b"me").data == b"me"
        assert len(backend.stream_of(32070, "team", 12).requests) == 2
        routes = gateway.ctl("routes")["routes"]
        assert {(r["tier"], r["service"], r["oid"]) for r in routes} >= {
            ("object", "roma.team.service", 12), ("player", "roma.player.service", 32070)}


def test_a_player_is_served_by_nodes_of_his_color_only(start, backend):
    green = start(Backend)
    gateway = start(Gateway, nodes=[node(backend.address, color="blue"),
                                    node(green.address, color="green")])
    for uid in range(32080, 32086):
        with gateway.player(uid, color="green") as client:
            client.ask(wire.USER, 1)
            assert green.streams_of(uid) and not backend.streams_of(uid)


def test_nodes_get_players_by_their_weights(start):
    heavy, light = start(Backend), start(Backend)
    gateway = start(Gateway, nodes=[node(heavy.address, weight=300), node(light.address, weight=100)],
                    settings={"worker": {"count": 1}})
    for uid in range(33000, 33016):
        with gateway.player(uid) as client:
            client.ask(wire.USER, 1)
    # Where in its round a worker begins is drawn, so that one more or less is right.
    assert len(heavy.streams) + len(light.streams) == 16
    assert abs(len(light.streams) - 4) <= 1


def test_an_object_lives_on_one_node_whichever_worker_asks(start):
    one, two = start(Backend), start(Backend)
    gateway = start(Gateway, nodes=nodes_of(one.address, two.address))
    clients = [gateway.player(33100 + i) for i in range(8)]
    for client in clients:
        client.ask(wire.ROOM, 1, obj=4711)
    assert sorted(len(b.streams_of(kind="room", oid=4711)) for b in (one, two)) == [0, 8]
    for client in clients:
        client.close()


# --- The stand-in -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roma_gateway(start_module, roma):
    return start_module(Gateway, nodes=nodes_of(roma.address), settings=SETTINGS)


def test_janus_roma_answers_heartbeats(roma_gateway):
    with roma_gateway.player(34001) as client:
        packet = client.ask(wire.SYSTEM, wire.HEARTBEAT,
                            wire.CSHeartbeat(client_time=int(time.time())).encode())
        assert (packet.mod, packet.seq) == (1, 2)
        answer = wire.SCHeartbeat.decode(packet.data)
        assert answer.code == 1
        assert answer.server_time > 0


def dev(client, text):
    """Gives the stand-in a command; returns what it answers."""
    return client.ask(wire.DEV, 1, text.encode())


def test_janus_roma_tells_the_metadata_it_saw(roma_gateway, roma):
    with roma_gateway.player(34002, sid=12) as client:
        lines = dict(line.split("=", 1) for line in dev(client, "who").data.decode().split("\n"))
        assert lines["address"] == roma.address
        assert lines["method"] == "/player.intra.v1.TunnelService/Tunnel"
        assert lines["x-md-global-uid"] == lines["x-md-global-oid"] == "34002"
        assert lines["x-md-global-sid"] == "12"
        assert lines["x-md-global-status"] == "1"
        assert lines["x-md-global-color"] == "blue"
        assert lines["x-md-global-client-ip"] == client.name()
        assert lines["x-md-global-referer"].startswith("10.9.8.7:19100#")


def test_janus_roma_pushes_what_nobody_asked_for(roma_gateway):
    with roma_gateway.player(34003) as client:
        client.send(wire.DEV, 1, b"push 5 100")
        pushed = 0
        while pushed < 5:
            packet = client.receive()
            pushed += (packet.mod, packet.seq, len(packet.data)) == (3, 100, 100)


def test_janus_roma_sends_garbage_sizes_and_logouts_on_demand(roma_gateway):
    with roma_gateway.player(34004) as client:
        assert len(dev(client, "size 50000").data) == 50000
        client.send(wire.DEV, 1, b"size 3000000 random")
        assert client.receive_error().mod == wire.DEV
        client.send(wire.DEV, 1, b"garbage 20")
        assert client.ask(wire.USER, 1, b"sense").data == b"sense"
        client.send(wire.DEV, 1, b"logout 5")
        assert client.receive_end() == 5


def test_a_color_that_metadata_can_not_carry_costs_its_player_alone(start, backend):
    color, second = "blé", start(Backend)
    gateway = start(Gateway, nodes=nodes_of(backend.address) +
                    nodes_of(second.address, color=color))
    pids = gateway.worker_pids()
    with gateway.player(32090) as other:
        with gateway.closes("tunnel_refused", others_open=1), \
                gateway.player(32091, color=color) as client:
            client.send(wire.USER, 1)
            assert client.receive_end() == wire.LOGOUT_UNAUTHORIZED
        other.ask(wire.USER, 1)
    assert gateway.worker_pids() == pids
