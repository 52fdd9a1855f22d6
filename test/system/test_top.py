"""janusctl top: what it shows adds up, and a terminal is left as it was."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
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
        for look in seen:
            assert look["complete"]
            rates = [one["messages_in_per_s"] + one["messages_out_per_s"]
                     for one in look["sessions"]]
            assert all(one >= other - 0.01 for one, other in zip(rates, rates[1:])), rates
        # Where the busy one said anything, it was not less than the other's one message.
        assert any(look["sessions"][0]["uid"] == 61001
                   and look["sessions"][0]["messages_in_per_s"] > 0 for look in seen)
        top.terminate()
        assert top.wait(patient(10)) == 0


def test_a_pipe_gets_plain_lines(gateway):
    done = run("janusctl", "--socket", gateway.socket_path, "top", "--count", "2", "--interval",
               "100ms")
    assert done.returncode == 0, done.stderr
    assert "\033" not in done.stdout
    assert done.stdout.count("hottest sessions") == 2
    assert re.search(r"^total +0 ", done.stdout, re.M)


class Terminal:
    """top in a terminal of its own, and what it has written there."""

    def __init__(self, gateway, *arguments, columns=120, lines=40):
        self.ours, self.theirs = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.theirs)
        self.screen = b""
        self.top = subprocess.Popen(command(gateway, *arguments), stdin=self.theirs,
                                    stdout=self.theirs, stderr=self.theirs, close_fds=True)

    def resize(self, columns, lines):
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self):
        while select.select([self.ours], [], [], 0)[0]:
            self.screen += os.read(self.ours, 65536)
        return self.screen

    def wait_for(self, text, times=1):
        wait_for(lambda: self.read().count(text) >= times, text)

    def wait_for_end(self):
        """Its exit status."""
        wait_for(lambda: self.read() is None or self.top.poll() is not None, "its end")
        self.read()
        return self.top.returncode

    def close(self):
        if self.top.poll() is None:
            self.top.kill()
            self.top.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def terminal():
    opened = []

    def open_terminal(*arguments, **options):
        opened.append(Terminal(*arguments, **options))
        return opened[-1]

    yield open_terminal
    for one in opened:
        one.close()


@pytest.mark.parametrize("end", ["q", "interrupt"])
def test_a_terminal_is_painted_and_left_as_it_was(gateway, terminal, end):
    window = terminal(gateway, "--interval", "100ms")
    window.wait_for(b"hottest sessions", 2)
    assert window.screen.count(b"\033[H") >= 2 and b"q ends it" in window.screen
    assert termios.tcgetattr(window.theirs)[3] & termios.ECHO == 0
    if end == "q":
        os.write(window.ours, b"q")
    else:
        window.top.send_signal(signal.SIGINT)
    assert window.wait_for_end() == 0
    assert termios.tcgetattr(window.theirs) == window.before
    assert window.screen.endswith(b"\033[?25h\033[?1049l")


def test_a_resized_terminal_is_painted_anew_before_the_next_look(gateway, terminal):
    window = terminal(gateway, "--interval", "24h", columns=3)
    window.wait_for(b"q e")
    window.resize(40, 40)
    assert b"q ends it" not in window.read()
    window.top.send_signal(signal.SIGWINCH)
    window.wait_for(b"q ends it")
    os.write(window.ours, b"q")
    assert window.wait_for_end() == 0


def test_in_a_terminal_too_it_says_that_the_gateway_has_gone(start, terminal):
    roma = start(Roma)
    gateway = start(Gateway, nodes=nodes_of(roma.address))
    window = terminal(gateway, "--interval", "100ms")
    window.wait_for(b"hottest sessions")
    gateway.stop()
    assert window.wait_for_end() == 3
    # Said on the screen that stays.
    assert b"no gateway answers" in window.screen.rpartition(b"\033[?1049l")[2]
    assert termios.tcgetattr(window.theirs) == window.before


def test_looks_without_a_pause_are_refused(gateway):
    done = run("janusctl", "--socket", gateway.socket_path, "top", "--interval", "0s")
    assert done.returncode == 2 and "100ms" in done.stderr


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
