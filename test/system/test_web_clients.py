"""Clients that others wrote, at the WebSocket and TLS listeners: npm's ws, curl, openssl."""

import itertools
import os
import subprocess

import pytest

from janus.patience import patient
from janus.programs import Gateway, Program, nodes_of, write_file

pytestmark = pytest.mark.needs_release

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = os.path.join(HERE, "..", "..", "build", "npm", "test", "system", "js", "node_modules")


@pytest.fixture(scope="module")
def gateway(start_module, backend, certificates):
    tls = {"enabled": True, "cert": certificates.server_cert, "key": certificates.server_key}
    return start_module(Gateway, nodes=nodes_of(backend.address), settings={"server": {
        "ws": {"ping_interval": "200ms"},
        "listeners": [{"transport": "tcp", "addr": "127.0.0.1:0", "tls": tls},
                      {"transport": "ws", "addr": "127.0.0.1:0", "ping_interval": "200ms",
                       "tls": tls}]}})


def address(gateway, transport, tls):
    return next(listener["address"] for listener in gateway.ctl("status")["listeners"]
                if (listener["transport"], listener["tls"]) == (transport, tls))


@pytest.fixture
def npms_ws(start, gateway, certificates, tmp_path):
    """A session by npm's ws client, logged in."""
    assert os.path.exists(PACKAGES), "the npm packages could not be fetched (make test_packages)"
    keys = gateway.keys
    client_key = write_file(tmp_path / "client.key", keys.client_pem())
    server_key = write_file(tmp_path / "server.pub", keys.server_public_pem())

    def run(scheme, uid, *more):
        return start(NodeClient, f"{scheme}://{address(gateway, 'ws', scheme == 'wss')}/ws",
                     certificates.ca, keys.token(uid), client_key, server_key, *more)

    return run


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_npms_ws_plays_a_session(gateway, npms_ws, scheme):
    uid = {"ws": 41001, "wss": 41002}[scheme]
    client = npms_ws(scheme, uid)
    client.wait_log(f'<- user 7 obj {uid} index 1 5 bytes: "hello"')
    client.wait_log("pong: are you there")
    client.wait_log("ping from the gateway")
    gateway.ctl("kick", str(uid))
    client.wait_log("the connection is closed, code 1008: kicked; .* logout, AdminKickOut")
    assert client.wait_exit() == 0, client.log()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_npms_ws_leaves_and_is_answered_with_its_own_code(gateway, npms_ws, scheme):
    with gateway.closes("client_closed"):
        npms_ws(scheme, 41003, "leave").wait_log("the connection is closed, code 1000$")


class NodeClient(Program):
    def __init__(self, *arguments):
        super().__init__(["node", os.path.join(HERE, "js", "session.mjs"), *arguments])

    def stop(self):
        self.kill()
        self._reader.join(patient(10))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_curl_upgrades_to_a_websocket(gateway, certificates, scheme):
    # The key and its answer are those of RFC 6455.
    curl = subprocess.Popen(
        ["curl", "-sS", "-i", "-N", "--http1.1", "--cacert", certificates.ca, "--max-time", "60",
         "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
         "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
         f"{scheme}://{address(gateway, 'ws', scheme == 'https')}/ws"],
        stdout=subprocess.PIPE)
    head = list(itertools.takewhile(bytes.strip, curl.stdout))
    curl.kill()
    curl.communicate()
    assert head and head[0].startswith(b"HTTP/1.1 101 ")
    headers = dict(line.decode().strip().split(": ", 1) for line in head[1:])
    assert headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("transport", ["tcp", "ws"])
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_openssl_gets_through_the_tls_handshake(gateway, certificates, transport, version):
    done = subprocess.run(
        ["openssl", "s_client", "-connect", address(gateway, transport, True), "-brief",
         "-tls" + version.replace(".", "_"), "-CAfile", certificates.ca, "-verify_return_error",
         "-verify_ip", "127.0.0.1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=patient(60))
    assert done.returncode == 0, done.stdout
    assert f"Protocol version: TLSv{version}\n" in done.stdout
    assert "Verification: OK\n" in done.stdout
