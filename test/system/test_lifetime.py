"""What a gateway goes through in its years, in a minute: with players on it who count every
message."""

import json
import os
import shutil
import signal
import subprocess

from janus.patience import patient, wait_for
from janus.programs import BIN, Gateway, Roma, nodes_of, run
from test_drain import drain_state, restart, workers, works
from test_logs import start_when
from test_upgrade import upgrade

PLAYERS = 2000


class Crowd:
    """janus-bench: players who send a numbered message, await its answer, rest, and go on; or
    (idle) say nothing after their first one."""

    def __init__(self, gateway, kind="roundtrip"):
        self.gateway = gateway
        self.process = subprocess.Popen(
            [os.path.join(BIN, "janus-bench"), kind, "--json", "--clients", str(PLAYERS),
             "--every", "500ms", "--duration", "1440m", "--warmup", "0s", "--timeout", "120s",
             "--source", "127.0.0.1-8", "--color", "blue", "--keys", gateway.tool_keys(),
             "--connect", "%s:%d" % gateway.address],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def go_round(self):
        """Each of them says something."""
        before = self.gateway.counter("messages_in")
        self.gateway.wait_counter("messages_in", before + 2 * PLAYERS, timeout=60)

    def end(self):
        """Its report, once every message is answered."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=patient(120))
        assert self.process.returncode == 0
        return json.loads(out)


def test_two_thousand_players_through_reloads_upgrades_and_restarts(start):
    roma = start(Roma)
    gateway = start(Gateway, nodes=nodes_of(roma.address),
                    settings={"drain": {"generations": 16, "spread": "2s"}})
    crowd = Crowd(gateway)
    try:
        wait_for(lambda: gateway.gauge("sessions") == PLAYERS, "all to be logged in", timeout=120)
        generation = 1
        for number in range(20):
            by_generation = number % 10 == 9
            gateway.reload({"limits": {"idle_timeout": f"{60 + number}s"},
                            **({"tunnel": {"open_timeout": f"{1 + number % 9}s"}} if by_generation else {})})
            generation += by_generation
            if number % 4 == 3:
                wait_for(lambda: {one["generation"] for one in workers(gateway).values()
                                  if one["state"] == "running"} == {generation}, "its workers")
                generation = upgrade(gateway)["generation"]
                crowd.go_round()
        for number in sorted(n for n, one in workers(gateway).items() if one["state"] == "running"):
            restart(gateway, number)
            crowd.go_round()
        assert gateway.gauge("sessions") == PLAYERS  # nobody was cut
        assert crowd.process.poll() is None
    finally:
        report = crowd.end()
    assert report["failed"] == 0 and report["clients"] == PLAYERS
    # None lost and none doubled: each answer had the number that was due.
    assert report["answered"] == report["sent"] > PLAYERS
    assert gateway.counter("messages_in") == report["sent"]
    wait_for(lambda: len(workers(gateway)) == 2, "the old generations to leave", timeout=60)


def test_a_drain_sends_two_thousand_players_away(start):
    roma = start(Roma)
    gateway = start(Gateway, nodes=nodes_of(roma.address))
    crowd = Crowd(gateway, "idle")
    try:
        wait_for(lambda: gateway.gauge("sessions") == PLAYERS, "all to be logged in", timeout=120)
        gateway.ctl("drain", "--no-wait", "--timeout", "0s", "--spread", "2s")
        wait_for(lambda: drain_state(gateway) == "drained", "nobody to be left", timeout=60)
    finally:
        crowd.process.kill()
        crowd.process.communicate()
    closed = {name: count for name, count in gateway.total()["closed"].items() if count > 0}
    assert closed == {"drain": PLAYERS}


def serves(gateway):
    return os.path.exists(gateway.socket_path) and all(
        worker["state"] == "running" for worker in gateway.ctl("workers")["workers"])


# --- Faults around it ----------------------------------------------------------------------------


def test_a_log_whose_folder_is_gone_stops_nothing(start, backend, tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    gateway = start(Gateway, nodes=nodes_of(backend.address), start=False, settings={
        "log": {"output": "file", "file": str(folder / "janus.log")}})
    start_when(gateway, lambda: serves(gateway))
    with gateway.player(43000) as player:
        shutil.rmtree(folder)
        run("janusctl", "--socket", gateway.socket_path, "log", "reopen")
        assert gateway.reload({"limits": {"idle_timeout": "59s"}}) == {
            "limits.idle_timeout": "in_place"}
        works(player)
        upgrade(gateway)
        works(player)
        folder.mkdir()
        gateway.ctl("log", "reopen")
        with gateway.player(43001) as other:
            works(other)
        wait_for(lambda: "session_opened" in (folder / "janus.log").read_text(), "the log")


def test_a_full_disk_stops_nothing(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), start=False,
                    settings={"log": {"output": "file", "file": "/dev/full"}})
    start_when(gateway, lambda: serves(gateway))
    with gateway.player(43010) as player:
        works(player)
        gateway.reload({"limits": {"idle_timeout": "59s"}})
        upgrade(gateway)
        works(player)
        gateway.wait_counter("log_lost", 1)


def test_a_control_socket_that_is_removed_comes_back(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(43020) as player:
        os.unlink(gateway.socket_path)
        wait_for(lambda: os.path.exists(gateway.socket_path), "the socket")
        works(player)
        assert gateway.ctl("sessions")["sessions"]
        upgrade(gateway)
        works(player)
