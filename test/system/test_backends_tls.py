"""TLS towards the nodes that ask for it, and what becomes of one that can't be trusted."""

import os
import re
import socket
import ssl
import subprocess
import threading

import pytest
from janus import wire
from janus.backend import Backend
from janus.certificates import Certificates
from janus.etcd_server import Etcd
from janus.patience import ms, wait_for
from janus.programs import BIN, Gateway, Roma, etcd_settings, nodes_of, run

QUICK = {"open_timeout": f"{ms(0.5)}ms", "reopen_timeout": f"{ms(1.5)}ms", "backoff": "50ms",
         "backoff_max": "200ms", "suspect": "300ms"}


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Of another authority, for a server of another name."""
    return Certificates(tmp_path_factory.mktemp("elsewhere"), name="roma.internal")


def own(tls, **more):
    return {"ca": tls.ca, "cert": tls.client_cert, "key": tls.client_key, **more}


def roma_options(tls):
    return ["--tls-cert", tls.server_cert, "--tls-key", tls.server_key]


def test_messages_go_to_a_node_with_tls_and_to_one_without(start, backend, tls):
    roma = start(Roma, *roma_options(tls), "--tls-client-ca", tls.ca)
    nodes = (nodes_of(roma.address, services=["roma.player.service"], tls=True)
             + nodes_of(backend.address, services=["roma.room.service"]))
    gateway = start(Gateway, nodes=nodes, settings={"tunnel": {"tls": own(tls)}})
    assert gateway.nodes()[roma.address]["tls"] is True
    assert gateway.nodes("roma.room.service")[backend.address]["tls"] is False
    table = subprocess.check_output(
        [os.path.join(BIN, "janusctl"), "--socket", gateway.socket_path, "nodes"], text=True)
    lines = [line.split() for line in table.splitlines()]
    column = lines[0].index("tls")
    assert {line[1]: line[column] for line in lines[1:]} == {
        roma.address: "yes", backend.address: "no"}
    with gateway.player(39001) as player:
        assert player.ask(wire.USER, 1, b"sealed").data == b"sealed"
        assert player.ask(wire.ROOM, 1, b"plain", obj=5).data == b"plain"


@pytest.mark.parametrize("demanded", [False, True])
def test_our_certificate_is_shown_to_a_node_that_asks(start, tls, demanded):
    backend = start(Backend, tls=tls, client_certificates=demanded)
    gateway = start(Gateway, nodes=nodes_of(backend.address, tls=True),
                    settings={"tunnel": {"tls": own(tls)}})
    with gateway.player(39002) as player:
        assert player.ask(wire.USER, 1, b"me").data == b"me"
        assert backend.stream_of(39002).peer_names == ([b"client"] if demanded else [])


def test_a_certificate_may_have_another_name_than_the_address(start, elsewhere):
    backend = start(Backend, tls=elsewhere)
    gateway = start(Gateway, nodes=nodes_of(backend.address, tls=True), settings={
        "tunnel": {"tls": {"ca": elsewhere.ca, "server_name": "roma.internal"}}})
    with gateway.player(39003) as player:
        assert player.ask(wire.USER, 1, b"me").data == b"me"


# gRPC C core's words and OpenSSL's, which the other engine has straight from it.
UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED|certificate verify failed|"
             "unable to get local issuer certificate|self-signed certificate")


@pytest.mark.parametrize("case, why", [
    ("another authority", UNTRUSTED),
    ("the system's authorities", UNTRUSTED),
    ("another name", "127.0.0.1 is not in peer certificate|IP address mismatch"),
    ("another name asked for", "another.example is not in peer certificate|hostname mismatch"),
    ("no certificate of ours", ""),
    ("a node without TLS", "WRONG_VERSION_NUMBER|wrong version number"),
])
def test_a_node_that_can_not_be_trusted_gets_nothing(start, tls, elsewhere, case, why):
    backend = start(Backend, client_certificates=case == "no certificate of ours",
                    tls={"another name": elsewhere, "a node without TLS": None}.get(case, tls))
    settings = {"another authority": {"ca": elsewhere.ca}, "the system's authorities": {},
                "another name": {"ca": elsewhere.ca},
                "another name asked for": {"ca": tls.ca, "server_name": "another.example"},
                }.get(case, {"ca": tls.ca})
    gateway = start(Gateway, nodes=nodes_of(backend.address, tls=True),
                    settings={"tunnel": {**QUICK, "tls": settings}})
    with gateway.closes("tunnel_lost"), gateway.player(39004) as player:
        player.send(wire.USER, 1, b"a secret")
        assert player.receive_end() == wire.LOGOUT_WAITING
    gateway.wait_log(f"event=tunnel_open_failed .*address={backend.address} tls=true .*({why})")
    assert backend.streams == []
    assert not [line for line in gateway.lines if not re.match(r"time=\d{4}-\d\d-\d\dT", line)]


class TlsServer:
    """A server with TLS that speaks these protocols, h2 not among them, and notes what it hears
    inside."""

    def __init__(self, tls, protocols):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(tls.server_cert, tls.server_key)
        if protocols:
            self.context.set_alpn_protocols(protocols)
        self.agreed, self.heard = 0, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:  # stop
                return
            try:
                with self.context.wrap_socket(connection, server_side=True) as inside:
                    self.agreed += 1
                    while more := inside.recv(1000):
                        self.heard += more
            except OSError:  # it was cut
                pass

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
def test_a_node_that_does_not_agree_on_http_2_gets_nothing(start, tls, protocols):
    node = start(TlsServer, tls, protocols)
    gateway = start(Gateway, nodes=nodes_of(node.address, tls=True),
                    settings={"tunnel": {**QUICK, "tls": {"ca": tls.ca}}})
    with gateway.closes("tunnel_lost"), gateway.player(39006) as player:
        player.send(wire.USER, 1, b"a secret")
        assert player.receive_end() == wire.LOGOUT_WAITING
    gateway.wait_log(f"event=tunnel_open_failed .*address={node.address} tls=true .*"
                     "(does not speak the protocol asked for|missing selected ALPN property)")
    wait_for(lambda: node.agreed, "the server's side of the handshake")
    assert node.heard == b""


def test_the_stand_in_takes_only_those_with_a_certificate_when_told_so(start, tls):
    roma = start(Roma, *roma_options(tls), "--tls-client-ca", tls.ca, "--log")
    gateway = start(Gateway, nodes=nodes_of(roma.address, tls=True),
                    settings={"tunnel": {**QUICK, "tls": {"ca": tls.ca}}})
    with gateway.closes("tunnel_lost"), gateway.player(39005) as player:
        player.send(wire.USER, 1, b"a secret")
        assert player.receive_end() == wire.LOGOUT_WAITING
    assert "opened" not in roma.log()


def test_a_bad_node_is_passed_over_for_a_good_one(start, tls, elsewhere):
    bad, good = start(Backend, tls=elsewhere), start(Backend, tls=tls)
    gateway = start(Gateway, nodes=nodes_of(bad.address, good.address, tls=True),
                    settings={"tunnel": {"tls": {"ca": tls.ca}}})
    for uid in range(39010, 39014):
        with gateway.player(uid) as player:
            assert player.ask(wire.USER, 1, b"here").data == b"here"
    assert bad.streams == []


@pytest.fixture(scope="module")
def etcd(start_module):
    return start_module(Etcd)


@pytest.mark.parametrize("scheme, query", [("grpcs", ""), ("grpc", "?isSecure=true")])
@pytest.mark.parametrize("id", ["first", "second"])
def test_a_node_that_changes_is_followed(start, etcd, tls, id, scheme, query):
    """To TLS, by the same instance or by another at its address, and back."""
    backend = start(Backend, tls=tls)
    keys = [etcd.register(backend.address, id="first")]
    gateway = start(Gateway, nodes=[], settings={
        "tunnel": {**QUICK, "reopen_timeout": "600s", "tls": {"ca": tls.ca}},
        **etcd_settings(*etcd.endpoints)})
    gateway.wait_nodes(backend.address)

    def wait_tls(expected):
        wait_for(lambda: gateway.nodes()[backend.address]["tls"] is expected, f"tls: {expected}")

    wait_tls(False)
    with gateway.player(39020) as player:
        player.send(wire.USER, 1, b"when you can")
        gateway.wait_log("event=tunnel_open_failed .*tls=false")
        keys.append(etcd.register(backend.address + query, id=id, scheme=scheme))
        assert player.receive().data == b"when you can"
        wait_tls(True)
        etcd.register(backend.address, id="first")
        wait_tls(False)
        assert player.ask(wire.USER, 2, b"still").data == b"still", "what is open stays"
        assert len(backend.streams) == 1
    for key in set(keys):
        etcd.delete(key)


@pytest.mark.parametrize("files, why", [
    (lambda tls, other: {"ca": tls.client_key}, "client.key: "),
    (lambda tls, other: own(tls, cert=other.client_cert), "client.key: key values mismatch"),
])
def test_files_that_do_not_fit_are_told_at_the_start(tmp_path, keys, tls, elsewhere, files, why):
    gateway = Gateway(tmp_path, keys, nodes=[], start=False,
                      settings={"tunnel": {"tls": files(tls, elsewhere)}})
    done = run("janusd", "-c", gateway.config_path)
    assert done.returncode == 1 and why in done.stderr, done.stderr


@pytest.mark.parametrize("options, code, said", [
    (lambda tls: ["--tls-cert", tls.server_cert], 2, "go together"),
    (lambda tls: ["--tls-client-ca", tls.ca], 2, "go together"),
    (lambda tls: ["--tls-cert", "/nowhere", "--tls-key", tls.server_key], 1, "/nowhere can't be"),
    (lambda tls: ["--tls-cert", tls.server_cert, "--tls-key", tls.client_key], 1, "not good"),
])
def test_the_stand_in_says_what_is_wrong_with_its_files(tls, options, code, said):
    done = run("janus-roma", "--listen", "127.0.0.1:0", *options(tls))
    assert done.returncode == code and said in done.stderr, done.stderr
