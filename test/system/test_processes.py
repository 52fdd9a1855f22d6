"""Master and workers: what holds when one of them ends, as asked or not."""

import os
import resource
import signal
import socket
import subprocess
import threading
import time

from janus import wire
from janus.backend import Backend
from janus.patience import patient, wait_for
from janus.programs import BIN, Gateway, nodes_of


def players_on_each_worker(gateway, first_uid, workers=2):
    """A logged-in client on each worker, by the worker's number. The kernel spreads connections,
    so it takes a few."""
    found, spare = {}, []
    for uid in range(first_uid, first_uid + 200):
        client = gateway.player(uid)
        worker = gateway.session_of(uid)["worker"]
        if worker in found:
            spare.append(client)
        found.setdefault(worker, client)
        if len(found) == workers:
            break
    for client in spare:
        client.close()
    assert len(found) == workers
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Knocker:
    """Connects and logs in again and again in the background; remembers what failed."""

    def __init__(self, gateway):
        self.refused = []
        self.logins = 0
        self._gateway = gateway
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            try:
                socket.create_connection(self._gateway.address, patient(30)).close()
            except OSError as error:
                self.refused.append(error)
            try:
                with self._gateway.player(38999):
                    self.logins += 1
            except (AssertionError, OSError):
                pass  # a connection that the killed worker had accepted already

    def stop(self):
        self._stop.set()
        self._thread.join(patient(60))


def test_a_killed_worker_is_replaced_within_a_second_and_hurts_nobody_else(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    players = players_on_each_worker(gateway, 38000)
    for client in players.values():
        client.ask(wire.USER, 1)
    before = gateway.total()["counters"]
    old = gateway.worker_pids()
    knocker = Knocker(gateway)
    wait_for(lambda: knocker.logins > 3, "some logins")

    begun = time.monotonic()
    os.kill(old[0], signal.SIGKILL)
    assert players[0].receive_end() is None  # cut, without a word

    def replaced():
        worker = gateway.ctl("workers")["workers"][0]
        return worker["pid"] != old[0] and worker["state"] == "running" and worker

    worker = wait_for(replaced, "the worker to be replaced")
    assert time.monotonic() - begun < patient(2)
    assert worker["restarts"] == 1
    logins = knocker.logins
    wait_for(lambda: knocker.logins > logins + 20, "more logins")
    knocker.stop()
    assert knocker.refused == []

    assert players[1].ask(wire.USER, 1, b"untouched").data == b"untouched"
    after = gateway.total()["counters"]
    assert {name: after[name] - before[name] for name in after if after[name] < before[name]} == {}
    assert gateway.worker_pids()[1] == old[1]
    # The dead worker's players are no longer in the directory.
    wait_for(lambda: gateway.ctl("sessions")["total"] == 1, "its sessions to be forgotten")
    fresh = players_on_each_worker(gateway, 38300)
    assert fresh[0].ask(wire.USER, 1, b"new").data == b"new"
    for client in [*fresh.values(), players[1]]:
        client.close()


def test_a_worker_that_keeps_dying_is_started_again_each_time(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    descriptors = None
    for round_ in range(1, 5):
        pid = gateway.worker_pids()[0]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: gateway.ctl("workers")["workers"][0]["restarts"] == round_
                 and gateway.ctl("status")["workers"]["running"] == 1, f"restart {round_}", 60)
        now = len(os.listdir(f"/proc/{gateway.pid}/fd"))
        assert descriptors in (None, now)  # nothing of the dead worker stays open
        descriptors = now
    with gateway.player() as client:
        assert client.ask(wire.USER, 1, b"up").data == b"up"


def test_sigterm_tells_every_client_waiting_and_exits_0(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    clients = [gateway.player(38100 + i) for i in range(20)]
    for client in clients[:10]:
        client.ask(wire.USER, 1)
    nobody = gateway.client()  # not logged in: just closed
    os.kill(gateway.pid, signal.SIGTERM)
    for client in clients:
        assert client.receive_end() == wire.LOGOUT_WAITING
        assert not client.reset
        client.close()
    assert nobody.receive_end() is None
    assert gateway.wait_exit() == 0
    assert not gateway.session_pids()
    assert not os.path.exists(gateway.socket_path)


def test_sigterm_lets_pending_messages_out_first(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    with gateway.player(38130, receive_buffer=4096) as client:
        client.ask(wire.USER, 1)
        data = os.urandom(8000)
        stream = backend.stream_of(38130)
        for _ in range(1000):
            stream.send(mod=3, seq=1, data=data)
        gateway.wait_gauge_over("queued_out_bytes", 0)
        out = gateway.counter("messages_out")
        os.kill(gateway.pid, signal.SIGTERM)
        got = 0
        while True:
            packet = client.receive()
            if (packet.mod, packet.seq) == (1, 4):
                break
            assert packet.data == data
            got += 1
        assert wire.SCServerLogout.decode(packet.data).code == wire.LOGOUT_WAITING
        assert got >= out - 2
        assert client.receive() is None
    assert gateway.wait_exit() == 0


def test_a_client_that_never_reads_does_not_hold_up_the_end(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"count": 1, "stop_timeout": "1s"}})
    with gateway.player(38140, receive_buffer=4096) as client:
        client.ask(wire.USER, 1)
        stream = backend.stream_of(38140)
        for _ in range(2000):
            stream.send(mod=3, seq=1, data=os.urandom(8000))
        gateway.wait_gauge_over("queued_out_bytes", 0)
        begun = time.monotonic()
        os.kill(gateway.pid, signal.SIGTERM)
        assert gateway.wait_exit() == 0
        assert time.monotonic() - begun < patient(10)


def test_workers_serve_on_without_a_master_and_end_within_the_bound(start, backend):
    bound = patient(3)
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"orphan_timeout": f"{int(bound * 1000)}ms"}})
    gateway.expect_clean = False
    workers = gateway.worker_pids().values()
    with gateway.player(38150) as client:
        client.ask(wire.USER, 1)
        begun = time.monotonic()
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.process.wait()
        assert client.ask(wire.USER, 1, b"served on").data == b"served on"
        with gateway.player(38151) as newcomer:
            assert newcomer.ask(wire.USER, 1, b"me too").data == b"me too"
        assert all(alive(pid) for pid in workers)
        assert client.receive_end() == wire.LOGOUT_WAITING
        assert time.monotonic() - begun > bound - 1.5
    wait_for(lambda: not any(alive(pid) for pid in workers), "the orphans to end", 15)
    assert gateway.session_pids() == []


def successor_of(gateway):
    """A second gateway over the same configuration: the successor of a dead one."""
    successor = Gateway.__new__(Gateway)
    successor.__dict__.update({name: getattr(gateway, name) for name in (
        "directory", "keys", "socket_path", "settings", "config_path", "environment")})
    successor.expect_clean = True
    successor.start()
    return successor


def test_a_new_master_makes_the_old_ones_workers_drain(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"orphan_timeout": "300s"}})
    gateway.expect_clean = False
    workers = gateway.worker_pids().values()
    with gateway.player(38160) as client:
        client.ask(wire.USER, 1)
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.process.wait()
        successor = start(successor_of, gateway)
        assert client.receive_end() == wire.LOGOUT_WAITING
    wait_for(lambda: not any(alive(pid) for pid in workers), "the orphans to end")
    with successor.player(38161) as client:
        assert client.ask(wire.USER, 1, b"new house").data == b"new house"


def test_a_second_master_over_the_same_control_socket_refuses_to_start(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    second = subprocess.run([os.path.join(BIN, "janusd"), "-c", gateway.config_path],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=patient(30))
    assert second.returncode != 0
    assert gateway.socket_path in second.stdout.decode()
    with gateway.player() as client:  # and the first goes on
        assert client.ask(wire.USER, 1, b"x").data == b"x"
    assert gateway.ctl("status")["ok"]


def test_no_secret_shows_in_an_environment_an_argument_list_or_the_log(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    token = gateway.keys.token(38170)
    with gateway.client(uid=38170) as client:
        client.login(token=token)
        client.ask(wire.USER, 1, b"a payload that is nobody's business")
    with gateway.client() as client:
        client.send_raw(client.handshake_frame(token=token[:-8]))
        client.receive_end()
    account_key = gateway.keys.account_key
    for pid in gateway.session_pids():
        for what in ("environ", "cmdline"):
            with open(f"/proc/{pid}/{what}", "rb") as shown:
                text = shown.read()
            assert account_key not in text and b"PRIVATE KEY" not in text
    log = gateway.log()
    for secret in (account_key.decode(), token[:40], "nobody's business", "PRIVATE KEY"):
        assert secret not in log


def test_no_process_leaves_a_core_dump_which_would_have_keys_in_it(start, backend):
    allowed, most = resource.getrlimit(resource.RLIMIT_CORE)
    assert most != 0, "this machine allows no core dumps anyway"
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    try:
        gateway = start(Gateway, nodes=nodes_of(backend.address))
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (allowed, most))
    for pid in [gateway.pid, *gateway.worker_pids().values()]:
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, most)


def test_the_status_tells_what_runs(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(38180) as client:
        client.ask(wire.USER, 1)
        gateway.wait_gauge("tunnels", 1)
        status = gateway.ctl("status")
        assert status["pid"] == gateway.pid
        assert status["state"] == "running"
        assert (status["registry"], status["routes"]) == ("static", "memory")
        assert status["workers"] == {"configured": 2, "running": 2}
        assert (status["sessions"], status["connections"], status["tunnels"]) == (1, 1, 1)
        assert status["nodes"] == 2
        nodes = gateway.ctl("nodes")["nodes"]
        assert {(n["service"], n["address"], n["color"], n["weight"]) for n in nodes} == {
            (service, backend.address, "blue", 100)
            for service in ("roma.player.service", "roma.room.service")}
        gateway_routes = gateway.ctl("routes", "--tier", "gateway")["routes"]
        assert [(r["color"], r["oid"]) for r in gateway_routes] == [("blue", 38180)]


def test_a_worker_that_hangs_is_replaced(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"hang_timeout": f"{int(patient(3))}s"}})
    hung = gateway.worker_pids()[0]
    os.kill(hung, signal.SIGSTOP)
    gateway.wait_log(f"event=worker_hangs worker=0 pid={hung}")
    wait_for(lambda: all(worker["state"] == "running" and worker["pid"] != hung
                         for worker in gateway.ctl("workers")["workers"]), "its successor to run")
    for uid in range(801, 821):  # whichever worker they come to
        with gateway.player(uid=uid) as player:
            player.ask(1, 1)
