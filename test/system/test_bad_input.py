"""What clients do wrong, by accident or on purpose: each has a counted, logged, clean outcome."""

import base64
import os
import struct
import time
import zlib

import pytest

from janus import wire
from janus.patience import patient, wait_for
from janus.programs import Gateway, node

SETTINGS = {"limits": {"handshake_timeout": f"{int(patient(2))}s"}}


def refused_login(gateway, reason, frame_of):
    with gateway.closes(reason):
        with gateway.client() as client:
            client.send_raw(frame_of(client))
            assert client.receive_end() is None
    still_serves(gateway)


def still_serves(gateway):
    with gateway.player(39999) as client:
        assert client.ask(wire.USER, 1, b"still there").data == b"still there"


# --- Framing --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, -1, 16385, 2**31 - 1, -(2**31)])
def test_a_wrong_length_before_the_login_closes(gateway, length):
    refused_login(gateway, "frame_length", lambda client: struct.pack(">i", length))


@pytest.mark.parametrize("length", [0, -1, 16385])
def test_a_wrong_length_after_the_login_closes_with_a_logout(gateway, length):
    with gateway.closes("frame_length"):
        with gateway.player() as client:
            client.send_raw(struct.pack(">i", length))
            assert client.receive_end() == wire.LOGOUT_SERVER


def test_a_handshake_cut_anywhere_is_a_client_that_left(gateway):
    with gateway.client() as client:
        whole = client.handshake_frame()
    cuts = [1, 3, 4, 5, 20, len(whole) // 2, len(whole) - 1]
    with gateway.closes("client_closed", count=len(cuts)):
        for cut in cuts:
            with gateway.client() as client:
                client.send_raw(whole[:cut])


def test_a_message_cut_anywhere_is_a_client_that_left(gateway, backend):
    cuts = [1, 4, 5, 16, 30]
    with gateway.closes("client_closed", count=len(cuts)):
        for cut in cuts:
            with gateway.player(31500 + cut) as client:
                sealed = wire.seal(client.session_key, client.packet(wire.USER, 1, b"cut").encode())
                client.send_raw(wire.frame(sealed)[:cut])
    assert not any(backend.streams_of(31500 + cut) for cut in cuts)


# --- The handshake --------------------------------------------------------------------------


def handshake_packet(**fields):
    return wire.frame(wire.Packet(**fields).encode())


@pytest.mark.parametrize("mod,seq", [(wire.USER, 1), (1, 2), (0, 0), (6, 1)])
def test_a_first_packet_that_is_no_handshake_closes(gateway, mod, seq):
    refused_login(gateway, "handshake_unexpected",
                  lambda client: handshake_packet(
                      mod=mod, seq=seq, data=client.handshake_message().encode()))


@pytest.mark.parametrize("body", [b"\xff" * 40, b"\x0a\x7fshort", b"\x00", b"\x0a"])
def test_a_first_packet_that_is_no_protobuf_closes(gateway, body):
    refused_login(gateway, "handshake_malformed", lambda client: wire.frame(body))


def test_a_handshake_whose_content_is_no_protobuf_closes(gateway):
    refused_login(gateway, "handshake_malformed",
                  lambda client: handshake_packet(mod=1, seq=1, data=b"\x0a\xff\xff"))


def tampered(**changes):
    return lambda client: client.handshake_frame(**changes)


def test_an_empty_token_is_refused(gateway):
    refused_login(gateway, "token_empty",
                  lambda client: handshake_packet(
                      mod=1, seq=1,
                      data=wire.CSHandshake(pub=client.exchange.public,
                                            sign=bytes(64), timestamp=int(time.time())).encode()))


@pytest.mark.parametrize("offset", [-6, 6])
def test_a_clock_that_is_off_by_six_seconds_is_refused(gateway, offset):
    def early_in_a_second(client):
        wait_for(lambda: time.time() % 1 < 0.3, "the next second")  # so that both read the same
        return client.handshake_frame(timestamp=int(time.time()) + offset)

    refused_login(gateway, "handshake_clock", early_in_a_second)


@pytest.mark.parametrize("timestamp", [-1, 2**63 - 1, -(2**63)])
def test_an_absurd_timestamp_is_refused(gateway, timestamp):
    refused_login(gateway, "handshake_clock", tampered(timestamp=timestamp))


def sealed_token(keys, content=None, key=None):
    content = content if content is not None else wire.AuthToken(
        color="blue", account_id=10001, timeout=int(time.time()) + 60, status=1, rand="aaaa").encode()
    return wire.seal(key or keys.account_key, content)


def test_a_token_that_is_no_base64_is_refused(gateway):
    refused_login(gateway, "token_encoding", tampered(token="!!not base64!!"))


def test_a_token_without_its_padding_is_refused(gateway):
    keys = gateway.keys
    content = wire.AuthToken(color="b", account_id=1, timeout=int(time.time()) + 60, status=1)
    while (len(content.encode()) + 28) % 3 == 0:
        content.rand += "r"
    text = wire.token_text(sealed_token(keys, content.encode()))
    assert text.endswith("=")
    refused_login(gateway, "token_encoding", tampered(token=text.rstrip("=")))


def test_a_token_in_the_other_base64_alphabet_is_refused(gateway):
    text = "="
    while not set("+/") & set(text):
        text = base64.b64encode(sealed_token(gateway.keys)).decode()
    refused_login(gateway, "token_encoding", tampered(token=text))


@pytest.mark.parametrize("keep", [1, 12, 27, 28, 40])
def test_a_truncated_token_is_refused(gateway, keep):
    refused_login(gateway, "token_seal",
                  tampered(token=wire.token_text(sealed_token(gateway.keys)[:keep])))


def test_a_token_sealed_with_another_key_is_refused(gateway):
    refused_login(gateway, "token_seal",
                  tampered(token=wire.token_text(sealed_token(gateway.keys, key=os.urandom(32)))))


def test_an_expired_token_is_refused(gateway):
    refused_login(gateway, "token_expired",
                  lambda client: client.handshake_frame(token=gateway.keys.token(lifetime_s=-1)))


def test_a_token_without_a_timeout_is_expired(gateway):
    content = wire.AuthToken(color="blue", account_id=10001, status=1).encode()
    refused_login(gateway, "token_expired",
                  tampered(token=wire.token_text(sealed_token(gateway.keys, content))))


@pytest.mark.parametrize("content", [b"\xff\xff\xff\xff", b"\x12\x7fx", b'{"uid": 10001}'])
def test_a_token_of_another_shape_is_refused(gateway, content):
    refused_login(gateway, "token_content",
                  tampered(token=wire.token_text(sealed_token(gateway.keys, content))))


def test_a_token_with_an_endless_color_is_refused(gateway):
    content = wire.AuthToken(color="c" * 200, account_id=1, timeout=int(time.time()) + 60, status=1)
    refused_login(gateway, "token_content",
                  tampered(token=wire.token_text(sealed_token(gateway.keys, content.encode()))))


@pytest.mark.parametrize("sign", [bytes(64), b"short", bytes(65)])
def test_a_wrong_signature_is_refused(gateway, sign):
    refused_login(gateway, "handshake_signature", tampered(sign=sign))


def test_a_signature_over_another_key_is_refused(gateway):
    refused_login(gateway, "handshake_signature",
                  tampered(sign=gateway.keys.client.sign(wire.Exchange().public)))


@pytest.mark.parametrize("pub", [bytes(range(31)), bytes(range(33)), bytes(32)],
                         ids=["31 bytes", "33 bytes", "all zero"])
def test_an_unusable_public_key_is_refused(gateway, pub):
    refused_login(gateway, "handshake_key", tampered(pub=pub))


def test_a_client_that_connects_and_says_nothing_is_closed(gateway):
    with gateway.closes("handshake_timeout"):
        with gateway.client() as client:
            assert client.receive_end() is None


def test_a_client_that_stops_in_the_middle_of_its_handshake_is_closed(gateway):
    with gateway.closes("handshake_timeout"):
        with gateway.client() as client:
            client.send_raw(client.handshake_frame()[:30])
            assert client.receive_end() is None


# --- After the login ------------------------------------------------------------------------


def ends_session(gateway, reason, misbehave):
    with gateway.closes(reason):
        with gateway.player() as client:
            misbehave(client)
            assert client.receive_end() == wire.LOGOUT_SERVER
    still_serves(gateway)


def test_a_message_with_a_broken_tag_ends_the_session(gateway):
    def misbehave(client):
        sealed = bytearray(wire.seal(client.session_key, client.packet(wire.USER, 1, b"x").encode()))
        sealed[-1] ^= 1
        client.send_raw(wire.frame(bytes(sealed)))

    ends_session(gateway, "seal_broken", misbehave)


@pytest.mark.parametrize("size", [1, 12, 27])
def test_a_message_too_short_for_a_seal_ends_the_session(gateway, size):
    ends_session(gateway, "seal_broken", lambda client: client.send_raw(wire.frame(b"z" * size)))


def test_a_repeated_index_ends_the_session(gateway):
    def misbehave(client):
        client.ask(wire.USER, 1, b"first")
        client.send(wire.USER, 1, b"again", index=1)

    ends_session(gateway, "index_wrong", misbehave)


def test_a_skipped_index_ends_the_session(gateway):
    ends_session(gateway, "index_wrong", lambda client: client.send(wire.USER, 1, b"x", index=2))


def test_a_message_played_again_ends_the_session(gateway):
    def misbehave(client):
        raw = wire.frame(wire.seal(client.session_key, client.packet(wire.USER, 1, b"x").encode()))
        client.send_raw(raw)
        assert client.receive().data == b"x"
        client.send_raw(raw)

    ends_session(gateway, "index_wrong", misbehave)


def test_the_gateways_own_message_played_back_ends_the_session(gateway):
    def misbehave(client):
        client.ask(wire.USER, 1, b"x")
        client.send_raw(wire.frame(client.last_body))

    ends_session(gateway, "seal_replay", misbehave)


def test_a_packet_that_is_no_protobuf_ends_the_session(gateway):
    ends_session(gateway, "packet_malformed", lambda client: client.send_sealed(b"\x0a\xff\xff\xff"))


def test_a_zlib_bomb_ends_the_session(gateway):
    bomb = zlib.compress(bytes(2 << 20), 9)
    assert len(bomb) < 4096
    ends_session(gateway, "inflate_too_large",
                 lambda client: client.send(wire.USER, 1, bomb, compress=True))


def test_a_truncated_zlib_stream_ends_the_session(gateway):
    cut = zlib.compress(os.urandom(500))[:-20]
    ends_session(gateway, "inflate_malformed",
                 lambda client: client.send(wire.USER, 1, cut, compress=True))


@pytest.mark.parametrize("data", [b"not zlib at all", b"", zlib.compress(b"x") + b"more"],
                         ids=["garbage", "empty", "bytes behind the end"])
def test_data_that_is_no_zlib_stream_ends_the_session(gateway, data):
    ends_session(gateway, "inflate_malformed",
                 lambda client: client.send(wire.USER, 1, data, compress=True))


def test_another_players_uid_on_the_player_tunnel_is_refused(gateway, backend):
    before = gateway.total()["counters"]
    with gateway.player(31700) as client:
        client.send(wire.USER, 9, b"let me in", obj=31701)
        error = client.receive_error()
        assert (error.mod, error.seq) == (wire.USER, 9)
        assert error.msg
        # The session goes on, with the own uid named or not.
        assert client.ask(wire.USER, 1, b"me", obj=31700).data == b"me"
        assert client.ask(wire.USER, 1, b"me").obj == 31700
    after = gateway.total()["counters"]
    assert after["foreign_objects"] == before["foreign_objects"] + 1
    assert after["unexpected_errors"] == before["unexpected_errors"] + 1
    assert backend.streams_of(oid=31701) == []


def test_a_module_without_a_tunnel_is_refused(start, backend):
    types = [{"name": "room", "service": "roma.room.service",
              "method": "/room.intra.v1.TunnelService/Tunnel", "modules": [6]},
             {"name": "player", "service": "roma.player.service",
              "method": "/player.intra.v1.TunnelService/Tunnel", "modules": [1, 2, 3],
              "main": True, "own_object_only": True}]
    gateway = start(Gateway, nodes=[node(backend.address)], settings={"tunnel": {"types": types}})
    with gateway.player() as client:
        for mod in (0, 5, 77, 2**31 - 1, -1):
            client.send(mod, 3, b"x")
            error = client.receive_error()
            assert (error.mod, error.seq) == (mod, 3)
        assert client.ask(wire.USER, 1, b"fine").data == b"fine"
    assert gateway.counter("unknown_modules") == 5


def test_random_bytes_never_hurt_the_gateway(gateway):
    """Whatever comes, the connection ends or the bytes wait; the workers stay the same."""
    workers = gateway.worker_pids()
    for round_ in range(40):
        with gateway.client() as client:
            client.send_raw(struct.pack(">i", 64) + os.urandom(64))
            assert client.receive_end() is None
    assert gateway.worker_pids() == workers
    still_serves(gateway)
