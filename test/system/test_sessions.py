"""One session for each player, and who is let in."""

import os
import signal
import socket
import subprocess

import pytest

from janus.backend import Backend
from janus.patience import wait_for
from janus.programs import BIN, Gateway, nodes_of, run

CONFLICT = 3  # SCServerLogout's ConflictingLogin


@pytest.fixture(scope="module")
def backend(start_module):
    return start_module(Backend)


@pytest.fixture(scope="module")
def gateway(start_module, backend):
    return start_module(Gateway, nodes=nodes_of(backend.address))


@pytest.mark.parametrize("same", [True, False], ids=["the-same-worker", "another-worker"])
def test_the_newest_login_wins(gateway, same):
    uid = 41000 + same
    for _ in range(200):  # until the kernel has put both where they are wanted
        old = gateway.player(uid)
        old_worker = gateway.session_of(uid)["worker"]
        new = gateway.player(uid)
        assert old.receive_end() == CONFLICT
        sessions = wait_for(lambda: len(found := gateway.ctl("sessions", "--uid", str(uid))
                                        ["sessions"]) == 1 and found, "one session to be left")
        assert sessions[0]["address"] == "%s:%d" % new.socket.getsockname()[:2]
        assert new.ask(1, 2, b"still here").data == b"still here"
        new_worker = sessions[0]["worker"]
        old.close()
        new.close()
        wait_for(lambda: not gateway.ctl("sessions", "--uid", str(uid))["sessions"], "none left")
        if (new_worker == old_worker) == same:
            return
    raise AssertionError("the kernel never chose such workers")


def test_the_old_tunnel_ends_and_the_new_one_is_told_apart(gateway, backend):
    with gateway.player(41010) as old:
        old.ask(1, 2, b"first")
        with gateway.player(41010) as new:
            assert old.receive_end() == CONFLICT
            new.ask(1, 2, b"second")
            first, second = backend.streams_of(41010)
            assert first.metadata["x-md-global-referer"] != second.metadata["x-md-global-referer"]
            assert first.ended.wait(30)
            assert not second.ended.is_set()
            assert gateway.route("gateway", 41010)["table"]["address"]  # the new one's stays


def test_an_old_connection_that_does_not_read_is_replaced_too(gateway):
    stale = gateway.client(uid=41020, receive_buffer=4096)
    stale.login()

    def is_stuck():
        for _ in range(20):
            stale.send(1, 2, os.urandom(8000))  # the echoes fill what is on the way to it
        return gateway.ctl("session", "41020")["session"]["output_paused"]

    wait_for(is_stuck, "it to be behind", pause=0)
    with gateway.player(41020) as new:
        assert new.ask(1, 2, b"in").data == b"in"
        wait_for(lambda: len(gateway.ctl("sessions", "--uid", "41020")["sessions"]) == 1,
                 "the stale session to be gone")
        assert new.ask(1, 2, b"and stays").data == b"and stays"
    stale.close()


def test_a_session_is_listed_when_its_login_is_answered(gateway):
    for uid in range(41030, 41040):
        with gateway.player(uid):
            assert len(gateway.ctl("sessions", "--uid", str(uid))["sessions"]) == 1


def test_logins_of_the_same_players_at_once_leave_one_session_each(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    players, each = 100, 10
    clients = [gateway.client(uid=41100 + number % players) for number in range(players * each)]
    for client in clients:
        client.send_raw(client.handshake_frame())
    for client in clients:
        client.finish_login()
    gateway.wait_gauge("sessions", players)
    left = [session["uid"] for session in gateway.ctl("sessions", "--limit", "5000")["sessions"]]
    assert sorted(left) == list(range(41100, 41100 + players))
    assert gateway.closed("conflicting_login") == players * (each - 1)
    here = {session["address"] for session in
            gateway.ctl("sessions", "--limit", "5000")["sessions"]}
    for client in clients:
        if "%s:%d" % client.socket.getsockname()[:2] in here:
            assert client.ask(1, 2, b"mine").data == b"mine"
        else:
            assert client.receive_end() == CONFLICT
        client.close()


def test_a_second_login_may_be_refused_instead(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"login": {"conflict": "refuse_second"}})
    with gateway.player(41200) as first:
        with gateway.closes("conflicting_login", others_open=1):
            second = gateway.player(41200)  # is answered, so that it can read why
            assert second.receive_end() == CONFLICT
            second.close()
        assert first.ask(1, 2, b"undisturbed").data == b"undisturbed"
    wait_for(lambda: not gateway.ctl("sessions", "--uid", "41200")["sessions"], "the first to go")
    with gateway.player(41200) as third:
        assert third.ask(1, 2, b"now").data == b"now"


def test_a_captured_handshake_is_refused_on_every_worker(gateway):
    with gateway.player(41300) as player:
        opened = gateway.client(uid=41301)
        frame = opened.handshake_frame()
        opened.send_raw(frame)
        opened.finish_login()
        with gateway.closes("handshake_replay", count=10, others_open=2):
            for _ in range(10):
                with socket.create_connection(gateway.address) as thief:
                    thief.sendall(frame)
                    assert thief.recv(1) == b""  # no answer
        assert opened.ask(1, 2, b"undisturbed").data == b"undisturbed"
        assert player.ask(1, 2, b"too").data == b"too"
        opened.close()


def test_a_handshake_that_was_refused_first_is_no_replay(gateway):
    client = gateway.client(uid=41310)
    client.send_raw(client.handshake_frame(token="nonsense"))
    assert client.receive_body() is None
    again = gateway.client(uid=41310)
    again.exchange = client.exchange
    with again:
        again.login()
        assert again.ask(1, 2, b"in").data == b"in"


def test_without_encryption_any_handshake_may_come_again(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"label": {"encrypted": False}})
    for uid in (41320, 41321):
        with gateway.player(uid) as player:
            assert player.ask(1, 2, b"plain").data == b"plain"


def test_a_login_waits_for_its_master(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    client = gateway.client(uid=41400)
    leaver = gateway.client(uid=41401)
    os.kill(gateway.process.pid, signal.SIGSTOP)
    try:
        leaver.send_raw(leaver.handshake_frame())
        client.send_raw(client.handshake_frame())
        assert client.receive_nothing(0.2)  # it can't come before the master goes on
        leaver.close()
    finally:
        os.kill(gateway.process.pid, signal.SIGCONT)
    client.finish_login()
    assert client.ask(1, 2, b"in").data == b"in"
    wait_for(lambda: not gateway.ctl("sessions", "--uid", "41401")["sessions"],
             "the one that left to be gone")
    client.close()


def test_a_master_that_is_gone_keeps_nobody_out(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"orphan_timeout": "120s"}})
    gateway.expect_clean = False
    waiting = gateway.client(uid=41500)
    os.kill(gateway.process.pid, signal.SIGSTOP)
    waiting.send_raw(waiting.handshake_frame())
    os.kill(gateway.process.pid, signal.SIGKILL)
    waiting.finish_login()
    assert waiting.ask(1, 2, b"in").data == b"in"
    with gateway.player(41501) as later:
        assert later.ask(1, 2, b"in").data == b"in"
    waiting.close()
    gateway.abandon()


def test_a_login_that_is_not_settled_in_time_is_closed(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"limits": {"handshake_timeout": "500ms"}})
    client = gateway.client(uid=41600)
    os.kill(gateway.process.pid, signal.SIGSTOP)
    try:
        client.send_raw(client.handshake_frame())
        assert client.receive_body() is None
    finally:
        os.kill(gateway.process.pid, signal.SIGCONT)
    wait_for(lambda: gateway.closed("handshake_timeout") == 1, "it to be counted")
    wait_for(lambda: not gateway.ctl("sessions", "--uid", "41600")["sessions"], "no session left")
    client.close()


# --- janusctl acts on sessions ------------------------------------------------------------------


def kick(gateway, *arguments, exit_code=0):
    done = run("janusctl", "--socket", gateway.socket_path, "kick", *map(str, arguments))
    assert done.returncode == exit_code, done.stderr
    return done.stdout + done.stderr


def test_a_player_is_kicked(gateway):
    with gateway.player(41800) as kicked, gateway.player(41801) as other:
        with gateway.closes("kicked", others_open=2):
            assert kick(gateway, 41800, "--reason", "asked by\nsupport") == "closed 1\n"
            assert kicked.receive_end() == 4  # AdminKickOut
            kicked.close()
        assert other.ask(1, 2, b"undisturbed").data == b"undisturbed"
        gateway.wait_log(r"event=kicked sessions=1 whom=\"uid=41800\" code=admin-kick-out reason=")


@pytest.mark.parametrize("code, number", [
    ("server", 0), ("waiting", 1), ("unauthorized", 2), ("conflicting-login", 3),
    ("admin-kick-out", 4), ("banned", 5)])
def test_a_kick_may_say_something_else(gateway, code, number):
    with gateway.player(41810) as client:
        kick(gateway, "--uid", 41810, "--code", code)
        assert client.receive_end() == number


def test_sessions_are_listed_and_kicked_by_what_they_have_in_common(gateway):
    with gateway.player(-41820, color="red", sid=7) as first, \
         gateway.player(41821, color="red", sid=8) as second, \
         gateway.player(41822, color="blue", sid=8) as third:
        def uids(*filters):
            return {session["uid"] for session in
                    gateway.ctl("sessions", *map(str, filters))["sessions"]}

        assert uids("--color", "red") == {-41820, 41821}
        assert uids("--color", "red", "--sid", 8) == {41821}
        assert uids("--uid", 41822, "--color", "red") == set()
        assert uids("--address", "127.0.0.1") >= {-41820, 41821, 41822}
        assert uids("--address", "127.0.0.2") == set()
        assert uids("--address", "127.0.0.0/8") >= {-41820, 41821, 41822}
        assert uids("--address", "10.0.0.0/8") == set()
        worker = gateway.session_of(41822)["worker"]
        assert 41822 in uids("--worker", worker) and 41822 not in uids("--worker", 1 - worker)
        assert "no session" in kick(gateway, "--color", "green", exit_code=1)
        assert "no session" in kick(gateway, "--color", "red", "--sid", 9, exit_code=1)
        assert kick(gateway, "--color", "red") == "closed 2\n"
        assert first.receive_end() == second.receive_end() == 4
        assert third.ask(1, 2, b"undisturbed").data == b"undisturbed"


@pytest.mark.parametrize("arguments, code", [
    ([], 1), (["--code", "waiting"], 1), (["5", "--code", "nonsense"], 1),
    (["somebody"], 2), (["5", "6"], 2), (["5", "--limit", "3"], 2),
    (["--sid", "many"], 2), (["--worker", "-1"], 2), ([b"--color=\xff", b"--uid=5"], 2),
    (["--address", "127.0.0"], 1), (["--address", "127.0.0.1/33"], 1)])
def test_a_kick_that_says_too_little_or_nonsense_closes_nobody(gateway, arguments, code):
    with gateway.player(5) as client:
        done = subprocess.run([os.path.join(BIN, "janusctl"), "--socket", gateway.socket_path,
                               "kick", *arguments], capture_output=True)
        assert done.returncode == code, done.stderr
        assert client.ask(1, 2, b"undisturbed").data == b"undisturbed"
