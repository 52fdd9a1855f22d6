"""Players over WebSocket (RFC 6455): the upgrade, frames of every shape, and the way it ends."""

import os
import struct
import time

import pytest

from janus import wire
from janus.patience import patient, wait_for
from janus.programs import Gateway, nodes_of
from janus.push import HttpPusher, json_body
from janus.websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, request

SETTINGS = {
    "server": {"ws": {"ping_interval": "0s"},
               "listeners": [
                   {"transport": "ws", "addr": "127.0.0.1:0", "path": "/play",
                    "origins": ["https://game.example", "https://www.game.example"],
                    "subprotocols": ["janus.v2", "janus.v1"], "ping_interval": "0s"},
                   {"transport": "ws", "addr": "127.0.0.1:0", "ping_interval": "1s"}]},
    "limits": {"handshake_timeout": f"{int(patient(2))}s"},
}


def closes(gateway, reason, code, break_it, login=True):
    """break_it(client) makes the gateway close with that reason and code."""
    with gateway.closes(reason):
        client = gateway.player(30001, gateway.websocket) if login else gateway.websocket()
        with client:
            break_it(client)
            assert client.receive_close() == code
            assert client.close_reason == reason


def session_works(client, text=b"hello"):
    assert client.ask(wire.USER, 1, text).data == text


# --- Playing --------------------------------------------------------------------------------


def test_a_player_plays_over_websocket(gateway):
    with gateway.player(30002, gateway.websocket) as client:
        for size in (0, 1, 100, 125, 126, 127, 1000, 9000):
            session_works(client, os.urandom(size))
        session = gateway.session_of(30002)
        assert session["address"] == client.name()
        assert session["transport"] == "ws"


def test_the_largest_message_gets_through(gateway):
    with gateway.player(30003, gateway.websocket) as client:
        largest = 16384 - 28 - len(client.packet(wire.USER, 1, b"", index=1).encode()) - 4
        session_works(client, os.urandom(largest)[:12000])
        client.send(wire.USER, 1, os.urandom(largest))
        assert client.receive() is not None


def test_the_upgrade_and_the_first_frames_may_come_together_or_byte_by_byte(gateway):
    with gateway.websocket(uid=30004, upgrade=False) as client:
        text = request().encode()
        for i in range(len(text) - 1):
            client.socket.sendall(text[i:i + 1])
        together = text[-1:] + frame(BINARY, client.handshake_frame())
        assert client.ask_http(together)[0] == 101
        client.finish_login()
        session_works(client)
        sealed = frame(BINARY, wire.frame(wire.seal(
            client.session_key, client.packet(wire.USER, 1, b"slow").encode())))
        for i in range(len(sealed)):
            client.socket.sendall(sealed[i:i + 1])
        assert client.receive().data == b"slow"


def test_many_messages_in_one_packet(gateway):
    with gateway.player(30005, gateway.websocket) as client:
        raw = b"".join(frame(BINARY, wire.frame(wire.seal(
            client.session_key, client.packet(wire.USER, 1, b"%d" % i).encode())))
            for i in range(200))
        client.socket.sendall(raw)
        assert [client.receive().data for _ in range(200)] == [b"%d" % i for i in range(200)]


def test_a_message_in_pieces_with_pings_between_them(gateway):
    with gateway.player(30006, gateway.websocket) as client:
        message = wire.frame(wire.seal(client.session_key,
                                       client.packet(wire.USER, 1, b"x" * 300).encode()))
        client.send_frame(BINARY, message[:2], fin=False)
        client.send_frame(PING, b"still there?")
        client.send_frame(CONTINUATION, b"", fin=False)
        client.send_frame(CONTINUATION, message[2:200], fin=False)
        client.send_frame(CONTINUATION, message[200:])
        assert client.receive_control(PONG) == b"still there?"
        assert client.receive().data == b"x" * 300
        session_works(client)


def test_messages_in_pieces_as_often_as_one_likes(gateway):
    with gateway.player(30019, gateway.websocket) as client:
        for i in range(300):
            message = wire.frame(wire.seal(client.session_key, client.packet(
                wire.USER, 1, b"%03d" % i + b"x" * 300).encode()))
            client.socket.sendall(frame(BINARY, message[:100], fin=False)
                                  + frame(CONTINUATION, message[100:200], fin=False)
                                  + frame(CONTINUATION, message[200:]))
        assert [client.receive().data[:3] for _ in range(300)] == [
            b"%03d" % i for i in range(300)]


def test_a_client_that_is_behind_is_not_judged_by_its_pings(start, backend):
    """A ping stands behind what waits for it, so that its answer has to wait too."""
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "server": {"ws": {"ping_interval": "500ms"}}, "worker": {"count": 1},
        "queue": {"client_grace": "60s"}, "push": {"slow_client": "drop_newest"}})
    pusher = HttpPusher(gateway)
    with gateway.player(30020, gateway.websocket, receive_buffer=4096) as client:
        while gateway.gauge("queued_out_bytes") == 0:
            pusher.ok("/push", {"uid": "30020", "bodies": [
                json_body(os.urandom(9000)) for _ in range(50)]})
        # Longer than pings would have it closed.
        with gateway.websocket(uid=30021) as other:
            other.login()
            for _ in range(4):
                assert other.receive_control(PING) == b""
                other.send_frame(PONG)
        assert gateway.closed("ping_timeout") == 0
        client.send(wire.USER, 1, b"end")
        while True:
            opcode, payload = client.receive_frame()
            if opcode == PING:
                client.send_frame(PONG)
            elif wire.Packet.decode(wire.unseal(client.session_key, payload[4:])).data == b"end":
                break


def test_pings_are_answered_and_pongs_taken(gateway):
    with gateway.player(30007, gateway.websocket) as client:
        for payload in (b"", b"p", b"p" * 125):
            client.send_frame(PING, payload)
            assert client.receive_control(PONG) == payload
            client.send_frame(PONG, payload)
        session_works(client)


def test_a_quiet_client_is_pinged_and_one_that_does_not_answer_closed(gateway):
    address = gateway.listener("ws", 2)
    with gateway.websocket(address, uid=30008) as client:
        client.login()
        for _ in range(2):
            assert client.receive_control(PING) == b""
            client.send_frame(PONG)
        session_works(client)
    with gateway.closes("ping_timeout"):
        with gateway.websocket(address, uid=30009) as client:
            client.login()
            assert client.receive_control(PING) == b""
            assert client.receive_close() == 1008


def test_a_push_reaches_a_player_over_websocket(gateway):
    with gateway.player(30010, gateway.websocket) as client:
        gateway.ctl("push", "30010", "--mod", "3", "--seq", "9", "--data", "news")
        assert client.receive().data == b"news"


# --- The upgrade ----------------------------------------------------------------------------

BAD_UPGRADES = {
    "another_path": (request(path="/other"), 404),
    "a_path_that_begins_alike": (request(path="/ws/"), 404),
    "no_host": (request(Host=None), 400),
    "a_host_and_an_empty_one": (request(Host=["a", ""]), 400),
    "two_hosts": (request(Host=["a", "b"]), 400),
    "no_upgrade": (request(Upgrade=None), 426),
    "another_upgrade": (request(Upgrade="h2c"), 426),
    "no_connection": (request(Connection="keep-alive"), 426),
    "an_old_version": (request(version="8"), 426),
    "no_version": (request(Sec_WebSocket_Version=None), 426),
    "two_versions": (request(Sec_WebSocket_Version=["13", "13"]), 426),
    "no_key": (request(Sec_WebSocket_Key=None), 400),
    "two_keys": (request(Sec_WebSocket_Key=["AAAAAAAAAAAAAAAAAAAAAA=="] * 2), 400),
    "a_short_key": (request(key="AAAA"), 400),
    "a_key_that_is_no_base64": (request(key="!" * 24), 400),
    "a_body": (request(Content_Length="5"), 400),
    "a_chunked_body": (request(Transfer_Encoding="chunked"), 400),
    "another_method": (request().replace("GET", "POST", 1), 405),
    "an_old_http": (request().replace("HTTP/1.1", "HTTP/1.0"), 505),
    "no_http": ("hello\r\n\r\n", 400),
    "an_absolute_target": (request().replace("/ws", "http://gate/ws", 1), 400),
    "a_folded_header": (request().replace("\r\n\r\n", "\r\n folded\r\n\r\n"), 400),
    "a_blank_before_the_colon": (request(X="1").replace("X:", "X :"), 400),
    "a_bare_line_feed": (request(X="a\nb"), 400),
    "a_zero_byte": (request(X="a\0b"), 400),
    "a_game_client_without_websocket": (b"\0\0\1\0" + b"x" * 256, 400),
    "too_long": (request(X="x" * 9000), 431),
    "too_long_without_an_end": ("GET /ws HTTP/1.1\r\nX: " + "x" * 9000, 431),
    "too_many_headers": (request(**{f"X{i}": "1" for i in range(70)}), 431),
}


@pytest.mark.parametrize("kind", BAD_UPGRADES)
def test_a_bad_upgrade_is_refused_and_told_why(gateway, kind):
    text, expected = BAD_UPGRADES[kind]
    with gateway.closes("websocket_upgrade"):
        with gateway.websocket(upgrade=False) as client:
            status, headers, _ = client.ask_http(text)
            assert status == expected
            assert headers["connection"] == "close"
            if status == 426:
                assert headers["upgrade"] == "websocket"
            assert client.receive_frame is not None
            while client.socket.recv(4096):
                pass


@pytest.mark.parametrize("origin,status", [
    ("https://game.example", 101), ("https://www.game.example", 101), (None, 101),
    ("https://evil.example", 403), ("http://game.example", 403), ("https://game.example:444", 403),
    ("null", 403), ("", 403), (["https://game.example", "https://evil.example"], 403)])
def test_only_listed_origins_are_let_in(gateway, origin, status):
    with gateway.websocket(gateway.listener("ws", 1), upgrade=False) as client:
        assert client.ask_http(request(path="/play?v=1", Origin=origin))[0] == status


@pytest.mark.parametrize("offered,taken", [
    (None, None), ("chat", None), ("janus.v1", "janus.v1"), ("chat, janus.v1,janus.v2", "janus.v1"),
    (["chat", "janus.v2"], "janus.v2"), ("JANUS.V1", None)])
def test_the_first_subprotocol_that_both_know_is_taken(gateway, offered, taken):
    with gateway.websocket(gateway.listener("ws", 1), upgrade=False) as client:
        status, headers, _ = client.ask_http(request(path="/play", Sec_WebSocket_Protocol=offered))
        assert status == 101
        assert headers.get("sec-websocket-protocol") == taken
        assert "sec-websocket-extensions" not in headers


def test_extensions_are_not_agreed_to(gateway):
    with gateway.websocket(upgrade=False, uid=30011) as client:
        headers = client.upgrade(Sec_WebSocket_Extensions="permessage-deflate")
        assert "sec-websocket-extensions" not in headers
        client.login()
        session_works(client)


def test_a_slow_upgrade_is_closed_in_time(gateway):
    with gateway.closes("handshake_timeout"):
        with gateway.websocket(upgrade=False) as client:
            client.socket.sendall(b"GET /ws HTTP/1.1\r\nHost: gate\r\n")
            assert client.socket.recv(1) == b""


def test_an_upgrade_without_a_login_is_closed_in_time(gateway):
    closes(gateway, "handshake_timeout", 1008, lambda client: None, login=False)


# --- Frames that are wrong -------------------------------------------------------------------

BAD_FRAMES = {
    "unmasked": ("websocket_protocol", 1002, [frame(BINARY, b"x", mask=None)]),
    "a_reserved_bit": ("websocket_protocol", 1002, [frame(BINARY, b"x", rsv=4)]),
    "another_reserved_bit": ("websocket_protocol", 1002, [frame(PING, b"x", rsv=1)]),
    "a_reserved_opcode": ("websocket_protocol", 1002, [frame(3, b"x")]),
    "a_reserved_control": ("websocket_protocol", 1002, [frame(11, b"x")]),
    "a_ping_in_pieces": ("websocket_protocol", 1002, [frame(PING, b"x", fin=False)]),
    "a_long_ping": ("websocket_protocol", 1002, [frame(PING, b"x" * 126)]),
    "a_long_close": ("websocket_protocol", 1002, [frame(CLOSE, b"\x03\xe8" + b"x" * 124)]),
    "a_length_in_too_many_bytes": ("websocket_protocol", 1002,
                                   [frame(BINARY, b"x" * 100, length_bytes=2)]),
    "a_length_in_far_too_many_bytes": ("websocket_protocol", 1002,
                                       [frame(BINARY, b"x" * 300, length_bytes=8)]),
    "a_piece_of_nothing": ("websocket_protocol", 1002, [frame(CONTINUATION, b"x")]),
    "a_message_within_a_message": ("websocket_protocol", 1002,
                                   [frame(BINARY, b"x", fin=False), frame(BINARY, b"x")]),
    "a_text": ("websocket_text", 1003, [frame(TEXT, b"hello")]),
    "a_text_in_pieces": ("websocket_text", 1003, [frame(TEXT, b"hel", fin=False)]),
    "a_close_of_one_byte": ("websocket_protocol", 1002, [frame(CLOSE, b"x")]),
    "a_close_with_a_reserved_code": ("websocket_protocol", 1002, [frame(CLOSE, b"\x03\xed")]),
    "a_close_with_a_code_of_nobody": ("websocket_protocol", 1002, [frame(CLOSE, b"\0\0")]),
    "a_close_that_is_no_utf8": ("websocket_protocol", 1007,
                                [frame(CLOSE, b"\x03\xe8\xc3\x28")]),
    "too_large": ("frame_length", 1009, [frame(BINARY, b"", length=16389)]),
    "absurdly_large": ("frame_length", 1009, [frame(BINARY, b"", length=2**63, length_bytes=8)]),
    "too_large_in_pieces": ("frame_length", 1009, [
        frame(BINARY, b"x" * 16000, fin=False), frame(CONTINUATION, b"x" * 400)]),
    "a_message_without_its_length": ("frame_length", 1007, [frame(BINARY, b"abc")]),
    "an_empty_message": ("frame_length", 1007, [frame(BINARY, b"")]),
    "a_message_shorter_than_its_length": ("frame_length", 1007,
                                          [frame(BINARY, b"\0\0\0\5abcd")]),
    "a_message_longer_than_its_length": ("frame_length", 1007,
                                         [frame(BINARY, b"\0\0\0\3abcd")]),
    "too_many_pings": ("websocket_flood", 1008, [frame(PING, b"x")] * 1000),
    "too_many_pieces": ("websocket_flood", 1008, [frame(BINARY, b"", fin=False)] + [
        frame(CONTINUATION, b"", fin=False)] * 1000),
}


@pytest.mark.parametrize("login", [True, False], ids=["after_the_login", "before_the_login"])
@pytest.mark.parametrize("kind", BAD_FRAMES)
def test_a_frame_that_breaks_the_rules_closes(gateway, kind, login):
    reason, code, frames = BAD_FRAMES[kind]

    def break_it(client):
        try:
            client.socket.sendall(b"".join(frames))
        except ConnectionError:
            pass  # it is closed already

    closes(gateway, reason, code, break_it, login)


# --- The end --------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", struct.pack(">H", 1000), struct.pack(">H", 4321) + b"bye"])
def test_a_close_is_answered(gateway, payload):
    with gateway.closes("client_closed"):
        with gateway.player(30012, gateway.websocket) as client:
            client.send_frame(CLOSE, payload)
            assert client.receive_control(CLOSE) == payload[:2]
            assert client.receive_frame() is None


def test_a_client_that_leaves_without_a_close(gateway):
    with gateway.closes("client_closed"):
        gateway.player(30013, gateway.websocket).close()


@pytest.mark.parametrize("reason,code,end", [
    ("handshake_unexpected", 1008, lambda gateway, client: client.send_raw(
        wire.frame(wire.Packet(mod=3, seq=1).encode()))),
    ("seal_broken", 1008, lambda gateway, client: client.send_raw(wire.frame(b"x" * 60))),
    ("kicked", 1008, lambda gateway, client: gateway.ctl("kick", str(client.uid))),
])
def test_the_code_of_a_close_tells_its_reason(gateway, reason, code, end):
    closes(gateway, reason, code, lambda client: end(gateway, client),
           login=reason != "handshake_unexpected")


def test_a_logout_comes_before_the_close(gateway):
    with gateway.player(30014, gateway.websocket) as client:
        gateway.ctl("kick", "30014")
        assert client.receive_end() == wire.LOGOUT_KICKED
        assert client.close_code == 1008


def test_a_player_whom_no_game_server_takes_is_to_come_again(start):
    gateway = start(Gateway, nodes=[], settings={"tunnel": {
        "open_timeout": "100ms", "reopen_timeout": "200ms"}})
    with gateway.player(30018, gateway.websocket) as client:
        client.send(wire.USER, 1, b"anybody?")
        assert client.receive_end() == wire.LOGOUT_WAITING
        assert (client.close_code, client.close_reason) == (1013, "tunnel_lost")


def test_a_close_without_an_answer_is_bounded(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"stop_timeout": "1s"}})
    with gateway.player(30015, gateway.websocket) as client:
        gateway.ctl("kick", "30015")
        client.receive_end()
        gateway.wait_gauge("connections", 0)


def test_players_are_told_when_the_gateway_stops(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(30016, gateway.websocket) as client:
        gateway.process.terminate()
        assert client.receive_end() == wire.LOGOUT_WAITING
        assert client.close_code == 1001
        client.send_frame(CLOSE, struct.pack(">H", 1001))
        assert client.receive_frame() is None
        gateway.wait_exit()


def test_a_flood_of_pings_does_not_fill_the_memory(gateway):
    """Their answers are not read; what waits for the client stays bounded all the same."""
    with gateway.closes("websocket_flood"):
        with gateway.player(30017, gateway.websocket, receive_buffer=4096) as client:
            deadline = time.monotonic() + patient(30)
            try:
                while time.monotonic() < deadline:
                    client.socket.sendall(frame(PING, b"x" * 125) * 50)
            except ConnectionError:
                pass
    wait_for(lambda: gateway.gauge("queued_out_bytes") == 0, "nothing to wait for it")
