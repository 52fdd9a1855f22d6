"""Parts fail, one after another, while players are connected and logging in: nobody is cut, new
players get in, and they land on the same node whichever gateway they reach."""

import re
import threading

import pytest
from janus.backend import Backend
from janus.etcd_server import Etcd
from janus.patience import wait_for
from janus.programs import Gateway, etcd_settings, nodes_of, redis_settings
from janus.redis_server import (Redis, RedisCluster, Sentinels, gateway_key, player_key, room_key)
from janus.renewing import RenewingBackend

NAMES = ("127.0.0.1:31111", "127.0.0.1:31112")


def named(name):
    return {"server": {"tcp": {"addr": "127.0.0.1:0"}, "grpc": {"advertise": name}},
            "worker": {"count": 2, "stop_timeout": "200ms"}}  # the players here do not say goodbye


def gateways_on(start, backends, settings, count=2):
    gateways = []
    for name in NAMES[:count]:
        gateways.append(start(Gateway, nodes=nodes_of(*(b.address for b in backends)),
                              settings={**settings, **named(name)}))
    for gateway in gateways:
        gateway.wait_link("route feed", "following")
    return gateways


class Players:
    """Players who stay connected through all that happens, and newcomers."""

    def __init__(self, gateways, backends, count=6, first_uid=1000):
        self.gateways, self.backends = gateways, backends
        self.next_uid = first_uid
        self.staying = [self.come(gateways[i % len(gateways)]) for i in range(count)]

    def come(self, gateway, uid=None):
        if uid is None:
            self.next_uid += 1
            uid = self.next_uid
        player = gateway.player(uid=uid)
        player.ask(1, 1)
        return player

    def serve(self):
        """Everybody who stayed is served as if nothing had been."""
        for player in self.staying:
            assert player.ask(1, 2).seq == 2
            assert player.ask(6, 2, obj=50).seq == 2

    def newcomers_agree(self, count=6):
        """New players get in, and by each gateway to the same node. While some workers have
        Redis again and others not, they may still differ: those do not count."""
        agreed = 0
        for _ in range(100 * count):
            if agreed == count:
                return
            self.next_uid += 1
            alone = []  # who had to choose without Redis
            for gateway in self.gateways:
                before = gateway.counter("route_fallbacks")
                with self.come(gateway, self.next_uid) as newcomer:
                    newcomer.ask(6, 1, obj=50)  # where those are who stay
                alone.append(gateway.counter("route_fallbacks") > before)
            if any(alone) and not all(alone):
                continue
            agreed += 1
            served = {backend.address for backend in self.backends
                      if backend.streams_of(self.next_uid, kind="player")}
            assert len(served) == 1, f"{self.next_uid} was served by {served}"
            wait_for(lambda: len(self.places_of_room()) <= 1, "room 50 to be at one node")
        raise AssertionError("the gateways never had Redis, or had it not, at the same time")

    def places_of_room(self):
        return {backend.address for backend in self.backends
                if any(not stream.ended.is_set()
                       for stream in backend.streams_of(kind="room", oid=50))}

    def leave(self):
        for player in self.staying:
            player.close()


@pytest.fixture
def backends(start):
    return [start(Backend) for _ in range(3)]


def test_redis_killed_and_restarted_empty(start, backends):
    redis = start(Redis)
    gateways = gateways_on(start, backends, redis_settings(redis.address))
    players = Players(gateways, backends)
    players.serve()
    routes = {player_key(player.uid): redis.wait_key(player_key(player.uid))
              for player in players.staying}
    redis.kill()
    for gateway in gateways:
        gateway.wait_link("redis", "down")
        for worker in range(2):
            assert gateway.wait_link(f"redis, worker {worker}", "down")
            assert redis.address in gateway.link(f"redis, worker {worker}")["last_error"]
        assert gateway.counter("redis_lost") >= 3
    players.serve()
    players.newcomers_agree()
    newcomer = players.come(gateways[0])
    assert gateways[0].counter("route_fallbacks") > 0
    redis.start()
    for key, value in routes.items():
        redis.wait_key(key, value)
    assert redis.wait_key(player_key(newcomer.uid)) in [b.address for b in backends]
    assert redis.wait_key(gateway_key(newcomer.uid)) == NAMES[0], "written when it was back"
    for gateway in gateways:
        gateway.wait_link("route feed", "following")
        gateway.wait_link("redis, worker 0", "up")
        assert gateway.counter("route_feed_restarts") >= 1
        assert gateway.counter("route_claims_unanswered") + gateway.counter("route_fallbacks") > 0
    players.serve()
    players.newcomers_agree()
    assert all(gateway.counter("tunnels_broken") == 0 for gateway in gateways)


def test_redis_stalled(start, backends):
    redis = start(Redis)
    gateways = gateways_on(start, backends, redis_settings(redis.address))
    players = Players(gateways, backends)
    players.serve()
    redis.stall()
    players.serve()
    players.newcomers_agree()
    assert "no answer" in wait_for(
        lambda: gateways[0].link("redis").get("last_error"), "the link to notice")
    redis.resume()
    for gateway in gateways:
        gateway.wait_link("redis", "up")
        gateway.wait_link("route feed", "following")
    for player in players.staying:
        redis.wait_key(player_key(player.uid))
    players.serve()
    players.newcomers_agree()


def test_redis_absent_from_the_start(start, backends):
    redis = start(Redis)
    redis.kill()
    gateways = [start(Gateway, nodes=nodes_of(*(b.address for b in backends)),
                      settings={**redis_settings(redis.address), **named(name)}) for name in NAMES]
    players = Players(gateways, backends)
    players.newcomers_agree()
    redis.start()
    for player in players.staying:
        redis.wait_key(player_key(player.uid))
        redis.wait_key(gateway_key(player.uid))
    players.serve()


def test_gateway_writes_while_redis_is_away_are_bounded(start, backends):
    redis = start(Redis)
    (gateway,) = gateways_on(start, backends[:1], redis_settings(redis.address, queued_writes=5),
                             count=1)
    redis.kill()
    gateway.wait_link("redis", "down")
    for uid in range(2001, 2011):  # each comes and goes: two writes
        gateway.player(uid=uid).close()
    gateway.wait_counter("route_writes_dropped", 15)
    assert gateway.ctl("routes", "stats")["queued_writes"] <= 5
    redis.start()
    wait_for(lambda: gateway.ctl("routes", "stats")["queued_writes"] == 0, "the queue to be written")
    assert redis.client().keys("r_janus*") == []


def test_no_stream_is_lost_when_redis_restarts_empty_and_backends_renew(start):
    redis = start(Redis)
    renewing = [start(RenewingBackend, redis.client, ttl_s=20.0, first_s=0.5) for _ in range(2)]
    gateways = gateways_on(start, renewing, redis_settings(redis.address))
    players = Players(gateways, renewing)
    players.serve()
    for _ in range(2):
        for backend in renewing:
            backend.look_away()
        redis.kill()
        redis.start()
        for player in players.staying:
            redis.wait_key(player_key(player.uid))
        redis.wait_key(room_key(50))
        for backend in renewing:
            backend.look_at_all()
    players.serve()
    assert [backend.lost for backend in renewing] == [[], []]


def test_sentinel_failover_planned_and_by_death(start, backends):
    sentinels = start(Sentinels)
    settings = redis_settings(*sentinels.addresses, sentinel_master="game")
    gateways = gateways_on(start, backends, settings)
    players = Players(gateways, backends)
    players.serve()
    assert sentinels.master().wait_key(player_key(players.staying[0].uid))
    master = sentinels.fail_over()
    for gateway in gateways:  # a worker may write to the old one for as long as it takes writes
        for process in ("master", "worker=0", "worker=1"):
            gateway.wait_log(rf"{process} .*event=redis_up address={re.escape(master.address)}",
                             timeout=60)
    for player in players.staying:
        master.wait_key(player_key(player.uid))
        master.wait_key(gateway_key(player.uid))
    players.serve()
    players.newcomers_agree()
    master.kill()
    players.serve()
    players.newcomers_agree()
    other = sentinels.wait_other_master(master)
    for player in players.staying:
        other.wait_key(player_key(player.uid), timeout=60)
    players.serve()


def test_failover_to_a_replica_that_has_nothing(start):
    sentinels = start(Sentinels)
    renewing = start(RenewingBackend, lambda: sentinels.master().client(), ttl_s=20.0, first_s=1.0)
    gateways = gateways_on(start, [renewing],
                           redis_settings(*sentinels.addresses, sentinel_master="game"))
    players = Players(gateways, [renewing])
    players.serve()
    renewing.look_away()
    before = sentinels.master()
    replica = next(server for server in sentinels.servers if server is not before)
    before.kill()
    after = sentinels.wait_other_master(before)
    assert after is replica
    after.client().flushall()
    for player in players.staying:
        after.wait_key(player_key(player.uid), renewing.address, timeout=60)
    after.wait_key(room_key(50), timeout=60)
    renewing.look_at_all()
    players.serve()
    assert renewing.lost == []


@pytest.fixture(scope="module")
def cluster(start_module):
    return start_module(RedisCluster)


def test_cluster_routes_are_where_their_slots_are(start, cluster, backends):
    gateways = gateways_on(start, backends, redis_settings(*cluster.addresses[:1], cluster=True))
    for gateway in gateways:
        wait_for(lambda: gateway.link("redis")["masters_up"] == 3, "all masters to be known")
    players = [gateways[i % 2].player(uid=3000 + i, color="blue") for i in range(4)]
    for player in players:
        player.ask(1, 1)
        wait_for(lambda: cluster.get(player_key(player.uid)), "the route")
        wait_for(lambda: cluster.get(gateway_key(player.uid)), "the gateway route")


def test_cluster_slot_moved_while_players_come(start, cluster, backends):
    gateways = gateways_on(start, backends, redis_settings(*cluster.addresses, cluster=True))
    for gateway in gateways:
        wait_for(lambda: gateway.link("redis")["masters_up"] == 3, "all masters to be known")
    players = Players(gateways, backends, first_uid=3100)
    players.serve()
    move = cluster.begin_move(player_key(1))  # all routes of the color are in one slot
    players.newcomers_agree()  # by ASK
    players.serve()
    cluster.end_move(*move)
    players.newcomers_agree()  # by MOVED
    players.serve()
    for player in players.staying:
        assert move[1].wait_key(player_key(player.uid))
    move[1].client().flushall()
    for player in players.staying:  # the new owner's changes are followed
        move[1].wait_key(player_key(player.uid))


def test_cluster_master_dies(start, backends):
    cluster = start(RedisCluster)
    gateways = gateways_on(start, backends, redis_settings(*cluster.addresses, cluster=True))
    players = Players(gateways, backends, first_uid=3200)
    owner = cluster.owner(player_key(1))
    owner.kill()
    players.serve()
    players.newcomers_agree()
    owner.start()
    for player in players.staying:
        owner.wait_key(player_key(player.uid), timeout=60)
    players.serve()


def test_etcd_and_redis_both_away(start, backends):
    etcd, redis = start(Etcd), start(Redis)
    for backend in backends:
        etcd.register(backend.address)
        etcd.register(backend.address, service="roma.room.service")
    settings = {**redis_settings(redis.address), **etcd_settings(*etcd.endpoints)}
    gateways = gateways_on(start, [], settings)
    for gateway in gateways:
        gateway.wait_nodes(*(backend.address for backend in backends))
        gateway.wait_nodes(*(backend.address for backend in backends), service="roma.room.service")
    players = Players(gateways, backends)
    players.serve()
    etcd.members[0].stall()
    redis.kill()
    players.serve()
    players.newcomers_agree()
    for gateway in gateways:
        gateway.wait_log("event=etcd_lost", timeout=60)
    players.newcomers_agree()
    etcd.members[0].resume()
    redis.start()
    for player in players.staying:
        redis.wait_key(player_key(player.uid))
    etcd.wait_gateways(2)
    players.serve()


def test_many_come_while_redis_comes_and_goes(start, backends):
    """Nobody waits for ever, and nobody is refused."""
    redis = start(Redis)
    gateways = gateways_on(start, backends, redis_settings(redis.address))
    players = Players(gateways, backends, count=2)
    faults, done = [], threading.Event()

    def come_and_go(gateway, uid):
        while not done.is_set():
            try:
                with players.come(gateway, uid):
                    pass
            except Exception as fault:
                faults.append(fault)
                return
            uid += 10

    threads = [threading.Thread(target=come_and_go, args=(gateways[i % 2], 5001 + i))
               for i in range(4)]
    for thread in threads:
        thread.start()
    for trouble in (redis.kill, redis.start, redis.stall, redis.resume, redis.client().flushall,
                    redis.kill, redis.start):
        before = sum(gateway.counter("logins") for gateway in gateways)
        trouble()
        wait_for(lambda: sum(gateway.counter("logins") for gateway in gateways) > before + 20
                 or faults, "twenty more to come")
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []
    players.serve()
