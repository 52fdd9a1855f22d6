"""janusctl top: what it shows adds up, and a terminal is left as it was."""

import json
import os
import pty
import re
import select
import subprocess
import termios
import time

import pytest

from janus import wire
from janus.patience import patient, wait_for
from janus.programs import BIN, Gateway, Roma, nodes_of, run


@pytest.fixture(scope="module")
def gateway(start_module):
    roma = start_module(Roma)
    return start_module(Gateway, nodes=nodes_of(roma.address))


def command(gateway, *arguments):
    return [os.path.join(BIN, "janusctl"), "--socket", gateway.socket_path, "top", *arguments]


def test_what_went_through_between_two_looks_is_told_to_the_message(gateway):
    with gateway.player(61001) as busy, gateway.player(61002) as quiet:
        quiet.ask(wire.USER, 1)
        busy.ask(wire.USER, 1)
        top = subprocess.Popen(command(gateway, "--json", "--interval", "500ms"),
                               stdout=subprocess.PIPE)
        first = json.loads(top.stdout.readline())
        seen = [first]
        for _ in range(40):
            busy.ask(wire.USER, 2)
        quiet.ask(wire.USER, 2)
        # All of it is in the looks that follow, each message in one of them.
        deadline = time.monotonic() + patient(30)
        while sum(look["total"]["messages_in"] for look in seen) < 41:
            assert time.monotonic() < deadline, seen
            seen.append(json.loads(top.stdout.readline()))
        assert sum(look["total"]["messages_in"] for look in seen) == 41
        assert sum(look["total"]["messages_out"] for look in seen) == 41
        name = 'message_latency_seconds{direction="in"}'
        assert sum(look["total"]["latencies"][name]["count"] for look in seen) == 41
        for look in seen:
            assert look["total"]["messages_in"] == sum(
                worker["messages_in"] for worker in look["workers"])
        assert seen[-1]["total"]["sessions"] == 2
        hottest = [look["sessions"][0]["uid"] for look in seen if
                   look["sessions"] and look["sessions"][0]["messages_in_per_s"] > 2]
        assert 61001 in hottest and 61002 not in hottest
        top.terminate()
        assert top.wait(patient(10)) == 0


def test_a_pipe_gets_plain_lines(gateway):
    done = run("janusctl", "--socket", gateway.socket_path, "top", "--count", "2", "--interval",
               "100ms")
    assert done.returncode == 0, done.stderr
    assert "\033" not in done.stdout
    assert done.stdout.count("hottest sessions") == 2
    assert re.search(r"^total +0 ", done.stdout, re.M)


def test_a_terminal_is_painted_and_left_as_it_was(gateway):
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    top = subprocess.Popen(command(gateway, "--interval", "100ms"), stdin=theirs, stdout=theirs,
                           close_fds=True)
    screen = b""

    def painted():
        nonlocal screen
        if select.select([ours], [], [], 0.1)[0]:
            screen += os.read(ours, 65536)
        return screen.count(b"\033[H") >= 2

    wait_for(painted, "the second look", 30)
    assert b"hottest sessions" in screen and b"q ends it" in screen
    assert termios.tcgetattr(theirs)[3] & termios.ECHO == 0
    os.write(ours, b"q")
    wait_for(lambda: painted() is None or top.poll() is not None, "its end", 30)
    assert top.returncode == 0
    assert termios.tcgetattr(theirs) == before
    painted()
    assert screen.rstrip().endswith(b"\033[?1049l")
    os.close(ours)
    os.close(theirs)


def test_without_a_gateway_it_says_so(gateway):
    done = run("janusctl", "--socket", gateway.socket_path + ".not", "top")
    assert done.returncode == 3 and "no gateway answers" in done.stderr


def test_a_gateway_that_goes_ends_it(start):
    roma = start(Roma)
    gateway = start(Gateway, nodes=nodes_of(roma.address))
    top = subprocess.Popen(command(gateway, "--json", "--interval", "100ms"),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert top.stdout.readline()
    gateway.stop()
    assert top.wait(patient(30)) == 3
    assert b"no gateway answers" in top.stderr.read()
