"""Players over TLS: by TCP and by WebSocket, with several certificates, tickets, and new keys
while they play."""

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess

import pytest

from janus import wire
from janus.certificates import Certificates
from janus.patience import patient, wait_for
from janus.programs import Gateway, nodes_of, run


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two authorities; the first has certificates for localhost and for two names more."""
    folder = tmp_path_factory.mktemp("certificates")
    mine = Certificates(folder / "mine")
    mine.blue = mine.issue("blue", names=["blue.example", "*.blue.example"])
    mine.red = mine.issue("red", names=["red.example"])
    mine.other = Certificates(folder / "other")
    return mine


def listener(certificates, transport="tcp", **tls):
    pairs = [(certificates.server_cert, certificates.server_key), certificates.blue,
             certificates.red]
    return {"transport": transport, "addr": "127.0.0.1:0",
            "tls": {"enabled": True, "cert": [pair[0] for pair in pairs],
                    "key": [pair[1] for pair in pairs], **tls}}


TCP, WS, MODERN, OPTIONAL, REQUIRED = range(5)


@pytest.fixture(scope="module")
def gateway(start_module, backend, certificates):
    gateway = start_module(Gateway, nodes=nodes_of(backend.address), settings={
        "server": {"listeners": [
            listener(certificates), listener(certificates, "ws"),
            listener(certificates, min_version="1.3"),
            listener(certificates, client_ca=certificates.ca),
            listener(certificates, client_ca=certificates.ca, client_required=True)]},
        "limits": {"handshake_timeout": f"{int(patient(2))}s"},
    })
    tls = [one["address"] for one in gateway.ctl("status")["listeners"] if one.get("tls")]
    gateway.tls = [("127.0.0.1", int(address.rpartition(":")[2])) for address in tls]
    return gateway


def context(certificates, version=None, client=None):
    made = ssl.create_default_context(cafile=certificates.ca)
    if version:
        made.minimum_version = made.maximum_version = version
    if client:
        made.load_cert_chain(client.client_cert, client.client_key)
    return made


def works(client, data=b"hello"):
    assert client.ask(wire.USER, 1, data).data == data


def player(gateway, certificates, place=TCP, uid=30101, version=None, client=None, **options):
    tls = context(certificates, version, client)
    if place == WS:
        player = gateway.websocket(gateway.tls[place], uid=uid, tls=tls, **options)
    else:
        player = gateway.client(gateway.tls[place], uid=uid, tls=tls, **options)
    player.login()
    return player


# --- Playing --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("place", [TCP, WS], ids=["tls", "wss"])
def test_a_player_plays_over_tls(gateway, certificates, place, version):
    with gateway.closes("client_closed"):
        with player(gateway, certificates, place, version=version) as client:
            assert client.socket.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2",
                                               ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
            for size in (0, 1, 1000, 16000):
                works(client, os.urandom(size))


@pytest.mark.parametrize("place", [TCP, WS], ids=["tls", "wss"])
def test_many_messages_at_once_and_in_small_records(gateway, certificates, place):
    with player(gateway, certificates, place, uid=30102) as client:
        for i in range(300):
            client.send(wire.USER, 1, b"%d" % i * 20)
        assert [client.receive().data for i in range(300)] == [b"%d" % i * 20 for i in range(300)]
        if place == TCP:
            sealed = wire.frame(wire.seal(client.session_key,
                                          client.packet(wire.USER, 1, b"bytes").encode()))
            for i in range(len(sealed)):
                client.socket.sendall(sealed[i:i + 1])  # a record for each byte
            assert client.receive().data == b"bytes"


@pytest.mark.parametrize("place", [TCP, WS], ids=["tls", "wss"])
def test_a_client_over_its_rate_is_read_on_later(start, backend, certificates, place):
    """What TLS has opened already waits with it, and no event of the socket tells of it."""
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "server": {"listeners": [listener(certificates), listener(certificates, "ws")]},
        "limits": {"messages_per_s": 200, "messages_burst": 5}})
    gateway.tls = [gateway.listener("tcp", 1), gateway.listener("ws", 1)]
    with player(gateway, certificates, place, uid=30107) as client:
        for i in range(100):
            client.send(wire.USER, 1, b"%d" % i)
        assert [client.receive().data for _ in range(100)] == [b"%d" % i for i in range(100)]
        assert gateway.counter("rate_pauses") > 0


def test_a_slow_client_gets_everything_in_order(gateway, certificates):
    with player(gateway, certificates, uid=30103, receive_buffer=4096) as client:
        count = 200
        for i in range(count):
            client.send(wire.USER, 1, (b"%04d" % i) * 2000)
        wait_for(lambda: gateway.gauge("queued_out_bytes") > 0
                 or gateway.counter("messages_out") >= count, "something to wait for the client")
        assert [client.receive().data[:4] for _ in range(count)] == [
            b"%04d" % i for i in range(count)]


@pytest.mark.parametrize("name,expected", [
    ("localhost", "server"), ("blue.example", "blue"), ("play.blue.example", "blue"),
    ("red.example", "red"), ("green.example", "server")])
def test_the_certificate_is_the_one_of_the_server_name(gateway, certificates, name, expected):
    tls = context(certificates)
    tls.check_hostname = False
    with socket.create_connection(gateway.tls[TCP]) as plain:
        with tls.wrap_socket(plain, server_hostname=name) as client:
            subject = dict(pair[0] for pair in client.getpeercert()["subject"])
            assert subject["commonName"] == expected


def test_the_least_version_is_kept(gateway, certificates):
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        player(gateway, certificates, MODERN, version=ssl.TLSVersion.TLSv1_2)
    with player(gateway, certificates, MODERN, version=ssl.TLSVersion.TLSv1_3) as client:
        works(client)


@pytest.mark.parametrize("place,who,let_in", [
    (OPTIONAL, None, True), (OPTIONAL, "mine", True), (OPTIONAL, "other", False),
    (REQUIRED, None, False), (REQUIRED, "mine", True), (REQUIRED, "other", False)])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_certificates(gateway, certificates, place, who, let_in, version):
    client = {None: None, "mine": certificates, "other": certificates.other}[who]
    if let_in:
        with player(gateway, certificates, place, version=version, client=client) as one:
            works(one)
        return
    with gateway.closes("tls_failed"):
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            player(gateway, certificates, place, version=version, client=client)


# --- Session tickets ------------------------------------------------------------------------


def ticket(gateway, certificates, version):
    """A session that can be resumed: with TLS 1.3 its ticket comes behind the handshake."""
    tls = context(certificates, version)
    client = gateway.client(gateway.tls[TCP], tls=tls)
    client.login()
    works(client)
    session = client.socket.session
    client.close()
    return tls, session


def resumed(gateway, tls, session):
    with socket.create_connection(gateway.tls[TCP]) as plain:
        with tls.wrap_socket(plain, server_hostname="localhost", session=session) as client:
            return client.session_reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_ticket_is_good_in_every_worker_after_a_reload_and_after_a_crash(
        gateway, certificates, version):
    tls, session = ticket(gateway, certificates, version)

    def all_resumed():
        # The kernel spreads connections over both workers.
        before = [worker["counters"]["tls_resumed"] for worker in gateway.ctl("stats")["workers"]]

        def both_had_one():
            assert resumed(gateway, tls, session)
            now = [worker["counters"]["tls_resumed"] for worker in gateway.ctl("stats")["workers"]]
            return all(a > b for a, b in zip(now, before))

        wait_for(both_had_one, "both workers to have resumed one")

    all_resumed()
    gateway.ctl("reload")
    all_resumed()
    pids = gateway.worker_pids()
    os.kill(pids[0], signal.SIGKILL)
    gateway.expect_clean = False
    wait_for(lambda: gateway.worker_pids()[0] not in (0, pids[0])
             and gateway.ctl("status")["workers"]["running"] == 2, "a successor")
    all_resumed()


# --- New keys ---------------------------------------------------------------------------------


def served_serial(gateway, certificates):
    tls = context(certificates)
    with socket.create_connection(gateway.listener("tcp", 1)) as plain:
        with tls.wrap_socket(plain, server_hostname="localhost") as client:
            return client.getpeercert()["serialNumber"]


@pytest.mark.parametrize("how", ["janusctl", "SIGHUP"])
def test_keys_are_replaced_while_players_play(start, backend, certificates, tmp_path, how):
    cert, key = str(tmp_path / "gate.crt"), str(tmp_path / "gate.key")

    def install(pair):
        shutil.copy(pair[0], cert)
        shutil.copy(pair[1], key)

    install((certificates.server_cert, certificates.server_key))
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"server": {"listeners": [
        {"transport": "tcp", "addr": "127.0.0.1:0",
         "tls": {"enabled": True, "cert": cert, "key": key}}]}})
    before = served_serial(gateway, certificates)
    with gateway.client(gateway.listener("tcp", 1), uid=30110,
                        tls=context(certificates)) as client:
        client.login()
        works(client)
        install(certificates.issue("renewed", names=["localhost"]))
        if how == "janusctl":
            assert gateway.reload() == {"server.listeners[0].tls": "in_place"}
        else:
            mark = gateway.mark()
            gateway.process.send_signal(signal.SIGHUP)
            gateway.wait_log("event=reloaded", since=mark)
        wait_for(lambda: len({served_serial(gateway, certificates) for _ in range(8)} | {before})
                 == 2 and served_serial(gateway, certificates) != before, "the new certificate")
        works(client)

        # A pair that does not fit changes nothing.
        after = served_serial(gateway, certificates)
        shutil.copy(certificates.blue[1], key)
        done = run("janusctl", "--socket", gateway.socket_path, "reload")
        assert done.returncode == 1
        assert "nothing has changed" in done.stderr and key in done.stderr
        assert {served_serial(gateway, certificates) for _ in range(8)} == {after}
        works(client)


def rewrite(gateway, old, new):
    text = open(gateway.config_path).read()
    assert old in text
    with open(gateway.config_path, "w") as out:
        out.write(text.replace(old, new))


def test_clients_are_asked_for_a_certificate_from_the_reload_on_that_says_so(
        start, backend, certificates):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"server": {"listeners": [
        listener(certificates)]}})
    address = gateway.listener("tcp", 1)

    def without_one():
        try:
            with gateway.client(address, tls=context(certificates)) as client:
                client.login()
                return True
        except (ssl.SSLError, ConnectionError, AssertionError):
            return False

    assert without_one()
    for wanted in (True, False):
        changes = ({"client_ca": certificates.ca, "client_required": True} if wanted else
                   {"client_ca": "", "client_required": False})
        one = gateway.settings["server"]["listeners"][0]
        one["tls"].update(changes)
        assert gateway.reload({}) == {
            "server.listeners[0].tls": "in_place", "server.listeners[0].tls.client_ca": "in_place",
            "server.listeners[0].tls.client_required": "in_place"}
        wait_for(lambda: {without_one() for _ in range(8)} == {not wanted},
                 "every worker to hold to it")
        with gateway.client(address, uid=30112, tls=context(certificates,
                                                            client=certificates)) as client:
            client.login()
            works(client)


def test_a_reload_names_certificates_that_it_did_not_take(start, backend, certificates, tmp_path):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"server": {"listeners": [
        {"transport": "tcp", "addr": "127.0.0.1:0",
         "tls": {"enabled": True, "cert": certificates.server_cert,
                 "key": certificates.server_key}}]}})
    good = open(gateway.config_path).read()
    with open(gateway.config_path, "w") as out:
        at = good.index("listeners")
        out.write(good[:at] + good[at:].replace("127.0.0.1:0", "127.0.0.1:1", 1)
                  .replace(certificates.server_cert, certificates.blue[0])
                  .replace(certificates.server_key, certificates.blue[1]))
    assert gateway.reload() == {"server.listeners": "restart"}

    # What waits has to be good as well: the next start needs it.
    bad = tmp_path / "bad.key"
    bad.write_text("nonsense")
    bad.chmod(0o600)
    rewrite(gateway, certificates.blue[1], str(bad))
    done = run("janusctl", "--socket", gateway.socket_path, "reload")
    assert done.returncode == 1 and f"{bad} has no private key" in done.stderr


def test_a_listener_that_is_to_go_does_not_keep_the_others_from_new_keys(
        start, backend, certificates, tmp_path):
    """Its files may be gone with it; until the restart it serves with what it has."""
    def pair(name):
        cert, key = tmp_path / f"{name}.crt", tmp_path / f"{name}.key"
        shutil.copy(certificates.server_cert, cert)
        shutil.copy(certificates.server_key, key)
        return {"transport": "tcp", "addr": f"127.0.0.{name}:0",
                "tls": {"enabled": True, "cert": str(cert), "key": str(key)}}

    def serial(address):
        with socket.create_connection(address) as plain:
            with tls.wrap_socket(plain, server_hostname="localhost") as client:
                return client.getpeercert()["serialNumber"]

    tls = context(certificates)
    leaving, staying = pair("2"), pair("3")
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"server": {"listeners": [leaving, staying]}})
    addresses = gateway.listener("tcp", 1), gateway.listener("tcp", 2)
    before = serial(addresses[0])
    text = open(gateway.config_path).read()
    with open(gateway.config_path, "w") as out:  # the second takes the first one's place
        out.write(re.sub(r"listeners = \(\{.*?\}, ", "listeners = (", text, flags=re.S))
    for name in ("2.crt", "2.key"):
        (tmp_path / name).unlink()
    renewed = certificates.issue("renewed", names=["localhost"])
    shutil.copy(renewed[0], tmp_path / "3.crt")
    shutil.copy(renewed[1], tmp_path / "3.key")
    assert gateway.reload() == {"server.listeners[1].tls": "in_place",
                                "server.listeners": "restart"}
    wait_for(lambda: before not in {serial(addresses[1]) for _ in range(8)}, "the new certificate")
    assert {serial(addresses[0]) for _ in range(8)} == {before}



def test_a_handshake_that_does_not_end_is_closed_in_time(gateway):
    with gateway.closes("handshake_timeout", count=2):
        clients = [socket.create_connection(gateway.tls[place]) for place in (TCP, WS)]
        clients[1].sendall(b"\x16\x03\x01\x02\x00\x01")
        for client in clients:
            client.settimeout(patient(30))
            assert client.recv(1) == b""
            client.close()


def test_a_client_that_leaves_during_the_handshake(gateway):
    with gateway.closes("client_closed", count=2):
        socket.create_connection(gateway.tls[TCP]).close()
        with socket.create_connection(gateway.tls[TCP]) as client:
            client.sendall(b"\x16\x03\x01\x02\x00\x01")


def test_tls_to_the_plain_port(gateway, certificates):
    with gateway.closes("frame_length"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            gateway.client(gateway.address, tls=context(certificates))


def test_records_that_are_broken_after_the_login(gateway, certificates):
    with gateway.closes("tls_failed"):
        with player(gateway, certificates, uid=30104) as client:
            raw = socket.socket(fileno=client.socket.detach())
            raw.settimeout(patient(30))
            raw.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            try:
                while raw.recv(4096):
                    pass
            except ConnectionResetError:
                pass
            raw.close()


def test_a_client_that_ends_without_saying_so_in_tls(gateway, certificates):
    with gateway.closes("client_closed"):
        client = player(gateway, certificates, uid=30105)
        os.close(client.socket.detach())


def test_renegotiation_is_refused(gateway, certificates):
    host, port = gateway.tls[TCP]
    with gateway.closes("tls_failed"):
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_2", "-CAfile",
             certificates.ca], input=b"R\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=patient(30))
    assert b"RENEGOTIATING" in done.stdout
    assert b"no renegotiation" in done.stdout


def test_a_flood_of_handshakes_is_bounded(start, backend, certificates):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "server": {"listeners": [listener(certificates)]}, "worker": {"count": 1},
        "limits": {"tls_handshakes_per_s": 1, "tls_handshake_burst": 3}})
    address = gateway.listener("tcp", 1)
    with gateway.client(address, uid=30106, tls=context(certificates)) as client:
        client.login()
        refused = 0
        for _ in range(20):
            try:
                gateway.client(address, tls=context(certificates)).close()
            except (ssl.SSLError, ConnectionError):
                refused += 1
        assert refused > 0
        assert gateway.closed("tls_rate") == refused
        works(client)


# --- The configuration ------------------------------------------------------------------------


def test_what_can_not_serve_is_said_before_the_start(keys, certificates, tmp_path):
    bad = tmp_path / "bad.pem"
    bad.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    bad.chmod(0o600)
    locked = tmp_path / "locked.key"
    subprocess.run(["openssl", "ec", "-in", certificates.server_key, "-aes256", "-passout",
                    "pass:secret", "-out", locked], check=True, capture_output=True)
    locked.chmod(0o600)
    loose = tmp_path / "loose.key"
    shutil.copy(certificates.server_key, loose)
    loose.chmod(0o644)
    good = certificates.server_cert, certificates.server_key
    for cert, key, fault in [
            (certificates.server_cert, certificates.blue[1], "is not the key of that certificate"),
            (str(bad), good[1], f"{bad} is no certificate"),
            (good[0], str(bad), f"{bad} has no private key"),
            (good[0], str(locked), f"{locked} has no private key"), (good[0], str(loose), "chmod o-rwx"),
            (good[0], "/nowhere.key", "/nowhere.key can't be read"),
            (good[0], [], "one key for each certificate"), ([], [], "needs a certificate")]:
        gateway = Gateway(tmp_path, keys, [], start=False, settings={"server": {"listeners": [
            {"transport": "tcp", "addr": "127.0.0.1:0",
             "tls": {"enabled": True, "cert": cert, "key": key}}]}})
        done = run("janusd", "-t", "-c", gateway.config_path)
        assert done.returncode == 1, (cert, key)
        assert fault in done.stderr and "server.listeners[0].tls" in done.stderr, done.stderr


def test_status_tells_when_the_certificate_expires(gateway):
    status = gateway.ctl("status")["listeners"]
    days = [one["certificate_expires_ms"] for one in status if one.get("tls")]
    assert len(days) == 5
    gateway.wait_log(r"event=certificate_expires listener=server.listeners\[0\] days_left=0")
