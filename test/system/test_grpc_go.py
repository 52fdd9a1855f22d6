"""Backends and proxies that others wrote: grpc-go, gRPC's C core, HAProxy and nginx."""

import contextlib
import os
import re
import socket
import threading

import pytest
from janus import wire
from janus.client import Client
from janus.grpc_go import FrameTap, GoGate, GoRoma, HaProxy, Nginx
from janus.patience import FACTOR, ms, patient, wait_for
from janus.programs import ENGINE, Gateway, Roma, node, nodes_of

MIB = 1 << 20
LARGEST = 16000  # that fits in a frame to a client, sealed


def unquoted(text):
    """What a quoted value of the log stands for."""
    return re.sub(rb"\\x(..)|\\(.)", lambda match: bytes([int(match.group(1), 16)])
                  if match.group(1) else match.group(2), text.encode()).decode()


# --- Whatever is in between -------------------------------------------------------------------


class Way:
    """A gateway, and a backend that it reaches in one way or another."""

    def __init__(self, start, backend, proxy):
        # HAProxy 2.6 reads from a connection no further while one of its streams has to wait.
        self.streams_wait_alone = proxy is not HaProxy
        # It also lets CANCEL follow at once upon a status that comes before the client's end, and
        # of that gRPC's C core tells no more than the CANCEL.
        self.may_lose_status = proxy is HaProxy and ENGINE != "http2"
        self.backend = start(GoRoma if backend == "go" else Roma)
        self.address = start(proxy, self.backend.address).address if proxy else self.backend.address
        self.gateway = start(Gateway, nodes=nodes_of(self.address), settings={
            "worker": {"count": 1}, "queue": {
                "tunnel_messages": 64, "tunnel_bytes": 256 * 1024, "client_grace": f"{ms(20)}ms",
                "client_high_bytes": 256 * 1024, "client_low_bytes": 64 * 1024}})


@pytest.fixture(scope="module", params=[
    ("go", None), ("go", HaProxy), ("go", Nginx),
    ("core", None), ("core", HaProxy), ("core", Nginx)],
    ids=["go", "go_haproxy", "go_nginx", "core", "core_haproxy", "core_nginx"])
def way(request, start_module):
    return Way(start_module, *request.param)


def test_a_player_s_tunnels_carry_what_belongs_to_them(way):
    with way.gateway.player(61001) as player:
        assert player.ask(wire.USER, 1, b"me").data == b"me"
        assert player.ask(wire.ROOM, 2, b"room", obj=5, frag_id=3, frag_count=2).frag_count == 2
        assert player.ask(wire.SYSTEM, wire.HEARTBEAT).data
        told = player.ask(wire.DEV, 1, b"who").data.decode().splitlines()
        assert "method=/player.intra.v1.TunnelService/Tunnel" in told
        assert "x-md-global-uid=61001" in told and "x-md-global-oid=61001" in told


def test_many_players_at_once_each_get_their_own(way):
    players = [way.gateway.player(61100 + number) for number in range(150)]
    for round_ in range(3):
        for number, player in enumerate(players):
            player.send(wire.USER, round_, b"%d" % number)
        for number, player in enumerate(players):
            answer = player.receive()
            assert (answer.seq, answer.data) == (round_, b"%d" % number)
    assert way.gateway.gauge("tunnels") == len(players)
    for player in players:
        player.close()


def test_messages_of_every_size(way):
    with way.gateway.player(61300) as player:
        for size in (0, 1, 127, 128, 4091, 9000, LARGEST):
            data = os.urandom(size)
            assert player.ask(wire.USER, 1, data).data == data
        for size in (16384, 65531, 65535, 65536, 1_000_000, 3 * MIB):  # little when compressed
            answer = player.ask(wire.DEV, 1, b"size %d" % size)
            assert answer.data == (b"janus " * (size // 6 + 1))[:size]


def test_a_burst_is_answered_in_order(way):
    with way.gateway.player(61301) as player:
        filler = os.urandom(3000)
        for number in range(300):
            player.send(wire.USER, number, b"%d " % number + filler[:number * 10])
        for number in range(300):
            answer = player.receive()
            assert (answer.seq, answer.data) == (number, b"%d " % number + filler[:number * 10])


def test_messages_larger_than_the_client_may_get_or_the_gateway_takes(way):
    gateway = way.gateway
    with gateway.player(61302) as player:
        player.send(wire.DEV, 7, b"size 1000000 random")
        error = player.receive_error()
        assert (error.mod, error.seq) == (wire.DEV, 7)
        broken = gateway.counter("tunnels_broken")
        player.send(wire.DEV, 8, b"size 4300000 random")
        error = player.receive_error()
        assert (error.mod, error.seq) == (wire.DEV, 8)
        assert gateway.counter("tunnels_broken") == broken + 1
        assert player.ask(wire.USER, 1, b"still here").data == b"still here"


TOLD = "Zoë ist gesperrt: 100 % sicher ☃"


def test_what_a_backend_says_when_it_ends_a_stream_is_in_the_log(way):
    gateway = way.gateway
    with gateway.player(61303) as player:
        player.ask(wire.USER, 1)
        mark = gateway.mark()
        player.send(wire.DEV, 1, b"end 10 " + TOLD.encode())
        ended = gateway.wait_log(r'event=tunnel_broken .*uid=61303 .*'
                                 r'status=(\d+) detail="((?:[^"\\]|\\.)*)"', since=mark)
        if not (way.may_lose_status and ended.group(1) == "1"):
            assert (ended.group(1), unquoted(ended.group(2))) == ("10", TOLD)
        assert player.ask(wire.USER, 1, b"still here").data == b"still here"


def test_a_stream_that_ends_well_is_opened_again(way):
    with way.gateway.player(61304) as player:
        player.ask(wire.USER, 1)
        reopened = way.gateway.counter("tunnels_reopened")
        player.send(wire.DEV, 1, b"end")
        way.gateway.wait_counter("tunnels_reopened", reopened + 1)
        assert player.ask(wire.USER, 1, b"again").data == b"again"


def test_players_who_leave_take_their_streams_with_them(way):
    gateway = way.gateway
    gateway.wait_gauge("tunnels", 0)
    with gateway.player(61305) as player:
        player.ask(wire.USER, 1)
        player.ask(wire.ROOM, 1, obj=3)
        assert gateway.gauge("tunnels") == 2
    gateway.wait_gauge("tunnels", 0)
    with gateway.player(61305) as player:
        assert player.ask(wire.DEV, 1, b"count").data


def test_a_client_that_reads_slowly_gets_everything_in_the_end(way):
    gateway, size, count = way.gateway, 8000, 2000
    paused = gateway.counter("output_pauses")
    with gateway.player(61310, receive_buffer=4096) as slow, gateway.player(61311) as other:
        other.ask(wire.USER, 1)
        slow.send(wire.DEV, 1, b"flood %d %d" % (count, size))
        gateway.wait_counter("output_pauses", paused + 1)
        if way.streams_wait_alone:
            assert other.ask(wire.USER, 1, b"not me").data == b"not me"
        assert slow.receive().data == b"ok"
        for _ in range(count):
            assert len(slow.receive().data) == size
    assert gateway.closed("slow_client") == 0


def test_a_backend_that_stops_reading_holds_its_client_back_and_no_other(way):
    gateway = way.gateway
    with gateway.player(61312) as other, gateway.player(61313) as client:
        other.ask(wire.USER, 1)
        client.ask(wire.USER, 1)
        paused, before = gateway.counter("input_pauses"), gateway.memory_bytes()
        client.send(wire.DEV, 1, b"stall")
        client.socket.settimeout(patient(1))
        filler, sent = os.urandom(12000), 0
        with pytest.raises(socket.timeout):
            while sent < 8000:
                client.send(wire.USER, 1, filler)
                sent += 1
        gateway.wait_counter("input_pauses", paused + 1)
        assert gateway.gauge("queued_in_bytes") < MIB
        assert gateway.memory_bytes() - before < 16 * MIB * FACTOR
        if way.streams_wait_alone:
            assert other.ask(wire.USER, 1, b"not me").data == b"not me"


@pytest.mark.parametrize("proxy", [None, HaProxy, Nginx])
def test_many_who_send_all_that_they_may_at_once_get_their_answers(start, proxy):
    """HAProxy reads the gateway's word that there is room for answers after requests that wait."""
    roma = start(GoRoma)
    address = start(proxy, roma.address).address if proxy else roma.address
    gateway = start(Gateway, nodes=nodes_of(address), settings={"worker": {"count": 1}})
    data, count = os.urandom(3000), 160  # within limits.bytes_burst and limits.messages_burst
    players = [gateway.player(61330 + number) for number in range(20)]

    def send(player):
        with contextlib.suppress(OSError):  # the test has given up
            for number in range(count):
                player.send(wire.USER, number, data)

    senders = [threading.Thread(target=send, args=(player,)) for player in players]
    for sender in senders:
        sender.start()
    try:
        for player in players:
            for number in range(count):
                answer = player.receive()
                assert (answer.seq, answer.data) == (number, data)
    finally:
        for player, sender in zip(players, senders):
            with contextlib.suppress(OSError):  # it was closed
                player.socket.shutdown(socket.SHUT_RDWR)
            sender.join()
            player.close()


# --- grpc-go as it may be set -----------------------------------------------------------------


def gateway_of(start, *addresses, tunnel=None, count=1, **nodes):
    return start(Gateway, nodes=nodes_of(*addresses, **nodes), settings={
        "worker": {"count": count}, "tunnel": {"backoff": "20ms", "backoff_max": "100ms",
                                               "open_timeout": f"{ms(1)}ms",
                                               "reopen_timeout": "60s", **(tunnel or {})}})


@pytest.mark.parametrize("streams", [1, 3])
def test_further_connections_are_opened_where_few_streams_are_allowed(start, streams):
    roma = start(GoRoma, max_streams=streams)
    gateway = gateway_of(start, roma.address)
    players = [gateway.player(61400 + number) for number in range(7)]
    for player in players:
        player.send(wire.USER, 1, b"me too")
    for player in players:
        assert player.receive().data == b"me too"
    assert gateway.gauge("tunnels") == len(players)
    needed = -(-len(players) // streams)
    wait_for(lambda: roma.count("connected") - roma.count("disconnected") >= needed,
             f"{needed} connections")
    gateway.wait_gauge_over("backend_connections", needed - 1)
    for player in players:
        assert player.ask(wire.USER, 2, b"still").data == b"still"
        player.close()


def test_streams_carry_on_over_a_connection_that_is_to_end(start):
    """After MaxConnectionAge: GOAWAY, and the streams that there are may stay."""
    roma = start(GoRoma, max_age="300ms")
    gateway = gateway_of(start, roma.address)
    with gateway.player(61410) as first:
        assert first.ask(wire.USER, 0, b"0").data == b"0"

        # Whoever comes after it has come goes over another connection.
        newcomers = []

        def another_connection():
            newcomer = gateway.player(61420 + len(newcomers))
            newcomers.append(newcomer)
            assert newcomer.ask(wire.USER, 1, b"new").data == b"new"
            return roma.count("connected") >= 3

        wait_for(another_connection, "connections after the first", pause=0.1)
        for number in range(1, 50):
            assert first.ask(wire.USER, number, b"%d" % number).data == b"%d" % number
        for newcomer in newcomers:
            assert newcomer.ask(wire.USER, 2, b"too").data == b"too"
            newcomer.close()
    assert gateway.counter("tunnels_broken") == 0
    assert gateway.counter("tunnel_open_failures") == 0
    roma.wait_count("opened", 1 + len(newcomers))


def test_streams_that_are_cut_with_their_connection_are_opened_again(start, tmp_path):
    """What was under way on a stream that broke may be lost; all else arrives once, in order."""
    record = tmp_path / "record"
    roma = start(GoRoma, max_age="200ms", max_age_grace="100ms", record=record)
    gateway = gateway_of(start, roma.address)
    with gateway.player(61440) as player:
        sent, answers, asked = 0, [], 0
        while gateway.counter("tunnels_reopened") < 4:
            for _ in range(20):
                player.send(wire.USER, 1, b"%d" % sent)
                sent += 1
        player.socket.settimeout(patient(1))
        answered = False
        while not answered:
            player.send(wire.USER, 2, b"last")  # it may be lost too
            asked += 1
            with contextlib.suppress(socket.timeout):
                while (answer := player.receive()).seq != 2:
                    answers.append(int(answer.data))
                answered = True
        arrived = [int(one) for one in roma.recorded(61440, wire.USER) if one.isdigit()]
        assert arrived == sorted(set(arrived)) and answers == sorted(set(answers))
        assert set(answers) <= set(arrived)
        gaps = sum(after - before > 1 for before, after in zip([-1, *arrived], [*arrived, sent]))
        assert gaps <= gateway.counter("tunnels_broken")
        assert gateway.counter("tunnel_messages_out") == sent + asked
    assert gateway.counter("messages_dropped_in") == 0
    assert gateway.closed("tunnel_lost") == 0


def test_an_idle_gateway_does_not_ping_a_backend_that_takes_it_ill(start):
    """By its default grpc-go sends a client away that pings three times within five minutes."""
    roma = start(GoRoma)
    tap = start(FrameTap, roma.address)
    gateway = gateway_of(start, tap.address)
    with gateway.player(61450) as player:
        assert player.ask(wire.USER, 1, b"me").data == b"me"
        before = tap.pings()
        assert player.receive_nothing(patient(4))
        # One may follow the data: gRPC's C core measures the line with it.
        assert tap.pings() <= before + 1
        assert player.ask(wire.USER, 1, b"still").data == b"still"
    assert tap.connections == 1


def test_a_busy_gateway_does_not_ping_a_backend_until_it_is_sent_away(start):
    roma = start(GoRoma)
    tap = start(FrameTap, roma.address)
    gateway = gateway_of(start, tap.address)
    with gateway.player(61451) as player:
        player.send(wire.DEV, 1, b"flood 500 15000")
        for number in range(500):
            player.send(wire.USER, number, os.urandom(1000))
        player.expect(1 + 500 + 500)
        for number in range(50):
            player.ask(wire.USER, number, b"one at a time")
    assert tap.connections == 1
    assert gateway.counter("tunnels_broken") == 0
    assert "too many pings" not in roma.log().lower()


def test_a_refusal_is_in_the_log_as_it_was_said(start):
    roma = start(GoRoma, fail=7, fail_text=TOLD)
    gateway = gateway_of(start, roma.address)
    with gateway.player(61460) as player:
        player.send(wire.USER, 1, b"let me")
        assert player.receive_end() == wire.LOGOUT_UNAUTHORIZED
    detail = gateway.wait_log(r'status=7 detail="((?:[^"\\]|\\.)*)"').group(1)
    assert unquoted(detail) == TOLD
    roma.wait_count("ended", 1)
    assert roma.count("opened") == 1  # it would say no again


def test_a_service_that_is_not_there_is_unimplemented(start):
    roma = start(GoRoma)
    further = [node(roma.address, f"roma.{name}.service") for name in ("team", "guild")]
    gateway = start(Gateway, nodes=[*nodes_of(roma.address), *further], settings={
        "tunnel": {"types": [
            {"name": "player", "service": "roma.player.service", "default": True, "main": True,
             "method": "/player.intra.v1.TunnelService/Tunnel", "own_object_only": True},
            {"name": "team", "service": "roma.team.service", "modules": [7],
             "method": "/team.intra.v1.TunnelService/Tunnel"},
            {"name": "guild", "service": "roma.guild.service", "modules": [8],
             "method": "/room.intra.v1.TunnelService/Canal"}]}})
    with gateway.player(61461) as player:
        assert player.ask(wire.USER, 1, b"me").data == b"me"
        for mod, detail in ((7, "unknown service team.intra.v1.TunnelService"),
                            (8, "unknown method Canal for service room.intra.v1.TunnelService")):
            player.send(mod, 1, b"join", obj=5)
            error = player.receive_error()
            assert (error.mod, error.seq) == (mod, 1)
            gateway.wait_log(f'event=tunnel_.* status=12 detail="{detail}"')
        assert player.ask(wire.USER, 1, b"still").data == b"still"


def test_a_message_that_the_backend_finds_too_large_ends_its_stream_alone(start):
    roma = start(GoRoma, max_receive=5000)
    gateway = gateway_of(start, roma.address)
    with gateway.player(61462) as player, gateway.player(61463) as other:
        other.ask(wire.USER, 1)
        assert len(player.ask(wire.USER, 1, bytes(4000)).data) == 4000
        player.send(wire.USER, 2, bytes(6000))
        error = player.receive_error()
        assert (error.mod, error.seq) == (wire.USER, 2)
        gateway.wait_log(r"event=tunnel_broken .*uid=61462 .*status=8 ")
        assert player.ask(wire.USER, 3, b"still").data == b"still"
        assert other.ask(wire.USER, 1, b"not me").data == b"not me"
    roma.wait_count("opened", 3)
    assert roma.count("connected") == 1


@pytest.mark.parametrize("window", [65536, 8 * MIB])
def test_windows_small_and_large(start, window):
    roma = start(GoRoma, window=window, connection_window=window)
    gateway = gateway_of(start, roma.address)
    with gateway.player(61464) as player:
        data = os.urandom(LARGEST)
        for number in range(100):
            player.send(wire.USER, number, data)
        for number in range(100):
            answer = player.receive()
            assert (answer.seq, answer.data) == (number, data)


def test_tls_with_certificates_on_both_sides(start, certificates):
    roma = start(GoRoma, tls_cert=certificates.server_cert, tls_key=certificates.server_key,
                 tls_client_ca=certificates.ca)
    gateway = gateway_of(start, roma.address, tls=True, tunnel={"tls": {
        "ca": certificates.ca, "cert": certificates.client_cert, "key": certificates.client_key}})
    players = [gateway.player(61470 + number) for number in range(20)]
    for player in players:
        data = os.urandom(LARGEST)
        assert player.ask(wire.USER, 1, data).data == data
        player.close()


@pytest.mark.parametrize("proxy", [HaProxy, Nginx])
def test_tls_to_a_proxy_and_from_there(start, certificates, proxy):
    roma = start(GoRoma, tls_cert=certificates.server_cert, tls_key=certificates.server_key)
    before = start(proxy, roma.address, tls=certificates)
    gateway = gateway_of(start, before.address, tls=True, tunnel={"tls": {"ca": certificates.ca}})
    with gateway.player(61495) as player:
        data = os.urandom(LARGEST)
        assert player.ask(wire.USER, 1, data).data == data


def test_a_client_that_tls_does_not_let_in_says_so(start, certificates):
    roma = start(GoRoma, tls_cert=certificates.server_cert, tls_key=certificates.server_key,
                 tls_client_ca=certificates.ca)
    gateway = gateway_of(start, roma.address, tls=True, tunnel={
        "reopen_timeout": f"{ms(1.5)}ms", "tls": {"ca": certificates.ca}})
    with gateway.closes("tunnel_lost"), gateway.player(61490) as player:
        player.send(wire.USER, 1, b"a secret")
        assert player.receive_end() == wire.LOGOUT_WAITING
    gateway.wait_log("event=tunnel_open_failed .*tls=true")
    assert roma.count("opened") == 0


# --- What is measured beside the gateway -----------------------------------------------------


def test_the_gateway_in_go_does_its_work(start, keys, tmp_path):
    roma = start(Roma)
    gate = start(GoGate, tmp_path, keys, roma.address, 2)
    players = [Client(gate.address, keys, uid=61500 + number) for number in range(20)]
    for player in players:
        player.login()
        for data in (b"", b"me", bytes(LARGEST)):
            assert player.ask(wire.USER, 1, data).data == data
        told = player.ask(wire.DEV, 1, b"who").data.decode().splitlines()
        assert f"x-md-global-uid={player.uid}" in told
    assert gate.settle() == len(players)
    for player in players:
        player.close()
    wait_for(lambda: gate.settle() == 0, "the tunnels to be closed")
