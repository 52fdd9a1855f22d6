"""Many who come in at once: each is let in, in slices of the worker's time, and who is in already
is served in between."""

import contextlib
import os
import signal
import ssl

import pytest

from janus import wire
from janus.certificates import Certificates
from janus.patience import patient, wait_for
from janus.programs import Gateway, nodes_of

# Their signatures take a hundred slices on any machine that there is.
LOGINS = 150


@pytest.fixture
def gateway(start, backend, tmp_path):
    certificates = Certificates(tmp_path / "certificates")
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "worker": {"count": 1},
        "server": {"listeners": [{"transport": "tcp", "addr": "127.0.0.1:0", "tls": {
            "enabled": True, "cert": [certificates.server_cert],
            "key": [certificates.server_key]}}]},
    })
    gateway.certificates = certificates
    return gateway


@contextlib.contextmanager
def worker_asleep(gateway):
    """What comes meanwhile is there at once when it wakes."""
    (pid,) = gateway.worker_pids().values()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_burst_of_logins_is_let_in_slice_by_slice_beside_a_player(gateway):
    with contextlib.ExitStack() as clients:
        player = clients.enter_context(gateway.player(36000))
        player.ask(wire.USER, 1)
        burst = [clients.enter_context(gateway.client(uid=36001 + i)) for i in range(LOGINS)]
        gateway.wait_gauge("connections", LOGINS + 1)
        frames = [client.handshake_frame() for client in burst]
        with worker_asleep(gateway):
            for client, frame in zip(burst, frames):
                client.send_raw(frame)
            player.send(wire.USER, 1, b"in between")
        assert player.receive().data == b"in between"
        for client in burst:
            client.finish_login()
        for client in burst:
            client.send(wire.USER, 1, b"in")
            assert client.receive().data == b"in"
        assert gateway.counter("handshakes_waited") >= LOGINS / 2


def test_one_who_leaves_while_his_login_waits_costs_nobody_else_theirs(gateway):
    with contextlib.ExitStack() as clients:
        burst = [clients.enter_context(gateway.client(uid=36301 + i)) for i in range(LOGINS)]
        gateway.wait_gauge("connections", LOGINS)
        frames = [client.handshake_frame() for client in burst]
        with worker_asleep(gateway):
            for client, frame in zip(burst, frames):
                client.send_raw(frame)
            for client in burst[::2]:
                client.close()
        for client in burst[1::2]:
            client.finish_login()
        gateway.wait_gauge("sessions", LOGINS // 2)


class Tls:
    """The client's side of a TLS handshake, whose bytes go over the socket of a client."""

    def __init__(self, gateway, client):
        self.client = client
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=gateway.certificates.ca)
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def go_on(self):
        """True when it is done."""
        try:
            self.ssl.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False
        finally:
            self.client.send_raw(self.outgoing.read())

    def finish(self):
        while not self.go_on():
            self.incoming.write(self.client.socket.recv(65536))


def test_a_burst_of_tls_handshakes_is_served_slice_by_slice(gateway):
    (address,) = [one["address"] for one in gateway.ctl("status")["listeners"] if one.get("tls")]
    host, _, port = address.rpartition(":")
    with contextlib.ExitStack() as clients:
        player = clients.enter_context(gateway.player(36600))
        player.ask(wire.USER, 1)
        burst = [Tls(gateway, clients.enter_context(gateway.client((host, int(port)))))
                 for _ in range(LOGINS)]
        gateway.wait_gauge("connections", LOGINS + 1)
        with worker_asleep(gateway):
            for one in burst:
                assert not one.go_on()
            player.send(wire.USER, 1, b"in between")
        assert player.receive().data == b"in between"
        for one in burst:
            one.finish()
        wait_for(lambda: gateway.counter("tls_handshakes") == LOGINS, "the handshakes", patient(30))
        assert gateway.counter("handshakes_waited") >= LOGINS / 2
