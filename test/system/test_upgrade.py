"""Another program goes on in place of janusd, and no player notices."""

import os
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from janus import wire
from janus.backend import Backend
from janus.etcd_server import Etcd
from janus.patience import patient, wait_for
from janus.programs import Gateway, etcd_settings, nodes_of, redis_settings, run, write_file
from janus.push import HttpPusher, Publisher, body, json_body
from janus.redis_server import Redis
from test_drain import workers, works


def generations(gateway):
    return {one["generation"] for one in workers(gateway).values() if one["state"] == "running"}


def upgrade(gateway, *options):
    answer = gateway.ctl("upgrade", *options)
    generation = answer["generation"]
    wait_for(lambda: generations(gateway) == {generation}, "the new workers")
    return answer


def refused(gateway, *options):
    done = run("janusctl", "--socket", gateway.socket_path, "upgrade", *options)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stderr


def test_players_stay_and_new_ones_come_to_the_new_workers(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    players = [gateway.player(uid) for uid in range(42000, 42020)]
    for player in players:
        works(player)
    old = {one["pid"] for one in workers(gateway).values()}
    answer = upgrade(gateway)
    assert answer["sessions"] == len(players) and answer["generation"] == 2
    for player in players:
        works(player)
    assert len(gateway.ctl("sessions")["sessions"]) == len(players)
    newcomers = [gateway.player(uid) for uid in range(42100, 42120)]
    by_number = workers(gateway)
    for player in newcomers:
        works(player)
        assert by_number[gateway.session_of(player.uid)["worker"]]["pid"] not in old
    # The master before knew of no more than this one does.
    assert gateway.gauge("sessions") == len(players) + len(newcomers)
    for player in players:
        player.close()
    wait_for(lambda: not old & {one["pid"] for one in workers(gateway).values()},
             "the old workers to leave")


def test_what_is_done_to_players_reaches_those_of_before(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    one, other, third = (gateway.player(uid) for uid in (42200, 42201, 42202))
    upgrade(gateway)
    assert gateway.ctl("push", "42200", "--mod", "3", "--seq", "9", "--data", "x")["ok"]
    assert one.receive().data == b"x"
    gateway.ctl("kick", "42201")
    assert other.receive_end() == 4
    with gateway.player(42202) as again:  # by another worker
        works(again)
        assert third.receive_end() == 3
    assert gateway.session_of(42200)["transport"] == "tcp"
    assert gateway.ctl("session", "42200")["session"]["uid"] == 42200
    works(one)
    upgrade(gateway)
    works(one)


def test_broadcasts_reach_all_once(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    pusher = HttpPusher(gateway)
    players = [gateway.player(uid) for uid in range(42300, 42310)]
    for number in range(3):
        body = [json_body(b"%d" % number)]
        assert pusher.ok("/broadcast", {"bodies": body})["reached"] == str(len(players))
        players.append(gateway.player(42320 + number))
        for player in players[:-1]:
            packet = player.receive()
            assert packet.data == b"%d" % number
        upgrade(gateway)
    for player in players:
        works(player)


def test_counters_do_not_go_back(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(42400) as player:
        for _ in range(5):
            works(player)
        upgrade(gateway)
        assert gateway.counter("messages_in") == 5
        works(player)
        assert gateway.counter("messages_in") == 6
        before = gateway.total()["counters"]
        upgrade(gateway)
        after = gateway.total()["counters"]
        assert {name: (before[name], after[name]) for name in before
                if after[name] < before[name]} == {}
    wait_for(lambda: len(workers(gateway)) == 2, "the old workers to leave")
    upgrade(gateway)
    assert gateway.counter("messages_in") == 6
    assert gateway.counter("logins") == 1


def test_the_new_program_goes_by_the_configuration_as_it_is_now(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(42500) as player:
        gateway.configure({"worker": {"count": 3}, "label": {"color": "green"},
                           "limits": {"tunnels_per_session": 1},
                           "server": {"ws": {"addr": ""}}})
        upgrade(gateway)
        wait_for(lambda: sum(one["state"] == "running" for one in workers(gateway).values()) == 3,
                 "three workers")
        assert gateway.listener("ws") is None
        assert gateway.reload() == {}
        works(player)
        with gateway.player(42501) as other:
            works(other)
            other.send(6, 1, b"one tunnel too many", obj=5)
            assert "too many tunnels" in other.receive_error().msg


def udp_sockets(address):
    """The kernel's numbers of those that are bound to it."""
    with open("/proc/net/udp") as table:
        rows = [row.split() for row in table.readlines()[1:]]
    return {row[9] for row in rows if int(row[1].partition(":")[2], 16) == address[1]}


def test_the_sockets_of_kcp_stay_what_they_are(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    address = gateway.listener("kcp")
    before = udp_sockets(address)
    assert len(before) == 2
    upgrade(gateway)
    assert gateway.listener("kcp") == address
    assert udp_sockets(address) == before
    gateway.reload({"worker": {"count": 3}})
    more = udp_sockets(address)
    assert len(more) == 3 and more > before
    gateway.reload({"worker": {"count": 1}})
    wait_for(lambda: len(workers(gateway)) == 1, "the workers that are too many to leave")
    upgrade(gateway)
    gateway.reload({"worker": {"count": 3}})
    assert udp_sockets(address) == more


def test_nothing_of_the_program_before_stays_open(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))

    def open_files():
        folder = f"/proc/{gateway.pid}/fd"
        return sorted(os.readlink(f"{folder}/{fd}").split(" (")[0].split(":[")[0]
                      for fd in os.listdir(folder))

    def settled():
        wait_for(lambda: len(workers(gateway)) == 2, "the old workers to leave")
        return open_files()

    settled()
    upgrade(gateway)
    first = settled()
    for _ in range(3):
        upgrade(gateway)
    wait_for(lambda: settled() == first, "as much to be open as after the first upgrade")
    assert not [name for name in first if "janus-takeover" in name]
    assert first.count("/memfd:janus-tls") <= 1, first


def test_with_routes_in_redis(start, backend):
    redis = start(Redis)
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings=redis_settings(redis.address))
    with gateway.player(42600) as player:
        works(player)
        upgrade(gateway)
        works(player)
        assert gateway.route("gateway", 42600)["ok"]
        with gateway.player(42601) as other:
            works(other)


# --- What goes wrong -----------------------------------------------------------------------


def script(tmp_path, text):
    path = write_file(tmp_path / "janusd", "#!/bin/sh\n" + text, 0o755)
    return path


@pytest.mark.parametrize("text,said", [
    ("exit 1", "ended at once without a word"),
    ("echo it lacks a library >&2; exit 127", "it lacks a library"),
    ("kill -SEGV $$", "ended at once without a word"),
    ("echo janusd-is-bad", "janusd-is-bad"),
    ("yes nonsense", "does not start"),
    ("echo janusd-is-good version=9 layout=0123", "does not understand the workers"),
])
def test_a_program_that_is_no_good_changes_nothing(start, backend, tmp_path, text, said):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(42700) as player:
        before = gateway.worker_pids()
        assert said in refused(gateway, "--program", script(tmp_path, text))
        assert gateway.worker_pids() == before
        works(player)
        with gateway.player(42701) as other:
            works(other)
        assert upgrade(gateway)["generation"] == 2  # and a good one can come all the same
        works(player)


def test_a_program_that_is_missing_changes_nothing(gateway):
    assert "No such file" in refused(gateway, "--program", "/nowhere/janusd")
    assert "Permission denied" in refused(gateway, "--program", "/etc/passwd")


def test_a_program_that_hangs_is_given_up(start, backend, tmp_path):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(42710) as player:
        assert "it hangs" in refused(gateway, "--program", script(tmp_path, "exec sleep 1000"))
        works(player)


def test_a_faulty_configuration_changes_nothing(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(42720) as player:
        with open(gateway.config_path, "a") as out:
            out.write("nonsense = 1;\n")
        assert "nonsense: unknown key" in refused(gateway)
        works(player)


def test_a_program_that_fails_after_its_trial_goes_back(start, backend, tmp_path):
    """It passes the trial, and then can't come up: here since somebody has taken the port that
    only the new configuration has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = start(Gateway, nodes=nodes_of(backend.address))
        players = [gateway.player(uid) for uid in range(42730, 42740)]
        gateway.configure({"server": {"http": {"addr": "127.0.0.1:%d" % taken.getsockname()[1]}}})
        said = refused(gateway)
        assert "did not come up" in said and "can't listen on" in said
        for player in players:
            works(player)
        with gateway.player(42750) as newcomer:
            works(newcomer)
        assert len(gateway.ctl("sessions")["sessions"]) == len(players)
    assert upgrade(gateway)["generation"] == 2  # the port is free now
    for player in players:
        works(player)


def test_an_upgrade_of_a_gateway_that_drains_is_refused(gateway):
    gateway.ctl("drain", "--no-wait", "--timeout", "1h")
    assert "draining" in refused(gateway)
    wait_for(lambda: gateway.ctl("drain", "status")["drain"]["state"] != "deregistering", "it")
    gateway.ctl("undrain")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_in_the_midst_of_an_upgrade_is_heard_after_it(start, backend, number):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    stop = threading.Event()

    def send():
        while not stop.is_set():
            gateway.process.send_signal(number)
            stop.wait(0.001)

    thread = threading.Thread(target=send)
    with gateway.player(42760) as player:
        thread.start()
        try:
            done = run("janusctl", "--socket", gateway.socket_path, "upgrade")
        finally:
            stop.set()
            thread.join(patient(30))
        assert done.returncode == 0, done.stderr
        works(player)


def test_a_stop_ends_an_upgrade(start, backend, tmp_path):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(42770) as player:
        with ThreadPoolExecutor() as pool:
            said = pool.submit(refused, gateway, "--program", script(tmp_path, "exec sleep 1000"))
            gateway.wait_log("event=upgrade_begun")
            gateway.process.terminate()
            assert "stopping" in said.result()
        assert player.receive_end() == 1
        assert gateway.process.wait(patient(30)) == 0


def test_a_worker_that_dies_meanwhile_does_not_keep_the_new_program_waiting(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    gateway.expect_clean = False
    with gateway.player(42780) as player:
        upgrade(gateway)
        old = next(one["pid"] for one in workers(gateway).values() if one["state"] == "draining")
        os.kill(old, signal.SIGSTOP)
        with ThreadPoolExecutor() as pool:
            said = pool.submit(refused, gateway)
            assert "did not answer" in said.result()
        os.kill(old, signal.SIGCONT)
        works(player)
        upgrade(gateway)
        works(player)


def test_bans_and_nodes_go_over(start, backend):
    etcd = start(Etcd)
    etcd.register(backend.address, service="roma.player.service")
    gateway = start(Gateway, nodes=[], settings=etcd_settings(*etcd.endpoints))
    gateway.wait_nodes(backend.address)
    gateway.ctl("ban", "42790", "--reason", "cheating")
    for member in etcd.members:
        member.kill()
    gateway.wait_log("event=etcd_lost")
    with gateway.player(42791) as player:
        works(player)
        upgrade(gateway)
        works(player)
        assert set(gateway.nodes()) == {backend.address}
        with gateway.player(42792) as other:
            works(other)
        (ban,) = gateway.ctl("bans")["bans"]
        assert ban["reason"] == "cheating"


def test_the_registration_goes_over(start):
    """Its lease outlives the test: what is left behind would be seen."""
    etcd = start(Etcd)
    gateway = start(Gateway, nodes=[], settings=etcd_settings(*etcd.endpoints, lease_ttl="600s"))
    etcd.wait_gateways(1)
    (key,) = etcd.list("/microservices/janus.gate.interface/")
    mark = gateway.mark()
    upgrade(gateway)
    gateway.wait_log("event=registered", since=mark)
    assert set(etcd.list("/microservices/janus.gate.interface/")) == {key}
    gateway.ctl("drain", "--no-wait", "--timeout", "1h")
    etcd.wait_gateways(0)


def test_one_that_is_another_by_the_new_configuration_is_made_anew(start):
    etcd = start(Etcd)
    gateway = start(Gateway, nodes=[], settings=etcd_settings(*etcd.endpoints))
    etcd.wait_gateways(1)
    gateway.configure({"etcd": {"namespace": "/elsewhere"}})
    upgrade(gateway)
    wait_for(lambda: etcd.list("/elsewhere/janus.gate.interface/"), "it to be there")
    etcd.wait_gateways(0)  # the one before goes with its lease


def test_after_it_the_old_workers_go_by_the_new_nodes(start, backend):
    second = start(Backend)
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(42795) as player:
        works(player)
        gateway.configure({"nodes": nodes_of(backend.address, services=["roma.player.service"]) +
                           nodes_of(second.address, services=["roma.room.service"])})
        upgrade(gateway)
        assert player.ask(6, 1, b"room", obj=7).data == b"room"
        places = {one["type"]: one["address"] for one in gateway.ctl("session", "42795")["tunnels"]}
        assert places == {"player": backend.address, "room": second.address}


# --- Under traffic -----------------------------------------------------------------------------


def test_pushes_over_redis_arrive_or_are_known_to_be_lost(start, backend):
    redis = start(Redis)
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings=redis_settings(redis.address))
    publisher = Publisher(redis, gateway)
    stop = threading.Event()
    heard = []

    def publish():
        number = 0
        while not stop.is_set():
            if publisher.push([42890], body(b"%d" % number)) > 0:
                heard.append(b"%d" % number)
            number += 1
            stop.wait(0.002)

    thread = threading.Thread(target=publish)
    with gateway.player(42890) as player:
        works(player)
        thread.start()
        try:
            for _ in range(3):
                upgrade(gateway)
        finally:
            stop.set()
            thread.join(patient(30))
        wait_for(lambda: publisher.push([42890], body(b"last")) > 0, "the topic to be heard")
        came = []
        while not came or came[-1] != b"last":
            came.append(player.receive().data)
    assert came == heard + [b"last"]


def test_upgrades_under_traffic_lose_nothing(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"drain": {"generations": 16}})  # nobody is sent away
    players = [gateway.player(uid) for uid in range(42800, 42830)]
    stop = threading.Event()
    faults = []
    rounds = [0] * len(players)

    def play(at, player):
        while not stop.is_set() and not faults:
            data = b"%d" % rounds[at]
            try:
                answer = player.ask(wire.USER, 1, data)
                if answer.data != data:
                    faults.append(f"{player.uid}: {answer} in place of {data}")
            except (AssertionError, OSError) as fault:
                faults.append(f"{player.uid}: {fault}")
            rounds[at] += 1

    def come_and_go(uid):
        while not stop.is_set() and not faults:
            uid += 1
            try:
                with gateway.player(uid) as player:
                    works(player)
            except (AssertionError, OSError) as fault:
                faults.append(f"newcomer {uid}: {fault}")

    threads = [threading.Thread(target=play, args=pair) for pair in enumerate(players)]
    threads += [threading.Thread(target=come_and_go, args=(uid,)) for uid in (50000, 60000)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        upgrade(gateway)
    stop.set()
    for thread in threads:
        thread.join(patient(60))
    assert not faults
    for player in players:
        works(player)
    assert gateway.counter("messages_in") >= sum(rounds)
