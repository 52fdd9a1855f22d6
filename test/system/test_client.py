"""janus-client over each transport of a real gateway, and what it says of one it can't speak to."""

import base64
import hashlib
import re
import socket
import threading

import pytest
from janus.patience import patient
from janus.programs import Gateway, nodes_of, run

SESSION = ("heartbeat; expect mod=system within=20s; "
           "send user 1 size=9000 compress; expect mod=user size=9000 within=20s; close")


@pytest.fixture(scope="module")
def open_gateway(start_module, roma, certificates):
    """A gateway that listens with each transport, the last asking for the client's certificate."""
    tls = {"enabled": True, "cert": certificates.server_cert, "key": certificates.server_key}
    strict = {**tls, "client_ca": certificates.ca, "client_required": True}
    gateway = start_module(Gateway, nodes=nodes_of(roma.address), settings={"server": {
        "ws": {"addr": "127.0.0.1:0"},
        "listeners": [{"transport": "tcp", "addr": "127.0.0.1:0", "tls": tls},
                      {"transport": "ws", "addr": "127.0.0.1:0", "path": "/game", "tls": tls},
                      {"transport": "tcp", "addr": "127.0.0.1:0", "tls": strict}]}})
    forms = ["tcp://{}", "ws://{}/ws", "kcp://{}", "tls://{}", "wss://{}/game", "tls://{}"]
    names = ["tcp", "ws", "kcp", "tls", "wss", "strict"]
    listeners = gateway.ctl("status")["listeners"]
    gateway.urls = {name: form.format(one["address"])
                    for name, form, one in zip(names, forms, listeners)}
    return gateway


def play(gateway, url, *options, script=SESSION):
    return run("janus-client", "--connect", url, "--keys", gateway.tool_keys(), "--color", "blue",
               "--timeout", "20s", *options, "-e", script)


@pytest.mark.parametrize("name", ["tcp", "ws", "kcp", "tls", "wss"])
def test_a_session_is_played_over(name, open_gateway, certificates):
    played = play(open_gateway, open_gateway.urls[name], "--tls-ca", certificates.ca)
    assert played.returncode == 0, played.stdout + played.stderr


@pytest.mark.parametrize("options", [
    ["--kcp-fec", "off"], ["--kcp-fec", "3+2"], ["--kcp-profile", "low-latency"],
    ["--kcp-streams", "1"], ["--kcp-streams", "16"]])
def test_a_session_is_played_over_kcp_with(options, open_gateway):
    played = play(open_gateway, open_gateway.urls["kcp"], *options)
    assert played.returncode == 0, played.stdout + played.stderr


def test_a_client_that_leaves_over_kcp_is_not_waited_for(open_gateway):
    with open_gateway.closes("client_closed"):
        assert play(open_gateway, open_gateway.urls["kcp"]).returncode == 0


def test_nobody_at_the_other_end_of_kcp_is_said(open_gateway):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = "kcp://127.0.0.1:%d" % silent.getsockname()[1]
        failed = play(open_gateway, url, "--timeout", "300ms")
        assert failed.returncode == 3 and "did not answer the handshake in time" in failed.stdout
    refused = play(open_gateway, url, "--timeout", "300ms")
    assert refused.returncode == 3 and "Connection refused" in refused.stdout, refused


def test_a_certificate_is_shown_where_one_is_asked_for(open_gateway, certificates):
    url = open_gateway.urls["strict"]
    refused = play(open_gateway, url, "--tls-ca", certificates.ca)
    assert refused.returncode == 3 and "certificate required" in refused.stdout, refused
    shown = play(open_gateway, url, "--tls-ca", certificates.ca, "--tls-cert",
                 certificates.client_cert, "--tls-key", certificates.client_key)
    assert shown.returncode == 0, shown.stdout + shown.stderr


def test_a_gateway_whose_certificate_is_unknown_is_refused(open_gateway):
    url = open_gateway.urls["wss"]
    refused = play(open_gateway, url)
    assert refused.returncode == 3 and "local issuer certificate" in refused.stdout, refused
    assert play(open_gateway, url, "--tls-insecure").returncode == 0


def test_what_is_wrong_with_a_connection_is_said(open_gateway, certificates):
    urls = open_gateway.urls
    for url, words in ((urls["ws"] + "/elsewhere", "the upgrade was answered with HTTP/1.1 404"),
                       (urls["tcp"].replace("tcp", "tls", 1), "cannot connect: TLS: "),
                       (urls["tls"].replace("tls", "tcp", 1), "login failed: ")):
        failed = play(open_gateway, url, "--tls-ca", certificates.ca)
        assert failed.returncode == 3 and words in failed.stdout, failed


@pytest.mark.parametrize("options, words", [
    (["--connect", "http://127.0.0.1:1/"], "it must be host:port"),
    (["--connect", "tcp://127.0.0.1:1/path"], "only ws:// and wss:// have a path"),
    (["--connect", "kcp://127.0.0.1:1/path"], "only ws:// and wss:// have a path"),
    (["--kcp-fec", "10+"], "--kcp-fec is not like 10+3"),
    (["--kcp-fec", "200+57"], "--kcp-fec is not like 10+3"),
    (["--kcp-profile", "fast"], "--kcp-profile is not default or low-latency"),
    (["--connect", "tls://127.0.0.1:1", "--tls-ca", "/nowhere"], "/nowhere: "),
    (["--connect", "tls://127.0.0.1:1", "--tls-cert", "c.pem"], "go together"),
])
def test_wrong_options_are_refused(open_gateway, options, words):
    refused = run("janus-client", "--keys", open_gateway.tool_keys(), *options, "-e", "heartbeat")
    assert refused.returncode == 2 and words in refused.stderr, refused


# --- A server that does what no gateway does --------------------------------------------------


class Misbehaving:
    """Answers the upgrade of one connection, sends these bytes, and keeps what comes."""

    def __init__(self, frames):
        self.received = b""
        self._frames = frames
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "ws://127.0.0.1:%d/ws" % self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with self._listener, self._listener.accept()[0] as connection:
            connection.settimeout(patient(30))
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            key = re.search(rb"Sec-WebSocket-Key: (\S+)", head).group(1)
            proof = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                               b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
                               + base64.b64encode(proof) + b"\r\n\r\n" + self._frames)
            while chunk := connection.recv(4096):
                self.received += chunk

    def frames(self):
        """(opcode, data) of each frame that came, all of them masked."""
        self._thread.join(patient(30))
        rest, frames = self.received, []
        while rest:
            assert rest[0] & 0x80 and rest[1] & 0x80
            length, at = rest[1] & 0x7F, 2
            if length == 126:
                length, at = int.from_bytes(rest[2:4], "big"), 4
            mask, data = rest[at:at + 4], rest[at + 4:at + 4 + length]
            frames.append((rest[0] & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(data))))
            rest = rest[at + 4 + length:]
        return frames


@pytest.mark.parametrize("sent, words, answers", [
    (b"\x88\x09\x03\xf0go away", "closed with code 1008 go away", [(8, b"\x03\xf0")]),
    (b"\x88\x00", "closed without a code", [(8, b"")]),
    (b"\x81\x02hi", "the server sends text", [(8, b"\x03\xea")]),
    (b"\x89\x02hi\x82\x01x", "a WebSocket message is not one frame",
     [(10, b"hi"), (8, b"\x03\xea")]),
    (b"\x82\x09\x00\x00\x00\x01x\x00\x00\x00\x01", "a WebSocket message is not one frame",
     [(8, b"\x03\xea")]),
])
def test_a_server_that_breaks_the_protocol_is_left(open_gateway, sent, words, answers):
    server = Misbehaving(sent)
    failed = play(open_gateway, server.url)
    assert failed.returncode == 3 and words in failed.stdout, failed
    frames = server.frames()
    assert frames[0][0] == 2 and frames[0][1][:4] == (len(frames[0][1]) - 4).to_bytes(4, "big")
    assert frames[1:] == answers
