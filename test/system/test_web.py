"""The browser client: served by the operations port, and played in a real browser."""

import base64
import hashlib
import http.client
import os
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from janus.browser import Browser
from janus.programs import Gateway, nodes_of, run
from janus.wire import Keys

pytestmark = pytest.mark.needs_release

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
PAGE = os.path.join(ROOT, "build", "web")

# As in a browser that has WebCrypto, but not these.
WITHOUT_CURVES = """
  for (const name of ["generateKey", "importKey"]) {
    const real = SubtleCrypto.prototype[name];
    SubtleCrypto.prototype[name] = function (...given) {
      return given.some((one) => ["X25519", "Ed25519"].includes(one?.name ?? one))
        ? Promise.reject(new DOMException("Unrecognized name", "NotSupportedError"))
        : real.apply(this, given);
    };
  }"""


@pytest.fixture(scope="module")
def gateway(start_module, roma, certificates):
    assert os.path.exists(os.path.join(PAGE, "fallback.js")), "make web could not fetch its packages"
    tls = {"enabled": True, "cert": certificates.server_cert, "key": certificates.server_key}
    return start_module(Gateway, nodes=nodes_of(roma.address),
                        settings={"server": {"ws": {"tls": tls}, "http": {"web": PAGE}}})


def get(gateway, path, method="GET"):
    """The status, the headers by name in small letters, and the body; path goes as it is."""
    connection = http.client.HTTPConnection(*gateway.listener("http"), timeout=60)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


# --- The operations port --------------------------------------------------------------------


@pytest.mark.parametrize("name, content_type", [
    ("index.html", "text/html; charset=utf-8"), ("page.css", "text/css; charset=utf-8"),
    ("session.js", "text/javascript"), ("fallback.js", "text/javascript")])
def test_a_file_of_the_page_is_served_as_it_is(gateway, name, content_type):
    status, headers, body = get(gateway, "/web/" + name)
    with open(os.path.join(PAGE, name), "rb") as file:
        assert (status, body) == (200, file.read())
    assert headers["content-type"] == content_type
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert get(gateway, "/web/" + name, "HEAD")[2] == b""


def test_the_folder_leads_to_its_index(gateway):
    assert get(gateway, "/web/")[2] == get(gateway, "/web/index.html")[2]
    status, headers, _ = get(gateway, "/web")
    assert (status, headers["location"]) == (308, "/web/")
    assert get(gateway, "/web/", "POST")[0] == 405


@pytest.mark.parametrize("path", [
    "/web/../../README.md", "/web/%2e%2e/%2e%2e/README.md", "/web/..%2f..%2fREADME.md",
    "/web/....//README.md", "/web//index.html", "/web/./index.html", "/web/index.html/",
    "/web/%2fetc%2fpasswd", "//etc/passwd", "/web/..\\..\\README.md",
    "/webs", "/web/nothing.js", "/index.html"])
def test_nothing_else_can_be_reached(gateway, path):
    assert get(gateway, path)[0] == 404


def test_without_the_setting_there_is_no_page(start, roma):
    assert get(start(Gateway, nodes=nodes_of(roma.address)), "/web/")[0] == 404


@pytest.mark.parametrize("folder, why", [("nowhere", "can't be read: No such file"),
                                         (".", "can't be served: it has no index.html")])
def test_a_folder_that_is_no_page_is_a_clear_error_at_start(tmp_path, keys, folder, why):
    gateway = Gateway(tmp_path, keys, [], {"server": {"http": {"web": folder}}}, start=False)
    done = run("janusd", "-c", gateway.config_path)
    assert done.returncode == 1
    assert "server.http.web" in done.stderr and why in done.stderr


def test_the_units_of_the_page_hold():
    folder = os.path.join(ROOT, "test", "unit", "web")
    tests = [os.path.join(folder, name) for name in os.listdir(folder) if ".test." in name]
    done = subprocess.run(["node", "--test", "--test-reporter=tap", *tests], stdout=subprocess.PIPE,
                          text=True)
    assert done.returncode == 0 and "\n# fail 0\n" in done.stdout, done.stdout


# --- In a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(start_module, tmp_path_factory, certificates):
    with open(certificates.server_cert, "rb") as file:
        public_key = x509.load_pem_x509_certificate(file.read()).public_key()
    digest = hashlib.sha256(public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)).digest()
    return start_module(
        Browser, tmp_path_factory.mktemp("profile"),
        "--ignore-certificate-errors-spki-list=" + base64.b64encode(digest).decode(),
        # A name that is not this machine's own, so that a page from there is no secure context.
        "--host-resolver-rules=MAP gateway.test 127.0.0.1")


def log_in(browser, gateway, host="127.0.0.1", before="", uid=10001, server_key=None):
    browser.open(f"http://{host}:{gateway.listener('http')[1]}/web/", before)
    browser.wait_text("#log li", "ready")
    browser.fill("[name=url]", "wss://%s:%d/ws" % gateway.listener("ws"))
    browser.fill("[name=token]", gateway.keys.token(uid))
    browser.fill("[name=client_key]", gateway.keys.client_pem())
    browser.fill("[name=server_key]", server_key or gateway.keys.server_public_pem())
    browser.click("[name=connect]")
    browser.wait_text("#state", "connected")
    browser.click("[name=login]")


def send(browser, mod, seq, data, form="text"):
    browser.fill("[name=mod]", str(mod))
    browser.fill("[name=seq]", str(seq))
    browser.fill("[name=data]", data)
    browser.run("document.forms.message.elements.form.value = arguments[0]", form)
    browser.click("[name=send]")


BROWSERS = {
    "complete": dict(lacks=[]),
    "without curves": dict(before=WITHOUT_CURVES, lacks=["X25519", "Ed25519"]),
    "no secure context": dict(host="gateway.test", lacks=["no WebCrypto", "X25519", "Ed25519",
                                                          "AES-GCM"]),
}


@pytest.mark.parametrize("kind", BROWSERS)
def test_a_session_is_played_in_a_browser(gateway, browser, kind):
    lacks = BROWSERS[kind]["lacks"]
    log_in(browser, gateway, **{key: value for key, value in BROWSERS[kind].items()
                                if key != "lacks"})
    browser.wait_text("#state", "open")
    browser.wait_text("#log li", "the gateway's signature is that of the server key")
    assert gateway.session_of(10001)["color"] == "blue"
    report = browser.texts("#primitives li")
    assert len(report) == len(lacks)
    for words, line in zip(lacks, report):
        assert words in line and ("taken from the library" in line or words == "no WebCrypto")

    send(browser, 3, 7, "buy a sword")
    browser.wait_text("#log li", '<- user 7 obj 10001 index 1 11 bytes: "buy a sword"')
    send(browser, 5, 1, "ff 00 7f", "hex")
    browser.wait_text("#log li", "<- hero 1 obj 10001 index 2 3 bytes: hex ff007f")
    send(browser, 2, 1, "size 20000")
    browser.wait_text("#log li", "20000 bytes (compressed): ")
    browser.click("[name=heartbeat]")
    browser.wait_text("#log li", "<- system heartbeat")
    assert browser.faults() == []

    gateway.ctl("kick", "10001")
    browser.wait_text("#log li", "the gateway said: logout, AdminKickOut")
    browser.wait_text("#state", "closed")


def test_a_gateway_with_another_key_is_not_believed(gateway, browser):
    log_in(browser, gateway, uid=10002, server_key=Keys().server_public_pem())
    browser.wait_text("#log li", "login failed: the gateway's signature is not that of the server key")
    browser.wait_text("#state", "closed")


def test_a_key_that_is_none_is_said(gateway, browser):
    log_in(browser, gateway, server_key="-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----")
    browser.wait_text("#log li", "login failed: the server's key: ")
    browser.wait_text("#state", "connected")
    browser.click("[name=close]")
    browser.wait_text("#state", "closed")
