"""Three gateways with players spread over them: pushes find their players, and a player is at one
gateway at a time."""

import os
import signal
import threading

import pytest
from janus.backend import Backend
from janus.patience import wait_for
from janus.programs import Gateway, merged, nodes_of, redis_settings
from janus.push import (BROADCAST_TOPIC, GrpcPusher, HttpPusher, PushMessage, Publisher, body,
                        json_body)
from janus.redis_server import Redis, gateway_key

CONFLICT = 3  # SCServerLogout's ConflictingLogin


def gateway_on(start, redis, backend, *more):
    settings = redis_settings(redis.address)
    for changes in more:
        settings = merged(settings, changes)
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings=settings)
    gateway.wait_link("topics", "subscribed")
    gateway.wait_link("route feed", "following")
    gateway.name = gateway.ctl("status")["advertise"]
    return gateway


def three_gateways(start, redis, backend, *more):
    return [gateway_on(start, redis, backend, *more) for _ in range(3)]


@pytest.fixture(scope="module")
def redis(start_module):
    return start_module(Redis)


@pytest.fixture(scope="module")
def gateways(start_module, redis, backend):
    return three_gateways(start_module, redis, backend)


@pytest.fixture(scope="module")
def pushers(gateways):
    pushers = [GrpcPusher(gateway) for gateway in gateways]
    yield pushers
    for pusher in pushers:
        pusher.close()


def expect(player, data):
    packet = player.receive()
    assert packet is not None, "the gateway closed the connection"
    assert packet.data == data


def sessions(gateway, uid):
    return gateway.ctl("sessions", "--uid", str(uid))["sessions"]


# --- Pushes ------------------------------------------------------------------------------------------


def test_a_push_is_handed_on_to_the_gateway_that_has_the_player(redis, gateways, pushers):
    with gateways[1].player(uid=101) as player:
        redis.wait_key(gateway_key(101), gateways[1].name)
        for pusher in pushers:
            assert pusher.push(101, body(b"from somewhere"), color="blue")
            expect(player, b"from somewhere")
        # The gateway's own service is for its own players.
        assert not pushers[0].gate_push(101, body(b"x"))
        assert pushers[1].gate_push(101, body(b"y"))
        expect(player, b"y")
    # As soon as the others have heard that the route is gone, too.
    wait_for(lambda: not pushers[0].push(101, body(b"x"), color="blue"), "it to have left")


def test_a_multicast_is_split_among_the_gateways(redis, gateways, pushers):
    players = {uid: gateways[uid % 3].player(uid=uid) for uid in range(111, 120)}
    for uid in players:
        redis.wait_key(gateway_key(uid), gateways[uid % 3].name)
    answer = pushers[0].multicast([*players, 7, 8, 111], body(b"one"), body(b"two"), color="blue")
    assert sorted(answer.pushed_uids) == sorted([*players, 111])
    assert set(answer.handed_on_uids) == {uid for uid in players if uid % 3 != 0}
    assert sorted(answer.not_found_uids) == [7, 8] and answer.refused_uids == []
    for player in players.values():
        expect(player, b"one")
        expect(player, b"two")
        player.close()


def test_over_http_too_a_push_is_handed_on(redis, gateways):
    pusher = HttpPusher(gateways[0])
    one = json_body(b"by the way")
    with gateways[1].player(uid=120) as player:
        redis.wait_key(gateway_key(120), gateways[1].name)
        assert pusher.ok("/push", {"uid": "120", "color": "blue", "bodies": [one]}) \
            == {"pushed": True, "fate": "handed_on"}
        expect(player, b"by the way")
        assert pusher.ok("/multicast", {"uids": ["120", "9"], "color": "blue", "bodies": [one]}) \
            == {"pushedUids": ["120"], "handedOnUids": ["120"], "notFoundUids": ["9"],
                "refusedUids": []}
        expect(player, b"by the way")


def test_a_broadcast_reaches_the_players_of_all_gateways_once(gateways, pushers):
    players = [gateway.player(uid=121 + i) for i, gateway in enumerate(gateways)]
    answer = pushers[2].broadcast(body(b"all"), color="blue")
    assert answer.reached >= 1 and answer.published
    for player in players:
        expect(player, b"all")
        assert player.ask(1, 2, b"once").data == b"once"
        player.close()


def test_players_of_a_gateway_that_died_are_not_found(start, redis, backend, pushers):
    dead = gateway_on(start, redis, backend)
    dead.expect_clean = False
    player = dead.player(uid=131)
    redis.wait_key(gateway_key(131), dead.name)
    dead.abandon()
    assert redis.get(gateway_key(131)) == dead.name  # its route is still there
    answer = pushers[0].multicast([131], body(b"x"), color="blue")
    assert answer.not_found_uids == [131]
    player.close()


def test_pushes_while_redis_is_away_reach_those_who_are_here_and_are_refused_for_others(
        start, backend):
    redis = start(Redis)
    one, two = [gateway_on(start, redis, backend) for _ in range(2)]
    pusher = GrpcPusher(one)
    with one.player(uid=141) as here, two.player(uid=142):
        redis.wait_key(gateway_key(142), two.name)
        redis.kill()
        one.wait_link("redis", "down")
        answer = pusher.multicast([141, 142], body(b"x"), color="blue")
        assert answer.pushed_uids == [141] and answer.refused_uids == [142]
        expect(here, b"x")
        answer = pusher.broadcast(body(b"y"))
        assert (answer.reached, answer.published) == (1, False)
        expect(here, b"y")
    pusher.close()


# --- One player at one gateway -----------------------------------------------------------------------


def assert_moves(redis, old_gateway, new_gateway, uid):
    """A player of one gateway comes to another: the old session gives way."""
    old = old_gateway.player(uid=uid)
    redis.wait_key(gateway_key(uid), old_gateway.name)
    new = new_gateway.player(uid=uid)
    assert old.receive_end() == CONFLICT
    old.close()
    wait_for(lambda: not sessions(old_gateway, uid), "the old one to be gone")
    assert new.ask(1, 2, b"stays").data == b"stays"
    assert redis.get(gateway_key(uid)) == new_gateway.name
    return new


def test_the_newest_login_wins_at_another_gateway_too(redis, gateways):
    for old, new in ((0, 1), (1, 2), (2, 0)):
        assert_moves(redis, gateways[old], gateways[new], 200 + old).close()
    assert gateways[0].closed("conflicting_login") >= 1


def test_a_player_may_go_to_and_fro(redis, gateways):
    player = gateways[0].player(uid=210)
    redis.wait_key(gateway_key(210), gateways[0].name)
    for i in range(1, 10):
        here = gateways[i % 3]
        newer = here.player(uid=210)
        assert player.receive_end() == CONFLICT
        player.close()
        redis.wait_key(gateway_key(210), here.name)
        player = newer
    assert player.ask(1, 2, b"still").data == b"still"
    player.close()


def test_a_player_who_comes_back_at_once_is_not_thrown_out_by_what_was_said_before(redis, gateways):
    """A to B to A without a pause: what B tells A is late by then."""
    one, two = gateways[:2]
    for uid in range(220, 240):
        first = one.player(uid=uid)
        second = two.player(uid=uid)
        third = one.player(uid=uid)
        assert first.receive_end() == CONFLICT
        assert second.receive_end() == CONFLICT
        assert third.ask(1, 2, b"in").data == b"in"
        for client in (first, second):
            client.close()
        redis.wait_key(gateway_key(uid), one.name)
        assert third.ask(1, 2, b"and stays").data == b"and stays"
        third.close()


def test_a_thousand_logins_of_the_same_players_at_once_leave_one_session_each(redis, gateways):
    """334 players come to three gateways at the same time."""
    uids = range(1000, 1334)
    clients = {}

    def come(gateway):
        mine = {uid: gateway.client(uid=uid) for uid in uids}
        for client in mine.values():
            client.send_raw(client.handshake_frame())
        for client in mine.values():
            client.finish_login()
        clients[gateway] = mine

    threads = [threading.Thread(target=come, args=(gateway,)) for gateway in gateways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == 3

    def left():
        return sum(len([session for session in gateway.ctl("sessions", "--limit", "5000")["sessions"]
                        if session["uid"] in uids]) for gateway in gateways)

    wait_for(lambda: left() == len(uids), "one session of each to be left")
    for uid in uids:
        holder = redis.get(gateway_key(uid))
        for gateway in gateways:
            if gateway.name == holder:
                assert clients[gateway][uid].ask(1, 2, b"mine").data == b"mine"
            else:
                assert clients[gateway][uid].receive_end() == CONFLICT
    for mine in clients.values():
        for client in mine.values():
            client.close()


def test_one_that_does_not_read_at_another_gateway_is_replaced_too(redis, gateways):
    stale = gateways[0].client(uid=305, receive_buffer=4096)
    stale.login()
    redis.wait_key(gateway_key(305), gateways[0].name)

    def is_stuck():
        for _ in range(20):
            stale.send(1, 2, os.urandom(8000))  # the echoes fill what is on the way to it
        return gateways[0].ctl("session", "305")["session"]["output_paused"]

    wait_for(is_stuck, "it to be behind", pause=0)
    with gateways[1].player(uid=305) as new:
        assert new.ask(1, 2, b"in").data == b"in"
        wait_for(lambda: not sessions(gateways[0], 305), "the stale session to be gone")
        assert new.ask(1, 2, b"and stays").data == b"and stays"
    stale.close()


def test_a_message_that_was_lost_is_made_up_for_when_the_route_is_renewed(start, backend):
    redis = start(Redis)
    lives = {"data": {"gateway_route_table_alive_duration": "4s"}}
    one, two = [gateway_on(start, redis, backend, lives) for _ in range(2)]
    with one.player(uid=301) as old:
        redis.wait_key(gateway_key(301), one.name)
        # It does not hear, and what is said meanwhile is lost.
        redis.client().execute_command("ACL", "SETUSER", "default", "resetchannels")
        wait_for(lambda: one.link("topics")["state"] == "connecting", "it to be cut off")
        with two.player(uid=301) as new:
            assert old.receive_end() == CONFLICT
            assert new.ask(1, 2, b"in").data == b"in"


def test_a_forged_word_that_a_player_is_elsewhere_throws_nobody_out(redis, gateways):
    with gateways[0].player(uid=310) as player:
        redis.wait_key(gateway_key(310), gateways[0].name)
        # LoginElsewhere of uid 310: field 1001, as another gateway would send it.
        elsewhere = b"\x08" + b"\xb6\x02" + b"\x12\x04blue"
        message = b"\xca\x3e" + bytes([len(elsewhere)]) + elsewhere
        for _ in range(20):
            redis.client().publish(gateways[0].name, message)
        Publisher(redis, gateways[0]).push([310], body(b"after that"))
        expect(player, b"after that")
        assert player.ask(1, 2, b"in").data == b"in"


@pytest.mark.parametrize("queued_writes", [1000, 3])  # with 3, most of them are dropped
def test_of_two_logins_in_an_outage_the_later_one_wins(start, backend, queued_writes):
    redis = start(Redis)
    more = {"data": {"redis": {"queued_writes": queued_writes}}}
    gateways = [gateway_on(start, redis, backend, more) for _ in range(2)]
    redis.kill()
    for gateway in gateways:
        gateway.wait_link("redis", "down")
    pairs = []
    for i in range(10):
        first, second = gateways if i % 2 else gateways[::-1]
        early = first.player(uid=320 + i)
        assert early.receive_nothing(0.01)  # another millisecond, at the least
        pairs.append((early, second.player(uid=320 + i), second))
    redis.start()
    for i, (early, late, holder) in enumerate(pairs):
        assert early.receive_end() == CONFLICT
        redis.wait_key(gateway_key(320 + i), holder.name)
        assert late.ask(1, 2, b"in").data == b"in"
    for early, late, _ in pairs:
        early.close()
        late.close()


def test_routes_that_an_earlier_run_left_are_removed(start, backend):
    redis = start(Redis)
    client = redis.client()
    name = "127.0.0.1:35999"
    for uid in range(400, 420):
        client.set(gateway_key(uid), name, px=600_000)
    client.set(gateway_key(420), "127.0.0.1:35998", px=600_000)
    gateway_on(start, redis, backend, {"server": {"grpc": {"advertise": name}}})
    wait_for(lambda: client.keys("r_janus*") == [gateway_key(420)], "them to be gone")


# --- Refusing the second ------------------------------------------------------------------------------


REFUSE = {"login": {"conflict": "refuse_second"}}


def test_a_second_login_at_another_gateway_may_be_refused(start, backend):
    redis = start(Redis)
    one, two, _ = three_gateways(start, redis, backend, REFUSE)
    with one.player(uid=501) as first:
        redis.wait_key(gateway_key(501), one.name)
        second = two.player(uid=501)  # answered, so that it can read why
        assert second.receive_end() == CONFLICT
        second.close()
        assert first.ask(1, 2, b"undisturbed").data == b"undisturbed"
        assert two.closed("conflicting_login") == 1
    wait_for(lambda: redis.get(gateway_key(501)) is None, "it to have left")
    with two.player(uid=501) as third:
        assert third.ask(1, 2, b"now").data == b"now"
        assert redis.get(gateway_key(501)) == two.name  # when it is answered


def test_the_route_of_a_gateway_that_is_gone_keeps_nobody_out(start, backend):
    redis = start(Redis)
    redis.client().set(gateway_key(502), "127.0.0.1:35997", px=600_000)
    gateway = gateway_on(start, redis, backend, REFUSE)
    with gateway.player(uid=502) as player:
        assert player.ask(1, 2, b"in").data == b"in"
        assert redis.get(gateway_key(502)) == gateway.name


def test_of_many_who_come_to_two_gateways_at_once_one_each_is_let_in(start, backend):
    redis = start(Redis)
    # Else a gateway that Redis answers late lets a player in on its own.
    patient_redis = {"data": {"redis": {"read_timeout": "60s"}}}
    gateways = [gateway_on(start, redis, backend, REFUSE, patient_redis) for _ in range(2)]
    uids = range(2000, 2100)
    clients = [(uid, gateway.client(uid=uid)) for uid in uids for gateway in gateways]
    for _, client in clients:
        client.send_raw(client.handshake_frame())
    served = []
    for uid, client in clients:
        client.finish_login()
        client.send(1, 2, b"x")
        packet = client.receive()
        if (packet.mod, packet.seq) != (1, 4):
            served.append(uid)
    assert sorted(served) == list(uids)
    for _, client in clients:
        client.close()


def test_without_redis_each_gateway_lets_in_on_its_own(start, backend):
    redis = start(Redis)
    gateway = gateway_on(start, redis, backend, REFUSE)
    redis.kill()
    gateway.wait_link("redis", "down")
    with gateway.player(uid=601) as player:
        assert player.ask(1, 2, b"in").data == b"in"
    redis.start()
    gateway.wait_link("redis", "up")
    redis.stall()
    try:
        with gateway.player(uid=602) as player:  # after data.redis.read_timeout
            assert player.ask(1, 2, b"in").data == b"in"
    finally:
        redis.resume()


def test_clients_that_leave_while_redis_is_asked_leave_nothing_behind(start, backend):
    redis = start(Redis)
    gateway = gateway_on(start, redis, backend, REFUSE, {
        "data": {"redis": {"read_timeout": "60s"}}, "limits": {"handshake_timeout": "500ms"}})
    gateway.expect_clean = False

    def come(uids):
        redis.stall()
        clients = [gateway.client(uid=uid) for uid in uids]
        for client in clients:
            client.send_raw(client.handshake_frame())
        return clients

    for client in come(range(610, 620)):
        assert client.receive_body() is None  # not in time
        client.close()
    redis.resume()
    wait_for(lambda: not redis.client().keys("r_janus*"), "their routes to be gone")
    # And when their worker dies meanwhile.
    clients = come(range(620, 640))
    for pid in gateway.worker_pids().values():
        os.kill(pid, signal.SIGKILL)
    redis.resume()
    wait_for(lambda: all(worker["restarts"] == 1 and worker["state"] == "running"
                         for worker in gateway.ctl("workers")["workers"]), "their successors")
    assert gateway.ctl("sessions")["total"] == 0
    wait_for(lambda: not redis.client().keys("r_janus*"), "their routes to be gone")
    for client in clients:
        client.close()


def test_all_topics_carry_on_in_a_cluster(start, backend):
    from janus.redis_server import RedisCluster
    cluster = start(RedisCluster)
    gateways = []
    for _ in range(2):
        gateway = start(Gateway, nodes=nodes_of(backend.address),
                        settings=redis_settings(*cluster.addresses, cluster=True))
        gateway.wait_link("topics", "subscribed")
        gateway.name = gateway.ctl("status")["advertise"]
        gateways.append(gateway)
    for gateway in gateways:
        wait_for(lambda: gateway.link("redis")["masters_up"] == 3, "all masters to be known")
    one, two = gateways
    pusher = GrpcPusher(one)
    with two.player(uid=701) as player:
        wait_for(lambda: cluster.get(gateway_key(701)) == two.name, "its route")
        assert pusher.push(701, body(b"across"), color="blue")
        expect(player, b"across")
        cluster.servers[0].client().publish(BROADCAST_TOPIC,
                                            PushMessage(bodies=[body(b"news")]).encode())
        expect(player, b"news")
        one.wait_counter("push_orders", 2)  # it has had the news too, before its player comes
        with one.player(uid=701) as newer:
            assert player.receive_end() == CONFLICT
            assert newer.ask(1, 2, b"in").data == b"in"
    pusher.close()
