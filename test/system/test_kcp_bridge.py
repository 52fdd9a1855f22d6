"""The ecosystem's KCP client as the tests use it, shown to be what it says against the
ecosystem's own stack at the other end."""

import socket
import subprocess
import sys

import pytest
from janus import kcp, wire
from janus.go import require_go
from janus.kcp import Bridge, KcpEcho
from janus.patience import patient, wait_for

BAD_LINE = {"loss": 10, "dup": 10, "reorder": 10, "delay": "5ms", "jitter": "5ms"}


@pytest.fixture(scope="module")
def echo(start_module, keys, tmp_path_factory):
    return start_module(KcpEcho, tmp_path_factory.mktemp("echo"), keys)


@pytest.fixture(scope="module")
def bridge(start_module, echo):
    return start_module(Bridge, echo)


def echoes(client, count=20, size=5000):
    for number in range(count):
        data = bytes([number]) * size
        assert client.ask(wire.USER, 1, data).data == data


def test_a_player_plays_over_a_stream(bridge):
    with bridge.player() as player:
        echoes(player)


def test_streams_of_one_session_come_from_one_address(bridge):
    with bridge.player(session="one") as first, bridge.player(session="one") as second, \
            bridge.player(session="other") as third:
        assert (first.local, first.conv) == (second.local, second.conv)
        assert (first.stream, second.stream) == (3, 5)
        assert third.local != first.local and third.stream == 3
        for player in (first, second, third):
            echoes(player, 3)
    wait_for(lambda: bridge.statistics("one")["streams"] == "0", "both streams to end")
    bridge.end("one")
    with bridge.client(session="one") as again:
        assert again.conv != first.conv and again.stream == 3


def test_address_and_conv_of_a_session_can_be_chosen(bridge):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        local = "127.0.0.1:%d" % holder.getsockname()[1]
        with pytest.raises(AssertionError, match="in use"):
            bridge.client(local=local)
    with bridge.player(local=local, conv=0) as player:
        assert (player.local, player.conv) == (local, 0)
        echoes(player, 1)


# The Go server knows a session by its address: to what is said from another one it makes a session
# anew, whose acknowledgement may come in time to make the client forget it. So nothing is said.
def test_a_session_can_change_its_address(bridge):
    with bridge.player(session="roaming") as player:
        moved = bridge.rebind("roaming")
        assert moved.split(":")[0] == "127.0.0.1" and moved != player.local
        back = bridge.rebind("roaming", player.local)
        assert back == player.local
        echoes(player, 3)
    bridge.end("roaming")


def test_what_is_no_frame_ends_the_stream_and_the_connection(bridge):
    with bridge.player(session="bad") as bad, bridge.player(session="bad") as good:
        bad.send_raw(b"\0\0\0\0")
        assert bad.receive() is None and not bad.reset
        echoes(good, 1)


def test_a_session_that_breaks_resets_the_connection(start, echo):
    bridge = start(Bridge, echo, keepalive="100ms", keepalive_timeout="500ms")
    with bridge.player(session="a") as player:
        bridge.rebind("a")
        assert player.receive() is None and player.reset
        assert bridge.statistics("a")["closed"] == "true"


# The Go server answers before it reads on; a client that never reads fills every buffer
# between, and each of them has an end.
def test_a_reader_who_does_not_read_holds_the_writer_back(bridge):
    with bridge.player(receive_buffer=4096) as player:
        player.socket.settimeout(0.5)
        sent = 0
        with pytest.raises(socket.timeout):
            while sent < 64 << 20:
                player.send(wire.USER, 1, bytes(16000))
                sent += 16000
    assert sent < 16 << 20


def test_a_bad_line_is_made_good(start, echo):
    bridge = start(Bridge, echo, **BAD_LINE)
    with bridge.player() as player:
        echoes(player, 30)


@pytest.mark.parametrize("settings", [
    {"data": 0, "parity": 0}, {"data": 5, "parity": 2}, {"profile": "low-latency"},
    {"profile": "low-latency", "mtu": 1000, "interval": 20, "acknodelay": False}])
def test_its_settings_can_be_others(start, echo, settings):
    bridge = start(Bridge, echo, **settings)
    with bridge.player() as player:
        echoes(player)


def test_a_command_that_is_none_is_refused(bridge):
    for line in ("", "x", "session", "rebind nobody", "session a b=c", "session a conv=-1"):
        with pytest.raises(AssertionError):
            bridge._command(line)


def test_a_command_runs_behind_a_bad_line(echo):
    require_go("a bad line")
    if kcp.no_path():
        pytest.skip(kcp.no_path())
    code = ("import socket, sys; s = socket.socket(); s.connect((sys.argv[1], int(sys.argv[2])));"
            "s.sendall(b'?' * 100000); s.shutdown(1); sys.exit(len(s.makefile('rb').read()) % 251)")
    with socket.create_server(("0.0.0.0", 0)) as server:
        server.settimeout(patient(30))
        port = server.getsockname()[1]
        done = subprocess.Popen(kcp.behind([sys.executable, "-c", code, "{near}", str(port)],
                                           loss=5, delay="5ms"), stdin=subprocess.DEVNULL)
        connection, (host, _) = server.accept()
        with connection:
            assert host.startswith("198.18.")
            got = connection.makefile("rb").read()
            assert got == b"?" * 100000
            connection.sendall(got[:1000])
    assert done.wait(patient(60)) == 1000 % 251
