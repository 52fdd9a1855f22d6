"""What janusd tells the service manager that started it: here a datagram socket, as systemd's."""

import contextlib
import os
import re
import signal
import socket

import pytest
from janus.patience import patient, wait_for
from janus.programs import Gateway, nodes_of


class Manager:
    """Stands in for systemd: takes in what the service says, each time until it has said a
    certain thing."""

    def __init__(self, path):
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)

    def wait(self, pattern, timeout=30):
        """The messages up to the first that matches, that one included."""
        self.socket.settimeout(patient(timeout))
        heard = []
        while not heard or not re.fullmatch(pattern, heard[-1]):
            try:
                heard.append(self.socket.recv(4096).decode())
            except TimeoutError:
                raise AssertionError(f"no {pattern!r} came, but {heard}") from None
        return heard

    def environment(self, **more):
        return {"NOTIFY_SOCKET": self.path, **more}


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path / "notify.sock")
    with contextlib.closing(manager.socket):
        yield manager


def test_it_is_ready_when_its_workers_serve_and_says_when_it_stops(start, backend, manager):
    gateway = start(Gateway, nodes=nodes_of(backend.address), environment=manager.environment())
    heard = manager.wait("READY=1")
    assert [one for one in heard if not one.startswith("STATUS=")] == ["READY=1"]
    gateway.wait_log("event=ready")

    gateway.process.send_signal(signal.SIGTERM)
    heard = manager.wait("STOPPING=1")
    assert all(one.startswith(("STATUS=", "STOPPING=")) for one in heard)
    assert gateway.wait_exit() == 0


def test_its_status_has_sessions_and_workers(start, backend, manager):
    gateway = start(Gateway, nodes=nodes_of(backend.address), environment=manager.environment())
    manager.wait("STATUS=0 sessions, 2 of 2 workers running")
    with gateway.player(uid=61), gateway.player(uid=62):
        manager.wait("STATUS=2 sessions, 2 of 2 workers running")
    manager.wait("STATUS=0 sessions, 2 of 2 workers running")


def test_it_says_when_it_reloads_also_when_the_reload_fails(start, backend, manager):
    gateway = start(Gateway, nodes=nodes_of(backend.address), environment=manager.environment())
    manager.wait("READY=1")
    gateway.ctl("reload")
    manager.wait(r"RELOADING=1\nMONOTONIC_USEC=\d+")
    manager.wait("READY=1")

    with open(gateway.config_path, "a") as config:
        config.write("nonsense = 1;\n")
    os.kill(gateway.pid, signal.SIGHUP)
    manager.wait(r"RELOADING=1\nMONOTONIC_USEC=\d+")
    manager.wait("READY=1")
    gateway.wait_log("event=reload_failed")


def test_the_watchdog_is_fed_while_the_loop_turns_and_not_when_it_hangs(start, backend, manager):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    environment=manager.environment(WATCHDOG_USEC="200000"))
    for _ in range(3):
        manager.wait("WATCHDOG=1")
    gateway.stall()
    manager.socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            manager.socket.recv(4096)  # what was on its way
    manager.socket.settimeout(0.5)  # more than twice the watchdog's time
    with pytest.raises(TimeoutError):
        manager.socket.recv(4096)
    gateway.resume()
    manager.wait("WATCHDOG=1")


def test_workers_know_nothing_of_the_service_manager(start, backend, manager):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    environment=manager.environment(WATCHDOG_USEC="10000000"))
    manager.wait("READY=1")
    for pid in gateway.worker_pids().values():
        with open(f"/proc/{pid}/environ", "rb") as environment:
            names = {entry.partition(b"=")[0] for entry in environment.read().split(b"\0")}
        assert b"PATH" in names
        assert not names & {b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID"}


def test_a_service_manager_that_went_away_does_no_harm(start, backend, manager):
    gateway = start(Gateway, nodes=nodes_of(backend.address), environment=manager.environment())
    manager.wait("READY=1")
    manager.socket.close()
    os.unlink(manager.path)
    with gateway.player(uid=63):
        gateway.wait_log("event=service_manager_not_told")
        assert gateway.ctl("reload")["ok"]
    wait_for(lambda: gateway.gauge("sessions") == 0, "the player to have left")
