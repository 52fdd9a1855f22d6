"""Backends that misbehave: the client is told, the gateway goes on, and what happened is counted."""

import os

import grpc
import pytest

from janus import wire
from janus.backend import Backend
from janus.patience import patient
from janus.programs import Gateway, node, nodes_of
from janus.raw_backend import RawBackend, closed_port

QUICK = {"tunnel": {"open_timeout": f"{int(patient(0.5) * 1000)}ms",
                    "reopen_timeout": f"{int(patient(1.5) * 1000)}ms",
                    "backoff": "50ms", "backoff_max": "200ms", "suspect": "300ms"}}


def gives_up_with_waiting(gateway, uid):
    """The player's first message finds no backend: within the bound he is told Waiting."""
    with gateway.closes("tunnel_lost"):
        with gateway.player(uid) as client:
            client.send(wire.USER, 1, b"anyone?")
            assert client.receive_end() == wire.LOGOUT_WAITING
    assert gateway.counter("tunnel_open_failures") >= 1


def test_a_backend_that_refuses_connections_ends_in_waiting(start):
    gateway = start(Gateway, nodes=nodes_of(closed_port()), settings=QUICK)
    gives_up_with_waiting(gateway, 36001)


@pytest.mark.parametrize("manner", ["reset", "silent", "garbage"])
def test_a_backend_that_is_no_grpc_server_ends_in_waiting(start, manner):
    raw = start(RawBackend, manner)
    gateway = start(Gateway, nodes=nodes_of(raw.address), settings=QUICK)
    gives_up_with_waiting(gateway, 36002)
    assert raw.accepted >= 1


def test_no_node_at_all_ends_in_waiting(start):
    gateway = start(Gateway, nodes=[node(closed_port(), color="green")], settings=QUICK)
    with gateway.closes("tunnel_lost"):
        with gateway.player(36003, color="blue") as client:
            client.send(wire.USER, 1, b"anyone?")
            assert client.receive_end() == wire.LOGOUT_WAITING


def test_a_dead_node_is_passed_over_for_one_that_lives(start, backend):
    gateway = start(Gateway, nodes=nodes_of(closed_port(), backend.address), settings=QUICK)
    for uid in range(36010, 36016):
        with gateway.player(uid) as client:
            assert client.ask(wire.USER, 1, b"here").data == b"here"


def test_garbage_protobuf_from_a_backend_is_counted_and_skipped(gateway, backend):
    before = gateway.counter("tunnel_malformed")
    with gateway.player(36020) as client:
        client.ask(wire.USER, 1)
        stream = backend.stream_of(36020)
        for raw in (b"\xff\xff\xff", b"\x0a\x7fx", b"\x0a"):
            stream.send_raw(raw)
        stream.send(mod=3, seq=1, data=b"sense again")
        assert client.receive().data == b"sense again"
    gateway.wait_counter("tunnel_malformed", before + 3)
    gateway.wait_log("event=tunnel_malformed")


def test_five_megabytes_from_a_backend_do_not_reach_the_client(gateway, backend):
    """Over tunnel.message_bytes the stream itself ends; the session opens it again."""
    before, mark = gateway.total()["counters"], gateway.mark()
    with gateway.player(36021) as client:
        client.ask(wire.USER, 1)
        backend.stream_of(36021).send(mod=3, seq=1, data=os.urandom(5 << 20))
        gateway.wait_counter("tunnels_broken", before["tunnels_broken"] + 1)
        gateway.wait_log("event=tunnel_broken .*uid=36021", since=mark)
        assert client.ask(wire.USER, 1, b"still here").data == b"still here"
        assert len(backend.streams_of(36021)) == 2


def test_an_answer_of_one_megabyte_is_refused_with_an_error(gateway, backend):
    with gateway.player(36022) as client:
        client.ask(wire.USER, 1)
        backend.stream_of(36022).send(mod=3, seq=7, data=os.urandom(1 << 20))
        error = client.receive_error()
        assert (error.mod, error.seq) == (3, 7)


def test_a_backend_that_allows_100_streams_serves_250_players(start):
    """The other streams go over further connections to the same node."""
    limited = start(Backend, max_streams=100)
    gateway = start(Gateway, nodes=nodes_of(limited.address), settings={
        "tunnel": {"open_timeout": f"{int(patient(1) * 1000)}ms", "reopen_timeout": "60s",
                   "streams_per_connection": 1000},  # the gateway has to find out by itself
        "worker": {"count": 1}})
    clients = [gateway.player(36100 + i) for i in range(250)]
    for client in clients:
        client.send(wire.USER, 1, b"me too")
    for client in clients:
        assert client.receive().data == b"me too"
    assert gateway.gauge("tunnels") == 250
    gateway.wait_gauge_over("backend_connections", 2)
    for client in clients:
        client.close()


def test_a_main_tunnel_that_is_refused_ends_the_session(start):
    backend = start(Backend)
    backend.on_stream = lambda stream: stream.end(grpc.StatusCode.PERMISSION_DENIED, "status is not gate")
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings=QUICK)
    with gateway.player(36030, status=2) as client:
        client.send(wire.USER, 1, b"let me")
        assert client.receive_end() == wire.LOGOUT_UNAUTHORIZED
    assert len(backend.streams) == 1  # it would say no again


def test_a_room_that_is_refused_is_told_and_the_session_goes_on(start):
    backend = start(Backend)
    backend.on_stream = lambda stream: (
        stream.end(grpc.StatusCode.NOT_FOUND, "no such room") if stream.kind == "room" else None)
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings=QUICK)
    with gateway.player(36031) as client:
        client.send(wire.ROOM, 3, b"join", obj=5)
        error = client.receive_error()
        assert (error.mod, error.seq) == (wire.ROOM, 3)
        assert client.ask(wire.USER, 1, b"still here").data == b"still here"


def test_a_room_that_ends_is_opened_again_by_the_next_message(gateway, backend):
    with gateway.player(36032) as client:
        client.ask(wire.ROOM, 1, obj=8)
        first = backend.stream_of(36032, "room", 8)
        first.end()
        assert first.ended.wait(patient(30))
        gateway.wait_gauge("tunnels", 0)
        assert client.ask(wire.ROOM, 1, b"again", obj=8).data == b"again"
        assert len(backend.streams_of(36032, "room")) == 2


def test_a_main_tunnel_that_breaks_is_opened_again(gateway, backend):
    with gateway.player(36033) as client:
        client.ask(wire.USER, 1)
        first = backend.stream_of(36033)
        first.end(grpc.StatusCode.UNAVAILABLE, "restarting")
        assert first.ended.wait(patient(30))
        gateway.wait_counter("tunnels_reopened", 1)
        assert client.ask(wire.USER, 1, b"again").data == b"again"
        assert len(backend.streams_of(36033)) == 2
