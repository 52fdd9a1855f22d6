"""A new configuration while players play."""

import os
import signal
import threading
import zlib

import pytest
from cryptography.exceptions import InvalidSignature

from janus import wire
from janus.backend import Backend
from janus.patience import patient, wait_for
from janus.programs import Gateway, libconfig_file, nodes_of, private_bytes, run, write_file
from janus.programs import secret_settings
from janus.wire import Keys
from test_drain import workers, works


def serving(gateway):
    return {number for number, one in workers(gateway).items() if one["state"] == "running"}


def refusal(gateway, *arguments):
    done = run("janusctl", "--socket", gateway.socket_path, "reload", *arguments)
    assert done.returncode == 1, done.stdout
    return done.stderr


def test_without_a_change_nothing_happens(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(41000) as player:
        before = gateway.worker_pids()
        assert gateway.reload() == {}
        assert gateway.worker_pids() == before
        works(player)


def test_limits_count_from_the_reload_on(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    before = gateway.worker_pids()
    with gateway.player(41010) as player:
        assert gateway.reload({"limits": {"inflated_bytes": 2048, "tunnels_per_session": 1},
                               "compress": {"weak": 100}}) == {
            "limits.inflated_bytes": "in_place", "limits.tunnels_per_session": "in_place",
            "compress.weak": "in_place"}
        wait_for(lambda: player.ask(wire.USER, 1, b"x" * 200).compress, "answers to be compressed")
        player.send(6, 1, b"a room is one tunnel too many", obj=77)
        assert "too many tunnels" in player.receive_error().msg
        works(player)
    with gateway.player(41011) as player:
        player.send(wire.USER, 1, zlib.compress(b"y" * 3000), compress=True)
        assert player.receive_end() is not None
    assert gateway.closed("inflate_too_large") == 1
    assert gateway.worker_pids() == before


def test_lists_of_a_listener_count_from_the_reload_on(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))

    def let_in():
        with gateway.client(uid=41020) as client:
            try:
                client.login()
                return True
            except (AssertionError, ConnectionError):
                return False

    assert let_in()
    assert gateway.reload({"server": {"tcp": {"deny": ["127.0.0.0/8"]}}}) == {
        "server.tcp.deny": "in_place"}
    wait_for(lambda: {let_in() for _ in range(8)} == {False}, "every worker to deny")
    gateway.reload({"server": {"tcp": {"deny": []}}})
    wait_for(lambda: {let_in() for _ in range(8)} == {True}, "every worker to let in again")


def test_the_level_of_the_log_changes(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    assert gateway.reload({"log": {"level": "error", "type": "json"}}) == {
        "log.level": "in_place", "log.type": "in_place"}
    assert {one["level"] for one in gateway.ctl("log")["modules"]} == {"error"}
    mark = gateway.mark()
    assert gateway.reload({"log": {"level": "info"}}) == {"log.level": "in_place"}
    with gateway.player(41030):
        gateway.wait_log(r'"event":"session_opened"', since=mark)


def test_players_go_to_nodes_that_the_reload_brings(start, backend):
    second = start(Backend)
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(41040) as player:
        works(player)
        gateway.configure({"nodes": nodes_of(second.address)})
        assert gateway.reload() == {"nodes": "in_place"}
        assert set(gateway.nodes()) == {second.address}
        with gateway.player(41041) as newcomer:
            works(newcomer)
            (tunnel,) = gateway.ctl("session", "41041")["tunnels"]
            assert tunnel["address"] == second.address


def test_a_tunnel_type_is_added_and_taken_away(start, backend):
    def types(*names):
        table = {
            "player": {"name": "player", "service": "roma.player.service",
                       "method": "/player.intra.v1.TunnelService/Tunnel", "default": True,
                       "own_object_only": True, "fragments": False, "main": True},
            "room": {"name": "room", "service": "roma.room.service",
                     "method": "/room.intra.v1.TunnelService/Tunnel", "modules": [6]},
            "team": {"name": "team", "service": "roma.room.service",
                     "method": "/room.intra.v1.TunnelService/Tunnel", "modules": [7]}}
        return {"tunnel": {"types": [table[name] for name in names]}}

    gateway = start(Gateway, nodes=nodes_of(backend.address), settings=types("player", "room"))
    with gateway.player(41050) as player:
        assert player.ask(6, 1, b"room", obj=5).data == b"room"
        assert gateway.reload(types("team", "player", "room")) == {
            "tunnel.types.team": "in_place"}
        wait_for(lambda: player.ask(7, 1, b"team", obj=9).data == b"team" and
                 {t["type"] for t in gateway.ctl("session", "41050")["tunnels"]} >= {"team"},
                 "the new type to be used")
        assert player.ask(6, 1, b"room", obj=5).data == b"room"
        assert gateway.reload(types("player", "team")) == {"tunnel.types.room": "in_place"}
        # Module 6 is the player tunnel's now, which takes no foreign object.
        wait_for(lambda: (player.ask(6, 2, b"?", obj=5).mod) == wire.SYSTEM, "it to be taken away")
        works(player)


def test_more_and_fewer_workers(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    players = [gateway.player(uid) for uid in range(41060, 41080)]
    assert gateway.reload({"worker": {"count": 4}}) == {"worker.count": "in_place"}
    wait_for(lambda: len(serving(gateway)) == 4, "four workers")
    newcomers = [gateway.player(uid) for uid in range(41100, 41160)]
    assert {gateway.session_of(player.uid)["worker"] for player in newcomers} == {0, 1, 2, 3}
    assert gateway.reload({"worker": {"count": 1}}) == {"worker.count": "in_place"}
    wait_for(lambda: len(serving(gateway)) == 1, "one worker")
    for player in players + newcomers:  # all are where they were
        works(player)
    for uid in range(41200, 41220):
        with gateway.player(uid) as player:
            works(player)
            assert gateway.session_of(uid)["worker"] in serving(gateway)
    for player in players + newcomers:
        player.close()
    wait_for(lambda: len(workers(gateway)) == 1, "the others to leave")


def test_what_needs_new_workers_makes_a_generation(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    player = gateway.player(41300)
    answer = None
    gateway.configure({"tunnel": {"open_timeout": "2s"}})
    answer = gateway.ctl("reload")
    assert answer["changed"] == [{"setting": "tunnel.open_timeout", "how": "new_generation"}]
    assert answer["generation"] == 2
    wait_for(lambda: len(serving(gateway)) == 2, "the new workers")
    works(player)
    with gateway.player(41301) as newcomer:
        works(newcomer)
        wait_for(lambda: {one["generation"] for number, one in workers(gateway).items()
                          if one["state"] == "draining"} <= {1}, "the old ones to drain")
    player.close()
    wait_for(lambda: {one["generation"] for one in workers(gateway).values()} == {2},
             "the old generation to leave")


def test_players_keep_the_engine_they_began_with(start, backend):
    """Both engines at once, to the same node."""
    engines = ["grpc", "http2"]
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "worker": {"count": 1}, "tunnel": {"engine": engines[0]}})
    players = [gateway.player(41305)]
    for generation, engine in enumerate(engines[1:] + engines[:1], 2):
        assert gateway.reload({"tunnel": {"engine": engine}}) == {
            "tunnel.engine": "new_generation"}
        wait_for(lambda: any(one["generation"] == generation and one["state"] == "running"
                             for one in workers(gateway).values()), "the new generation")
        players.append(gateway.player(41305 + generation))
        for player in players:
            works(player)
    assert len(workers(gateway)) == 3


def test_of_too_many_generations_the_oldest_sends_its_players_away(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"count": 1},
                              "drain": {"generations": 2, "spread": "0s", "timeout": "1h"}})
    players = []
    for generation in range(1, 5):
        players.append(gateway.player(41310 + generation))
        gateway.reload({"tunnel": {"open_timeout": f"{generation}s"}})
        wait_for(lambda: any(one["generation"] == generation + 1 and one["state"] == "running"
                             for one in workers(gateway).values()), "the new generation")
    assert players[0].receive_end() == 1  # Waiting
    assert players[1].receive_end() == 1
    works(players[2])
    works(players[3])
    wait_for(lambda: sorted(one["generation"] for one in workers(gateway).values()) == [3, 4, 5],
             "no more than these")


def test_what_waits_for_a_restart_is_named_each_time(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    changes = {"compress": {"weak": 5000}, "server": {"tcp": {"addr": "127.0.0.1:1"}},
               "label": {"color": "green"}}
    assert gateway.reload(changes) == {"compress.weak": "in_place", "server.tcp.addr": "restart",
                                       "label.color": "restart"}
    assert gateway.reload() == {"server.tcp.addr": "restart", "label.color": "restart"}


@pytest.mark.parametrize("line,fault", [
    ("nonsense = 1;", "nonsense: unknown key"),
    ("limits = { idle_timeout = 5; };", "limits.idle_timeout: must be"),
    ("worker = { count = 65; };", "worker.count: must be a whole number from 0 to 64"),
    ("tunnel = {", "syntax error"),
    ('nodes = ( { service = "s"; } );', "nodes[0].addr: is missing"),
    ('server = { ws = { tls = { enabled = true; cert = "/nowhere"; key = "/nowhere"; }; }; };',
     "/nowhere"),
    ('tunnel = { tls = { ca = "/nowhere"; }; };', "/nowhere")])
def test_a_faulty_configuration_changes_nothing(start, backend, line, fault):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(41400) as player:
        before = gateway.worker_pids()
        name = line.split(" ")[0]
        settings = {key: value for key, value in gateway.settings.items() if key != name}
        settings["log"] = {"level": "error"}  # which must not be taken either
        text = libconfig_file(settings)
        write_file(gateway.config_path, text + line + '\n@include "secret.conf"\n', 0o644)
        said = refusal(gateway)
        assert fault in said and "nothing has changed" in said
        if fault not in ("/nowhere", "syntax error"):
            assert f"{gateway.config_path}:{text.count(chr(10)) + 1}" in said
        assert {one["level"] for one in gateway.ctl("log")["modules"]} == {"debug"}
        mark = gateway.mark()
        gateway.process.send_signal(signal.SIGHUP)
        gateway.wait_log("event=reload_failed", since=mark)
        assert gateway.worker_pids() == before
        works(player)


@pytest.mark.measures_memory
def test_hundreds_of_reloads_leave_no_trace(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    player = gateway.player(41500)
    before = gateway.worker_pids()

    def go_round(count):
        for i in range(count):
            gateway.process.send_signal(signal.SIGHUP) if i % 10 == 9 else gateway.reload(
                {"limits": {"idle_timeout": f"{60 + i % 7}s"},
                 "log": {"level": ["debug", "info"][i % 2]},
                 "nodes": nodes_of(backend.address, f"127.0.0.1:{10 + i % 3}")})
        works(player)

    def private():
        return sum(private_bytes(pid) for pid in gateway.session_pids())

    def descriptors():
        return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in gateway.session_pids()}

    go_round(40)  # allocators settle
    memory, open_files = private(), descriptors()
    go_round(200)
    assert gateway.worker_pids() == before
    assert descriptors() == open_files
    if "asan" not in os.environ.get("JANUS_BUILD", ""):  # which keeps what is freed
        assert private() < memory * 1.05 + (1 << 20)


@pytest.mark.measures_memory
def test_hundreds_of_generations_leave_no_trace(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})

    def go_round(count):
        for i in range(count):
            gateway.reload({"tunnel": {"open_timeout": f"{1 + i % 2}s"}})
            wait_for(lambda: len(workers(gateway)) == 1 and len(serving(gateway)) == 1,
                     "the one before to be gone")

    pid = gateway.process.pid
    go_round(10)
    memory, files = private_bytes(pid), len(os.listdir(f"/proc/{pid}/fd"))
    go_round(100)
    assert len(os.listdir(f"/proc/{pid}/fd")) == files
    if "asan" not in os.environ.get("JANUS_BUILD", ""):
        assert private_bytes(pid) < memory * 1.05 + (1 << 20)


def test_fewer_workers_and_more_again_all_take_players(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 4}})
    gateway.reload({"worker": {"count": 1}})
    gateway.reload({"worker": {"count": 4}})
    players = [gateway.player(uid) for uid in range(41800, 41860)]
    assert {gateway.session_of(player.uid)["worker"] for player in players} == {0, 1, 2, 3}


def test_what_waits_and_what_does_not_have_to_fit_together(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "label": {"encrypted": True}, "queue": {"client_high_bytes": 100000}})
    with gateway.player(41870) as player:
        secrets = secret_settings(gateway.keys)
        del secrets["secret"]["client_cert"]
        write_file(os.path.join(gateway.directory, "secret.conf"), libconfig_file(secrets))
        gateway.configure({"label": {"encrypted": False}})
        assert "waits for a restart" in refusal(gateway)
        gateway.configure({"label": {"encrypted": True}})
        with gateway.player(41871) as other:
            works(other)
        works(player)
    # And a worker that dies comes up again.
    gateway.expect_clean = False
    os.kill(gateway.worker_pids()[0], signal.SIGKILL)
    wait_for(lambda: len(serving(gateway)) == 2, "its successor")


def test_rates_count_for_players_who_are_there(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(41880) as player:
        works(player)
        gateway.reload({"limits": {"messages_per_s": 1, "messages_burst": 1}})
        wait_for(lambda: (works(player), works(player), gateway.counter("rate_pauses"))[-1] > 0,
                 "the player to be slowed down")


def test_a_lower_limit_on_messages_cuts_nobody(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(41890) as player:
        assert gateway.reload({"limits": {"message_to_client_bytes": 2048}}) == {
            "limits.message_to_client_bytes": "in_place"}
        wait_for(lambda: b"too large" in player.ask(wire.USER, 1, b"z" * 3000).data or
                 gateway.counter("messages_too_large") > 0, "the limit to count")
        works(player)


def test_a_reload_while_draining_is_refused_and_logged(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    gateway.ctl("drain", "--no-wait", "--timeout", "1h")
    mark = gateway.mark()
    gateway.process.send_signal(signal.SIGHUP)
    gateway.wait_log("event=reload_refused", since=mark)
    assert "draining" in refusal(gateway)


def test_a_generation_that_can_t_begin_yet_begins_later(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    gateway.reload({"tunnel": {"open_timeout": "1s"}})
    answer = None
    for seconds in (2, 1, 2, 1):  # faster than workers are replaced
        gateway.configure({"tunnel": {"open_timeout": f"{seconds}s"}})
        answer = gateway.ctl("reload")
        if "generation" not in answer:
            break
    assert answer["notes"] if "generation" not in answer else True
    wait_for(lambda: len(serving(gateway)) == 2 and len(workers(gateway)) == 2,
             "the last generation alone", timeout=60)
    with gateway.player(41895) as player:
        works(player)


# --- Keys -------------------------------------------------------------------------------------


def test_login_keys_rotate_without_a_cut(start, backend, keys):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    fresh = Keys()
    player = gateway.player(41600)

    def comes(with_keys, uid):
        client = gateway.client(uid=uid)
        client.keys = with_keys
        try:
            client.login()
            works(client)
            return True
        except (AssertionError, ConnectionError, InvalidSignature):
            # The last: its keys ended while its login was under way.
            return False
        finally:
            client.close()

    assert comes(keys, 41601) and not comes(fresh, 41602)
    write_file(os.path.join(gateway.directory, "secret.conf"),
               libconfig_file(secret_settings(fresh)))
    assert gateway.reload() == {"secret (login keys)": "in_place", "secret.previous": "in_place"}
    wait_for(lambda: comes(fresh, 41603), "the new keys to count")
    assert comes(keys, 41604)  # the ones before too, for login.key_overlap
    works(player)
    # A worker that starts later knows both; another reload keeps them.
    gateway.ctl("worker", "restart", "0")
    assert comes(fresh, 41605) and comes(keys, 41606)
    assert gateway.reload() == {}
    assert comes(fresh, 41607) and comes(keys, 41608)
    # And with no overlap they are over at once.
    assert gateway.reload({"login": {"key_overlap": "0s"}}) == {
        "login.key_overlap": "in_place", "secret.previous": "in_place"}
    wait_for(lambda: not comes(keys, 41609), "the old keys to end")
    assert comes(fresh, 41610)
    works(player)


def test_the_token_of_those_who_push_is_replaced(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    write_file(os.path.join(gateway.directory, "secret.conf"),
               libconfig_file(secret_settings(gateway.keys, push_token="another one")))
    assert gateway.reload() == {"secret.push_token": "in_place"}
    assert gateway.reload() == {}


def test_a_reload_under_traffic_loses_nothing(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    players = [gateway.player(uid) for uid in range(41700, 41720)]
    stop = threading.Event()
    faults = []

    def play(player):
        number = 0
        while not stop.is_set() and not faults:
            data = b"%d" % number
            try:
                if player.ask(wire.USER, 1, data).data != data:
                    faults.append(f"{player.uid}: another answer than to {number}")
            except (AssertionError, OSError) as fault:
                faults.append(f"{player.uid}: {fault}")
            number += 1

    threads = [threading.Thread(target=play, args=(player,)) for player in players]
    for thread in threads:
        thread.start()
    for i in range(10):
        gateway.reload({"tunnel": {"open_timeout": f"{1 + i % 2}s"},
                        "limits": {"messages_burst": 100 + i},
                        "drain": {"generations": 16}})
    stop.set()
    for thread in threads:
        thread.join(patient(60))
    assert not faults
    for player in players:
        works(player)
