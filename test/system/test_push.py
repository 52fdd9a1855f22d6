"""Servers push to players: to one, to many, to all, by every entrance."""

import os
import signal
import threading
import time

import grpc
import pytest
from janus.backend import Backend
from janus.patience import ms, patient, wait_for
from janus.programs import Gateway, merged, nodes_of, redis_settings, secret_settings
from janus.push import GatePushRequest, GrpcPusher, Publisher, PushMessage, body
from janus.redis_server import Redis, gateway_key

NAME = "127.0.0.1:33111"


@pytest.fixture(scope="module")
def redis(start_module):
    return start_module(Redis)


def gateway_on(start, redis, backend, name=NAME, *more, **options):
    settings = {"server": {"grpc": {"advertise": name}}}
    for changes in (redis_settings(redis.address, **options), *more):
        settings = merged(settings, changes)
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings=settings)
    gateway.wait_link("topics", "subscribed")
    return gateway


@pytest.fixture(scope="module")
def gateway(start_module, redis, backend):
    return gateway_on(start_module, redis, backend)


@pytest.fixture(scope="module")
def publisher(redis, gateway):
    return Publisher(redis, gateway)


def expect(player, data, mod=3, seq=7):
    packet = player.receive()
    assert packet is not None, "the gateway closed the connection"
    assert (packet.mod, packet.seq, packet.data) == (mod, seq, data)
    return packet


def test_a_push_over_redis_reaches_its_player_with_all_that_it_has(gateway, publisher):
    with gateway.player(uid=6001) as player, gateway.player(uid=6002) as other:
        assert publisher.push([6001], body(b"hello", mod=-5, seq=2**31 - 1, obj=-(2**63),
                                           data_version=2**64 - 1)) == 1
        packet = expect(player, b"hello", -5, 2**31 - 1)
        assert (packet.obj, packet.data_version, packet.index) == (-(2**63), 2**64 - 1, 0)
        assert other.ask(1, 2, b"nothing came").data == b"nothing came"


def test_players_are_named_by_any_int64(gateway, publisher):
    uids = [0, -1, 2**63 - 1, -(2**63), 1]
    players = [gateway.player(uid=uid) for uid in uids]
    publisher.push(uids, body(b"all of you"))
    for player in players:
        expect(player, b"all of you")
        player.close()


def test_pushes_to_one_player_come_in_order_also_across_entrances_of_redis(gateway, publisher):
    with gateway.player(uid=6010) as player:
        for i in range(200):
            if i % 3 == 0:
                publisher.broadcast(body(b"%d" % i), color="blue")
            else:
                publisher.push([6010, 6010, 77], body(b"%d" % i), body(b"again %d" % i))
        for i in range(200):
            expect(player, b"%d" % i)
            if i % 3:
                expect(player, b"again %d" % i)


@pytest.mark.parametrize("message, reached", [
    (PushMessage(broadcast=True), {1, 2, 3}),
    (PushMessage(), {1, 2, 3}),  # the Broadcaster leaves the flag out
    (PushMessage(broadcast=True, color="blue"), {1, 2}),
    (PushMessage(color="red"), {3}),
    (PushMessage(sid=8), {2, 3}),
    (PushMessage(color="blue", sid=8), {2}),
    (PushMessage(color="green"), set()),
    (PushMessage(uids=[6022, 6023]), {2, 3}),
], ids=str)
def test_a_broadcast_reaches_those_of_its_color_and_sid(gateway, publisher, message, reached):
    with gateway.player(uid=6021, color="blue", sid=7) as one, \
         gateway.player(uid=6022, color="blue", sid=8) as two, \
         gateway.player(uid=6023, color="red", sid=8) as three:
        message.bodies = [body(b"news")]
        publisher.client.publish("gate.broadcast.message", message.encode())
        publisher.push([6021, 6022, 6023], body(b"end"))
        for number, player in enumerate((one, two, three), 1):
            if number in reached:
                expect(player, b"news")
            expect(player, b"end")


def test_a_large_body_goes_compressed_and_with_one_too_large_nobody_gets_anything(gateway,
                                                                                  publisher):
    with gateway.player(uid=6031) as player, gateway.player(uid=6032) as other:
        publisher.push([6031, 6032], body(b"a" * 100_000))
        assert expect(player, b"a" * 100_000).compress and expect(other, b"a" * 100_000).compress
        before = gateway.counter("messages_too_large"), gateway.counter("pushes_refused")
        publisher.push([6031, 6032], body(b"before"), body(os.urandom(16400), mod=9, seq=8))
        publisher.broadcast(body(b"before"), body(b"x" * (1 << 20) + b"y", mod=9, seq=9))
        publisher.push([6031, 6032], body(b"after"))
        expect(player, b"after")
        expect(other, b"after")
        assert gateway.counter("messages_too_large") == before[0] + 2
        assert gateway.counter("pushes_refused") == before[1] + 2 * (2 + 2)
        gateway.wait_log("push_too_large mod=9 seq=8 data_bytes=16400")


def test_a_pushed_logout_logs_out(gateway, publisher):
    with gateway.player(uid=6041) as player:
        with gateway.closes("roma_logout", others_open=1):
            publisher.push([6041], body(b"\x08\x04", mod=1, seq=4))
            assert player.receive_end() == 4
            player.close()


@pytest.mark.parametrize("payload", [
    b"\xff", b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\x0a\x05", os.urandom(1000),
    PushMessage(uids=[1]).encode(), PushMessage(broadcast=True).encode(),
    PushMessage(bodies=[body(b"")] * 300, uids=[1]).encode(),
    PushMessage(bodies=[body(b"x")], color="c" * 64, broadcast=True).encode(),
    PushMessage(bodies=[body(b"x")], uids=range(100_001)).encode(),
    b"x" * (5 << 20)], ids=lambda payload: f"{len(payload)}-bytes")
def test_what_is_no_push_is_counted_and_nothing_else(gateway, publisher, payload):
    with gateway.player(uid=6051) as player:
        before = gateway.counter("push_orders_malformed")
        publisher.client.publish(NAME, payload)
        publisher.push([6051], body(b"still there"))
        expect(player, b"still there")
        assert gateway.counter("push_orders_malformed") == before + 1


def test_a_push_for_nobody_here_is_counted(gateway, publisher):
    before = gateway.counter("pushes_not_found")
    publisher.push([999_001, 999_002, 999_001], body(b"x"), body(b"y"))
    gateway.wait_counter("pushes_not_found", before + 4)
    assert gateway.counter("pushes_not_found") == before + 4


def test_a_push_that_follows_the_login_at_once_is_not_lost(gateway, publisher):
    for uid in range(6060, 6160):
        with gateway.client(uid=uid) as player:
            player.login()
            publisher.push([uid], body(b"welcome"))
            expect(player, b"welcome")


def test_the_topics_are_subscribed_to_again_after_every_trouble(start, backend):
    redis = start(Redis)
    gateway = gateway_on(start, redis, backend, "127.0.0.1:33112")
    with gateway.player(uid=6201) as player:
        for trouble in (redis.restart, lambda: redis.client().execute_command("CLIENT", "KILL",
                                                                              "TYPE", "pubsub")):
            lost = gateway.link("topics")["lost"]
            trouble()
            wait_for(lambda: gateway.link("topics")["lost"] > lost, "it to be noticed")
            gateway.wait_link("topics", "subscribed")
            assert Publisher(redis, gateway).push([6201], body(b"again")) == 1
            expect(player, b"again")
        redis.stall()
        gateway.wait_link("topics", "connecting")
        redis.resume()
        gateway.wait_link("topics", "subscribed")
        Publisher(redis, gateway).push([6201], body(b"after all"))
        expect(player, b"after all")


# --- Over gRPC --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(start_module, backend):
    """A gateway that needs no Redis."""
    return start_module(Gateway, nodes=nodes_of(backend.address))


@pytest.fixture(scope="module")
def pusher(alone):
    pusher = GrpcPusher(alone)
    yield pusher
    pusher.close()


def fails(status, *arguments, detail=""):
    with pytest.raises(grpc.RpcError) as fault:
        arguments[0](*arguments[1:])
    assert fault.value.code() == status, fault.value
    assert detail in fault.value.details()


def test_a_push_over_grpc_reaches_its_player(alone, pusher):
    with alone.player(uid=-7001) as player:
        assert pusher.gate_push(-7001, body(b"one", obj=5, data_version=9))
        packet = expect(player, b"one")
        assert (packet.obj, packet.data_version) == (5, 9)
        assert pusher.push(-7001, body(b"two"), body(b"three"))
        expect(player, b"two")
        expect(player, b"three")
    wait_for(lambda: not pusher.gate_push(-7001, body(b"x")), "it to have left")
    assert not pusher.push(-7001, body(b"x"))


def test_a_multicast_says_who_got_it(alone, pusher):
    with alone.player(uid=7011) as one, alone.player(uid=7012) as two:
        answer = pusher.multicast([7012, 1, 7011, 7012, -2], body(b"both"))
        assert sorted(answer.pushed_uids) == [7011, 7012, 7012]
        assert answer.not_found_uids == [1, -2]
        assert answer.handed_on_uids == answer.refused_uids == []
        expect(one, b"both")
        expect(two, b"both")
        assert one.ask(1, 2, b"no more").data == b"no more"
        assert two.ask(1, 2, b"no more").data == b"no more"


def test_numbers_of_64_bits_at_their_edges(alone, pusher):
    wait_for(lambda: alone.ctl("sessions")["total"] == 0, "the others to have left")
    for uid in (-2**63, 2**63 - 1):
        for sid in (-2**63, 2**63 - 1):
            with alone.player(uid=uid, sid=sid) as player:
                one = body(b"x", mod=-2**31, seq=2**31 - 1, obj=uid, data_version=2**64 - 1)
                assert pusher.push(uid, one)
                assert pusher.gate_push(uid, one)
                assert pusher.multicast([uid, uid + 1 if uid < 0 else uid - 1], one).pushed_uids == [uid]
                assert pusher.broadcast(one, sid=sid).reached == 1
                assert pusher.broadcast(one, sid=-sid - 1).reached == 0
                for _ in range(4):
                    packet = player.receive()
                    assert (packet.mod, packet.seq, packet.obj, packet.data_version) \
                        == (-2**31, 2**31 - 1, uid, 2**64 - 1)
                assert player.ask(1, 2, b"no more").data == b"no more"
            wait_for(lambda: alone.ctl("sessions")["total"] == 0, "it to have left")


def test_a_broadcast_says_how_many_got_it(alone, pusher):
    with alone.player(uid=7021, color="blue") as one, alone.player(uid=7022, color="red") as two:
        answer = pusher.broadcast(body(b"news"))
        assert (answer.reached, answer.published, answer.refused) == (2, False, 0)
        expect(one, b"news")
        expect(two, b"news")
        assert pusher.broadcast(body(b"red news"), color="red").reached == 1
        expect(two, b"red news")
        assert pusher.broadcast(body(b"x"), color="green").reached == 0


def test_what_is_wrong_with_a_push_is_said(alone, pusher):
    invalid, service = grpc.StatusCode.INVALID_ARGUMENT, "/broadcaster.service.push.v1.PushService/"
    before = alone.counter("push_orders_malformed")
    with alone.player(uid=7031) as player:
        for method in ("Push", "Multicast", "Broadcast"):
            fails(invalid, pusher.call, service + method, b"\xff\xff")
            fails(invalid, pusher.call, service + method, b"")
        fails(invalid, pusher.multicast, [], body(b"x"))
        fails(invalid, pusher.push, 7031, *[body(b"x")] * 257)
        gate = "/gate.service.push.v1.PushService/Push"
        good = GatePushRequest(body=body(b"x"))
        fails(invalid, pusher.call, gate, good, None, [("x-md-global-uid", "many")])
        fails(invalid, pusher.call, gate, good, None, [("x-md-global-uid", "9223372036854775808")])
        fails(invalid, pusher.call, gate, good)
        fails(invalid, pusher.call, gate, b"", None, [("x-md-global-uid", "7031")])
        assert alone.counter("push_orders_malformed") == before + 12
        fails(invalid, pusher.push, 7031, body(os.urandom(17000)), detail="larger")
        fails(grpc.StatusCode.UNIMPLEMENTED, pusher.call, service + "Shout", b"")
        fails(grpc.StatusCode.RESOURCE_EXHAUSTED, pusher.push, 7031, body(b"x" * (5 << 20)))
        assert player.ask(1, 2, b"in").data == b"in"


@pytest.mark.parametrize("allow, reason", [([], "nobody"), (["10.0.0.0/8", "::/0"], "others")])
def test_pushes_are_taken_only_from_where_the_settings_say(start, backend, allow, reason):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"push": {"allow": allow}})
    pusher = GrpcPusher(gateway)
    with gateway.player(uid=1) as player:
        fails(grpc.StatusCode.PERMISSION_DENIED, pusher.push, 1, body(b"x"))
        assert player.ask(1, 2, b"nothing").data == b"nothing"
    assert gateway.counter("push_orders_denied") == 1
    gateway.wait_log("event=push_denied.*push.allow")
    assert health(pusher) == SERVING
    pusher.close()


def test_pushes_need_the_token_where_there_is_one(start, keys, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    secrets=secret_settings(keys, push_token="sesame street"))
    with gateway.player(uid=1) as player:
        for token in (None, "sesame", "sesame street ", "sesame streeT"):
            pusher = GrpcPusher(gateway, token)
            fails(grpc.StatusCode.UNAUTHENTICATED, pusher.push, 1, body(b"x"))
            pusher.close()
        right = GrpcPusher(gateway, "sesame street")
        assert right.push(1, body(b"open"))
        expect(player, b"open")
        right.close()
    assert gateway.counter("push_orders_denied") == 4
    assert "sesame street" not in gateway.log()


def test_an_open_port_without_a_token_is_warned_of(start, keys, backend):
    ports = {"server": {"grpc": {"addr": "0.0.0.0:0"}, "http": {"addr": "0.0.0.0:0"}}}
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings=ports)
    for key in ("grpc", "http"):
        gateway.wait_log(f"event=push_without_token server.{key}.addr=0.0.0.0:0")
    guarded = start(Gateway, nodes=nodes_of(backend.address), settings=ports,
                    secrets=secret_settings(keys, push_token="sesame street"))
    assert "push_without_token" not in guarded.log()


SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
HEALTH = "/grpc.health.v1.Health/"


def status_of(raw):
    return raw[1] if raw else 0


def health(pusher, service=b""):
    return status_of(pusher.call(HEALTH + "Check", b"\x0a" + bytes([len(service)]) + service))


def test_the_health_service_says_how_it_is_and_tells_when_it_stops(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    pusher = GrpcPusher(gateway)
    assert health(pusher) == SERVING
    assert health(pusher, b"gate.service.push.v1.PushService") == SERVING
    fails(grpc.StatusCode.NOT_FOUND, health, pusher, b"no.such.Service")
    fails(grpc.StatusCode.INVALID_ARGUMENT, pusher.call, HEALTH + "Check", b"\xff")
    watch = pusher.channel.unary_stream(HEALTH + "Watch", lambda x: x, lambda x: x)
    known, unknown = watch(b"", timeout=60), watch(b"\x0a\x01x", timeout=60)
    assert status_of(next(known)) == SERVING
    assert status_of(next(unknown)) == SERVICE_UNKNOWN
    more = [watch(b"", timeout=60) for _ in range(62)]
    for one in more:
        assert status_of(next(one)) == SERVING
    fails(grpc.StatusCode.RESOURCE_EXHAUSTED, next, watch(b"", timeout=60))
    assert health(pusher) == SERVING, "the port is not used up"
    listener = next(one for one in gateway.ctl("status")["listeners"] if one["transport"] == "grpc")
    assert (listener["open"], listener["refused"]) == (64, 0)
    for one in more:
        one.cancel()
    with gateway.player(uid=1):  # so that it does not go before it has been seen to stop
        gateway.process.send_signal(signal.SIGTERM)
        assert status_of(next(known)) == NOT_SERVING
    pusher.close()


# --- Counted, all of it ---------------------------------------------------------------------------


OUTCOMES = ("pushes_delivered", "pushes_dropped_newest", "pushes_dropped_oldest",
            "pushes_conflated", "pushes_missed")


def assert_balanced(gateway, asked, before):
    """Delivered, refused and dropped by policy is all that was sent (asked None: as many as it
    says)."""
    def now(name):
        return gateway.counter(name) - before["counters"].get(name, 0)

    wait_for(lambda: sum(now(name) for name in OUTCOMES) + gateway.gauge("pushes_waiting")
             == now("pushes_addressed"), "every push to be accounted for")
    wait_for(lambda: now("pushes_here") == now("pushes_addressed"), "the workers to have all")
    wait_for(lambda: asked is None or now("pushes_here") + now("pushes_refused")
             + now("pushes_not_found") + now("pushes_handed_on") == asked,
             "what was asked to be accounted for")


def test_all_pushes_are_accounted_for(gateway, publisher):
    before = gateway.total()
    players = [gateway.player(uid=uid) for uid in range(6300, 6320)]
    asked = 0
    for i in range(50):
        publisher.push(range(6300, 6325), body(b"one"), body(b"two"))
        asked += 2 * 25
        publisher.broadcast(body(b"three"))
        asked += 20
    for player in players:
        for _ in range(150):
            assert player.receive().mod == 3
    assert_balanced(gateway, asked, before)
    for player in players:
        player.close()


def test_all_pushes_are_accounted_for_while_players_come_and_go(gateway, publisher):
    before = gateway.total()
    over = threading.Event()
    faults = []

    def come_and_go(first):
        try:
            while not over.is_set():
                for uid in range(first, first + 20):
                    gateway.player(uid=uid).close()
        except Exception as fault:  # told by the thread that waits for it
            faults.append(fault)

    players = [threading.Thread(target=come_and_go, args=(first,)) for first in (6340, 6360)]
    for player in players:
        player.start()
    for _ in range(300):
        publisher.broadcast(body(b"one"), body(b"two"))
        publisher.push(range(6340, 6380), body(b"three"))
    over.set()
    for player in players:
        player.join()
    assert not faults
    wait_for(lambda: gateway.counter("push_orders") - before["counters"]["push_orders"] == 600,
             "the last to be taken in")
    assert gateway.counter("pushes_missed") > before["counters"]["pushes_missed"]
    assert_balanced(gateway, None, before)


SMALL_QUEUES = {"queue": {"client_high_bytes": 20000, "client_low_bytes": 5000,
                          "client_grace": "300ms"},
                "push": {"waiting_bytes": 20000}}
PUSH_BYTES = 1000


class Flood:
    """A publisher faster than its client: it goes on until the counter shows that something was
    done about it, and a little further."""

    def __init__(self, start, redis, backend, policy, name, counter, versions=lambda i: 0,
                 objects=lambda i: 1):
        self.gateway = gateway_on(start, redis, backend, name, SMALL_QUEUES,
                                  {"push": {"slow_client": policy}})
        self.publisher = Publisher(redis, self.gateway)
        self.player = self.gateway.client(uid=6400, receive_buffer=4096)
        self.player.login()
        self.before = self.gateway.total()
        self.sent = 0
        self.versions, self.objects = versions, objects

        def shows():
            self.push(100)
            return counter(self.gateway)

        wait_for(shows, "the client to be too far behind")
        self.push(100)
        wait_for(lambda: self.gateway.counter("pushes_addressed")
                 + self.gateway.counter("pushes_not_found") == self.sent, "all to be taken")

    def push(self, count):
        for i in range(self.sent, self.sent + count):
            self.publisher.push([6400], body(b"%06d" % i + bytes(PUSH_BYTES),
                                             data_version=self.versions(i), obj=self.objects(i)))
        self.sent += count

    def check(self):
        """All that was sent is accounted for."""
        assert_balanced(self.gateway, self.sent, self.before)

    def received(self, until):
        """The pushes that come, up to that number."""
        got = []
        while not got or got[-1] != until:
            packet = self.player.receive()
            assert packet is not None, f"the end came after {got[-3:]}"
            got.append(int(packet.data[:6]))
        return got


def test_a_client_too_far_behind_is_disconnected(start, redis, backend):
    flood = Flood(start, redis, backend, "disconnect", "127.0.0.1:33121",
                  lambda gateway: gateway.closed("slow_client"))
    flood.check()
    flood.player.close()


def test_the_newest_may_be_dropped(start, redis, backend):
    flood = Flood(start, redis, backend, "drop_newest", "127.0.0.1:33122",
                  lambda gateway: gateway.counter("pushes_dropped_newest"))
    flood.check()
    kept = flood.sent - flood.gateway.counter("pushes_dropped_newest")
    got = flood.received(kept - 1)
    assert got == list(range(kept))  # the first ones, in order
    wait_for(lambda: flood.gateway.gauge("pushes_waiting") == 0, "all to be sent")
    flood.push(1)
    assert flood.received(flood.sent - 1) == [flood.sent - 1]
    assert flood.gateway.closed("slow_client") == 0
    flood.player.close()


def test_the_oldest_may_be_dropped(start, redis, backend):
    flood = Flood(start, redis, backend, "drop_oldest", "127.0.0.1:33123",
                  lambda gateway: gateway.counter("pushes_dropped_oldest"))
    flood.check()
    got = flood.received(flood.sent - 1)
    assert got == sorted(got)
    assert got[0] == 0
    assert len(got) == flood.sent - flood.gateway.counter("pushes_dropped_oldest")
    flood.player.close()


def test_a_push_may_give_way_to_a_newer_version(start, redis, backend):
    flood = Flood(start, redis, backend, "conflate", "127.0.0.1:33124",
                  lambda gateway: gateway.counter("pushes_conflated"),
                  versions=lambda i: i + 1, objects=lambda i: i % 5)
    flood.check()
    got = flood.received(flood.sent - 1)
    assert got == sorted(got)
    assert set(got) >= set(range(flood.sent - 5, flood.sent))  # the last of each object
    assert len(got) == flood.sent - flood.gateway.counter("pushes_conflated")
    flood.player.close()


def test_what_can_not_give_way_ends_the_session_with_conflate_too(start, redis, backend):
    flood = Flood(start, redis, backend, "conflate", "127.0.0.1:33125",
                  lambda gateway: gateway.closed("slow_client"))
    flood.check()
    flood.player.close()


def behind(start, redis, backend, name, policy, grace, pushes, body_of, **limits):
    """A gateway, its publisher, and a client that reads nothing and for which so many pushes wait,
    or up to 20 more. Also when it began."""
    gateway = gateway_on(start, redis, backend, name, SMALL_QUEUES, {
        "queue": {"client_grace": grace}, "push": {"slow_client": policy}, "limits": limits})
    publisher = Publisher(redis, gateway)
    player = gateway.client(uid=6500, receive_buffer=4096)
    player.login()
    sent = 0
    started = time.monotonic()

    def is_behind():
        nonlocal sent
        for _ in range(20):
            publisher.push([6500], body_of(sent))
            sent += 1
        gateway.wait_counter("pushes_addressed", sent)
        if "idle_timeout" in limits:
            player.send(1, 2, b"here")
        return gateway.gauge("pushes_waiting") >= pushes

    wait_for(is_behind, "it to be behind", pause=0)
    return gateway, publisher, player, started


def numbered(i):
    return body(b"%06d" % i + bytes(PUSH_BYTES), obj=i, data_version=1)


@pytest.mark.parametrize("policy, name", [("disconnect", "127.0.0.1:33131"),
                                          ("conflate", "127.0.0.1:33132")])
def test_one_that_is_over_the_budget_is_cut_only_when_the_grace_time_is_over(start, redis, backend,
                                                                            policy, name):
    grace = ms(3)
    gateway, _, player, started = behind(start, redis, backend, name, policy, f"{grace}ms", 25, numbered)
    with player:
        wait_for(lambda: gateway.closed("slow_client") == 1, "the grace time to be over")
        assert time.monotonic() - started >= grace / 1000


def test_far_over_the_budget_the_grace_time_is_over_at_once(start, redis, backend):
    gateway, publisher, player, _ = behind(start, redis, backend, "127.0.0.1:33133", "disconnect",
                                        "600s", 30, numbered)
    with player:
        publisher.push([6500], *[numbered(i) for i in range(60)])
        wait_for(lambda: gateway.closed("slow_client") == 1, "it to be closed")


def test_a_client_that_takes_nothing_at_all_is_closed_under_any_policy(start, redis, backend):
    gateway, _, player, _ = behind(start, redis, backend, "127.0.0.1:33134", "drop_oldest", "300ms", 15,
                                numbered, idle_timeout=f"{ms(3)}ms")
    with player:

        def closes():
            if not gateway.closed("slow_client"):
                player.send(1, 2, b"I am here")  # else it would be idle
            return gateway.closed("slow_client")

        wait_for(closes, "it to be closed")
    assert gateway.closed("idle_timeout") == 0


def test_a_client_that_reads_slowly_is_not_taken_for_one_that_reads_nothing(start, redis, backend):
    idle = ms(3)
    gateway, _, player, _ = behind(start, redis, backend, "127.0.0.1:33136", "drop_oldest", "300ms",
                                   15, numbered, idle_timeout=f"{idle}ms")
    until = time.monotonic() + 2.5 * idle / 1000
    with player:
        while time.monotonic() < until:
            player.send(1, 2, b"here")
            assert player.receive() is not None
            time.sleep(patient(0.05))  # that is how slow it is
        assert gateway.gauge("pushes_waiting") > 0
        assert gateway.closed("slow_client") == 0


def test_a_logout_does_not_wait_with_the_other_pushes(start, redis, backend):
    gateway, publisher, player, _ = behind(start, redis, backend, "127.0.0.1:33135", "drop_newest",
                                        "600s", 30, numbered)
    with player:
        publisher.push([6500], body(b"\x08\x04", mod=1, seq=4))
        wait_for(lambda: gateway.closed("roma_logout") == 1, "it to be closed")
        while (packet := player.receive()).mod != 1:  # what the socket had taken before
            pass
        assert packet.seq == 4


def test_a_short_burst_cuts_nobody(start, redis, backend):
    # More than the kernel takes and twice the budget, but less than four times.
    gateway, publisher, player, _ = behind(start, redis, backend, "127.0.0.1:33126", "disconnect",
                                        "600s", 40, numbered)
    sent = gateway.counter("pushes_addressed")
    with player:
        assert [int(player.receive().data[:6]) for _ in range(sent)] == list(range(sent))
        assert player.ask(1, 2, b"in").data == b"in"
