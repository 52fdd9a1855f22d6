"""janus-client over each transport of a real gateway, and what it says of one it can't speak to."""

import pytest
from janus.certificates import Certificates
from janus.programs import Gateway, nodes_of, run

SESSION = ("heartbeat; expect mod=system within=20s; "
           "send user 1 size=9000 compress; expect mod=user size=9000 within=20s; close")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


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
    forms = ["tcp://{}", "ws://{}/ws", "tls://{}", "wss://{}/game", "tls://{}"]
    names = ["tcp", "ws", "tls", "wss", "strict"]
    listeners = gateway.ctl("status")["listeners"]
    gateway.urls = {name: form.format(one["address"])
                    for name, form, one in zip(names, forms, listeners)}
    return gateway


def play(gateway, url, *options, script=SESSION):
    return run("janus-client", "--connect", url, "--keys", gateway.tool_keys(), "--color", "blue",
               "--timeout", "20s", *options, "-e", script)


@pytest.mark.parametrize("name", ["tcp", "ws", "tls", "wss"])
def test_a_session_is_played_over(name, open_gateway, certificates):
    played = play(open_gateway, open_gateway.urls[name], "--tls-ca", certificates.ca)
    assert played.returncode == 0, played.stdout + played.stderr


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
    (["--connect", "tls://127.0.0.1:1", "--tls-ca", "/nowhere"], "/nowhere: "),
    (["--connect", "tls://127.0.0.1:1", "--tls-cert", "c.pem"], "go together"),
])
def test_wrong_options_are_refused(open_gateway, options, words):
    refused = run("janus-client", "--keys", open_gateway.tool_keys(), *options, "-e", "heartbeat")
    assert refused.returncode == 2 and words in refused.stderr, refused
