"""janusctl trace: what goes through one player's sessions, live, and nothing of what it carries."""

import json
import os
import signal
import socket
import subprocess
import threading

import pytest
from janus.backend import Backend
from janus.patience import patient, wait_for
from janus.programs import BIN, Gateway, nodes_of, run


class Trace:
    """janusctl trace --json, its lines as they come."""

    def __init__(self, gateway, uid, *arguments):
        self.lines, self.raw = [], []
        self.process = subprocess.Popen(
            [os.path.join(BIN, "janusctl"), "--socket", gateway.socket_path, "--json", "trace",
             *map(str, arguments), "--", str(uid)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait(lambda line: line.get("ok"))

    def _read(self):
        for raw in self.process.stdout:
            self.raw.append(raw)
            self.lines.append(json.loads(raw))

    def wait(self, fits, count=1):
        return wait_for(lambda: len(found := [line for line in list(self.lines) if fits(line)]) >= count
                        and found, "lines of the trace")

    def events(self, name):
        return [line for line in list(self.lines) if line.get("event") == name]

    def wait_event(self, name, count=1):
        return self.wait(lambda line: line.get("event") == name, count)

    def packets(self, direction):
        return [line for line in list(self.lines) if line.get("direction") == direction]

    def wait_packets(self, direction, count):
        return self.wait(lambda line: line.get("direction") == direction, count)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        code = self.process.wait(patient(30))
        self._reader.join(patient(10))
        self.process.stdout.close()
        self.process.stderr.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


def heads(lines):
    return [(line["mod"], line["seq"], line["obj"]) for line in lines]


@pytest.mark.parametrize("kind", ["client", "websocket"])
def test_each_packet_appears_once_in_order_and_nothing_it_carries(gateway, backend, kind):
    with gateway.player(uid=501, client=getattr(gateway, kind)) as player, \
         gateway.player(uid=502) as other, Trace(gateway, 501) as trace:
        trace.wait_event("session")
        other.ask(1, 9, b"of another")
        sent, sizes = [], []
        for i in range(5):
            player.ask(3, i + 1, b"very-secret" * i, obj=501)
            sent.append((3, i + 1, 501))
            sizes.append(len(player.last_body))
        player.ask(6, 2, b"a room's", obj=77)
        sent.append((6, 2, 77))
        gateway.ctl("push", "501", "--mod", "3", "--seq", "70", "--data", "pushed-secret")
        player.receive()
        gateway.ctl("push", "502", "--mod", "3", "--seq", "71", "--data", "not his")
        other.receive()
        (push,) = trace.wait_packets("push", 1)
        assert (push["mod"], push["seq"]) == (3, 70) and push["sealed_bytes"] == len(player.last_body)
        for direction in ("client_to_gateway", "gateway_to_tunnel", "tunnel_to_gateway",
                          "gateway_to_client"):
            assert heads(trace.wait_packets(direction, len(sent))) == sent, direction
        assert [line["index"] for line in trace.packets("client_to_gateway")] \
            == list(range(player.index - 6, player.index))
        assert [line["sealed_bytes"] for line in trace.packets("gateway_to_client")][:5] == sizes
        assert all(line["took_us"] >= line["waited_us"] >= 0
                   for line in trace.packets("gateway_to_tunnel"))
        assert all(line["took_us"] >= 0 for line in trace.packets("gateway_to_client"))
        assert {(line["tunnel"], line["oid"], line["node"])
                for line in trace.packets("gateway_to_tunnel")} \
            == {("player", 501, backend.address), ("room", 77, backend.address)}
        assert {line["tunnel"] for line in trace.events("tunnel_opened")} == {"player", "room"}
        assert trace.end() == 0
        raw = b"".join(trace.raw)
        assert b"secret" not in raw and b"room's" not in raw
        assert {line["connection"] for line in trace.lines if "connection" in line} \
            == {trace.events("session")[0]["connection"]}


def test_a_login_that_is_followed_shows_no_token(gateway):
    token = gateway.keys.token(505, "blue", 7, 1)
    text = token if isinstance(token, str) else token.decode("latin-1")
    with Trace(gateway, 505) as trace, gateway.client(uid=505) as player:
        player.login(token=token)
        player.ask(3, 4, b"x")
        trace.wait_packets("gateway_to_client", 1)
        shown = b"".join(trace.raw).decode("latin-1")
        assert text not in shown and text[:16] not in shown
        assert "session_opened" in shown


def test_a_player_is_followed_when_he_comes_and_when_he_comes_back(gateway):
    with Trace(gateway, 511) as trace:
        for count in (1, 2):
            with gateway.player(uid=511) as player:
                player.ask(3, count, b"x")
                assert heads(trace.wait_packets("client_to_gateway", count))[-1][:2] == (3, count)
            trace.wait_event("session_closed", count)
        assert [line["reason"] for line in trace.events("session_closed")] == ["client_closed"] * 2
        assert len({line["connection"] for line in trace.wait_event("session_opened", 2)}) == 2


def test_a_watcher_that_is_killed_is_no_longer_told(gateway):
    with gateway.player(uid=521), Trace(gateway, 521) as first, Trace(gateway, 521) as second:
        gateway.wait_gauge("watched_sessions", 1)
        assert gateway.ctl("status")["traces"] == 2
        first.process.kill()
        wait_for(lambda: gateway.ctl("status")["traces"] == 1, "one trace to be left")
        assert gateway.gauge("watched_sessions") == 1
        second.process.kill()
        gateway.wait_gauge("watched_sessions", 0)


def test_two_watchers_see_the_same(gateway):
    with gateway.player(uid=531) as player, Trace(gateway, 531) as first, \
         Trace(gateway, 531) as second:
        first.wait_event("session"), second.wait_event("session")
        player.ask(3, 4, b"x")
        assert first.wait_packets("gateway_to_client", 1) == second.wait_packets("gateway_to_client", 1)


def test_there_are_eight_traces_at_most_and_an_end_to_each(gateway):
    traces = [Trace(gateway, 540) for _ in range(8)]
    done = run("janusctl", "--socket", gateway.socket_path, "trace", "540")
    assert done.returncode == 1 and "too many traces" in done.stderr
    assert [trace.end() for trace in traces] == [0] * 8
    wait_for(lambda: gateway.ctl("status")["traces"] == 0, "no trace to be left")
    done = run("janusctl", "--socket", gateway.socket_path, "trace", "540", "--for", "1s")
    assert done.returncode == 0 and "not here now" in done.stderr
    done = run("janusctl", "--socket", gateway.socket_path, "trace", "540", "--once")
    assert done.returncode == 1 and "not here" in done.stderr


def test_count_and_once_end_it(gateway):
    with gateway.player(uid=551) as player, Trace(gateway, 551, "--count", 3) as counted, \
         Trace(gateway, 551, "--once") as once:
        player.ask(3, 4, b"x")
        assert counted.process.wait(patient(30)) == 0
        player.close()
        assert once.process.wait(patient(30)) == 0
        assert len([line for line in counted.lines if "direction" in line]) == 3


def test_a_slow_watcher_loses_lines_is_told_and_the_player_is_unaffected(gateway):
    with gateway.player(uid=561) as player, \
         socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(patient(30))
        slow.connect(gateway.socket_path)
        slow.sendall(b'{"command": "trace", "uid": 561}\n')
        reader = slow.makefile("rb")
        assert json.loads(reader.readline())["ok"]
        for _ in range(1500):
            assert player.ask(3, 4, b"x").data == b"x"
        lines = iter(reader.readline, b"")
        lost = next(line for line in map(json.loads, lines) if line["event"] == "lost")
        assert lost["lost"] > 0


def test_the_death_of_a_worker_and_of_the_master_are_told(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(uid=571), Trace(gateway, 571) as trace:
        (session,) = trace.wait_event("session")
        os.kill(gateway.worker_pids()[session["worker"]], signal.SIGKILL)
        assert trace.wait_event("session_closed")[0]["reason"] == "worker_died"
        with gateway.player(uid=571) as again:
            again.ask(3, 9, b"x")
            trace.wait_packets("gateway_to_client", 1)
            gateway.expect_clean = False
            gateway.kill()
            assert trace.process.wait(patient(30)) == 3
    gateway.abandon()  # its orphans


def test_a_tunnel_that_breaks_is_told(start):
    backend = start(Backend)
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(uid=581) as player, Trace(gateway, 581) as trace:
        player.ask(3, 4, b"x")
        backend.stream_of(581).end()
        trace.wait_event("tunnel_broken")
        assert trace.wait_event("tunnel_reopened")[0]["node"] == backend.address
