"""Operators look at sessions, keep players out, and push by hand."""

import json

import pytest
from janus.backend import Backend
from janus.patience import ms, wait_for
from janus.programs import Gateway, merged, nodes_of, redis_settings, run
from janus.redis_server import Redis

BANNED = 5  # SCServerLogout


def janusctl(gateway, *arguments, code=0):
    done = run("janusctl", "--socket", gateway.socket_path, *map(str, arguments))
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def gateway(start_module, backend):
    return start_module(Gateway, nodes=nodes_of(backend.address))


# --- Looking -----------------------------------------------------------------------------------------


def test_sessions_are_sorted_by_age_traffic_and_queue(gateway):
    with gateway.player(uid=51) as first, gateway.player(uid=52) as second, \
         gateway.player(uid=53) as third:
        second.ask(1, 2, bytes(5000))
        third.ask(1, 2, bytes(500))

        def order(sort):
            rows = gateway.ctl("sessions", "--sort", sort)["sessions"]
            return [row["uid"] for row in rows if row["uid"] in (51, 52, 53)]

        assert order("age") == [51, 52, 53]
        assert order("traffic")[0] == 52 and order("traffic")[1] == 53
        assert set(order("queue")) == {51, 52, 53}
        (row,) = gateway.ctl("sessions", "--sort", "traffic", "--limit", "1")["sessions"]
        assert row["uid"] == 52 and row["bytes_in"] > 5000 and row["bytes_out"] > 5000
        assert row["messages_in"] == row["messages_out"] == 1 and row["tunnels"] == 1
        assert "53" in janusctl(gateway, "sessions", "--sort", "queue")
        assert "sort by" in janusctl(gateway, "sessions", "--sort", "beauty", code=1)


def test_what_is_not_shown_is_said(gateway):
    wait_for(lambda: gateway.ctl("sessions")["total"] == 0, "the others to have left")
    with gateway.player(uid=54, color="red"), gateway.player(uid=55, color="red"), \
         gateway.player(uid=56, color="blue"):
        assert "2 sessions, of 3 in all" in janusctl(gateway, "sessions", "--color", "red")
        assert "1 of 2 sessions, of 3 in all; --limit shows more" \
            in janusctl(gateway, "sessions", "--color", "red", "--limit", 1)
        assert "1 of 2 sessions, of 3 in all" \
            in janusctl(gateway, "sessions", "--color", "red", "--limit", 1, "--sort", "queue")
        assert "no session is like that" in janusctl(gateway, "sessions", "--color", "green")


def test_a_session_is_shown_with_all_that_is_known_of_it(gateway, backend):
    with gateway.player(uid=-61, color="blue", sid=9) as player:
        player.ask(1, 2, b"x")
        player.ask(6, 2, obj=77)
        answer = json.loads(janusctl(gateway, "--json", "session", "--uid", "-61"))
        session = answer["session"]
        assert (session["uid"], session["sid"], session["color"]) == (-61, 9, "blue")
        assert session["messages_in"] == 2 and session["address"] == player.name()
        tunnels = {tunnel["type"]: tunnel for tunnel in answer["tunnels"]}
        assert set(tunnels) == {"player", "room"}
        assert tunnels["room"]["oid"] == 77 and tunnels["room"]["state"] == "open"
        assert tunnels["player"]["address"] == backend.address
        assert answer["complete"]
        text = janusctl(gateway, "session", "--", "-61")
        assert "messages in" in text and "room" in text
        assert "goes --" in janusctl(gateway, "session", "-61", code=2)
    assert "not here" in janusctl(gateway, "session", 999, code=1)
    janusctl(gateway, "session", code=2)
    janusctl(gateway, "session", "somebody", code=2)


# --- Bans --------------------------------------------------------------------------------------------


def bans_of(gateway):
    return {ban["who"]: ban for ban in gateway.ctl("bans")["bans"]}


def assert_kept_out(gateway, uid):
    with gateway.player(uid=uid) as player:  # answered, so that it can read why
        assert player.receive_end() == BANNED


def test_a_banned_player_is_closed_and_kept_out_until_it_is_over(gateway):
    with gateway.player(uid=71) as player, gateway.player(uid=72) as other:
        assert janusctl(gateway, "ban", 71, "--reason", "cheating") == "banned uid:71 for ever; closed 1\n"
        assert player.receive_end() == BANNED
        assert other.ask(1, 2, b"undisturbed").data == b"undisturbed"
    assert_kept_out(gateway, 71)
    assert gateway.closed("banned") == 2
    ban = bans_of(gateway)["uid:71"]
    assert ban["reason"] == "cheating" and "until_ms" not in ban
    assert "cheating" in janusctl(gateway, "bans")
    janusctl(gateway, "unban", 71)
    with gateway.player(uid=71) as player:
        assert player.ask(1, 2, b"in").data == b"in"
    assert "no such ban" in janusctl(gateway, "unban", 71, code=1)
    janusctl(gateway, "ban", 71, "--for", f"{ms(3)}ms")
    assert bans_of(gateway)["uid:71"]["until_ms"] > 0
    assert_kept_out(gateway, 71)
    wait_for(lambda: "uid:71" not in bans_of(gateway), "it to be over")
    with gateway.player(uid=71) as player:
        assert player.ask(1, 2, b"in").data == b"in"


def test_a_network_is_banned(gateway):
    with gateway.player(uid=73) as player:
        # Another network than the tests' own stays outside.
        assert janusctl(gateway, "ban", "--address", "10.9.8.7/8") \
            == "banned net:10.0.0.0/8 for ever; closed 0\n"
        said = janusctl(gateway, "ban", "--address", "127.0.0.0/30", "--for", "1h")
        assert said.startswith("banned net:127.0.0.0/30 until 20") and said.endswith("closed 1\n")
        assert player.receive_end() == BANNED
    assert_kept_out(gateway, 74)
    assert set(bans_of(gateway)) == {"net:10.0.0.0/8", "net:127.0.0.0/30"}
    with gateway.player(uid=75, source="127.0.0.9") as player:
        assert player.ask(1, 2, b"in").data == b"in"
    for network in ("10.0.0.0/8", "127.0.0.0/30"):
        janusctl(gateway, "unban", "--address", network)
    with gateway.player(uid=74) as player:
        assert player.ask(1, 2, b"in").data == b"in"


@pytest.mark.parametrize("arguments, code", [
    (["ban"], 1), (["ban", "5", "--address", "10.0.0.1"], 1), (["ban", "--address", "nowhere"], 1),
    (["ban", "somebody"], 2), (["ban", "5", "--for", "soon"], 2), (["ban", "5", "--for", "0s"], 1),
    (["ban", "5", "--reason", "x" * 101], 1), (["ban", "5", "--reason", "a\x1b[2Jb"], 1),
    (["ban", "5", "--color", "blue"], 2), (["unban"], 1), (["bans", "5"], 2)])
def test_a_ban_that_makes_no_sense_keeps_nobody_out(gateway, arguments, code):
    with gateway.player(uid=5) as player:
        janusctl(gateway, *arguments, code=code)
        assert player.ask(1, 2, b"undisturbed").data == b"undisturbed"
    assert bans_of(gateway) == {}


def gateway_on(start, redis, backend, name):
    settings = merged(redis_settings(redis.address), {"server": {"grpc": {"advertise": name}}})
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings=settings)
    gateway.wait_link("topics", "subscribed")
    return gateway


def test_all_gateways_know_of_a_ban(start, backend):
    redis = start(Redis)
    one = gateway_on(start, redis, backend, "127.0.0.1:34111")
    two = gateway_on(start, redis, backend, "127.0.0.1:34112")
    with two.player(uid=81) as player:
        janusctl(one, "ban", 81)
        assert player.receive_end() == BANNED
    assert_kept_out(one, 81)
    assert_kept_out(two, 81)
    late = gateway_on(start, redis, backend, "127.0.0.1:34113")
    wait_for(lambda: "uid:81" in bans_of(late), "it to have read the list")
    assert_kept_out(late, 81)
    janusctl(two, "unban", 81)
    wait_for(lambda: not bans_of(one), "it to be told")
    with one.player(uid=81) as player:
        assert player.ask(1, 2, b"in").data == b"in"


def test_bans_stay_in_force_while_redis_is_away_and_new_ones_get_there(start, backend):
    redis = start(Redis)
    one = gateway_on(start, redis, backend, "127.0.0.1:34121")
    two = gateway_on(start, redis, backend, "127.0.0.1:34122")
    janusctl(one, "ban", 82)
    wait_for(lambda: "uid:82" in bans_of(two), "it to be told")
    redis.kill()
    two.wait_link("redis", "down")
    assert_kept_out(two, 82)
    janusctl(one, "ban", 83)
    assert_kept_out(one, 83)
    assert "wait for Redis" in janusctl(one, "bans")
    redis.start()
    wait_for(lambda: "uid:83" in bans_of(two), "it to be told", 60)
    assert_kept_out(two, 83)
    # And it came back empty: what was known is not forgotten.
    assert_kept_out(two, 82)
    assert_kept_out(one, 82)


def test_bans_survive_a_flush(start, backend):
    redis = start(Redis)
    one = gateway_on(start, redis, backend, "127.0.0.1:34131")
    two = gateway_on(start, redis, backend, "127.0.0.1:34132")
    janusctl(one, "ban", 84)
    wait_for(lambda: "uid:84" in bans_of(two), "it to be told")
    redis.client().flushall()
    janusctl(one, "ban", 85)  # has everybody read anew
    wait_for(lambda: "uid:85" in bans_of(two), "it to be told")
    for gateway in (one, two):
        assert_kept_out(gateway, 84)
    # The last one to be unbanned is gone for all.
    for uid in (84, 85):
        janusctl(two, "unban", uid)
    wait_for(lambda: not bans_of(one) and not bans_of(two), "the list to be empty")
    wait_for(lambda: redis.client().hkeys("janus.gate.bans") == ["list"], "and so in Redis")


@pytest.mark.parametrize("field, value", [
    ("uid:five", "{}"), ("uid:05", "{}"), ("net:127.0.0.1/8", "{}"), ("nonsense", "{}"),
    ("uid:86", "nonsense"), ("uid:86", "[]"), ("uid:86", '{"until_ms": "later"}'),
    ("uid:86", "x" * 100_000), (b"\xff\x00", b"\xff")])
def test_what_is_no_ban_is_counted_and_bans_nobody(start, backend, field, value):
    redis = start(Redis)
    redis.client().hset("janus.gate.bans", field, value)
    redis.client().hset("janus.gate.bans", "uid:87", '{"until_ms": 0}')
    gateway = gateway_on(start, redis, backend, "127.0.0.1:34141")
    wait_for(lambda: "uid:87" in bans_of(gateway), "the good one to be read")
    assert set(bans_of(gateway)) == {"uid:87"}
    gateway.wait_counter("bans_malformed", 1)
    with gateway.player(uid=86) as player:
        assert player.ask(1, 2, b"in").data == b"in"


# --- A push by hand ------------------------------------------------------------------------------------


def test_a_push_by_hand(gateway):
    with gateway.player(uid=91) as player:
        assert janusctl(gateway, "push", 91, "--mod", 3, "--seq", 7, "--obj", -4, "--data",
                        "héllo", "--data-version", 8) == "pushed: here\n"
        packet = player.receive()
        assert (packet.mod, packet.seq, packet.obj, packet.data, packet.data_version) \
            == (3, 7, -4, "héllo".encode(), 8)
        janusctl(gateway, "push", 91, "--mod", 3, "--seq", 8, "--hex", "00 ff:10")
        assert player.receive().data == b"\x00\xff\x10"
        janusctl(gateway, "push", 91, "--mod", 3, "--seq", 9)
        assert player.receive().data == b""
        janusctl(gateway, "push", 91, "--mod", 3, "--seq", 8, "--hex", "0", code=2)
        janusctl(gateway, "push", 91, "--mod", 2**31, "--seq", 8, code=2)
        janusctl(gateway, "push", 91, "--mod", 3, code=2)
        janusctl(gateway, "push", 91, "--mod", 3, "--seq", 8, "--hex", "00", "--data", "x", code=2)
        janusctl(gateway, "push", 91, "--mod", 3, "--seq", 8, "--data-version", 2**64, code=2)
        janusctl(gateway, "push", 91, "--mod", -2**31, "--seq", 2**31 - 1, "--obj", -2**63,
                 "--data-version", 2**64 - 1)
        packet = player.receive()
        assert (packet.mod, packet.seq, packet.obj, packet.data_version) \
            == (-2**31, 2**31 - 1, -2**63, 2**64 - 1)
    assert "not here" in janusctl(gateway, "push", 99_999, "--mod", 1, "--seq", 2, code=1)
