"""Players leave: a worker that is replaced, or the whole gateway."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from janus import wire
from janus.etcd_server import Etcd
from janus.patience import patient, wait_for
from janus.programs import BIN, Gateway, Program, etcd_settings, nodes_of, run
from test_health import Port
from test_processes import alive, players_on_each_worker

WAITING = 1


def works(player, data=b"still here"):
    assert player.ask(wire.USER, 1, data).data == data


def workers(gateway):
    return {one["worker"]: one for one in gateway.ctl("workers")["workers"]}


def ready(gateway):
    """(status, state) of /health/ready."""
    return Port(gateway).ready()[:2]


def refused(gateway):
    try:
        socket.create_connection(gateway.address, patient(10)).close()
        return False
    except ConnectionRefusedError:
        return True


def drain_state(gateway):
    return gateway.ctl("drain", "status")["drain"]["state"]


def drain(gateway, *options):
    answer = gateway.ctl("drain", "--no-wait", *options)["drain"]
    wait_for(lambda: drain_state(gateway) != "deregistering", "the registry to let it go")
    return answer


def restart(gateway, worker, *options):
    """The successor's number, once the worker accepts no more."""
    mark = gateway.mark()
    successor = gateway.ctl("worker", "restart", str(worker), *options)["successor"]
    gateway.wait_log(rf"process=worker worker={worker} .*event=worker_drains", since=mark)
    return successor


# --- One worker -------------------------------------------------------------------------------


def test_a_worker_that_is_restarted_keeps_its_players_until_they_leave(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    players = players_on_each_worker(gateway, 39000)
    before = workers(gateway)
    successor = restart(gateway, 0)
    assert successor not in before
    after = workers(gateway)
    assert after[0]["state"] == "draining" and after[0]["pid"] == before[0]["pid"]
    assert after[0]["place"] == -1 and after[successor]["place"] == before[0]["place"]
    assert after[0]["drain_left_ms"] > 0
    for player in players.values():
        works(player)
    newcomers = players_on_each_worker_of(gateway, 39300, {1, successor})
    for player in newcomers.values():
        works(player)
    players[0].close()
    wait_for(lambda: 0 not in workers(gateway), "the worker to leave with its last player")
    assert "event=worker_died" not in gateway.log()
    assert not alive(before[0]["pid"])
    works(players[1])
    # Its number is free again, and its successor can be replaced in turn.
    assert restart(gateway, successor) == 0
    works(newcomers[successor])


def players_on_each_worker_of(gateway, first_uid, wanted):
    found = {}
    for uid in range(first_uid, first_uid + 200):
        player = gateway.player(uid)
        worker = gateway.session_of(uid)["worker"]
        assert worker in wanted
        if worker in found:
            player.close()
        else:
            found[worker] = player
        if set(found) == wanted:
            return found
    raise AssertionError(f"players came to {set(found)} only")


def test_a_restart_reaches_players_of_the_worker_before(start, backend):
    """Pushes, kicks and reports find a player wherever he is."""
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    player = players_on_each_worker(gateway, 39500)[1]
    restart(gateway, 1)
    assert gateway.ctl("push", str(player.uid), "--mod", "3", "--seq", "9", "--data", "x")
    assert player.receive().data == b"x"
    assert gateway.session_of(player.uid)["worker"] == 1
    # The same player anew, by the new worker: the session before is closed for him.
    with gateway.player(player.uid) as again:
        works(again)
        assert player.receive_end() == 3
    wait_for(lambda: 1 not in workers(gateway), "the worker to leave")


def test_players_of_a_restarted_worker_are_sent_away_when_their_time_is_over(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    players = [gateway.player(uid) for uid in range(39600, 39620)]
    gateway.ctl("worker", "restart", "0", "--timeout", "50ms", "--spread", "200ms")
    assert [player.receive_end() for player in players] == [WAITING] * len(players)
    assert gateway.closed("drain") == len(players)
    wait_for(lambda: list(workers(gateway)) == [1], "the worker to leave")


def test_a_worker_that_hangs_in_its_drain_is_ended(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "worker": {"count": 1, "stop_timeout": "1s", "hang_timeout": "0s"}})
    gateway.expect_clean = False
    with gateway.player(39700):
        gateway.ctl("worker", "restart", "0", "--timeout", "1s", "--spread", "0s")
        pid = workers(gateway)[0]["pid"]
        subprocess.run(["kill", "-STOP", str(pid)], check=True)
        wait_for(lambda: 0 not in workers(gateway), "it to be killed")
        gateway.wait_log(r"event=worker_hangs")


@pytest.mark.parametrize("arguments,status,text", [
    (("7",), 1, "no worker of this number"), (("127",), 1, "no worker of this number"),
    (("-1",), 2, ""), (("x",), 2, ""), ((), 2, "")])
def test_a_worker_that_is_none_can_t_be_restarted(gateway, arguments, status, text):
    done = run("janusctl", "--socket", gateway.socket_path, "worker", "restart", *arguments)
    assert done.returncode == status
    assert text in done.stderr


def test_a_draining_worker_that_dies_is_not_replaced(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    gateway.expect_clean = False
    player = gateway.player(39800)
    restart(gateway, 0)
    subprocess.run(["kill", "-KILL", str(workers(gateway)[0]["pid"])], check=True)
    assert player.receive_end() is None
    wait_for(lambda: list(workers(gateway)) == [1], "only the successor to be left")
    with gateway.player(39800) as again:
        works(again)


def test_counts_of_workers_that_left_stay(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    for number in range(4):
        with gateway.player(39900) as player:
            works(player)
            restart(gateway, number % 2)
        wait_for(lambda: len(workers(gateway)) == 1, "the worker to leave")
        assert gateway.counter("messages_in") == number + 1
    assert len(gateway.ctl("stats")["workers"]) == 2


# --- The gateway ------------------------------------------------------------------------------


def test_a_draining_gateway_refuses_clients_and_keeps_its_players(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(39910) as player:
        assert ready(gateway) == (200, "ready")
        assert drain_state(gateway) == "serving"
        assert drain(gateway, "--timeout", "1h")["timeout_ms"] == 3600000
        assert ready(gateway) == (503, "draining")
        wait_for(lambda: refused(gateway), "clients to be refused")
        works(player)
        status = gateway.ctl("drain", "status")["drain"]
        assert (status["state"], status["sessions"]) == ("draining", 1)
        assert 3500000 < status["left_ms"] <= 3630000
        assert {one["state"] for one in workers(gateway).values()} == {"draining"}
        gateway.ctl("undrain")
        assert ready(gateway) == (200, "ready")
        for uid in range(39911, 39931):  # every worker takes them again
            with gateway.player(uid) as other:
                works(other)
        works(player)
        assert drain_state(gateway) == "serving"


def test_a_drain_reaches_players_of_workers_that_were_replaced_before(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    with gateway.player(39990) as player:
        restart(gateway, 0)
        works(player)
        drain(gateway, "--timeout", "50ms", "--spread", "50ms")
        assert player.receive_end() == WAITING
    wait_for(lambda: drain_state(gateway) == "drained", "nobody to be left")


def test_when_the_time_is_over_all_are_sent_away(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    players = [gateway.player(uid) for uid in range(40000, 40040)]
    drain(gateway, "--timeout", "50ms", "--spread", "300ms")
    assert [player.receive_end() for player in players] == [WAITING] * len(players)
    wait_for(lambda: drain_state(gateway) == "drained", "nobody to be left")
    gateway.ctl("undrain")
    with gateway.player(40050) as player:
        works(player)


def test_they_are_not_sent_away_all_at_once(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    players = [gateway.player(uid) for uid in range(40100, 40200)]
    drain(gateway, "--timeout", "0s", "--spread", "1h")
    # Of a hundred in an hour the first one goes within the first minutes, and none now but for
    # what rounding sends.
    wait_for(lambda: drain_state(gateway) == "sending_away", "it to begin")
    assert gateway.gauge("sessions") >= 98
    drain(gateway, "--timeout", "0s", "--spread", "0s")  # the later word counts
    assert {player.receive_end() for player in players} == {WAITING}


def test_janusctl_drain_waits_until_nobody_is_left(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(40300) as player:
        waiting = subprocess.Popen(
            [BIN + "/janusctl", "--socket", gateway.socket_path, "drain",
             "--timeout", "1h"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: drain_state(gateway) == "draining", "the drain")
        assert waiting.poll() is None
        works(player)
    assert waiting.wait(patient(30)) == 0, waiting.stderr.read()
    assert drain_state(gateway) == "drained"
    waiting.stdout.close()
    waiting.stderr.close()


def test_a_worker_that_dies_in_a_drain_has_a_successor_that_drains_too(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    gateway.expect_clean = False
    drain(gateway, "--timeout", "1h")
    pid = workers(gateway)[0]["pid"]
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    wait_for(lambda: workers(gateway)[0]["pid"] not in (0, pid) and
             workers(gateway)[0]["state"] == "draining", "its successor")
    assert refused(gateway)
    gateway.ctl("undrain")
    with gateway.player(40400) as player:
        works(player)


def test_a_drain_takes_the_gateway_out_of_the_registry_and_undrain_puts_it_back(start, backend):
    etcd = start(Etcd)
    gateway = start(Gateway, nodes=[], settings=etcd_settings(*etcd.endpoints))

    for _ in range(2):
        etcd.wait_gateways(1)
        drain(gateway, "--timeout", "1h")
        etcd.wait_gateways(0)
        wait_for(lambda: refused(gateway), "clients to be refused")
        gateway.ctl("undrain")
    etcd.wait_gateways(1)


def test_a_gateway_that_does_not_serve_yet_is_not_registered_by_an_undrain(start, tmp_path):
    etcd = start(Etcd)
    worker = tmp_path / "janus-worker"
    worker.write_text("no program")
    worker.chmod(0o755)
    gateway = start(Gateway, nodes=[], start=False, settings=etcd_settings(*etcd.endpoints))
    Program.__init__(gateway, [os.path.join(BIN, "janusd"), "-c", gateway.config_path,
                               "--worker", str(worker)])
    wait_for(lambda: os.path.exists(gateway.socket_path), "its socket")
    gateway.wait_link("etcd", "watching")
    drain(gateway, "--timeout", "1h")
    gateway.ctl("undrain")
    # The same file, which it has open.
    worker.write_bytes(Path(BIN, "../libexec/janus-worker").read_bytes())
    gateway.wait_log("event=registered")
    assert "event=registered" not in gateway.log().partition("event=ready ")[0]
    etcd.wait_gateways(1)


def test_at_sigterm_players_are_sent_away_over_a_while(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"drain": {"stop_spread": "400ms"}})
    players = [gateway.player(uid) for uid in range(40500, 40540)]
    begun = time.monotonic()
    gateway.process.terminate()
    assert [player.receive_end() for player in players] == [WAITING] * len(players)
    assert gateway.process.wait(patient(30)) == 0
    assert time.monotonic() - begun >= 0.35  # not all at once: an end before would be a fault


def test_without_players_a_stop_is_at_once(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"drain": {"stop_spread": "1h"}})
    gateway.stop()


def test_a_stop_overrules_a_drain(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(40600) as player:
        drain(gateway, "--timeout", "1h")
        gateway.process.terminate()
        assert player.receive_end() == WAITING
    assert gateway.process.wait(patient(30)) == 0
