"""Routes in a real Redis: what is written there, by whom, and what keeps it true."""

import itertools
import os
import re
import signal
import threading

import pytest
from janus.backend import Backend, echo
from janus.certificates import Certificates
from janus.patience import patient, wait_for
from janus.programs import Gateway, nodes_of, redis_settings, secret_settings
from janus.push import HttpPusher, json_body
from janus.redis_server import Redis, gateway_key, player_key, room_key
from janus.renewing import RenewingBackend

ROOM = 6


PORTS = itertools.count(12001)  # nobody listens there: a gateway's name is its own alone


def gateway_on(start, redis, *backends, name=None, secrets=None, settings=None, **redis_options):
    """A gateway with its routes in that Redis, once it follows them."""
    name = name or f"127.0.0.1:{next(PORTS)}"
    base = redis_settings(redis.address, **redis_options)
    base["server"] = {"tcp": {"addr": "127.0.0.1:0"}, "grpc": {"advertise": name}}
    for key, value in (settings or {}).items():
        base[key] = {**base.get(key, {}), **value} if isinstance(value, dict) else value
    gateway = start(Gateway, nodes=nodes_of(*(backend.address for backend in backends)), settings=base,
                    secrets=secrets)
    gateway.wait_link("route feed", "following")
    gateway.name = name
    return gateway


@pytest.fixture(scope="module")
def redis(start_module):
    return start_module(Redis)


@pytest.fixture(scope="module")
def second(start_module):
    return start_module(Backend)


@pytest.fixture(scope="module")
def gateway(start_module, redis, backend, second):
    return gateway_on(start_module, redis, backend, second)


def test_each_tier_is_written_under_the_ecosystems_names_with_its_ttl(gateway, redis, backend,
                                                                      second):
    with gateway.player(uid=501) as player:
        player.ask(1, 1)
        player.ask(ROOM, 1, obj=77)
        assert redis.wait_key(gateway_key(501)) == gateway.name
        assert redis.get(player_key(501)) in (backend.address, second.address)
        assert redis.get(room_key(77)) in (backend.address, second.address)
        for key in gateway_key(501), player_key(501), room_key(77):
            assert 500_000 < redis.client().pttl(key) <= 600_000
    wait_for(lambda: redis.get(gateway_key(501)) is None, "the gateway route to be removed")
    assert redis.get(player_key(501)) is not None, "the player's node keeps the player's state"


def test_a_route_that_is_there_is_followed(gateway, redis, backend, second):
    for uid, node in (511, backend), (512, second), (513, second):
        redis.client().set(player_key(uid), node.address, px=60_000)
        with gateway.player(uid=uid) as player:
            player.ask(1, 1)
            assert node.stream_of(uid)
        assert redis.get(player_key(uid)) == node.address


def test_the_table_has_what_others_write(gateway, redis, backend):
    redis.client().set(player_key(521), backend.address, px=60_000)
    table = wait_for(lambda: gateway.route("player", 521)["table"], "the route in the table")
    assert table["address"] == backend.address and 0 < table["expires_in_ms"] <= 60_000
    hits = gateway.counter("route_hits")
    with gateway.player(uid=521) as player:
        player.ask(1, 1)
    assert gateway.counter("route_hits") == hits + 1
    redis.client().delete(player_key(521))
    wait_for(lambda: gateway.route("player", 521)["table"] is None, "it to leave the table")


def test_a_route_to_a_node_that_is_not_registered_is_replaced(gateway, redis, backend, second):
    replaced = gateway.counter("route_replaced")
    redis.client().set(player_key(531), "127.0.0.1:9", px=60_000)
    with gateway.player(uid=531) as player:
        player.ask(1, 1)
    assert redis.get(player_key(531)) in (backend.address, second.address)
    assert gateway.counter("route_replaced") == replaced + 1


@pytest.mark.parametrize("uid, write", [
    (541, lambda client, key: client.set(key, "garbage")),
    (542, lambda client, key: client.set(key, b"\xff\x00binary:1")),
    (543, lambda client, key: client.set(key, "x" * 1_000_000)),
    (544, lambda client, key: client.lpush(key, "a", "b")),
    (545, lambda client, key: client.set(key, "")),
    (546, lambda client, key: client.set(key, "host:99999")),
    (-547, lambda client, key: client.hset(key, "a", "b")),
])
def test_what_can_be_no_route_is_replaced_and_counted(gateway, redis, backend, second, uid, write):
    malformed = gateway.counter("routes_malformed")
    write(redis.client(), player_key(uid))
    with gateway.player(uid=uid) as player:
        player.ask(1, 1)
    assert redis.get(player_key(uid)) in (backend.address, second.address)
    gateway.wait_counter("routes_malformed", malformed + 1)


def test_keys_that_are_no_routes_are_counted_and_left_alone(gateway, redis):
    keys = ["r_", "r_x", "r_a_{b}_{c}", "r_a_{b}_{1}x", "r_a_{b}_{01}", "r_" + "s" * 300 + "_{}_{1}",
            "r_roma.player.service_{" + "c" * 100 + "}_{1}", "r_a_{b}_{99999999999999999999}",
            b"r_\xff\x00_{}_{1}"]
    malformed = gateway.counter("routes_malformed")
    for key in keys:
        redis.client().set(key, "127.0.0.1:1", px=60_000)
    gateway.wait_counter("routes_malformed", malformed + len(keys))
    assert gateway.link("route feed")["state"] == "following"


@pytest.mark.parametrize("color", ["a}b", "{", "x}_{5", "under_score", ""])
def test_colors_with_braces_and_underscores(start, redis, backend, color):
    nodes = [dict(node, color=color) for node in nodes_of(backend.address)]
    gateway = start(Gateway, nodes=nodes, settings=redis_settings(redis.address))
    with gateway.player(uid=551, color=color) as player:
        player.ask(1, 1)
        assert redis.get(player_key(551, color)) == backend.address
        wait_for(lambda: gateway.route("player", 551, color)["table"], "the route in the table")


def test_the_gateway_route_of_another_gateway_is_left_alone(start, redis, backend):
    one = gateway_on(start, redis, backend, name="127.0.0.1:21111",
                     settings={"data": {"gateway_route_table_alive_duration": "6s",
                                        **redis_settings(redis.address)["data"]}})
    with one.player(uid=561) as player:
        player.ask(1, 1)
        assert redis.wait_key(gateway_key(561)) == "127.0.0.1:21111"
        # Renewed while it is ours.
        wait_for(lambda: redis.client().pttl(gateway_key(561)) < 3500, "half the time to be over")
        wait_for(lambda: redis.client().pttl(gateway_key(561)) > 4500, "it to be renewed")
        # The player came to another one since: neither renewed nor deleted.
        redis.client().set(gateway_key(561), "127.0.0.1:9999", px=60_000)
        wait_for(lambda: (one.route("gateway", 561)["table"] or {}).get("address")
                 == "127.0.0.1:9999",
                 "the gateway to see it")
    one.wait_gauge("sessions", 0)
    with one.player(uid=562):  # writes go in order: once this one is there, 561's were through
        redis.wait_key(gateway_key(562))
    assert redis.get(gateway_key(561)) == "127.0.0.1:9999"


def test_routes_of_open_tunnels_survive_eviction_and_flush(gateway, redis, backend, second):
    with gateway.player(uid=571) as one, gateway.player(uid=572) as two:
        one.ask(1, 1)
        two.ask(1, 1)
        one.ask(ROOM, 1, obj=88)
        before = {key: redis.wait_key(key) for key in (
            player_key(571), player_key(572), room_key(88), gateway_key(571), gateway_key(572))}
        for key in before:
            redis.client().delete(key)
        for key, value in before.items():
            redis.wait_key(key, value)
        redis.client().flushall()
        for key, value in before.items():
            redis.wait_key(key, value)
        assert gateway.counter("routes_restored") >= 10
        assert one.ask(1, 2).seq == 2 and two.ask(1, 2).seq == 2


def test_no_stream_is_lost_to_a_flush_when_the_backend_renews(start, redis):
    backend = start(RenewingBackend, redis.client, ttl_s=20.0, first_s=0.2)
    gateway = gateway_on(start, redis, backend)
    players = [gateway.player(uid=580 + i) for i in range(20)]
    for player in players:
        player.ask(1, 1)
        player.ask(ROOM, 1, obj=90)
    streams = len(backend.streams)
    for _ in range(5):
        backend.look_away()
        redis.client().flushall()
        wait_for(lambda: all(redis.get(player_key(580 + i)) for i in range(20)), "all routes")
        redis.wait_key(room_key(90))
        backend.look_at_all()
    for player in players:
        player.ask(1, 2)
        player.close()
    assert backend.lost == [] and len(backend.streams) == streams


def test_a_tunnel_follows_its_route(gateway, redis, backend, second):
    with gateway.player(uid=591) as player:
        player.ask(1, 1)
        other = second if redis.get(player_key(591)) == backend.address else backend
        redis.client().set(player_key(591), other.address, px=60_000)
        assert other.stream_of(591)
        assert player.ask(1, 2).seq == 2
    assert gateway.counter("routes_moved") >= 1
    opening = gateway.total()["histograms"]["tunnel_open_seconds"]
    opened = gateway.counter("tunnels_opened") + gateway.counter("tunnels_reopened")
    assert sum(opening["buckets"]) == opened
    assert opening["sum_us"] < opened * patient(10) * 1_000_000


def test_what_the_node_before_still_owes_arrives_when_a_tunnel_moves(start, redis):
    release = threading.Event()

    def answer(stream, request):
        if request.seq == 9:
            release.wait(patient(30))
        echo(stream, request)

    nodes = [start(Backend, answer=answer) for _ in range(2)]
    gateway = gateway_on(start, redis, *nodes)
    with gateway.player(uid=592) as player:
        player.ask(1, 1)
        before, after = sorted(nodes, key=lambda node: redis.get(player_key(592)) != node.address)
        player.send(1, 9)
        before.stream_of(592).wait_requests(2)
        redis.client().set(player_key(592), after.address, px=60_000)
        assert after.stream_of(592)
        assert player.ask(1, 2).seq == 2
        release.set()
        assert player.receive().seq == 9
        assert before.stream_of(592).ended.wait(patient(30))
    assert gateway.counter("tunnel_messages_unsure") == 0


def test_the_table_is_warmed_within_its_capacity(start, redis, backend):
    client = redis.client()
    for i in range(300):
        client.set(player_key(60_000 + i), backend.address, px=60_000)
    wide = gateway_on(start, redis, backend)
    assert wide.ctl("routes", "stats")["stats"]["player"]["used"] >= 300
    narrow = gateway_on(start, redis, backend, settings={
        "route_table": {"capacity": {"player": 100}}})
    assert narrow.ctl("routes", "stats")["stats"]["player"]["used"] <= 100
    with narrow.player(uid=60_123) as player:  # in the table or not, the route holds
        player.ask(1, 1)
    assert redis.get(player_key(60_123)) == backend.address


def user_of_the_readme(password):
    """The rights that the README asks for, here where the gateways are on 127.0.0.1."""
    with open(os.path.join(os.path.dirname(__file__), "..", "..", "README.md")) as readme:
        line = re.search(r"ACL SETUSER (gate on [^`]*?)\n\n", readme.read()).group(1)
    return " ".join(line.split()).replace("PASSWORD", password).replace("&10.0.0.*",
                                                                        "&127.0.0.1:*")


def test_password_acl_user_and_database(start, backend, keys):
    locked = start(Redis, password="topsecret", users=[user_of_the_readme("gatepass")])
    for user, password, db in ("", "topsecret", 3), ("gate", "gatepass", 0):
        gateway = gateway_on(
            start, locked, backend, username=user, db=db,
            secrets=secret_settings(keys, redis_password=password))
        with gateway.player(uid=611) as player:
            player.ask(1, 1)
            client = locked.client()
            client.execute_command("SELECT", db)
            assert client.get(player_key(611)) == backend.address
    wrong = start(Gateway, nodes=nodes_of(backend.address), settings=redis_settings(locked.address),
                  secrets=secret_settings(keys, redis_password="wrong"))
    wrong.wait_log("redis_down.*WRONGPASS")
    assert "WRONGPASS" in wrong.link("redis")["last_error"]
    assert "topsecret" not in gateway.log() and "gatepass" not in gateway.log()


def test_the_user_of_the_readme_may_do_all_that_gateways_do(start, backend, keys):
    locked = start(Redis, password="topsecret", users=[user_of_the_readme("gatepass")])
    one, two = [gateway_on(start, locked, backend, username="gate", name=name,
                           secrets=secret_settings(keys, redis_password="gatepass"))
                for name in ("127.0.0.1:11112", "127.0.0.1:11113")]
    for gateway in (one, two):
        gateway.wait_link("topics", "subscribed")
    with one.player(uid=612) as first, two.player(uid=612) as second:
        assert first.receive_end() == 3  # ConflictingLogin
        assert second.ask(1, 2, b"in").data == b"in"
        two.ctl("ban", "613", "--for", "1h")
        wait_for(lambda: one.ctl("bans")["bans"], "the other gateway to know of the ban")
        pusher = HttpPusher(one)
        assert pusher.ok("/push", {"uid": 612, "color": "blue", "bodies": [json_body(b"hi")]})["pushed"]
        assert second.receive().data == b"hi"
        assert pusher.ok("/broadcast", {"bodies": [json_body(b"all")]})["published"]
        assert second.receive().data == b"all"
        # One that is over is removed at the next reading, as after each change.
        locked.client().hset("janus.gate.bans", "uid:614", '{"until_ms":1767657600000}')
        two.ctl("unban", "613")
        wait_for(lambda: not locked.client().hexists("janus.gate.bans", "uid:614"),
                 "the ban that is over to be removed")
    assert not locked.client().execute_command("ACL", "LOG")


def test_tls_with_a_client_certificate(start, backend, tmp_path):
    tls = Certificates(tmp_path)
    server = start(Redis, tls=tls)
    files = {"enabled": True, "ca": tls.ca, "cert": tls.client_cert, "key": tls.client_key}
    gateway = gateway_on(start, server, backend, tls=files)
    with gateway.player(uid=621) as player:
        player.ask(1, 1)
        assert server.get(player_key(621)) == backend.address
    stranger = start(Gateway, nodes=nodes_of(backend.address), settings=redis_settings(
        server.address, tls={"enabled": True}))
    stranger.wait_log("redis_down.*certificate verify failed")
    with stranger.player(uid=622) as player:
        player.ask(1, 1)  # without Redis, by rendezvous hashing
    misnamed = start(Gateway, nodes=nodes_of(backend.address), settings=redis_settings(
        server.address, tls={**files, "server_name": "another.example"}))
    misnamed.wait_log("redis_down.*certificate verify failed")


def test_routes_get_says_what_each_side_has(gateway, redis, backend):
    redis.client().set(room_key(631), backend.address, px=60_000)
    wait_for(lambda: gateway.route("object", 631)["table"], "the route in the table")
    answer = gateway.route("object", 631)
    assert answer["key"] == room_key(631) and answer["tunnels"] == 0
    assert answer["store"]["address"] == answer["table"]["address"] == backend.address
    assert gateway.route("object", 632)["store_says"] == "no such route"
    redis.client().set(room_key(633), "nonsense")
    assert gateway.route("object", 633)["store_says"] == "what stands there is no route"
    with gateway.player(uid=634) as player:
        player.ask(1, 1)
        assert gateway.route("player", 634)["tunnels"] == 1


def test_a_killed_worker_leaves_no_gateway_routes_and_its_tunnels_routes_are_let_go(start, redis,
                                                                                    backend):
    gateway = gateway_on(start, redis, backend)
    players = {uid: gateway.player(uid=uid) for uid in range(640, 650)}
    for player in players.values():
        player.ask(1, 1)
    worker_of = {uid: gateway.session_of(uid)["worker"] for uid in players}
    dead = worker_of[640]
    os.kill(gateway.worker_pids()[dead], signal.SIGKILL)
    for uid, worker in worker_of.items():
        if worker == dead:
            wait_for(lambda: redis.get(gateway_key(uid)) is None, "its gateway route to go")
            wait_for(lambda: gateway.route("player", uid)["tunnels"] == 0, "it to be let go")
        else:
            assert players[uid].ask(1, 2).seq == 2
            assert redis.get(gateway_key(uid)) is not None


def test_orphans_still_settle_routes(start, redis, backend, second):
    """Without a master nobody feeds the table: Redis is asked, and believed."""
    gateway = gateway_on(start, redis, backend, second,
                         settings={"worker": {"count": 1, "orphan_timeout": "20s"}})
    redis.client().set(player_key(661), backend.address, px=60_000)
    wait_for(lambda: gateway.route("player", 661)["table"], "the route in the table")
    gateway.expect_clean = False
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.wait_log("event=master_lost")
    redis.client().set(player_key(661), second.address, px=60_000)
    with gateway.player(uid=661) as player:
        player.ask(1, 1)
        assert second.streams_of(661) and not backend.streams_of(661)
    gateway.abandon()


def test_a_server_that_is_master_no_more_is_not_believed(start, backend):
    primary = start(Redis)
    redis = start(Redis)
    gateway = gateway_on(start, redis, backend)
    redis.client().execute_command("REPLICAOF", "127.0.0.1", str(primary.port))
    with gateway.player(uid=671) as player:
        player.ask(1, 1)
    gateway.wait_log("event=redis_down.*(READONLY|not a master)")
    redis.client().execute_command("REPLICAOF", "NO", "ONE")
    with gateway.player(uid=672) as player:
        player.ask(1, 1)
        redis.wait_key(player_key(672))
        redis.wait_key(gateway_key(672))


def test_a_user_who_may_not_subscribe_is_told_so_and_not_tried_all_the_time(start, backend, keys):
    locked = start(Redis, password="topsecret", users=[
        "gate on >gatepass ~r_* resetchannels +@all"])
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings=redis_settings(locked.address, username="gate"),
                    secrets=secret_settings(keys, redis_password="gatepass"))
    wait_for(lambda: "NOPERM" in gateway.link("route feed").get("last_error", ""), "the refusal")
    assert gateway.link("route feed")["state"] == "connecting"
    assert "routes_followed" not in gateway.log()
    with gateway.player(uid=681) as player:  # each route is asked for then
        player.ask(1, 1)
        assert locked.get(player_key(681)) == backend.address


def test_another_databases_flush_is_not_ours(gateway, redis, backend):
    redis.client().set(player_key(691), backend.address, px=60_000)
    wait_for(lambda: gateway.route("player", 691)["table"], "the route in the table")
    mark = gateway.mark()
    other = redis.client()
    other.execute_command("SELECT", 5)
    other.flushdb()
    gateway.wait_log("event=routes_flushed", since=mark)
    wait_for(lambda: gateway.route("player", 691)["table"], "the route to be read again")


def test_rooms_stay_where_they_are_when_the_feed_breaks_and_redis_dies(start, backend, second):
    redis = start(Redis)
    gateway = gateway_on(start, redis, backend, second, settings={"worker": {"count": 2}})
    with gateway.player(uid=700) as first:
        for oid in range(800, 806):
            first.ask(ROOM, 1, obj=oid)
        mark = gateway.mark()
        redis.client().execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        gateway.wait_log("event=routes_followed", since=mark)
        redis.kill()
        gateway.wait_link("redis", "down")
        for uid in range(701, 705):
            with gateway.player(uid=uid) as player:
                for oid in range(800, 806):
                    player.ask(ROOM, 1, obj=oid)
        for oid in range(800, 806):
            served = [node for node in (backend, second) if node.streams_of(kind="room", oid=oid)]
            assert len(served) == 1, f"room {oid} is on two nodes"
