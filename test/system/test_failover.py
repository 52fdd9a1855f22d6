"""Two nodes, and the one that a player is on dies."""

import os
import signal

from janus import wire
from janus.patience import patient, wait_for
from janus.programs import Gateway, Roma, nodes_of

QUICK = {"tunnel": {"open_timeout": f"{int(patient(2) * 1000)}ms",
                    "reopen_timeout": f"{int(patient(5) * 1000)}ms",
                    "backoff": "50ms", "backoff_max": "200ms"}}


def two_romas(start, tmp_path):
    return [start(Roma, record=tmp_path / f"record{i}") for i in range(2)]


def home_and_other(gateway, romas, tier, oid):
    """The node where the object lives, and the one where it does not."""
    route = wait_for(lambda: [r for r in gateway.ctl("routes", "--tier", tier)["routes"]
                              if r["oid"] == oid], f"the route of {oid}")[0]
    home = [roma for roma in romas if roma.address == route["address"]]
    assert len(home) == 1, route
    return home[0], [roma for roma in romas if roma is not home[0]][0]


def numbers(roma, uid):
    """The numbers that the player's messages carried, as this node recorded them."""
    return [int(data) for data in roma.recorded(uid, wire.USER)]


def say(client, number):
    client.send(wire.USER, 1, b"%d" % number)


def test_a_player_whose_node_is_killed_goes_on_at_the_other(start, tmp_path):
    romas = two_romas(start, tmp_path)
    gateway = start(Gateway, nodes=nodes_of(*(roma.address for roma in romas)), settings=QUICK)
    with gateway.player(37001) as client:
        for number in range(10):
            say(client, number)
            assert client.receive().data == b"%d" % number
        home, other = home_and_other(gateway, romas, "player", 37001)
        home.kill()
        gateway.wait_counter("tunnels_broken", 1)
        for number in range(10, 60):
            say(client, number)
        assert [client.receive().data for _ in range(50)] == [b"%d" % n for n in range(10, 60)]
        assert numbers(home, 37001) == list(range(10))
        assert numbers(other, 37001) == list(range(10, 60))
        assert gateway.counter("tunnels_reopened") == 1
        route = gateway.ctl("routes", "--tier", "player")["routes"][0]
        assert route["address"] == other.address


def test_messages_in_flight_arrive_in_order_and_none_twice(start, tmp_path):
    romas = two_romas(start, tmp_path)
    gateway = start(Gateway, nodes=nodes_of(*(roma.address for roma in romas)), settings=QUICK)
    with gateway.player(37002) as client:
        client.ask(wire.USER, 1, b"0")
        home, other = home_and_other(gateway, romas, "player", 37002)
        for number in range(1, 3000):
            say(client, number)
            if number == 1000:
                os.kill(home.pid, signal.SIGKILL)
        answered = []
        while not answered or answered[-1] != 2999:
            packet = client.receive()
            assert packet is not None, "the client was closed"
            if packet.mod == wire.USER:
                answered.append(int(packet.data))
        first, second = numbers(home, 37002), numbers(other, 37002)
        assert first == list(range(len(first)))
        # What was with gRPC when the node died is lost; nothing after it, and nothing doubled.
        assert second == list(range(second[0], 3000))
        assert second[0] >= len(first)
        assert answered == sorted(set(answered))


def test_a_room_whose_node_is_killed_goes_on_at_the_other(start, tmp_path):
    romas = two_romas(start, tmp_path)
    gateway = start(Gateway, nodes=nodes_of(*(roma.address for roma in romas)), settings=QUICK)
    clients = [gateway.player(37010 + i) for i in range(4)]
    for client in clients:
        client.ask(wire.ROOM, 1, b"in", obj=900)
    home, other = home_and_other(gateway, romas, "object", 900)
    home.kill()
    # One worker's break moves the room; the other's tunnels may follow before theirs break.
    wait_for(lambda: gateway.counter("tunnels_broken") + gateway.counter("routes_moved") >= 4,
             "all four to leave the dead node")
    for client in clients:
        assert client.ask(wire.ROOM, 1, b"again", obj=900).data == b"again"
        client.close()
    assert home.recorded(900, wire.ROOM) == ["in"] * 4
    assert other.recorded(900, wire.ROOM) == ["again"] * 4


def test_with_no_node_left_the_client_gets_waiting_and_is_closed(start, tmp_path):
    romas = two_romas(start, tmp_path)
    gateway = start(Gateway, nodes=nodes_of(*(roma.address for roma in romas)), settings=QUICK)
    with gateway.closes("tunnel_lost"):
        with gateway.player(37020) as client:
            client.ask(wire.USER, 1, b"0")
            for roma in romas:
                roma.kill()
            assert client.receive_end() == wire.LOGOUT_WAITING


def test_a_node_that_comes_back_serves_again(start, tmp_path):
    roma = start(Roma, record=tmp_path / "one")
    gateway = start(Gateway, nodes=nodes_of(roma.address), settings={
        "tunnel": {**QUICK["tunnel"], "suspect": "200ms", "reopen_timeout": "60s"}})
    with gateway.player(37030) as client:
        client.ask(wire.USER, 1, b"0")
        roma.kill()
        gateway.wait_counter("tunnels_broken", 1)
        for number in range(1, 20):
            say(client, number)
        again = start(Roma, listen=roma.address, record=tmp_path / "two")
        assert [client.receive().data for _ in range(19)] == [b"%d" % n for n in range(1, 20)]
        assert numbers(again, 37030) == list(range(1, 20))
