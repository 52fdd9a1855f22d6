"""Players over KCP stay while workers are replaced, become more or fewer, and leave."""

import contextlib
import itertools
import os
import re
import signal
import socket
import threading

import pytest
from janus import wire
from janus.kcp import Bridge
from janus.patience import ms, patient, wait_for
from janus.programs import Gateway, nodes_of
from test_drain import WAITING, drain, drain_state, ready, restart, workers, works
from test_kcp import connection, sessions
from test_listeners import unix_sockets
from test_upgrade import refused, upgrade

_uids = itertools.count(47000)


@pytest.fixture
def place(start, backend):
    """start_place(**settings): a gateway, and a bridge to it."""
    def start_place(**settings):
        gateway = start(Gateway, nodes=nodes_of(backend.address), settings=settings)
        return gateway, start(Bridge, gateway)
    return start_place


@contextlib.contextmanager
def crowd(bridge, connections=14, streams=2):
    """Players of two streams each, many enough to be on every worker."""
    with contextlib.ExitStack() as stack:
        players = []
        for _ in range(connections):
            uid, name = next(_uids), connection()
            players += [stack.enter_context(bridge.player(uid, session=name))
                        for _ in range(streams)]
        yield players


def all_work(players, data=b"still here"):
    for player in players:
        player.send(wire.USER, 1, data)
    for player in players:
        assert player.receive().data == data


def workers_of(gateway, players):
    return {sessions(gateway, player.uid)[0]["worker"] for player in players}


def running(gateway):
    return {number for number, one in workers(gateway).items() if one["state"] == "running"}


class Players:
    """Round trips in the background, until the end of the block; none may fail or be lost."""

    def __init__(self, players):
        self.players = players
        self.rounds = [0] * len(players)
        self.faults = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._play, args=(i,), daemon=True)
                         for i in range(len(players))]

    def _play(self, at):
        while not self._stop.is_set():
            data = b"%d" % self.rounds[at]
            try:
                works(self.players[at], data)
            except (AssertionError, OSError) as fault:
                self.faults.append(f"{self.players[at].uid}: {fault!r}")
                return
            self.rounds[at] += 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def go_on(self):
        """Each of them makes a few more."""
        wanted = [rounds + 3 for rounds in self.rounds]
        wait_for(lambda: self.faults or all(a >= b for a, b in zip(self.rounds, wanted)),
                 "all of them to play on")
        assert not self.faults

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(patient(60))
        assert not self.faults, self.faults


# --- Each by itself ---------------------------------------------------------------------------


def test_a_restarted_worker_keeps_its_connections(place):
    gateway, bridge = place()
    with crowd(bridge) as players:
        assert workers_of(gateway, players) == {0, 1}
        successor = restart(gateway, 0)
        all_work(players)
        gateway.wait_counter("kcp_handed_out", 1)
        gateway.wait_counter("kcp_handed_in", 1)
        assert workers_of(gateway, players) == {0, 1}
        with crowd(bridge) as newcomers:
            all_work(newcomers)
            all_work(players)
            assert workers_of(gateway, newcomers) == {1, successor}
    assert gateway.counter("kcp_handed_lost") == 0
    wait_for(lambda: 0 not in workers(gateway), "the worker to leave with its last player")
    assert "event=worker_died" not in gateway.log()


def test_a_further_stream_comes_to_where_its_connection_is(place, backend):
    gateway, bridge = place(worker={"count": 1})
    with bridge.player(47900, session="one") as first:
        works(first)
        restart(gateway, 0)
        with bridge.player(47900, session="one") as second:
            works(second)
            works(first)
            assert {one["worker"] for one in sessions(gateway, 47900)} == {0}
            assert len(backend.streams_of(47900)) == 1
        # Another connection of the same player is by the new worker, and throws him out.
        with bridge.player(47900) as elsewhere:
            works(elsewhere)
            assert first.receive_end() == 3
            assert {one["worker"] for one in sessions(gateway, 47900)} == {1}
    wait_for(lambda: 0 not in workers(gateway), "the worker to leave")
    # What his clients still say to the worker that is gone makes no connection.
    gateway.wait_gauge("connections", 0, timeout=3)
    assert gateway.total()["counters"]["connections_accepted"] == 2


def test_a_restart_of_all_workers_under_traffic_loses_nothing(place):
    gateway, bridge = place()
    with crowd(bridge, 6) as players, Players(players) as playing:
        for number in (0, 1):
            playing.go_on()
            restart(gateway, number)
        playing.go_on()
        with crowd(bridge, 4) as newcomers:
            all_work(newcomers)
            playing.go_on()
        for number in sorted(running(gateway)):
            restart(gateway, number)
            playing.go_on()


def test_a_setting_of_new_workers_leaves_connections_as_they_are(place):
    gateway, bridge = place()
    with crowd(bridge) as players, Players(players) as playing:
        for mtu in (600, 1300):
            old = running(gateway)
            changed = gateway.reload({"kcp": {"mtu_bytes": mtu}})
            assert changed == {"kcp.mtu_bytes": "new_generation"}
            wait_for(lambda: running(gateway) and not running(gateway) & old, "the new workers")
            playing.go_on()
            with crowd(bridge) as newcomers:
                all_work(newcomers, os.urandom(4000))
                assert not workers_of(gateway, newcomers) & old
        playing.go_on()


@pytest.mark.parametrize("before,after", [(1, 3), (3, 1)])
def test_a_change_of_the_number_of_workers_keeps_all(place, before, after):
    gateway, bridge = place(worker={"count": before})
    with crowd(bridge, 24) as players:
        assert workers_of(gateway, players) == set(range(before))
        with Players(players) as playing:
            gateway.reload({"worker": {"count": after}})
            wait_for(lambda: len(running(gateway)) == after, "as many workers as there should be")
            playing.go_on()
            with crowd(bridge, 24) as newcomers:
                all_work(newcomers)
                assert workers_of(gateway, newcomers) == running(gateway)
                playing.go_on()
            gateway.reload({"worker": {"count": before}})
            wait_for(lambda: len(running(gateway)) == before, "as many as there were")
            playing.go_on()
            with crowd(bridge, 24) as newcomers:
                all_work(newcomers)
        assert gateway.counter("kcp_handed_in") > 0


def test_an_upgrade_keeps_all(place):
    gateway, bridge = place()
    with crowd(bridge) as players, Players(players) as playing:
        for _ in range(2):
            upgrade(gateway)
            playing.go_on()
            with crowd(bridge) as newcomers:
                all_work(newcomers)
                assert workers_of(gateway, newcomers) <= running(gateway)
        playing.go_on()
        assert gateway.gauge("sessions") == len(players)
        uid = str(players[0].uid)
        assert gateway.ctl("session", uid)["siblings"] == 1
        assert gateway.ctl("session", uid)["path"]["streams"] == 2


def test_a_listener_that_an_upgrade_brings_keeps_all_from_then_on(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"server": {"kcp": {"addr": ""}}})
    with gateway.player(next(_uids)) as over_tcp:
        gateway.configure({"server": {"kcp": {"addr": "127.0.0.1:0"}}})
        upgrade(gateway)
        bridge = start(Bridge, gateway)
        with crowd(bridge) as players:
            restart(gateway, min(running(gateway)))
            all_work(players)
            gateway.wait_counter("kcp_handed_in", 1)
            upgrade(gateway)
            all_work(players)
        gateway.configure({"server": {"kcp": {"addr": ""}}})
        upgrade(gateway)
        works(over_tcp)
        with gateway.player(next(_uids)) as late:
            works(late)
    assert gateway.counter("kcp_handed_lost") == 0


def test_an_upgrade_that_goes_back_keeps_all(place):
    """The new program has taken over the sockets and the table of connections, and can't come up:
    the one before goes on with them."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway, bridge = place()
        with crowd(bridge) as players, Players(players) as playing:
            gateway.configure(
                {"server": {"http": {"addr": "127.0.0.1:%d" % taken.getsockname()[1]}}})
            assert "can't listen on" in refused(gateway)
            playing.go_on()
            restart(gateway, 0)  # whose connections the new worker finds in the table
            playing.go_on()
            with crowd(bridge) as newcomers:
                all_work(newcomers)
            playing.go_on()
            assert gateway.gauge("sessions") >= len(players)


def test_what_is_done_to_players_reaches_those_of_before(place):
    gateway, bridge = place()
    with crowd(bridge, 2) as (one, sibling, other, others_sibling):
        upgrade(gateway)
        gateway.ctl("push", str(one.uid), "--mod", "3", "--seq", "9", "--data", "x")
        assert one.receive().data == b"x"
        gateway.ctl("kick", str(one.uid))
        assert (one.receive_end(), sibling.receive_end()) == (4, 4)
        with bridge.player(other.uid) as again:
            assert (other.receive_end(), others_sibling.receive_end()) == (3, 3)
            works(again)


# --- The end ----------------------------------------------------------------------------------


def test_a_draining_gateway_keeps_its_connections_and_takes_no_others(place):
    gateway, bridge = place()
    with crowd(bridge) as players:
        drain(gateway, "--timeout", "1h")
        assert ready(gateway) == (503, "draining")
        wait_for(lambda: {one["state"] for one in workers(gateway).values()} == {"draining"},
                 "all to drain")
        all_work(players)
        before = gateway.counter("kcp_dropped_unknown")
        late = bridge.client(47950)
        late.send_raw(late.handshake_frame())
        gateway.wait_counter("kcp_dropped_unknown", before + 1)
        all_work(players)
        gateway.ctl("undrain")
        late.finish_login()  # it was only kept waiting
        works(late)
        late.close()
        drain(gateway, "--timeout", "0s", "--spread", "100ms")
        assert [player.receive_end() for player in players] == [WAITING] * len(players)
        wait_for(lambda: drain_state(gateway) == "drained", "nobody to be left")
    gateway.wait_gauge("connections", 0)


@pytest.mark.parametrize("before", [None, "restart", "upgrade", "more workers"])
def test_at_sigterm_players_play_on_until_they_are_told(place, before):
    gateway, bridge = place(drain={"stop_spread": f"{ms(3)}ms"})
    with crowd(bridge) as players:
        if before == "restart":
            restart(gateway, 0)
        elif before == "upgrade":
            upgrade(gateway)
        elif before == "more workers":
            gateway.reload({"worker": {"count": 5}})  # of which those that are new have nobody
            wait_for(lambda: len(running(gateway)) == 5, "them to run")
        all_work(players)
        everybody, mark = workers(gateway), gateway.mark()
        gateway.process.terminate()
        for number in everybody:
            gateway.wait_log(rf"process=worker worker={number} .*event=worker_(drains|stopping)",
                             since=mark)
        # They are sent away one after the other: the last of them is there for a while.
        heard, told = set(), set()
        while len(told) < len(players):
            for player in set(players) - told:
                player.send(wire.USER, 1, b"still here")
                packet = player.receive()
                if packet.mod == wire.SYSTEM:
                    assert packet.seq == wire.LOGOUT
                    assert wire.SCServerLogout.decode(packet.data).code == WAITING
                    assert player.receive() is None
                    told.add(player)
                else:
                    heard.add(player)
        assert len(heard) > len(players) / 2
        # And their last words were answered, so that nothing lingers.
        assert gateway.process.wait(patient(30)) == 0


def test_a_worker_that_crashes_takes_its_own_players_alone(place):
    gateway, bridge = place(kcp={"keepalive_interval": "1s"})
    gateway.expect_clean = False
    with crowd(bridge) as players:
        here = {player: sessions(gateway, player.uid)[0]["worker"] for player in players}
        pid = workers(gateway)[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: workers(gateway)[0]["pid"] not in (0, pid), "its successor")
        left = [player for player in players if here[player] == 1]
        all_work(left)
        before = gateway.counter("kcp_dropped_unknown")
        for player in set(players) - set(left):
            player.send(wire.USER, 1, b"anybody here?")
        gateway.wait_counter("kcp_dropped_unknown", before + len(players) - len(left))
        assert gateway.gauge("connections") == len(left) // 2
        with crowd(bridge) as newcomers:
            all_work(newcomers)
            assert workers_of(gateway, newcomers) == {0, 1}


# --- Others on the machine ----------------------------------------------------------------------


def names_of(gateway):
    """What everybody on the machine can see of the gateway's sockets and bind, as soon as it is
    free: the names in /proc/net/unix, and those that come next by the numbers in them."""
    names = {name for pid in [gateway.pid, *gateway.worker_pids().values()]
             for name in unix_sockets(pid) if name.startswith("@")}
    return names | {re.sub(r"\d+$", str(number), name) for name in names for number in range(8)}


class Squatter:
    """Takes those of the names that are free."""

    def __init__(self, names):
        self.sockets = []
        for name in names:
            one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                one.bind("\0" + name[1:])
                self.sockets.append(one)
            except OSError:
                one.close()

    def got(self):
        for one in self.sockets:
            with contextlib.suppress(BlockingIOError):
                return one.recv(1 << 16)
        return None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.sockets:
            one.close()


def test_nobody_on_the_machine_keeps_a_worker_from_coming_back(place):
    gateway, bridge = place()
    gateway.expect_clean = False
    names, pids = names_of(gateway), gateway.worker_pids()
    os.kill(gateway.pid, signal.SIGSTOP)  # so that the successor is not faster
    try:
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
            with open(f"/proc/{pid}/stat") as stat:
                wait_for(lambda: stat.seek(0) == 0 and stat.read().split()[2] == "Z", "its end")
        squatter = Squatter(names)
    finally:
        os.kill(gateway.pid, signal.SIGCONT)
    with squatter:
        wait_for(lambda: len(running(gateway)) == 2 and not set(gateway.worker_pids().values())
                 & set(pids.values()), "successors")
        with crowd(bridge) as players, gateway.player(next(_uids)) as over_tcp, \
             gateway.player(next(_uids), gateway.websocket) as over_websocket:
            all_work(players)
            works(over_tcp)
            works(over_websocket)
            assert workers_of(gateway, players) == {0, 1}
    assert "event=worker_start_failed" not in gateway.log()


@pytest.mark.parametrize("how", ["restart", "reload", "upgrade"])
def test_nobody_on_the_machine_keeps_workers_from_being_replaced(place, how):
    """Nor gets what they hand to each other."""
    gateway, bridge = place()
    assert not names_of(gateway)  # nobody but the gateway can have what has no name
    with crowd(bridge) as players, Squatter(names_of(gateway)) as squatter:
        old = running(gateway)
        if how == "upgrade":
            upgrade(gateway)
        elif how == "reload":
            gateway.reload({"kcp": {"mtu_bytes": 600}})
            wait_for(lambda: running(gateway) and not running(gateway) & old, "the new workers")
        else:
            restart(gateway, 0)
        all_work(players)
        gateway.wait_counter("kcp_handed_in", 1)
        with crowd(bridge) as newcomers:
            all_work(newcomers)
            all_work(players)
        assert gateway.counter("kcp_handed_lost") == 0
        assert squatter.got() is None


def test_what_is_on_its_way_to_a_worker_that_dies_is_no_news_to_the_next(place):
    gateway, bridge = place(worker={"count": 1})
    gateway.expect_clean = False
    with crowd(bridge, 4) as players:
        restart(gateway, 0)
        all_work(players)
        old, new = (workers(gateway)[number]["pid"] for number in (0, 1))
        os.kill(old, signal.SIGSTOP)
        out = gateway.counter("kcp_handed_out")
        for player in players:
            player.send(wire.USER, 1, b"on its way")
        gateway.wait_counter("kcp_handed_out", out + len(players) // 2)
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: 0 not in workers(gateway), "its end")
        assert gateway.counter("kcp_handed_lost") == 0
        with crowd(bridge, 2) as newcomers:
            all_work(newcomers)
            successor = restart(gateway, 1)
            assert successor == 0  # which has the number of the one that died, and its mail
            gateway.wait_counter("kcp_handed_lost", len(players) // 2)
            all_work(newcomers)
        assert workers(gateway)[0]["pid"] not in (old, new)
