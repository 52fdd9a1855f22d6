"""Where a player or a room was when that was last known is where everybody goes, for as long as
nobody can say better: no trouble with Redis or etcd splits a room, or moves one that is in use."""

import contextlib
import os
import signal
import socket
import threading

import grpc
import pytest
from janus.backend import Backend
from janus.etcd_server import Etcd
from janus.patience import wait_for
from janus.programs import (Gateway, etcd_settings, merged, nodes_of, redis_settings,
                            secret_settings)
from janus.redis_server import Redis, player_key, room_key

ROOMS = range(100, 106)
NEWCOMERS_ROOMS = range(105, 99, -1)  # in another order, or the nodes' turns come out the same
NAMES = ("127.0.0.1:32111", "127.0.0.1:32112")
ROOM = 6


class Window:
    """A way to a server that can be shut."""

    def __init__(self, port):
        self.port, self.open, self.pairs = port, True, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.port))
                self.pairs += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def _carry(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def shut(self):
        for end in [self.listener, *self.pairs]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    stop = shut


@pytest.fixture
def backends(start):
    return [start(Backend) for _ in range(4)]


def gateway_on(start, redis, backends, name, *more, **options):
    settings = {"server": {"grpc": {"advertise": name}}, "worker": {"count": 1}}
    for changes in (redis_settings(redis.address, **options), *more):
        settings = merged(settings, changes)
    return start(Gateway, nodes=nodes_of(*(backend.address for backend in backends)),
                 settings=settings)


def two_gateways(start, redis, backends, *more, first=None):
    gateways = [gateway_on(start, redis, backends, NAMES[0], *more, **(first or {})),
                gateway_on(start, redis, backends, NAMES[1], *more)]
    for gateway in gateways:
        gateway.wait_link("route feed", "following")
    return gateways


def enter(player, rooms=ROOMS):
    for oid in rooms:
        assert player.ask(ROOM, 1, obj=oid).obj == oid


def wait_known(gateway, rooms=ROOMS):
    for oid in rooms:
        wait_for(lambda: gateway.route("object", oid)["table"], f"room {oid} to be known")


def where(backends, rooms=ROOMS):
    """The nodes that have ever had a stream of each room."""
    return {oid: {backend.address for backend in backends
                  if backend.streams_of(kind="room", oid=oid)} for oid in rooms}


def assert_together(backends, rooms=ROOMS):
    assert [oid for oid, nodes in where(backends, rooms).items() if len(nodes) != 1] == []


def test_a_room_that_another_gateway_holds_survives_a_flush(start, backends):
    redis = start(Redis)
    holder, other = two_gateways(start, redis, backends)
    with holder.player(uid=1) as player, other.player(uid=2) as newcomer:
        enter(player)
        newcomer.ask(1, 1)
        wait_known(other)
        holder.stall()  # it does not get to put its routes back
        redis.client().flushall()
        for oid in ROOMS:
            wait_for(lambda: not other.route("object", oid)["table"], "it to have heard")
        enter(newcomer, NEWCOMERS_ROOMS)
        holder.resume()
        for oid in ROOMS:
            redis.wait_key(room_key(oid))
        enter(player)
    assert_together(backends)
    assert holder.counter("routes_moved") == 0


def test_a_room_whose_route_alone_is_lost_stays(start, backends):
    redis = start(Redis)
    holder, other = two_gateways(start, redis, backends)
    with holder.player(uid=1) as player, other.player(uid=2) as newcomer:
        enter(player)
        newcomer.ask(1, 1)
        wait_known(other)
        holder.stall()
        redis.client().delete(*(room_key(oid) for oid in ROOMS))
        for oid in ROOMS:
            wait_for(lambda: not other.route("object", oid)["table"], "it to have heard")
        enter(newcomer, NEWCOMERS_ROOMS)
        holder.resume()
    assert_together(backends)


def test_a_room_survives_a_redis_that_comes_back_empty_to_another_gateway_first(start, backends):
    redis = start(Redis)
    holder, other = two_gateways(start, redis, backends)
    with holder.player(uid=1) as player:
        enter(player)
        wait_known(other)
        holder.stall()
        redis.restart()
        other.wait_link("redis", "up")
        other.wait_link("route feed", "following")
        with other.player(uid=2) as newcomer:
            enter(newcomer, NEWCOMERS_ROOMS)
            holder.resume()
            for oid in ROOMS:
                redis.wait_key(room_key(oid))
            holder.wait_link("route feed", "following")
            enter(player)
    assert_together(backends)


def test_rooms_stay_together_in_an_outage_longer_than_their_routes_live(start, backends):
    redis = start(Redis)
    lives = {"data": {"app_route_table_alive_duration": "2s"}}
    holder, other = two_gateways(start, redis, backends, lives)
    with holder.player(uid=1) as player:
        enter(player)
        wait_known(other)
        redis.kill()
        for gateway in (holder, other):
            gateway.wait_link("redis", "down")
        # The time of the routes that it does not hold is over.
        wait_for(lambda: all(route["expires_in_ms"] <= 0 or route["tier"] != "object"
                             for route in other.ctl("routes", "list")["routes"]),
                 "them to have run out")
        with other.player(uid=2) as newcomer:
            enter(newcomer, NEWCOMERS_ROOMS)
            enter(player)
        assert other.counter("route_fallbacks") >= len(ROOMS)
    assert_together(backends)


def test_where_changes_are_not_told_each_route_is_asked_for(start, keys, backends):
    """A user who may not subscribe: the table may be wrong at any time."""
    redis = start(Redis, password="topsecret",
                  users=["gate on >gatepass ~r_* resetchannels +@all"])
    gateway = start(Gateway, nodes=nodes_of(*(backend.address for backend in backends)),
                    settings=redis_settings(redis.address, username="gate"),
                    secrets=secret_settings(keys, redis_password="gatepass"))
    with gateway.player(uid=1) as player:
        enter(player, [100])
        wait_for(lambda: gateway.route("object", 100)["table"] or
                 gateway.route("object", 100).get("guess"), "it to be in the table")
    home = redis.wait_key(room_key(100))
    elsewhere = next(backend for backend in backends if backend.address != home)
    redis.client().set(room_key(100), elsewhere.address, px=600_000)
    with gateway.player(uid=2) as player:
        enter(player, [100])
    assert elsewhere.streams_of(kind="room", oid=100)
    assert redis.get(room_key(100)) == elsewhere.address


def register(etcd, *backends, **more):
    for backend in backends:
        for service in ("roma.player.service", "roma.room.service"):
            etcd.register(backend.address, service=service, id=f"{service}-{backend.address}",
                          **more)


def wait_both(gateway, *backends):
    for service in ("roma.player.service", "roma.room.service"):
        gateway.wait_nodes(*(backend.address for backend in backends), service=service)


def test_a_gateway_that_can_not_see_etcd_takes_no_room_off_a_node_it_has_not_heard_of(start):
    etcd, redis = start(Etcd), start(Redis)
    known, unheard = start(Backend), start(Backend)
    window = start(Window, int(etcd.members[0].address.rpartition(":")[2]))
    register(etcd, known)
    seeing = gateway_on(start, redis, [], NAMES[0], etcd_settings(*etcd.endpoints))
    blind = gateway_on(start, redis, [], NAMES[1], etcd_settings(window.address))
    for gateway in (seeing, blind):
        wait_both(gateway, known)
        gateway.wait_link("route feed", "following")
    window.shut()
    blind.wait_log("event=etcd_lost")
    register(etcd, unheard)
    wait_both(seeing, known, unheard)
    with seeing.player(uid=1) as player:
        enter(player)
        there = [oid for oid in ROOMS if unheard.streams_of(kind="room", oid=oid)]
        assert there, "the new node has its share"
        wait_known(blind, there)
        with blind.player(uid=2) as newcomer:
            enter(newcomer, there)
            enter(player, there)
            # Nor when Redis is gone too, and only the memory of it is left.
            redis.kill()
            blind.wait_link("redis", "down")
        with blind.player(uid=3) as another:
            enter(another, there)
        assert blind.counter("route_replaced") == 0
    assert_together([known, unheard], there)


def test_a_redis_that_comes_back_with_old_routes_to_a_dead_node_splits_no_room(start):
    """Two gateways, one after another, chose without Redis; what it has kept is of no use to
    either."""
    etcd, redis = start(Etcd), start(Redis)
    dead, first, later = (start(Backend) for _ in range(3))
    register(etcd, dead)
    gateways = [gateway_on(start, redis, [], name, etcd_settings(*etcd.endpoints))
                for name in NAMES]
    for gateway in gateways:
        wait_both(gateway, dead)
        gateway.wait_link("route feed", "following")
    one, other = gateways
    lonely = range(200, 202)  # rooms that only one gateway has
    with one.player(uid=1) as player, one.player(uid=2) as friend:
        for each in (player, friend):
            enter(each)
            enter(each, lonely)
        redis.client().save()
        redis.kill()
        for gateway in gateways:
            gateway.wait_link("redis", "down")
            gateway.wait_link("redis, worker 0", "down")
        register(etcd, first)
        for service in ("roma.player.service", "roma.room.service"):
            etcd.delete(f"/microservices/{service}/{service}-{dead.address}")
        for gateway in gateways:
            wait_both(gateway, first)
            wait_for(lambda: dead.address not in gateway.nodes(), "the dead node to be dropped")
        dead.stop()
        for oid in [*ROOMS, *lonely]:
            wait_for(lambda: live([first], oid) == [first] * 2, f"room {oid} to be elsewhere")
        # Of such a weight that it is everybody's choice.
        register(etcd, later, weight=1_000_000)
        for gateway in gateways:
            wait_both(gateway, first, later)
        with other.player(uid=3) as newcomer:
            enter(newcomer)
            assert all(live([first, later], oid) == [first] * 2 + [later] for oid in ROOMS)
            before = one.counter("route_replaced")
            redis.start()
            for oid in ROOMS:
                wait_for(lambda: (at := live([first, later], oid)) and len(at) == 3 and
                         set(at) == {at[0]} and redis.get(room_key(oid)) == at[0].address,
                         f"room {oid} to be at one node, which its route names")
            for oid in lonely:  # nothing else moves
                redis.wait_key(room_key(oid), first.address)
                assert live([first, later], oid) == [first] * 2
            for each in (player, friend, newcomer):
                enter(each)
            # The two players' tunnels to a room do not ask both.
            assert one.counter("route_replaced") - before <= len(ROOMS) + len(lonely)


def test_an_orphan_takes_no_room_off_a_node_that_came_after_its_master(start):
    etcd, redis = start(Etcd), start(Redis)
    known, later = start(Backend), start(Backend)
    register(etcd, known)
    gateway = gateway_on(start, redis, [], NAMES[0], etcd_settings(*etcd.endpoints))
    gateway.expect_clean = False
    wait_both(gateway, known)
    gateway.wait_link("route feed", "following")
    with gateway.player(uid=1) as player:
        player.ask(1, 1)
        os.kill(gateway.process.pid, signal.SIGKILL)
        gateway.wait_log("event=master_lost")
        redis.client().set(room_key(500), later.address, px=600_000)
        enter(player, [500])
    assert later.streams_of(kind="room", oid=500)
    assert redis.get(room_key(500)) == later.address
    gateway.abandon()


def test_a_node_that_takes_nobody_new_does_not_get_those_back_who_left(start):
    etcd, redis = start(Etcd), start(Redis)
    drained, other = start(Backend), start(Backend)
    register(etcd, drained)
    gateway = gateway_on(start, redis, [], NAMES[0], etcd_settings(*etcd.endpoints))
    wait_both(gateway, drained)
    gateway.wait_link("route feed", "following")
    with gateway.player(uid=7) as player:
        player.ask(1, 1)
    wait_for(lambda: gateway.route("player", 7)["tunnels"] == 0, "it to have left")
    register(etcd, drained, weight=0)
    register(etcd, other)
    wait_both(gateway, drained, other)
    wait_for(lambda: gateway.nodes()[drained.address]["weight"] == 0, "the weight to be known")
    redis.client().delete(player_key(7))
    wait_for(lambda: not gateway.route("player", 7)["table"], "it to have heard")
    with gateway.player(uid=7) as player:
        player.ask(1, 1)
    assert redis.get(player_key(7)) == other.address


def cut_off(start, suspect):
    """A gateway without Redis, its backends, and a player at each of its two workers: the number of
    the worker, and what the player is."""
    redis = start(Redis)
    backends = [start(Backend) for _ in range(2)]
    gateway = gateway_on(start, redis, backends, NAMES[0], {
        "worker": {"count": 2}, "tunnel": {"suspect": suspect},
        "data": {"app_route_table_alive_duration": "5s"}})
    gateway.wait_link("route feed", "following")
    players = {}
    for uid in range(100, 200):
        player = gateway.player(uid=uid)
        players.setdefault(gateway.session_of(uid)["worker"], (uid, player))
        if len(players) == 2:
            break
    redis.kill()
    gateway.wait_link("redis", "down")
    wait_for(lambda: gateway.ctl("status") and "refused" in gateway.link("redis")["last_error"],
             "it to be gone for all")
    return gateway, backends, players


def live(backends, oid):
    return [backend for backend in backends
            for stream in backend.streams_of(kind="room", oid=oid) if not stream.ended.is_set()]


def wait_together(backends, oid):
    def together():
        at = live(backends, oid)
        return len(at) == 2 and len(set(at)) == 1

    wait_for(together, f"both streams of room {oid} to be together")


def blip(backends, oid, uid):
    stream = live(backends, oid)[0].stream_of(uid, "room", oid)
    stream.end(grpc.StatusCode.UNAVAILABLE, "a blip")
    assert stream.ended.wait(30)


def test_tunnels_of_one_object_stay_together_in_an_outage(start):
    """One of them breaks and goes elsewhere: the others follow, whichever worker they are in."""
    _, backends, players = cut_off(start, suspect="1s")
    for oid in ROOMS:
        for _, player in players.values():
            enter(player, [oid])
        wait_together(backends, oid)
        blip(backends, oid, players[0][0])
        wait_together(backends, oid)
        for _, player in players.values():
            enter(player, [oid])
    for _, player in players.values():
        player.close()


def test_a_tunnel_that_can_not_follow_its_route_at_once_follows_later(start):
    """A worker avoids a node that has just failed it; meanwhile another, which knows nothing of
    that, opens the same rooms there, and its word is the last."""
    gateway, backends, players = cut_off(start, suspect="3s")
    (uid, avoiding), (_, unaware) = players[0], players[1]
    for player in (avoiding, unaware):
        enter(player, [100])
    wait_together(backends, 100)
    blip(backends, 100, uid)
    wait_together(backends, 100)
    rooms = range(101, 107)
    gateway.stall()  # neither hears of the other's choices
    enter(avoiding, rooms)
    enter(unaware, rooms)
    gateway.resume()
    for oid in rooms:
        wait_together(backends, oid)
    for player in (avoiding, unaware):
        enter(player, rooms)
        player.close()


def test_a_table_too_small_for_all_routes_is_filled_again_when_the_feed_begins_anew(start, backends):
    redis = start(Redis)
    client = redis.client()
    uids = range(60_000, 60_300)
    for uid in uids:
        client.set(player_key(uid), backends[0].address, px=600_000)
    gateway = gateway_on(start, redis, backends, NAMES[0],
                         {"route_table": {"capacity": {"player": 100}}})

    def known():
        return sum(route["tier"] == "player" and route["state"] == "known" for route in
                   gateway.ctl("routes", "list", "--limit", "1000")["routes"])

    gateway.wait_link("route feed", "following")
    wait_for(lambda: known() >= 90, "the table to be filled")
    before = gateway.counter("route_feed_restarts")
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    gateway.wait_counter("route_feed_restarts", before + 1)
    gateway.wait_link("route feed", "following")
    wait_for(lambda: known() >= 90, "the table to be filled again")


def test_each_worker_says_what_is_wrong_with_its_redis(start, backends):
    redis = start(Redis)
    redis.kill()
    gateway = gateway_on(start, redis, backends, NAMES[0])
    gateway.wait_link("redis, worker 0", "down")
    wait_for(lambda: "refused" in gateway.link("redis, worker 0").get("last_error", ""),
             "the error to be shown")
    redis.start()
    gateway.wait_link("redis, worker 0", "up")


def test_a_node_that_nobody_can_tell_of_and_that_is_dead_is_replaced(start):
    etcd, redis = start(Etcd), start(Redis)
    backend, dead = start(Backend), start(Backend)
    dead.stop()
    etcd.register(backend.address)
    gateway = gateway_on(start, redis, [], NAMES[0], etcd_settings(*etcd.endpoints))
    gateway.wait_nodes(backend.address)
    gateway.wait_link("route feed", "following")
    etcd.members[0].kill()
    gateway.wait_log("event=etcd_lost")
    redis.client().set(player_key(5), dead.address, px=600_000)
    with gateway.player(uid=5) as player:
        player.ask(1, 1)
    assert redis.get(player_key(5)) == backend.address


def test_gateway_routes_are_gone_with_the_gateway_also_when_a_worker_hung(start, backends):
    redis = start(Redis)
    gateway = gateway_on(start, redis, backends[:1], NAMES[0],
                         {"worker": {"stop_timeout": "200ms"}})
    gateway.expect_clean = False
    players = [gateway.player(uid=uid) for uid in range(2000, 2200)]
    wait_for(lambda: len(redis.client().keys("r_janus*")) == 200, "their routes")
    os.kill(gateway.worker_pids()[0], signal.SIGSTOP)
    gateway.stop()
    assert redis.client().keys("r_janus*") == []
    for player in players:
        player.close()
