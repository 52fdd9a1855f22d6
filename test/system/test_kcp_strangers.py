"""Whoever sends datagrams to the KCP listener and never logs in, in datagrams made by hand."""

import contextlib
import itertools
import os
import resource
import socket
import struct

from janus import wire
from janus.kcp import Bridge
from janus.patience import patient, wait_for
from janus.programs import Gateway, nodes_of
from test_kcp_datagrams import RawClient

PUSH, ACK = 81, 82
SYN, FIN, PSH, NOP = range(4)


def segment(conv, sn, data=b"", command=PUSH, una=0):
    return struct.pack("<IBBHIIII", conv, command, 0, 128, 0, sn, una, len(data)) + data


def frame(command, stream, data=b""):
    return struct.pack("<BBHI", 2, command, len(data), stream) + data


def frames_of(datagram):
    """The smux frames in a datagram of ours that has FEC's header; of parity none."""
    frames = b""
    at = 8
    while datagram[4] == 0xf1 and at + 24 <= len(datagram):
        command, length = datagram[at + 4], struct.unpack_from("<I", datagram, at + 20)[0]
        frames += datagram[at + 24:at + 24 + length] if command == PUSH else b""
        at += 24 + length
    return frames


class Stranger:
    """A KCP connection without FEC, from a port of its own."""

    def __init__(self, gateway, conv=7):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(patient(30))
        self.address = gateway.listener("kcp")
        self.conv = conv
        self.sn = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *frames):
        for one in frames:
            self.socket.sendto(segment(self.conv, self.sn, one), self.address)
            self.sn += 1

    def receive_frames(self):
        return frames_of(self.socket.recv(2048))


def test_a_worker_that_leaves_cuts_off_who_has_not_opened_a_stream(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"count": 1, "stop_timeout": "100ms"}})
    with Stranger(gateway) as stranger:
        stranger.send(b"\x02")  # the beginning of a frame
        gateway.wait_gauge("kcp_connections_pending", 1)
        pid = gateway.worker_pids()[0]
        gateway.ctl("worker", "restart", "0", "--timeout", "0s", "--spread", "0s")
        wait_for(lambda: pid not in gateway.worker_pids().values(), "the worker to leave")
    assert "event=worker_died" not in gateway.log()
    assert gateway.wait_log(r"event=worker_stopped .*connections_left=(\d+)")[1] == "0"


def test_without_descriptors_clients_over_kcp_come_in(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    worker = gateway.worker_pids()[0]
    crowd = []
    with gateway.player(36000) as player:
        assert player.ask(wire.USER, 1, b"in").data == b"in"
        limit = len(os.listdir(f"/proc/{worker}/fd")) + 5
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, limit))
        try:
            for _ in range(100):  # some of which wait to be accepted
                crowd.append(socket.create_connection(gateway.address))
            wait_for(lambda: gateway.closed("descriptor_limit") > 0, "a client to be refused")
            for number in range(20):
                with Stranger(gateway) as stranger:
                    stranger.send(b"\x02")
                    gateway.wait_gauge("kcp_connections_pending", number + 1)
        finally:
            for one in crowd:
                one.close()
    assert gateway.counter("kcp_dropped_unknown") == 0


def test_a_datagram_with_another_s_address_cuts_nobody_off_whose_worker_drains(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    with Stranger(gateway) as stranger:
        stranger.send(frame(SYN, 3) + frame(PSH, 3, b"\0"))
        gateway.wait_gauge("kcp_connections_pending", 1)
        gateway.ctl("worker", "restart", "0")
        stranger.send(frame(PSH, 3, b"\0"))
        gateway.wait_counter("kcp_handed_in", 1)
        before = gateway.counter("kcp_segments_in")
        stranger.socket.sendto(segment(8, 0, b"\x01" * 8), stranger.address)
        gateway.wait_counter("kcp_segments_in", before + 1)
        gateway.wait_gauge("kcp_connections_pending", 1)
        stranger.send(frame(PSH, 3, b"\0"))
        gateway.wait_counter("kcp_handed_in", 2)


def test_a_connection_on_which_nobody_logs_in_is_told_its_end(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"limits": {"handshake_timeout": "500ms"}})
    with Stranger(gateway) as stranger:
        stranger.send(frame(SYN, 3) + frame(PSH, 3, b"\0"))
        while frame(FIN, 3) not in stranger.receive_frames():
            pass
    gateway.wait_gauge("connections", 0)


def test_beginnings_in_somebody_s_name_do_not_keep_him_out(start, backend):
    """He asks again, and by then one of them has been there long enough to give way."""
    many = 64
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "worker": {"count": 1}, "limits": {"handshake_timeout": "5m"},
        "kcp": {"pending_per_address": many}})
    with contextlib.ExitStack() as stack:
        for _ in range(many):
            stack.enter_context(Stranger(gateway)).send(b"\x02")
        gateway.wait_gauge("kcp_connections_pending", many)
        with start(Bridge, gateway).player(36010) as player:
            assert player.ask(wire.USER, 1, b"in").data == b"in"
            assert gateway.gauge("kcp_connections_pending") == many - 1


def test_who_acknowledges_stays_when_others_give_way(start, backend):
    """He waits for his login, say: whoever has sent nothing but a beginning goes before him."""
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "worker": {"count": 1}, "limits": {"handshake_timeout": "5m"},
        "kcp": {"pending_connections": 2, "keepalive_interval": "1s"}})
    with RawClient(gateway, 36020).open() as waiting, Stranger(gateway) as stranger:
        while not waiting.una:  # a sign of life of the gateway, which is answered
            waiting.take(0.3)
        waiting.push(frame(NOP, 0))
        wait_for(lambda: waiting.take(0.3) or not waiting.unacked, "it to have come", pause=0)
        # So much that he may be told something, beside the signs of life.
        stranger.send(frame(SYN, 3) + frame(PSH, 3, b"\0") + frame(PSH, 5, bytes(1000)))
        gateway.wait_gauge("kcp_connections_pending", 2)
        with start(Bridge, gateway).player(36021) as player:
            assert player.ask(wire.USER, 1, b"in").data == b"in"
        while frame(FIN, 3) not in stranger.receive_frames():  # and is told so
            pass
        waiting.login()
        assert waiting.ask(wire.USER, 1, b"in").data == b"in"


def test_a_stranger_opens_no_more_streams_than_may_be_open_at_a_time(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"kcp": {"streams": 4}})
    with Stranger(gateway) as stranger:
        stranger.send(frame(SYN, 3))
        for stream in range(5, 45, 2):
            stranger.send(frame(SYN, stream) + frame(FIN, stream))
        while frame(FIN, 43) not in stranger.receive_frames():
            pass
    assert gateway.closed("client_closed") == 4 - 1


def test_a_datagram_of_a_stranger_opens_no_more_than_eight_streams(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"limits": {"handshake_timeout": "500ms"}})
    with Stranger(gateway) as stranger, gateway.closes("handshake_timeout", 8):
        stranger.send(b"".join(frame(SYN, stream) for stream in range(3, 131, 2)))
        gateway.wait_counter("connections_accepted", 1)
        gateway.wait_gauge("connections", 0)


def test_who_shows_that_he_is_there_opens_as_many_as_may_be(start, backend):
    """A client of more streams than usual, all at once and before its first answer."""
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with RawClient(gateway, 36040) as player:
        player.push(b"".join(frame(SYN, stream) for stream in range(3, 131, 2)))
        player.login()
        assert player.ask(wire.USER, 1, b"in").data == b"in"
        assert gateway.ctl("session", "36040")["path"]["streams"] == 64
        assert gateway.counter("kcp_streams_refused") == 0
        player.push(b"".join(frame(FIN, stream) for stream in range(5, 131, 2)))


def test_a_stranger_who_sends_too_much_is_cut_off(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.closes("handshake_unexpected", 1), Stranger(gateway) as stranger:
        stranger.send(frame(SYN, 3))
        while gateway.gauge("connections") == 1:
            for _ in range(50):
                stranger.send(frame(PSH, 5, bytes(1000)))
    assert gateway.gauge("kcp_connections_pending") == 0


def test_streams_that_a_player_opens_and_ends_in_a_loop_are_refused(start, backend):
    """Each would be a session. The other streams play on, and later others are let in."""
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"kcp": {"streams": 4}})
    with RawClient(gateway, 36030).open() as player:
        player.login()
        streams = itertools.count(5, 2)

        def open_and_end(count):
            player.push(b"".join(frame(SYN, stream) + frame(FIN, stream)
                                 for stream in itertools.islice(streams, count)))
            assert player.ask(wire.USER, 1, b"in").data == b"in"
            return gateway.closed("client_closed")

        opened = open_and_end(80)
        assert 4 + 64 - 1 <= opened < 80
        assert gateway.counter("kcp_streams_refused") == 80 - opened

        def is_let_in():
            return open_and_end(1) > opened

        wait_for(is_let_in, "another one to be let in")
