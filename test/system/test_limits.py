"""Limits: what is over them is refused or held back, counted, and hurts nobody else."""

import os
import resource
import socket
import time

import pytest

from janus import wire
from janus.backend import Backend
from janus.patience import FACTOR, ms, patient, wait_for
from janus.programs import Gateway, nodes_of

MIB = 1 << 20


def test_a_client_that_falls_silent_is_closed(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"limits": {"idle_timeout": f"{ms(1.5)}ms"}})
    with gateway.player(35001) as busy:
        with gateway.closes("idle_timeout", others_open=1):
            with gateway.player(35000) as quiet:
                quiet.ask(wire.USER, 1)
                deadline = time.monotonic() + patient(20)
                while quiet.receive_nothing(0.1):
                    assert busy.ask(wire.USER, 1, b"alive").data == b"alive"
                    assert time.monotonic() < deadline
                assert quiet.receive_end() == wire.LOGOUT_SERVER
        assert busy.ask(wire.USER, 1, b"alive").data == b"alive"


def test_a_session_over_its_message_rate_is_slowed_and_loses_nothing(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"limits": {"messages_per_s": 100, "messages_burst": 20}})
    with gateway.player(35010) as client:
        begun = time.monotonic()
        for number in range(120):
            client.send(wire.USER, 1, b"%d" % number)
        assert [client.receive().data for _ in range(120)] == [b"%d" % n for n in range(120)]
        assert time.monotonic() - begun > 0.9  # 100 messages over the burst, at 100 a second
    assert gateway.counter("rate_pauses") > 0


def test_a_session_over_its_byte_rate_is_slowed_and_loses_nothing(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"limits": {"bytes_per_s": 100000, "bytes_burst": 20000}})
    with gateway.player(35011) as client:
        begun = time.monotonic()
        for _ in range(12):
            client.send(wire.USER, 1, os.urandom(9000))
        for _ in range(12):
            assert len(client.receive().data) == 9000
        assert time.monotonic() - begun > 0.7
    assert gateway.counter("rate_pauses") > 0


def test_connections_over_a_workers_limit_are_refused(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"count": 1}, "limits": {"connections_per_worker": 3}})
    players = [gateway.player(35020 + i) for i in range(3)]
    with gateway.closes("connection_limit", others_open=3):
        with gateway.client() as client:
            assert client.receive_end() is None
    for player in players:
        assert player.ask(wire.USER, 1, b"in").data == b"in"
    players.pop().close()
    gateway.wait_gauge("connections", 2)
    with gateway.player(35029) as client:
        assert client.ask(wire.USER, 1, b"in").data == b"in"
    for player in players:
        player.close()


def test_connections_over_an_addresss_limit_are_refused(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"count": 1}, "limits": {"connections_per_address": 2}})
    players = [gateway.player(35030 + i, source="127.0.0.5") for i in range(2)]
    with gateway.closes("address_limit", others_open=2):
        with gateway.client(source="127.0.0.5") as client:
            assert client.receive_end() is None
    with gateway.player(35039, source="127.0.0.6") as other:
        assert other.ask(wire.USER, 1, b"in").data == b"in"
    players.pop().close()
    gateway.wait_gauge("connections", 1)
    with gateway.player(35038, source="127.0.0.5") as client:
        assert client.ask(wire.USER, 1, b"in").data == b"in"
    players.pop().close()


def test_without_descriptors_clients_are_refused_and_let_in_again_when_there_are_some(
        start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    worker = gateway.worker_pids()[0]
    # A player is in before, so that what gRPC needs is open.
    with gateway.player(35090) as player:
        assert player.ask(wire.USER, 1, b"in").data == b"in"
        open_now = len(os.listdir(f"/proc/{worker}/fd"))
        limit = open_now + 20
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, limit))
        crowd = []
        try:
            for _ in range(60):
                crowd.append(socket.create_connection(gateway.address))
            wait_for(lambda: gateway.closed("descriptor_limit") > 0, "a client to be refused")
            assert gateway.counter("accept_backoffs") > 0
            assert player.ask(wire.USER, 2, b"still in").data == b"still in"
        finally:
            for one in crowd:
                one.close()
        gateway.wait_gauge("connections", 1)
        with gateway.player(35091) as late:
            assert late.ask(wire.USER, 1, b"in too").data == b"in too"


def test_handshakes_over_the_rate_are_refused(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "worker": {"count": 1}, "limits": {"handshakes_per_s": 1, "handshake_burst": 3}})
    refused = 0
    for number in range(12):
        with gateway.client(uid=35040 + number) as client:
            client.send_raw(client.handshake_frame())
            refused += client.receive_body() is None
    assert refused >= 12 - 3 - patient(6)
    wait_for(lambda: gateway.closed("handshake_rate") == refused, "the refused to be counted")


def test_a_session_gets_so_many_tunnels_and_no_more(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"limits": {"tunnels_per_session": 3}})
    with gateway.player(35050) as client:
        for room in (1, 2, 3):
            assert client.ask(wire.ROOM, 1, obj=room).obj == room
        client.send(wire.ROOM, 5, obj=4)
        error = client.receive_error()
        assert (error.mod, error.seq) == (wire.ROOM, 5)
        assert client.ask(wire.ROOM, 1, b"old", obj=2).data == b"old"
    assert gateway.counter("tunnel_limited") == 1


# --- Slow sides -----------------------------------------------------------------------------


def endless(total, size):
    """An iterator of `total` bytes of messages of random data."""
    data = wire.TunnelMessage(mod=3, seq=1, data=os.urandom(size)).encode()
    return iter([data] * (total // size))


SLOW = {"worker": {"count": 1},
        "queue": {"client_high_bytes": 256 * 1024, "client_low_bytes": 64 * 1024}}


def test_a_client_that_never_reads_is_closed_and_costs_bounded_memory(start, backend):
    grace = ms(1)
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        **SLOW, "queue": {**SLOW["queue"], "client_grace": f"{grace}ms"}})
    with gateway.player(35060) as other, gateway.player(35061, receive_buffer=4096) as client:
        client.ask(wire.USER, 1)
        before = gateway.memory_bytes()
        with gateway.closes("slow_client", others_open=2):
            backend.stream_of(35061)._outbox.put(endless(64 * MIB, 8000))
            peak = 0

            def closed():
                nonlocal peak
                peak = max(peak, gateway.memory_bytes())
                assert other.ask(wire.USER, 1, b"not me").data == b"not me"
                return gateway.closed("slow_client")

            wait_for(closed, "the slow client to be closed")
        assert gateway.counter("output_pauses") >= 1
        assert peak - before < 16 * MIB * FACTOR
        assert other.ask(wire.USER, 1, b"not me").data == b"not me"


def test_a_client_that_reads_slowly_gets_everything_in_the_end(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        **SLOW, "queue": {**SLOW["queue"], "client_grace": f"{ms(20)}ms"}})
    with gateway.player(35062, receive_buffer=4096) as client:
        client.ask(wire.USER, 1)
        backend.stream_of(35062)._outbox.put(endless(16 * MIB, 8000))
        gateway.wait_counter("output_pauses", 1)
        for _ in range(16 * MIB // 8000):
            assert len(client.receive().data) == 8000
    assert gateway.closed("slow_client") == 0


def test_a_backend_that_stops_reading_holds_its_client_back(start):
    """Backpressure: the client's socket fills, the gateway's memory does not; and when the
    backend reads again, everything arrives, in order."""
    backend = start(Backend, lambda stream, request: None)
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "worker": {"count": 1}, "queue": {"tunnel_messages": 64, "tunnel_bytes": 256 * 1024}})
    with gateway.player(35063) as other, gateway.player(35064) as client:
        other.send(wire.USER, 1)
        client.send(wire.USER, 1, b"0")
        stream = backend.stream_of(35064)
        stream.may_read.clear()
        before = gateway.memory_bytes()
        client.socket.settimeout(1)
        filler = os.urandom(12000)
        sent = 0
        unsent = b""
        with pytest.raises(socket.timeout):
            while sent < 8000:
                sealed = wire.seal(client.session_key,
                                   client.packet(wire.USER, 1, b"%08d" % sent + filler).encode())
                unsent = memoryview(wire.frame(sealed))
                while unsent:
                    unsent = unsent[client.socket.send(unsent):]
                sent += 1
        assert gateway.counter("input_pauses") >= 1
        assert gateway.gauge("queued_in_bytes") < MIB
        assert gateway.memory_bytes() - before < 16 * MIB * FACTOR
        other.send(wire.USER, 1, b"not me")
        backend.stream_of(35063).wait_requests(2)

        stream.may_read.set()
        client.socket.settimeout(patient(30))
        client.socket.sendall(unsent)
        stream.wait_requests(sent + 2)
        assert [int(m.data[:8]) for m in stream.requests[1:]] == list(range(sent + 1))


# --- Half-open logins -------------------------------------------------------------------------


def test_ten_thousand_half_open_handshakes_do_not_keep_a_player_out(start, backend):
    count = 10000 if FACTOR == 1 else 2000
    timeout_s = 6 * FACTOR
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "limits": {"handshake_timeout": f"{int(timeout_s * 1000)}ms",
                   "connections_per_address": 0, "connections_per_worker": 15000},
    })
    with gateway.client() as client:
        start_of_a_handshake = client.handshake_frame()[:25]
    sockets = []
    try:
        for number in range(count):
            half_open = socket.socket()
            half_open.bind((f"127.0.1.{number % 8 + 1}", 0))
            half_open.connect(gateway.address)
            if number % 2:
                half_open.send(start_of_a_handshake)
            sockets.append(half_open)
            if number % 1000 == 999:
                with gateway.player(35070) as player:
                    assert player.ask(wire.USER, 1, b"in").data == b"in"
        with gateway.player(35071) as player:
            wait_for(lambda: gateway.closed("handshake_timeout") >= count,
                     f"{count} handshakes to time out", 60)
            assert player.ask(wire.USER, 1, b"in").data == b"in"
    finally:
        for half_open in sockets:
            half_open.close()
    assert gateway.counter("connections_accepted") >= count
