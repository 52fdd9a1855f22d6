"""janusctl as a tool: its help, its exit status, what it says to programs, and who may use it."""

import grp
import json
import os
import pty
import re
import shlex
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading

import pytest
from janus.patience import patient, wait_for
from janus.programs import BIN, Gateway, nodes_of, run

REFUSED, USAGE, UNREACHABLE = 1, 2, 3
COMMANDS = json.loads(run("janusctl", "help", "--json").stdout)["commands"]
COMMAND = {command["name"]: command for command in COMMANDS}


class Asked(socketserver.StreamRequestHandler):
    def handle(self):
        request = json.loads(self.rfile.readline())
        server = self.server
        server.requests.append(request)
        answer = server.answers.get(request["command"], {"ok": True})
        if isinstance(answer, list):  # one after the other, the last for good
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if answer is server.GOES:
            server.go()
        elif answer is not None:
            self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")


class Stand(socketserver.ThreadingUnixStreamServer):
    """Answers in a gateway's place, as it is told: {command: answer}, or a list of answers."""

    GOES = object()  # it stops listening, and answers nothing
    daemon_threads = True

    def __init__(self, path, answers):
        super().__init__(path, Asked)
        self.path, self.answers, self.requests = path, answers, []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def go(self):
        os.unlink(self.path)
        self.socket.close()
        threading.Thread(target=self.shutdown, daemon=True).start()

    def janusctl(self, *arguments, code=0, timeout=60):
        done = run("janusctl", "--socket", self.path, *arguments, timeout=timeout)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done


@pytest.fixture
def stand(tmp_path):
    stands = []

    def start(**answers):
        stands.append(Stand(str(tmp_path / f"{len(stands)}.sock"),
                            {name.replace("_", " "): answer for name, answer in answers.items()}))
        return stands[-1]

    yield start
    for one in stands:
        one.shutdown()
        one.server_close()


# --- Help --------------------------------------------------------------------------------------------


def test_the_overview_has_every_command():
    done = run("janusctl", "--help")
    assert done.returncode == 0 and run("janusctl", "help").stdout == done.stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command['name']}\b", done.stdout, re.M), command["name"]
        assert command["summary"].split()[0] in done.stdout


@pytest.mark.parametrize("name", COMMAND)
def test_each_command_has_help_with_its_options_and_examples(name):
    done = run("janusctl", "help", *name.split())
    assert done.returncode == 0
    assert run("janusctl", *name.split(), "--help").stdout == done.stdout
    assert done.stdout.startswith(f"janusctl {name}: ")
    own, _, common = done.stdout.partition("-s, --socket")
    assert set(re.findall(r"--([a-z-]+)", own.partition("Options:")[2])) >= \
        {option["name"] for option in COMMAND[name]["options"]}
    assert COMMAND[name]["examples"]
    for example in COMMAND[name]["examples"]:
        assert f"  {example}\n" in common
    assert ("control.read_group" in common) == COMMAND[name]["read_only"]
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("example", [example for command in COMMANDS
                                     for example in command["examples"]])
def test_each_example_is_a_command_line_that_works(stand, example):
    gateway = stand(drain={"ok": True, "drain": {"state": "draining", "sessions": 0}},
                    drain_status={"ok": True, "drain": {"state": "drained", "sessions": 0}},
                    trace={"ok": True, "sessions": 1})
    words = shlex.split(example.partition("|")[0])[1:]
    # The stand-in does not go on with a trace: the gateway has gone then.
    more = ["--interval", "100ms", "--count", "1"] if words[0] == "top" else []
    gateway.janusctl(*words, *more, code=UNREACHABLE if words[0] == "trace" else 0)
    assert gateway.requests


# --- Exit status, and what is said to programs -------------------------------------------------------


def error_of(done):
    """The one thing on stdout, which says that it did not go well."""
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    return answer["error"]


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["help", "nonsense"], ["worker"], ["status", "--nonsense"], ["status", "more"],
    ["status", "--uid", "5"], ["kick", "--uid"], ["kick", "five"], ["kick", "--uid", "five"],
    ["session"], ["session", "-5"], ["push", "5", "--mod", "1"], ["routes", "get", "nobody", "5"],
    ["top", "--interval", "1ms"], ["drain", "--timeout", "soon"], ["drain", "--wait", "--no-wait"],
    ["drain", "now"], ["undrain", "--timeout", "1s"], ["worker", "restart"],
    ["worker", "restart", "-1"], ["worker", "restart", "one"], ["upgrade", "/usr/bin/janusd"],
    ["--nonsense=1", "status"], ["--socket"]])
def test_wrong_usage_ends_with_2(stand, arguments):
    gateway = stand()
    done = gateway.janusctl(*arguments, code=USAGE)
    assert done.stdout == "" and done.stderr.startswith("janusctl: ") and "Try janusctl" in done.stderr
    done = gateway.janusctl("--json", *arguments, code=USAGE)
    assert f"janusctl: {error_of(done)}\n" in done.stderr
    assert gateway.requests == []


@pytest.mark.parametrize("typed, meant", [
    ("statsu", "stats"), ("worker restrt 1", "worker restart"), ("drian", "drain"),
    ("help sesions", "sessions"), ("worker", "workers"), ("nonsense", None), ("", None),
    ("x" * 10_000, None)])
def test_what_was_meant_is_asked(stand, typed, meant):
    said = stand().janusctl(*(typed.split(" ")), code=USAGE).stderr
    assert f"did you mean {meant}?" in said if meant else "did you mean" not in said


@pytest.mark.parametrize("name", COMMAND)
def test_without_a_gateway_each_command_ends_with_3_and_says_so(tmp_path, name):
    words = [*name.split(), *[{"TIER": "player"}.get(word["name"], "1")
                              for word in COMMAND[name]["words"]]]
    if name == "push":
        words += ["--mod", "1", "--seq", "2"]
    path = str(tmp_path / "nobody.sock")
    done = run("janusctl", "--socket", path, *words)
    assert done.returncode == UNREACHABLE and done.stdout == "" and path in done.stderr
    done = run("janusctl", "--socket", path, *words, "--json")
    assert done.returncode == UNREACHABLE and path in error_of(done)


@pytest.mark.parametrize("name", COMMAND)
def test_a_refusal_ends_with_1_and_says_so(stand, name):
    refusal = {"ok": False, "error": "not today", "faults": ["a.conf:1: b: bad"]}
    gateway = stand(**{name: refusal, "stats": refusal, "sessions": refusal})
    words = [*name.split(), *[{"TIER": "player"}.get(word["name"], "1")
                              for word in COMMAND[name]["words"]]]
    if name == "push":
        words += ["--mod", "1", "--seq", "2"]
    done = gateway.janusctl(*words, code=REFUSED)
    assert done.stdout == "" and "not today" in done.stderr and "a.conf:1: b: bad" in done.stderr
    assert json.loads(gateway.janusctl(*words, "--json", code=REFUSED).stdout) == refusal


@pytest.mark.parametrize("answer, said", [
    (b"hello\n", "not a gateway"), (b"[]\n", "not a gateway"), (None, "reset")])
def test_what_is_no_answer_ends_with_3(stand, answer, said):
    done = stand(status=answer).janusctl("status", "--json", code=UNREACHABLE)
    assert said in error_of(done)


def test_an_answer_that_can_not_be_written_ends_with_1(stand):
    gateway = stand(bans={"ok": True, "bans": []})
    for options in ([], ["--json"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([os.path.join(BIN, "janusctl"), "--socket", gateway.path, "bans",
                                   *options], stdout=full, stderr=subprocess.PIPE,
                                  timeout=patient(30))
        assert done.returncode == REFUSED and b"can't write" in done.stderr


def test_a_command_and_its_json_go_in_any_order(stand):
    gateway = stand()
    for arguments in (["-j", "undrain"], ["undrain", "-j"], ["undrain", "--json"]):
        assert json.loads(gateway.janusctl(*arguments).stdout) == {"ok": True}


# --- Drain, restart, upgrade, reload -----------------------------------------------------------------


def draining(sessions, state="draining", **more):
    return {"ok": True, "drain": {"state": state, "sessions": sessions, **more}}


def test_requests_have_what_was_said_and_nothing_else(stand):
    gateway = stand(drain=draining(3))
    gateway.janusctl("drain", "--no-wait", "--timeout", "10m", "--spread", "90s")
    gateway.janusctl("drain", "--no-wait")
    gateway.janusctl("undrain")
    gateway.janusctl("worker", "restart", "1003", "--timeout", "1h")
    gateway.janusctl("upgrade", "--program", "/opt/janusd")
    gateway.janusctl("upgrade")
    assert gateway.requests == [
        {"command": "drain", "timeout_ms": 600000, "spread_ms": 90000}, {"command": "drain"},
        {"command": "undrain"}, {"command": "worker restart", "worker": 1003, "timeout_ms": 3600000},
        {"command": "upgrade", "program": "/opt/janusd"}, {"command": "upgrade"}]


@pytest.mark.parametrize("options", [[], ["--wait"]])
def test_a_drain_is_shown_until_the_last_player_has_left(stand, options):
    gateway = stand(drain=draining(3), drain_status=[
        draining(3, left_ms=60000), draining(2), draining(2), None, draining(1, "sending_away"),
        draining(0, "drained")])
    done = gateway.janusctl("drain", *options)
    assert done.stdout == ("draining: 3 players\ndraining: 2 players\nsending away: 1 player\n"
                           "drained: no player is left\n")


def test_a_drain_says_one_thing_to_programs(stand):
    end = draining(0, "drained", sessions_at_start=3)
    done = stand(drain=draining(3), drain_status=[draining(2), end]).janusctl("drain", "--json")
    assert json.loads(done.stdout) == end and done.stderr == ""


def test_a_drain_that_somebody_ends_is_told_with_1(stand):
    gateway = stand(drain=draining(3), drain_status=[draining(2), draining(2, "serving")])
    assert "undrained" in gateway.janusctl("drain", code=REFUSED).stderr
    gateway = stand(drain=draining(3), drain_status=[draining(2), draining(2, "serving")])
    assert "undrained" in error_of(gateway.janusctl("drain", "--json", code=REFUSED))


def test_a_gateway_that_stops_after_its_drain_ends_it_well(stand):
    gateway = stand(drain=draining(3), drain_status=[draining(2), Stand.GOES])
    assert gateway.janusctl("drain").stdout.endswith("the gateway has stopped after its drain\n")
    gateway = stand(drain=draining(3), drain_status=[draining(2), Stand.GOES])
    assert json.loads(gateway.janusctl("drain", "--json").stdout) \
        == {"ok": True, "drain": {"state": "stopped"}}


def test_a_gateway_that_starts_anew_has_not_stopped(stand):
    gateway = stand(drain=draining(3), drain_status=[draining(2), Stand.GOES])
    process = subprocess.Popen(
        [os.path.join(BIN, "janusctl"), "--socket", gateway.path, "drain", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: not os.path.exists(gateway.path), "the gateway to have gone")
    successor = Stand(gateway.path, {"drain status": draining(2, "serving")})
    assert process.wait(patient(30)) == REFUSED
    assert b"undrained" in process.stdout.read()
    successor.shutdown()
    successor.server_close()


def test_a_drain_that_the_gateway_can_not_tell_of_ends_with_1(stand):
    gateway = stand(drain=draining(3), drain_status={"ok": False, "error": "unknown command"})
    assert "unknown command" in gateway.janusctl("drain", code=REFUSED).stderr


def test_on_a_terminal_a_drain_is_one_line(stand):
    gateway = stand(drain=draining(31), drain_status=[draining(20), draining(0, "drained")])
    ours, theirs = pty.openpty()
    process = subprocess.Popen([os.path.join(BIN, "janusctl"), "--socket", gateway.path, "drain"],
                               stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    screen = b""
    while True:
        try:
            more = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        screen += more
    os.close(ours)
    assert process.wait(patient(30)) == 0
    assert screen == (b"\rdraining: 31 players\033[K\rdraining: 20 players\033[K\r\n"
                      b"drained: no player is left\r\n")
    assert b"undrain ends the drain" in process.stderr.read()


def test_the_way_to_a_client_over_kcp_is_told_with_its_units(stand):
    gateway = stand(session={"ok": True, "session": {"uid": 5}, "siblings": 3,
                             "path": {"srtt_ms": 64, "rto_ms": 156, "loss_percent": 6.82}})
    said = gateway.janusctl("session", "5").stdout
    for line in ("round trip    64 ms", "resend after  156 ms", "loss          6.8 %",
                 "siblings      3"):
        assert line in said.splitlines()


def test_a_reload_is_told_in_three_groups(stand):
    gateway = stand(reload={"ok": True, "generation": 4, "notes": ["the old key is good until noon"],
                            "changed": [{"setting": "limits.idle_timeout", "how": "in_place"},
                                        {"setting": "server.tcp.addr", "how": "new_generation"},
                                        {"setting": "control.socket", "how": "restart"},
                                        {"setting": "log.level", "how": "in_place"}]})
    assert gateway.janusctl("reload").stdout == (
        "changed       limits.idle_timeout\n"
        "              log.level\n"
        "generation 4  server.tcp.addr\n"
        "at a restart  control.socket\n"
        "note          the old key is good until noon\n")
    assert stand(reload={"ok": True, "changed": [], "notes": []}).janusctl("reload").stdout \
        == "nothing has changed\n"


def test_what_came_of_a_restart_and_an_upgrade_is_said(stand):
    gateway = stand(worker_restart={"ok": True, "worker": 1, "successor": 7},
                    upgrade={"ok": True, "version": "0.2.0", "generation": 3})
    assert gateway.janusctl("worker", "restart", "1").stdout \
        == "worker 1 drains; its successor is worker 7\n"
    assert gateway.janusctl("upgrade").stdout == "version 0.2.0 runs, with generation 3\n"


def test_workers_are_shown_with_what_is_known_of_them(stand):
    gateway = stand(workers={"ok": True, "workers": [
        {"worker": 3, "place": 0, "generation": 2, "state": "running", "sessions": 9, "pid": 10},
        {"worker": 1, "place": -1, "generation": 1, "state": "draining", "sessions": 4, "pid": 8,
         "drain_left_ms": 61000}]})
    lines = [line.split() for line in gateway.janusctl("workers").stdout.splitlines()]
    assert lines == [["worker", "generation", "socket", "pid", "state", "drained", "in", "sessions"],
                     ["3", "2", "0", "10", "running", "-", "9"],
                     ["1", "1", "-1", "8", "draining", "1m01s", "4"]]


# --- Who may -------------------------------------------------------------------------------------------

NOBODY = 65534
ALL, LOOKS, NONE = "all", "looks", "none"


class Guarded:
    """A gateway for the groups games and users, and janusctl as somebody else runs it."""

    def __init__(self, start_module, backend, **control):
        # Where everybody gets to, which the tests' own folders are not.
        self.folder = tempfile.mkdtemp(prefix="janus-control-")
        os.chmod(self.folder, 0o755)
        self.janusctl = shutil.copy(os.path.join(BIN, "janusctl"), self.folder)
        self.path = os.path.join(self.folder, "run", "control.sock")
        self.gateway = start_module(Gateway, nodes=nodes_of(backend.address), settings={
            "control": {"socket": self.path, **control}})

    def run(self, *arguments, group="nogroup", groups=()):
        return subprocess.run(
            [self.janusctl, "--socket", self.path, *arguments], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, timeout=patient(30), user=NOBODY,
            group=grp.getgrnam(group).gr_gid, cwd="/",
            extra_groups=[grp.getgrnam(name).gr_gid for name in groups])

    def may(self, name, **who):
        """What its answer says of that: True, or the refusal."""
        words = [*name.split(), *[{"TIER": "player", "LEVEL": "info"}.get(word["name"], "1")
                                  for word in COMMAND[name]["words"]]]
        words += ["--mod", "1", "--seq", "2"] if name == "push" else []
        words += ["--count", "1", "--interval", "100ms"] if name == "top" else []
        words += ["--no-wait"] if name == "drain" else []
        done = self.run(*words, "--json", **who)
        answer = json.loads(done.stdout)
        return answer.get("error", "") if done.returncode == REFUSED else True


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as somebody else")


@pytest.fixture(scope="module")
def guarded(start_module, backend):
    one = Guarded(start_module, backend, group="games", read_group="users")
    yield one
    shutil.rmtree(one.folder)


@needs_root
@pytest.mark.parametrize("who, access", [
    ({"group": "games"}, ALL), ({"groups": ["daemon", "games"]}, ALL),
    ({"groups": ["games", "users"]}, ALL), ({"group": "users"}, LOOKS),
    ({"groups": ["daemon", "users"]}, LOOKS), ({}, NONE), ({"groups": ["daemon"]}, NONE)])
def test_a_group_may_what_it_is_given(guarded, who, access):
    done = guarded.run("status", "--json", **who)
    assert (done.returncode == 0) == (access != NONE), done.stderr
    done = guarded.run("log", "reset", "--json", **who)
    assert (done.returncode == 0) == (access == ALL), done.stderr
    if access == NONE:
        assert "root and the groups control.group and control.read_group" in error_of(done)
        assert done.returncode == REFUSED
        guarded.gateway.wait_log("event=control_refused access=none")
    if access == LOOKS:
        assert "you may look only" in error_of(done) and done.returncode == REFUSED


@needs_root
@pytest.mark.parametrize("name", COMMAND)
def test_who_looks_only_may_what_help_says(guarded, name):
    as_users = str(guarded.may(name, group="users"))
    if not COMMAND[name]["read_only"] or name == "log":  # with LEVEL, it sets something
        assert "you may look only" in as_users
    else:
        assert "you may" not in as_users
    if name == "log":
        assert guarded.run("log", group="users").returncode == 0


def test_the_gateway_knows_every_command(guarded):
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(guarded.path)
        asker.sendall(b'{"command": "nonsense"}\n')
        answer = json.loads(asker.makefile().read())
    assert answer["ok"] is False
    said, _, names = answer["error"].partition("; there are ")
    assert said == "unknown command"
    # top asks for stats and sessions.
    assert set(COMMAND) - set(names.split(", ")) <= {"top"}
    assert set(names.split(", ")) <= set(COMMAND)


@pytest.mark.parametrize("for_ms", [2**63 - 1, 2**62])
def test_no_ban_is_longer_than_time(guarded, for_ms):
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(guarded.path)
        asker.sendall(b'{"command": "ban", "uid": 1, "for_ms": %d}\n' % for_ms)
        answer = json.loads(asker.makefile().read())
    assert "at most 100 years" in answer["error"]


@needs_root
def test_those_who_may_not_do_not_keep_the_others_out(guarded):
    """As many connections as they are given, and more."""
    hold = f"""
import socket
held = []
for _ in range(40):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect({guarded.path!r})
print("held", flush=True)
input()
"""
    for groups in ((), (grp.getgrnam("users").gr_gid,)):
        with subprocess.Popen(["/usr/bin/python3", "-c", hold], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, user=NOBODY, group=NOBODY,
                              extra_groups=groups, cwd="/") as holder:
            assert holder.stdout.readline() == b"held\n"
            assert guarded.run("status", group="games").returncode == 0
            holder.communicate(b"\n")


@needs_root
def test_without_further_groups_the_socket_itself_keeps_the_others_out(start_module, backend):
    one = Guarded(start_module, backend)
    status = os.stat(one.path)
    assert (status.st_mode & 0o777, status.st_gid) == (0o660, os.getegid())
    assert os.stat(os.path.dirname(one.path)).st_mode & 0o777 == 0o750
    done = one.run("status", "--json", group="users")
    assert done.returncode == UNREACHABLE and "Permission denied" in error_of(done)
    assert "control.group" in done.stderr
    shutil.rmtree(one.folder, ignore_errors=True)


@needs_root
def test_a_folder_that_its_groups_can_not_get_through_is_told(start_module, backend):
    folder = tempfile.mkdtemp(prefix="janus-control-")  # mode 0700
    gateway = start_module(Gateway, nodes=nodes_of(backend.address), settings={
        "control": {"socket": os.path.join(folder, "control.sock"), "read_group": "users"}})
    gateway.wait_log(f"level=warn .*event=control_folder_closed .*{folder}")
    shutil.rmtree(folder, ignore_errors=True)
