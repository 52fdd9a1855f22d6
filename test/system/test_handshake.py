"""Logging in: what a right handshake gets."""

import struct
import time

import pytest

from janus import wire
from janus.backend import Backend
from janus.patience import patient
from janus.programs import Gateway, nodes_of
from janus.wire import Keys


def test_a_login_is_answered_with_exactly_key_signature_time_and_start_index(gateway):
    with gateway.client() as client:
        client.send_raw(client.handshake_frame())
        body = client.receive_body()
        packet = wire.Packet.decode(body)
        answer = wire.SCHandshake.decode(packet.data)
        gateway.keys.server.public_key().verify(answer.sign, answer.pub)
        assert len(answer.pub) == 32
        assert abs(answer.timestamp - time.time()) <= patient(2)
        expected = wire.SCHandshake(
            pub=answer.pub, sign=answer.sign, timestamp=answer.timestamp, start_index=1
        )
        assert body == wire.Packet(mod=1, seq=1, data=expected.encode()).encode()


def test_each_login_gets_a_key_of_its_own(gateway):
    with gateway.client() as first, gateway.client() as second:
        assert first.login().pub != second.login().pub


def test_a_login_shows_in_the_counters_the_sessions_and_the_log(gateway):
    before, mark = gateway.total(), gateway.mark()
    with gateway.player(31001, sid=12) as client:
        session = gateway.session_of(31001)
        assert session["address"] == client.name()
        assert (session["color"], session["sid"]) == ("blue", 12)
        gateway.wait_counter("logins", before["counters"]["logins"] + 1)
    gateway.wait_log(r"event=session_closed reason=client_closed .*\buid=31001\b", since=mark)
    gateway.wait_gauge("sessions", 0)


def test_the_sid_is_the_tokens_where_the_handshake_names_none(gateway, backend):
    with gateway.client(uid=31002) as client:
        client.login(server_id=0, token=gateway.keys.token(31002, sid=77))
        assert gateway.session_of(31002)["sid"] == 77
        client.ask(wire.USER, 1, b"x")
        assert backend.stream_of(31002).metadata["x-md-global-sid"] == "77"


def test_a_clock_that_is_off_by_four_seconds_either_way_is_accepted(gateway):
    for offset in (-4, 4):
        with gateway.client() as client:
            client.login(timestamp=int(time.time()) + offset)


def test_a_handshake_may_come_a_byte_at_a_time(gateway):
    with gateway.client() as client:
        for byte in client.handshake_frame():
            client.send_raw(bytes([byte]))
        client.finish_login()
        raw = wire.frame(wire.seal(client.session_key, client.packet(wire.USER, 1, b"slow").encode()))
        for byte in raw:
            client.send_raw(bytes([byte]))
        assert client.receive().data == b"slow"


def test_two_messages_in_one_segment_are_two_messages(gateway):
    with gateway.player() as client:
        frames = b"".join(
            wire.frame(wire.seal(client.session_key, client.packet(wire.USER, 1, data).encode()))
            for data in (b"one", b"two", b"three")
        )
        client.send_raw(frames[:-5])
        client.send_raw(frames[-5:])
        assert [client.receive().data for _ in range(3)] == [b"one", b"two", b"three"]


@pytest.mark.parametrize("length", [16, 24, 32])
def test_an_account_key_of_any_aes_length_serves(start, length):
    keys = Keys(account_key=b"0123456789abcdef0123456789abcdef"[:length])
    backend = start(Backend)
    gateway = start(Gateway, nodes=nodes_of(backend.address), keys=keys,
                    settings={"worker": {"count": 1}})
    with gateway.player() as client:
        assert client.ask(wire.USER, 1, b"hello").data == b"hello"


def test_a_processor_without_aes_ni_serves_too(start):
    backend = start(Backend)
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"seal": {"aes_ni": False}, "worker": {"count": 1}})
    with gateway.player() as client:
        for size in (0, 1, 128, 9000):
            assert client.ask(wire.USER, 1, b"x" * size).data == b"x" * size


class TestWithEncryptionOff:
    @pytest.fixture(scope="class")
    def plain(self, start_module, backend):
        return start_module(Gateway, nodes=nodes_of(backend.address),
                            settings={"label": {"encrypted": False}, "worker": {"count": 1}})

    def test_the_key_is_zero_and_signed_all_the_same(self, plain):
        with plain.client() as client:
            answer = client.login(sign=b"")  # finish_login verifies the signature
            assert answer.pub == bytes(32)
            assert answer.start_index == 1

    def test_messages_stay_plain_and_may_come_together_with_the_handshake(self, plain):
        with plain.client() as client:
            message = wire.Packet(mod=wire.USER, seq=4, data=b"at once", index=1)
            client.send_raw(client.handshake_frame(sign=b"") + wire.frame(message.encode()))
            client.finish_login()
            assert client.receive().data == b"at once"

    def test_any_index_is_taken(self, plain):
        with plain.player() as client:
            for index in (7, 7, -1):
                assert client.ask(wire.USER, 1, b"x", index=index).index == index

    def test_a_wrong_token_is_refused_still(self, plain):
        with plain.closes("token_seal"):
            with plain.client() as client:
                client.send_raw(client.handshake_frame(token=wire.token_text(bytes(64))))
                assert client.receive_end() is None


def test_a_frame_length_is_big_endian_and_16384_bytes_are_allowed(gateway):
    with gateway.player() as client:
        overhead = len(client.packet(wire.USER, 1, b"y" * 16000, index=client.index).encode()) - 16000
        data = bytes(i * 7 & 0xFF for i in range(16384 - 28 - overhead))
        plain = client.packet(wire.USER, 1, data).encode()
        sealed = wire.seal(client.session_key, plain)
        assert len(sealed) == 16384
        client.send_raw(struct.pack(">i", len(sealed)) + sealed)
        # It is echoed compressed, since it is over the threshold: only then does it fit.
        assert client.receive().data == data
