"""Servers push over HTTP, at the operations port."""

import contextlib
import http.client
import socket
import subprocess

import pytest
from janus.patience import wait_for
from janus.programs import Gateway, nodes_of, secret_settings
from janus.push import GrpcPusher, HttpPusher, body, json_body


@pytest.fixture(scope="module")
def gateway(start_module, backend):
    return start_module(Gateway, nodes=nodes_of(backend.address))


@pytest.fixture(scope="module")
def pusher(gateway):
    return HttpPusher(gateway)


def expect(player, data, mod=3, seq=7):
    packet = player.receive()
    assert packet is not None, "the gateway closed the connection"
    assert (packet.mod, packet.seq, packet.data) == (mod, seq, data)
    return packet


def test_a_push_reaches_its_player_with_all_that_it_has(gateway, pusher):
    with gateway.player(uid=8001) as player:
        assert pusher.ok("/push", {"uid": "8001", "bodies": [
            json_body(b"\x00\xff one", mod=-2**31, seq=2**31 - 1, obj=str(-2**63),
                      dataVersion=str(2**64 - 1)), json_body(b"two")]})["pushed"] is True
        packet = expect(player, b"\x00\xff one", -2**31, 2**31 - 1)
        assert (packet.obj, packet.data_version, packet.index) == (-2**63, 2**64 - 1, 0)
        expect(player, b"two")
        # As in the .proto, numbers bare; and the gateway's own form.
        assert pusher.ok("/push", {"uid": 8001, "bodies": [
            {"data": "eA", "mod": "3", "seq": 7, "data_version": 5}]})["pushed"]
        assert expect(player, b"x").data_version == 5
        assert pusher.ok("/push", {"body": json_body(b"own")}, "-H", "x-md-global-uid: 8001")["pushed"]
        expect(player, b"own")
    wait_for(lambda: not pusher.ok("/push", {"uid": "8001", "bodies": [json_body(b"x")]})["pushed"],
             "it to have left")


@pytest.mark.parametrize("uid", [0, -1, 2**63 - 1, -2**63])
def test_players_are_named_by_any_int64(gateway, pusher, uid):
    with gateway.player(uid=uid) as player:
        answer = pusher.ok("/multicast", {"uids": [str(uid)], "bodies": [json_body(b"you")]})
        assert answer["pushedUids"] == [str(uid)]
        expect(player, b"you")


def test_a_multicast_says_who_got_it(gateway, pusher):
    with gateway.player(uid=8011) as one, gateway.player(uid=8012) as two:
        answer = pusher.ok("/multicast", {"uids": ["8012", 1, 8011], "bodies": [json_body(b"both")]})
        assert sorted(answer["pushedUids"]) == ["8011", "8012"]
        assert answer["notFoundUids"] == ["1"]
        expect(one, b"both")
        expect(two, b"both")


def test_a_broadcast_says_how_many_got_it(gateway, pusher):
    with gateway.player(uid=8021, color="blue", sid=1) as one, \
         gateway.player(uid=8022, color="red", sid=2) as two:
        assert pusher.ok("/broadcast", {"bodies": [json_body(b"news")]})["reached"] == "2"
        expect(one, b"news")
        expect(two, b"news")
        assert pusher.ok("/broadcast",
                         {"bodies": [json_body(b"x")], "color": "red"})["reached"] == "1"
        expect(two, b"x")
        assert pusher.ok("/broadcast", {"bodies": [json_body(b"y")], "sid": "1"})["reached"] == "1"
        expect(one, b"y")


GOOD = b'{"uid":"8031","bodies":[{"mod":3,"seq":7,"data":"eA=="}]}'


@pytest.mark.parametrize("path, content, status", [
    ("/push", b"", 400),
    ("/push", b"{", 400),
    ("/push", b"[]", 400),
    ("/push", b"\xff\xfe", 400),
    ("/push", b"{}", 400),
    ("/push", GOOD + b"x", 400),
    ("/push", GOOD.replace(b'"8031"', b'"8031x"'), 400),
    ("/push", GOOD.replace(b'"8031"', b'"9223372036854775808"'), 400),
    ("/push", GOOD.replace(b'"8031"', b"18446744073709551616"), 400),
    ("/push", GOOD.replace(b'"8031"', b"1.5"), 400),
    ("/push", GOOD.replace(b'"8031"', b"[]"), 400),
    ("/push", GOOD.replace(b":3,", b":2147483648,"), 400),
    ("/push", GOOD.replace(b"eA==", b"e!=="), 400),
    ("/push", GOOD.replace(b"eA==", b"eAB"), 400),
    ("/push", GOOD.replace(b"[{", b"[null,{"), 400),
    ("/push", b"[" * 100_000, 400),
    ("/push", b'{"uid":"8031","bodies":[' + b",".join([b"{}"] * 257) + b"]}", 400),
    ("/multicast", b'{"uids":[],"bodies":[{}]}', 400),
    ("/multicast", b'{"uids":["1"],"bodies":[]}', 400),
    ("/broadcast", b'{"bodies":[]}', 400),
    ("/broadcast", b'{"bodies":[{}],"color":7}', 400),
    ("/push", b'{"uid":"8031","bodies":[{"data":"' + b"A" * (7 << 20) + b'"}]}', 413),
    ("/nothing", b"{}", 404),
], ids=range(23))
def test_what_is_wrong_is_said(gateway, pusher, path, content, status):
    before = gateway.counter("push_orders_malformed")
    with gateway.player(uid=8031) as player:
        got, answer = pusher.call(path, content, "-H", "Expect:")
        assert got == status, answer
        assert answer["error"]
        assert pusher.ok("/push", GOOD)["pushed"]
        expect(player, b"x")
    assert gateway.counter("push_orders_malformed") == before + (status != 404)


def test_a_body_that_no_client_takes_is_refused(gateway, pusher):
    with gateway.player(uid=8041) as player:
        content = {"uid": "8041", "bodies": [json_body(b"x" * (1 << 20) + b"y", mod=9, seq=8)]}
        assert pusher.call("/push", content)[0] == 413
        assert player.ask(1, 2, b"nothing came").data == b"nothing came"


def test_only_posting_is_allowed(gateway, pusher):
    host, port = pusher.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        connection.request(method, "/push")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 405
        assert "POST" in answer.headers["Allow"]
    connection.close()


def test_what_is_no_http_harms_nobody(gateway, pusher):
    host, port = pusher.url.removeprefix("http://").split(":")
    for junk in (b"\x00" * 100, b"GET\r\n\r\n", b"POST /push HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                 b"POST /push HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"A" * 100_000, b""):
        with socket.create_connection((host, int(port))) as client, \
             contextlib.suppress(OSError):  # cut, perhaps before all of it is sent
            client.sendall(junk)
            client.shutdown(socket.SHUT_WR)
            client.recv(1)
    with gateway.player(uid=8051) as player:
        assert pusher.ok("/push", {"uid": 8051, "bodies": [json_body(b"well")]})["pushed"]
        expect(player, b"well")


def test_pushes_need_the_address_and_the_token(start, keys, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    secrets=secret_settings(keys, push_token="sesame street"))
    with gateway.player(uid=1) as player:
        content = {"uid": 1, "bodies": [json_body(b"open")]}
        for header in (None, "sesame street", "Bearer sesame", "Basic sesame street"):
            more = ["-H", f"Authorization: {header}"] if header else []
            assert HttpPusher(gateway, *more).call("/push", content)[0] == 401
        right = HttpPusher(gateway, "-H", "Authorization: Bearer sesame street")
        assert right.ok("/push", content)["pushed"]
        expect(player, b"open")
    assert gateway.counter("push_orders_denied") == 4
    assert "sesame street" not in gateway.log()
    closed = start(Gateway, nodes=nodes_of(backend.address), settings={"push": {"allow": []}})
    assert HttpPusher(closed).call("/push", content)[0] == 403
    assert closed.counter("push_orders_denied") == 1


def test_order_holds_across_entrances(gateway, pusher):
    over_grpc = GrpcPusher(gateway)
    with gateway.player(uid=8061) as player:
        for i in range(40):
            if i % 2:
                over_grpc.push(8061, body(b"%d" % i))
            else:
                pusher.ok("/push", {"uid": 8061, "bodies": [json_body(b"%d" % i)]})
        for i in range(40):
            expect(player, b"%d" % i)
    over_grpc.close()


def test_the_readme_example(gateway, pusher):
    """As a user types it."""
    with gateway.player(uid=10001) as player:
        done = subprocess.run(
            ["curl", "-s", f"{pusher.url}/push", "-d",
             '{"uid": "10001", "bodies": [{"mod": 3, "seq": 7, "data": "aGVsbG8="}]}'],
            stdout=subprocess.PIPE, check=True)
        assert b'"pushed"' in done.stdout and b"true" in done.stdout
        expect(player, b"hello")
