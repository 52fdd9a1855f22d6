"""The log: its forms, where it goes, and its levels at run time."""

import base64
import json
import os
import re
import shutil
import signal

import pytest
from janus.patience import wait_for
from janus.programs import Gateway, nodes_of, run

PAYLOAD = b"a-payload-that-no-log-may-have"


def janusctl(gateway, *arguments, code=0):
    done = run("janusctl", "--socket", gateway.socket_path, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def read(path):
    with open(path, errors="replace") as log:
        return log.read()


def start_when(gateway, is_ready):
    """Starts one whose readiness is not told on standard error."""
    gateway.wait_log = lambda *_, **__: wait_for(is_ready, "it to be ready", 60)
    gateway.start()
    del gateway.wait_log


def with_file(start, backend, directory, **log):
    path = os.path.join(str(directory), "janus.log")
    gateway = start(Gateway, nodes=nodes_of(backend.address), start=False,
                    settings={"log": {"output": "file", "file": path, **log}})
    start_when(gateway, lambda: os.path.exists(path) and
               re.search(r'\bevent(=|":")ready\b', read(path)))
    return gateway, path


# --- Levels ------------------------------------------------------------------------------------


def test_a_level_of_one_module_reaches_every_worker_and_those_started_later(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"log": {"level": "error"}},
                    start=False)
    start_when(gateway, lambda: os.path.exists(gateway.socket_path) and all(
        worker["state"] == "running" for worker in gateway.ctl("workers")["workers"]))
    mark = gateway.mark()
    shown = gateway.ctl("log", "info", "--module", "session")["modules"]
    levels = {one["module"]: one["level"] for one in shown}
    assert levels["session"] == "info" and levels["tunnel"] == "error"

    def workers_that_tell():
        with gateway.player():
            pass
        return set(re.findall(r"worker=(\d) module=session event=session_opened",
                              "\n".join(gateway.lines[mark:])))

    wait_for(lambda: workers_that_tell() == {"0", "1"}, "both workers to tell of sessions")
    for pid in gateway.worker_pids().values():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: sum(worker["state"] == "running" and worker["restarts"] > 0
                         for worker in gateway.ctl("workers")["workers"]) == 2, "the successors")
    mark = gateway.mark()
    wait_for(lambda: workers_that_tell() == {"0", "1"}, "both successors to tell of sessions")
    assert not re.search(r"module=tunnel", gateway.log())


def test_a_level_for_a_time_goes_back_after_it(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"log": {"level": "info"}})

    def level():
        return {one["module"]: one for one in gateway.ctl("log")["modules"]}["session"]

    gateway.ctl("log", "warn", "--module", "session")
    gateway.ctl("log", "debug", "--for", "1h")
    assert level()["level"] == "debug" and level()["then"] == "warn"
    gateway.ctl("log", "debug", "--for", "10ms")
    wait_for(lambda: level()["level"] == "warn", "the level to go back")
    assert gateway.ctl("log", "reset")["configured"] == "info"
    assert level()["level"] == "info"


def test_unknown_levels_and_modules_are_refused_with_what_there_is(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    assert "debug, info, warn, error" in janusctl(gateway, "log", "loud", code=1)
    assert "session, tunnel" in janusctl(gateway, "log", "info", "--module", "kitchen", code=1)
    assert "365 days" in janusctl(gateway, "log", "info", "--for", "9000h", code=1)
    assert "which level" in janusctl(gateway, "log", "--module", "session", code=1)


# --- The file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["janusctl", "signal"])
def test_no_line_is_lost_while_the_file_is_renamed_and_opened_anew(start, backend, tmp_path, way):
    gateway, path = with_file(start, backend, tmp_path)
    files = [path]
    players = 0
    for turn in range(5):
        for uid in range(2):
            with gateway.player(uid=1000 + uid):
                players += 1
                if uid == 1:
                    files.append(f"{path}.{turn}")
                    os.rename(path, files[-1])
                    if way == "janusctl":
                        janusctl(gateway, "log", "reopen")
                    else:
                        os.kill(gateway.pid, signal.SIGUSR1)
        wait_for(lambda: os.path.exists(path), "the new file")

    def lines():
        return "".join(map(read, files))

    def told():
        held = sum(map(int, re.findall(r"kind=session_\w+ count=(\d+)", lines())))
        held += sum(map(int, re.findall(r"event=session_\w+ .*suppressed=(\d+)", lines())))
        return len(re.findall(r"event=session_(?:opened|closed) ", lines())) + held

    wait_for(lambda: told() == 2 * players, f"{players} sessions to be told of")
    assert gateway.counter("log_lost") == 0
    assert all(re.match(r"time=\S+Z level=\w+ process=\w+ ", line) for line in lines().splitlines())
    assert {"master", "worker"} <= set(re.findall(r"process=(\w+)", lines()))


def test_a_folder_that_is_gone_costs_lines_which_are_counted_and_nothing_else(
        start, backend, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    gateway, path = with_file(start, backend, folder)
    shutil.rmtree(folder)

    def lost():
        with gateway.player() as player:
            assert player.ask(1, 2, b"hello")
        return gateway.counter("log_lost") > 0

    wait_for(lost, "lines to be lost")
    assert "event=log_lost" in gateway.log()
    assert "can't be opened" in janusctl(gateway, "log", "reopen", code=1)
    folder.mkdir()
    wait_for(lambda: os.path.exists(path) and "event=log_restored lost=" in read(path),
             "the log to be back")


def test_a_file_that_cannot_be_opened_is_a_fault_at_the_start(start, backend, tmp_path):
    gateway = start(Gateway, nodes=nodes_of(backend.address), start=False,
                    settings={"log": {"output": "file", "file": str(tmp_path / "no" / "log")}})
    done = run("janusd", "-c", gateway.config_path)
    assert done.returncode == 1
    assert "the log can't be opened" in done.stderr and "No such file" in done.stderr
    gateway.stop = lambda: None  # it never ran


# --- What is in it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "logfmt"])
def test_a_whole_session_is_told_in_good_form_and_without_a_secret(
        start, backend, tmp_path, keys, form):
    gateway, path = with_file(start, backend, tmp_path, type=form)
    client = gateway.client(uid=4711)
    token = keys.token(4711, "blue", 7, 1)
    with client as player:
        player.login(token=token)
        assert player.ask(1, 2, PAYLOAD)
        session_key = player.session_key
        gateway.ctl("push", "4711", "--mod", "3", "--seq", "7", "--data", PAYLOAD.decode())
        assert player.receive().data == PAYLOAD
    wait_for(lambda: "session_closed" in read(path), "the session's end in the log")
    log = read(path)
    lines = log.splitlines()
    if form == "json":
        told = [json.loads(line) for line in lines]
    else:
        field = r'[\w.-]+=(?:"(?:[^"\\]|\\.)*"|[^\s"=]*)'
        for line in lines:
            assert re.fullmatch(rf"{field}(?: {field})*", line), line
        told = [dict(re.findall(r"([\w.-]+)=(\S*)", line)) for line in lines]
    for one in told:
        assert {"time", "level", "process", "module", "event"} <= set(one)
        assert one["process"] == "master" or str(one["worker"]) in ("0", "1")
    of_session = [one for one in told if one["event"] in ("session_opened", "session_closed")]
    assert len(of_session) == 2
    assert all(str(one["uid"]) == "4711" for one in of_session)
    assert len({str(one["connection"]) for one in of_session}) == 1
    secrets = [PAYLOAD, keys.account_key, session_key, token]
    for secret in secrets:
        secret = secret.encode() if isinstance(secret, str) else bytes(secret)
        assert len(secret) >= 16
        for form_of in (secret.decode(errors="replace"), secret.hex(),
                        base64.b64encode(secret).decode().rstrip("=")):
            assert form_of not in log and form_of not in gateway.log()
