"""Players over KCP, by the ecosystem's own client: streams that are sessions, siblings that are one
player, and the bounds of a connection."""

import contextlib
import itertools
import os
import struct

import pytest
from janus import wire
from janus.backend import Backend
from janus.kcp import Bridge
from janus.patience import ms, patient, wait_for
from janus.programs import Gateway, nodes_of
from janus.prometheus import samples, scrape, total
from janus.push import HttpPusher, json_body
from test_drain import works

CONFLICT = 3  # SCServerLogout's ConflictingLogin
MIB = 1 << 20


@pytest.fixture(scope="module")
def bridge(start_module, gateway):
    return start_module(Bridge, gateway)


_numbers = itertools.count()


def connection():
    """The name of a new one. They are left to end with their streams: one that is forgotten before
    does not tell the gateway."""
    return f"connection-{next(_numbers)}"


@contextlib.contextmanager
def players(bridge, count=4, uid=None, session=None):
    """Streams of one connection, all logged in: siblings when they have one uid."""
    session = session or connection()
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(bridge.player(uid or 46000 + i, session=session))
               for i in range(count)]


def sessions(gateway, uid):
    return gateway.ctl("sessions", "--uid", str(uid))["sessions"]


def all_until_the_end(client):
    """The packets that still come."""
    return list(iter(client.receive, None))


def data_of(packets):
    return [packet.data for packet in packets if packet.mod != wire.SYSTEM]


# --- Streams ----------------------------------------------------------------------------------


def test_a_player_plays_on_one_of_four_streams(gateway, bridge, backend):
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(bridge.client(uid=46100, session="four")) for _ in range(4)]
        assert [one.stream for one in streams] == [3, 5, 7, 9]
        player = streams[2]
        player.login()
        for size in (0, 1, 1000, 9000, 16000):
            works(player, os.urandom(size))
        assert backend.stream_of(46100).metadata["x-md-global-client-ip"] == player.name()
        session = gateway.session_of(46100)
        assert (session["transport"], session["address"]) == ("kcp", player.name())


def test_streams_without_a_login_are_closed_and_nothing_else(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"limits": {"handshake_timeout": f"{ms(1.5)}ms"}})
    bridge = start(Bridge, gateway)
    with contextlib.ExitStack() as stack:
        player, *idle = [stack.enter_context(bridge.client(uid=46110, session="four"))
                         for _ in range(4)]
        player.login()
        for one in idle:
            assert one.receive_end() is None and not one.reset
        assert gateway.closed("handshake_timeout") == 3
        works(player)
        assert gateway.ctl("session", "46110")["path"]["streams"] == 1
        assert gateway.gauge("connections") == gateway.gauge("sessions") == 1


def test_to_close_one_stream_leaves_the_others(gateway, bridge, backend):
    with players(bridge, uid=46120) as siblings:
        with gateway.closes("client_closed", others_open=1):
            siblings[0].close()
        wait_for(lambda: len(sessions(gateway, 46120)) == 3, "the session to be gone")
        for one in siblings[1:]:
            works(one)
        assert len(backend.streams_of(46120)) == 1


@pytest.mark.parametrize("length", [0, -1, 16385])
def test_a_stream_with_a_wrong_length_is_closed_alone(gateway, bridge, length):
    session = connection()
    with players(bridge, uid=46130, session=session) as siblings, \
            bridge.client(uid=46131, session=session) as stranger:
        with gateway.closes("frame_length", others_open=1):
            siblings[1].send_raw(struct.pack(">i", length))
            assert siblings[1].receive_end() == wire.LOGOUT_SERVER
            assert not siblings[1].reset
        with gateway.closes("frame_length", others_open=1):
            stranger.send_raw(struct.pack(">i", length))  # before its login
            assert stranger.receive_end() is None and not stranger.reset
        for one in siblings[:1] + siblings[2:]:
            works(one)


def test_the_longest_frame_gets_through(bridge):
    with bridge.player(46140) as player:
        size = 16384 - 28 - len(player.packet(wire.USER, 1, bytes(16000), obj=46140, index=1)
                                .encode()) + 16000
        data = os.urandom(size)
        packet = player.packet(wire.USER, 1, data, obj=46140)
        sealed = wire.seal(player.session_key, packet.encode())
        assert len(sealed) == 16384
        player.send_raw(wire.frame(sealed))
        assert player.receive().data == data
        assert len(player.last_body) == 16384


def test_streams_are_bounded(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"kcp": {"streams": 2}})
    bridge = start(Bridge, gateway)
    with players(bridge, 2, uid=46150, session="many") as siblings:
        with bridge.client(session="many") as one_too_many:
            assert one_too_many.receive_end() is None and not one_too_many.reset
        for one in siblings:
            works(one)
        siblings.pop().close()
        wait_for(lambda: len(sessions(gateway, 46150)) == 1, "one to be gone")
        with bridge.player(46150, session="many") as another:
            works(another)


def test_a_connection_ends_with_its_last_stream(gateway, bridge):
    gateway.wait_gauge("connections", 0)
    with players(bridge, 2, uid=46160) as siblings:
        assert gateway.gauge("connections") == 1 and gateway.gauge("sessions") == 2
        siblings[0].close()
        gateway.wait_gauge("sessions", 1)
        works(siblings[1])
        assert gateway.gauge("connections") == 1
        siblings[1].close()
        gateway.wait_gauge("connections", 0)
        assert gateway.gauge("kcp_connections_pending") == 0
    assert gateway.gauge("sessions") == 0


# --- Siblings ---------------------------------------------------------------------------------


def test_four_siblings_are_one_player(gateway, bridge, backend):
    with players(bridge, uid=46200) as siblings:
        for one in siblings:
            works(one)
        assert len(backend.streams_of(46200)) == 1
        assert len(sessions(gateway, 46200)) == 4
        shown = gateway.ctl("session", "46200")
        assert shown["siblings"] == 3
        assert [tunnel["type"] for tunnel in shown["tunnels"]] == ["player"]
        assert gateway.route("gateway", 46200)["ok"] and gateway.route("player", 46200)["ok"]
        # Those of a room are shared, too.
        for one in siblings:
            assert one.ask(wire.ROOM, 1, b"r", obj=8).data == b"r"
        assert len(backend.streams_of(46200, "room")) == 1
    assert backend.stream_of(46200).ended.wait(patient(30))
    wait_for(lambda: not gateway.ctl("routes", "get", "gateway", "46200", "--color",
                                     "blue").get("gateway"), "its route to be gone")


def test_each_sibling_gets_its_own_answers(bridge):
    """All count from the same index, and ask alike, at the same time."""
    with players(bridge, uid=46210) as siblings:
        for number in range(50):
            for i, one in enumerate(siblings):
                one.send(wire.USER, 1, b"%d/%d" % (i, number))
        for i, one in enumerate(siblings):
            assert [one.receive().data for _ in range(50)] == [b"%d/%d" % (i, n)
                                                              for n in range(50)]


def test_a_push_and_a_broadcast_come_once(gateway, bridge):
    pusher = HttpPusher(gateway)
    with players(bridge, uid=46220) as siblings:
        for number in range(5):
            gateway.ctl("push", "46220", "--mod", "3", "--seq", "9", "--data", f"push {number}")
            assert pusher.ok("/broadcast", {"bodies": [json_body(b"to all %d" % number)]})[
                "reached"] == "1"
        gateway.ctl("kick", "46220")  # after which nothing can come late
        came = [data for one in siblings for data in data_of(all_until_the_end(one))]
    assert sorted(came) == sorted([b"push %d" % n for n in range(5)] +
                                  [b"to all %d" % n for n in range(5)])


def test_a_push_goes_to_a_sibling_that_is_left(gateway, bridge):
    with players(bridge, uid=46230) as siblings:
        while len(siblings) > 1:
            siblings.pop(0).close()
            wait_for(lambda: len(sessions(gateway, 46230)) == len(siblings), "it to be gone")
            gateway.ctl("push", "46230", "--mod", "3", "--seq", "9", "--data", "x")
            assert siblings[0].receive().data == b"x"
            works(siblings[0])


def test_a_kick_ends_all_siblings(gateway, bridge, backend):
    with players(bridge, uid=46240) as siblings:
        works(siblings[3])
        stream = backend.stream_of(46240)
        with gateway.closes("kicked", 4, others_open=1):
            gateway.ctl("kick", "46240")
            assert [one.receive_end() for one in siblings] == [wire.LOGOUT_KICKED] * 4
        assert stream.ended.wait(patient(30))
        gateway.wait_gauge("connections", 0)


@pytest.mark.parametrize("over", ["kcp", "tcp"])
def test_a_login_elsewhere_throws_all_siblings_out(gateway, bridge, backend, over):
    with players(bridge, uid=46250) as siblings:
        works(siblings[0])
        old = backend.stream_of(46250)
        newcomer = bridge.player(46250) if over == "kcp" else gateway.player(46250)
        with newcomer:
            assert [one.receive_end() for one in siblings] == [CONFLICT] * 4
            works(newcomer)
            assert old.ended.wait(patient(30))
            assert len(sessions(gateway, 46250)) == 1
            works(newcomer)


def test_several_uids_on_one_connection_are_several_players(gateway, bridge, backend):
    with players(bridge, 2) as (one, other):
        for player in (one, other):
            works(player)
            assert gateway.ctl("session", str(player.uid))["siblings"] == 0
            assert len(backend.streams_of(player.uid)) == 1
        assert gateway.gauge("connections") == 1
        gateway.ctl("kick", str(one.uid))
        assert one.receive_end() == wire.LOGOUT_KICKED
        works(other)


def login_as(client, conn_id):
    packet = wire.Packet(mod=wire.SYSTEM, seq=wire.HANDSHAKE, conn_id=conn_id,
                         data=client.handshake_message().encode())
    client.send_raw(wire.frame(packet.encode()))
    client.finish_login()


def test_conn_id_and_fragments_pass_a_room_tunnel_both_ways(bridge, backend):
    fields = {"conn_id": 2, "frag_id": 5, "frag_count": 3, "frag_index": 1}
    with bridge.client(uid=46260, session="ids") as one, \
            bridge.client(uid=46260, session="ids") as two:
        login_as(one, 1)
        login_as(two, 2)
        answer = two.ask(wire.ROOM, 1, b"part", obj=9, **fields)
        stream = backend.stream_of(46260, "room")
        request = stream.requests[0]
        assert {name: getattr(request, name) for name in fields} == fields
        assert {name: getattr(answer, name) for name in fields} == fields
        # What nobody has asked for goes to whom it names, and else to the oldest.
        for conn_id, receiver in ((1, one), (2, two), (77, one), (0, one), (2, two)):
            stream.send(mod=wire.ROOM, seq=3, obj=9, data=b"for %d" % conn_id, conn_id=conn_id)
            packet = receiver.receive()
            assert (packet.data, packet.conn_id) == (b"for %d" % conn_id, conn_id)
        works(one)
        works(two)


# --- Slow sides -------------------------------------------------------------------------------


def counted(messages, size, handed_over):
    """An endless tunnel's messages, of random data; how many gRPC has taken is in handed_over."""
    for number in range(messages):
        handed_over.append(number)
        yield wire.TunnelMessage(mod=3, seq=1, data=b"%08d" % number + os.urandom(size)).encode()


def test_a_stream_that_is_not_read_stops_its_tunnel_and_no_other(start, backend):
    count = 24 * MIB // 8000
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "worker": {"count": 1}, "queue": {"client_high_bytes": 256 * 1024,
                                          "client_low_bytes": 64 * 1024,
                                          "client_grace": f"{ms(60)}ms"}})
    bridge = start(Bridge, gateway)
    with bridge.player(46300, session="slow", receive_buffer=4096) as slow, \
            bridge.player(46300, session="slow") as sibling, \
            bridge.player(46301, session="slow") as other:
        slow.ask(wire.USER, 1)
        works(other)
        handed_over = []
        backend.stream_of(46300)._outbox.put(counted(count, 8000, handed_over))
        gateway.wait_counter("output_pauses", 1)
        works(other)
        # What stands between the two takes some, and then nothing moves.
        before = -1
        while before != len(handed_over):
            before = len(handed_over)
            for _ in range(100):
                works(other)
        assert before < count
        assert gateway.gauge("queued_out_bytes") < MIB
        # A sibling's tunnels that are not that one go on, too.
        assert sibling.ask(wire.ROOM, 1, b"room", obj=3).data == b"room"
        for number in range(count):
            assert int(slow.receive().data[:8]) == number
        works(slow)
        works(sibling)
    assert gateway.closed("slow_client") == 0


def test_a_backend_that_does_not_read_holds_its_stream_back_and_no_other(start):
    backend = start(Backend, lambda stream, request: stream.send(**request.__dict__)
                    if stream.kind == "room" else None)
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "worker": {"count": 1}, "queue": {"tunnel_messages": 64, "tunnel_bytes": 256 * 1024}})
    bridge = start(Bridge, gateway)
    with bridge.player(46310, session="held") as player, \
            bridge.player(46311, session="held") as other:
        player.send(wire.USER, 1, b"%08d" % 0)
        stream = backend.stream_of(46310)
        stream.may_read.clear()
        filler = os.urandom(12000)
        player.socket.settimeout(patient(1))
        sent, unsent = 1, b""
        with pytest.raises(TimeoutError):
            while sent < 8000:
                sealed = wire.seal(player.session_key,
                                   player.packet(wire.USER, 1, b"%08d" % sent + filler).encode())
                unsent = memoryview(wire.frame(sealed))
                while unsent:
                    unsent = unsent[player.socket.send(unsent):]
                sent += 1
        assert gateway.counter("input_pauses") >= 1
        assert gateway.gauge("queued_in_bytes") < MIB
        assert other.ask(wire.ROOM, 1, b"not me", obj=1).data == b"not me"
        stream.may_read.set()
        player.socket.settimeout(patient(30))
        player.socket.sendall(unsent)
        stream.wait_requests(sent + 1)
        assert [int(m.data[:8]) for m in stream.requests] == list(range(sent + 1))


# --- What the operator sees -------------------------------------------------------------------


PATH = {"srtt_ms", "rto_ms", "loss_percent", "retransmits", "fec_recovered", "segments_in",
        "segments_out", "datagrams_in", "datagrams_out", "client_window", "gateway_window",
        "in_flight", "stream_window_bytes", "streams"}


def test_janusctl_shows_the_path_of_a_session(gateway, bridge):
    with players(bridge, 2, uid=46400) as siblings:
        for _ in range(20):
            works(siblings[0])
        path = gateway.ctl("session", "46400")["path"]
        assert set(path) == PATH
        assert path["streams"] == 2
        assert path["segments_in"] >= 20 and path["segments_out"] >= 20
        assert path["datagrams_in"] >= 20 and path["datagrams_out"] >= 20
        assert 0 < path["client_window"] <= 128 and 0 < path["gateway_window"] <= 128
        assert path["rto_ms"] >= 30
        assert 0 < path["stream_window_bytes"] <= 262144
    with gateway.player(46401):
        assert "path" not in gateway.ctl("session", "46401")


def test_a_bad_line_is_made_good_and_shows(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"worker": {"count": 1}})
    bridge = start(Bridge, gateway, loss=10, dup=5, reorder=5, delay="5ms")
    with players(bridge, uid=46410) as siblings:
        def shows():
            for one in siblings:
                one.send(wire.USER, 1, b"x" * 3000)
            for one in siblings:
                assert one.receive().data == b"x" * 3000
            path = gateway.ctl("session", "46410")["path"]
            return path["fec_recovered"] > 0 and path["retransmits"] > 0 and path
        path = wait_for(shows, "losses", pause=0)
        assert path["loss_percent"] > 0 and path["srtt_ms"] >= 5
        for name in ("kcp_fec_recovered", "kcp_retransmits", "kcp_fec_parity", "kcp_duplicates"):
            gateway.wait_counter(name, 1)


def test_metrics_tell_of_kcp(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    bridge = start(Bridge, gateway)

    def now(name, **labels):
        return total(scrape(gateway)[1], name, **labels)

    names = ("janus_kcp_datagrams_in_total", "janus_kcp_datagrams_out_total",
             "janus_kcp_received_bytes_total", "janus_kcp_sent_bytes_total",
             "janus_kcp_reads_total", "janus_kcp_writes_total", "janus_kcp_segments_in_total",
             "janus_kcp_segments_out_total")
    before = {name: now(name) for name in names}
    with players(bridge, 2, uid=46420) as siblings:
        for _ in range(50):
            works(siblings[0], b"x" * 100)
        assert now("janus_sessions", transport="kcp") == 2
        assert now("janus_connections", transport="kcp") == 1
        wait_for(lambda: all(now(name) > before[name] for name in names), "all of them to grow", 3)
        assert now("janus_kcp_datagrams_in_total") - before["janus_kcp_datagrams_in_total"] >= 50
        assert now("janus_kcp_round_trip_seconds_count") > 0
        assert now("janus_kcp_received_bytes_total") - before[
            "janus_kcp_received_bytes_total"] >= 50 * 128
    assert any(name == "janus_kcp_connections_pending" for name, _ in samples(scrape(gateway)[1]))


# --- Bounds -----------------------------------------------------------------------------------


def waits(client):
    """Its handshake is sent, and not let in; it will be when there is room."""
    client.send_raw(client.handshake_frame())
    return client


def gets_in(client):
    client.finish_login()
    works(client)


@pytest.mark.parametrize("setting,reason", [
    ("connections_per_worker", "connection_limit"), ("connections_per_address", "address_limit")])
def test_connections_are_bounded(start, backend, setting, reason):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"count": 1}, "server": {"kcp": {setting: 2}}})
    bridge = start(Bridge, gateway)
    with bridge.player(46500) as one, bridge.player(46501, session="b") as two, \
            bridge.player(46502, session="b") as three:  # no further connection
        late = waits(bridge.client(uid=46503))
        wait_for(lambda: gateway.closed(reason) > 0, "it to be refused")
        works(two)
        works(three)
        one.close()
        gets_in(late)
        late.close()


def test_lists_of_addresses_count(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"server": {"kcp": {"deny": ["127.0.0.2"]}}})
    bridge = start(Bridge, gateway)
    with bridge.player(46510) as player, \
            waits(bridge.client(uid=46511, local="127.0.0.2:0")) as denied:
        wait_for(lambda: gateway.closed("address_denied") > 0, "it to be denied")
        works(player)
        gateway.reload({"server": {"kcp": {"deny": []}}})
        gets_in(denied)


def test_those_who_have_not_logged_in_are_bounded(start, backend):
    """When there are too many, the one that has not for a while gives way."""
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"count": 1}, "kcp": {"pending_connections": 2}})
    bridge = start(Bridge, gateway)
    with bridge.player(46520) as player, bridge.client(uid=46521), bridge.client():
        gateway.wait_gauge("kcp_connections_pending", 2)
        late = waits(bridge.client(uid=46523))
        gets_in(late)
        assert gateway.gauge("kcp_connections_pending") == 1
        assert gateway.closed("handshake_timeout") == 1
        works(player)
        late.close()


def test_those_of_one_address_are_bounded(start, backend):
    """The one that has not shown for a while that it is there gives way, and to its own address."""
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"worker": {"count": 1}, "kcp": {"pending_per_address": 1}})
    bridge = start(Bridge, gateway)
    with bridge.client(uid=46531, local="127.0.0.4:0") as elsewhere:
        gateway.wait_gauge("kcp_connections_pending", 1)
        with bridge.client(local="127.0.0.3:0"):
            gateway.wait_gauge("kcp_connections_pending", 2)
            with bridge.player(46530, local="127.0.0.3:0") as late:
                assert gateway.gauge("kcp_connections_pending") == 1
                works(late)
        elsewhere.login()
        works(elsewhere)


def test_a_client_that_falls_silent_is_noticed(start, backend):
    keepalive, timeout = f"{ms(0.1)}ms", f"{ms(0.6)}ms"
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "kcp": {"keepalive_interval": keepalive, "keepalive_timeout": timeout}})
    good, dead, asleep = (start(Bridge, gateway, keepalive=keepalive, keepalive_timeout=timeout)
                          for _ in range(3))
    with good.player(46540) as player, players(dead, 2, uid=46541), \
            players(asleep, 2, uid=46542) as sleepers:
        with gateway.closes("kcp_silent", 4, others_open=3):
            dead.kill()
            asleep.stall()
        gateway.wait_gauge("connections", 1)
        assert gateway.gauge("sessions") == 1
        works(player)
        asleep.resume()
        for one in sleepers:  # what it still says belongs to nothing
            assert one.receive_end() is None
        assert gateway.gauge("connections") == 1


@pytest.mark.parametrize("addr,client", [("[::1]:0", "[::1]"), ("[::]:0", "[::1]"), ("[::]:0", "127.0.0.1")])
def test_players_over_ipv6_and_over_either(start, backend, addr, client):
    """A socket of IPv6 has clients of IPv4 too, and answers each from where it was asked."""
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"server": {"kcp": {"addr": addr}}, "worker": {"count": 2}})
    _, port = gateway.listener("kcp")
    bridge = start(Bridge, gateway, address=(client.strip("[]"), port))
    with players(bridge, 2, uid=46900) as siblings:
        for one in siblings:
            works(one, os.urandom(5000))
        assert client.strip("[]") in gateway.session_of(46900)["address"]
