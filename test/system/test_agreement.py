"""Everyone agrees: gateways that race for the same player's or room's route end on one node."""

import collections
import multiprocessing

import pytest
from janus.etcd_server import Etcd
from janus.patience import patient, wait_for
from janus.programs import Gateway, Roma, etcd_settings, redis_settings
from janus.redis_server import Redis, player_key, room_key

COLORS = ("blue", "red")
SERVICES = ("roma.player.service", "roma.room.service")
ROOM = 6
PLAYERS = 1000  # of each color, each by every gateway at once
ROOMS = 50


class Node:
    """A stand-in for Roma, of one color, registered in etcd."""

    def __init__(self, start, etcd, color, record):
        self.color = color
        self.roma = start(Roma, record=record)
        self.address = self.roma.address
        self.etcd = etcd
        self.ids = {service: f"{service}-{self.address}" for service in SERVICES}
        self.register()

    def register(self, weight=100):
        for service, id in self.ids.items():
            self.etcd.register(self.address, service, self.color, weight, id=id)

    def die(self):
        self.roma.kill()
        for service, id in self.ids.items():
            self.etcd.delete(f"/microservices/{service}/{id}")

    def served(self):
        """{(color, module, oid)} of which it has got a message."""
        with open(self.roma.record) as record:
            return {(self.color, int(mod), int(oid))
                    for oid, mod in (line.split("\t")[:2] for line in record)}


AT_ONCE = 250  # players of one gateway who log in together


def come(gateway, keys, first_uid, together, results):
    """In a process of its own: everybody comes to this gateway, many at a time, in step with the
    others."""
    # One color at a time, since a player of both would be one who logs in twice.
    everybody = [(color, i) for first in range(0, PLAYERS, AT_ONCE) for color in COLORS
                 for i in range(first, first + AT_ONCE)]
    faults = 0
    for at in range(0, len(everybody), AT_ONCE):
        left = everybody[at:at + AT_ONCE]
        together.wait()
        # Only the latest session of a player stays, and a message that was with a node when that
        # died is lost: a client comes again then. One that was served leaves the race.
        for _ in range(20):
            left = left and come_together(gateway, keys, first_uid, left)
        faults += len(left)
    results.put(faults)


def come_together(gateway, keys, first_uid, players):
    """All of them log in at once, and then ask at once; returns those who were not served."""
    from janus.client import Client
    clients, unserved = [], []

    def each(step):
        for client, player in list(clients):
            try:
                step(client, player)
            except (AssertionError, OSError):
                clients.remove((client, player))
                unserved.append(player)
                client.close()

    for color, i in players:
        clients.append((Client(gateway, keys, uid=first_uid + i, color=color), (color, i)))
    each(lambda client, _: client.send_raw(client.handshake_frame()))
    each(lambda client, _: client.finish_login())
    each(lambda client, player: (
        client.socket.settimeout(patient(5)), client.send(1, 1),
        client.send(ROOM, 1, obj=first_uid + player[1] % ROOMS)))
    each(lambda client, _: client.expect(2))
    for client, _ in clients:
        client.close()
    return unserved


@pytest.fixture
def world(start, keys, tmp_path):
    etcd, redis = start(Etcd), start(Redis)
    nodes = [Node(start, etcd, COLORS[i % 2], tmp_path / f"record{i}") for i in range(4)]
    gateways = []
    for i in range(3):
        gateways.append(start(Gateway, nodes=[], settings={
            **redis_settings(redis.address), **etcd_settings(*etcd.endpoints),
            "server": {"tcp": {"addr": "127.0.0.1:0"},
                       "grpc": {"advertise": f"127.0.0.1:4111{i}"}},
            "worker": {"count": 2},
            "log": {"level": "info"},
            "tunnel": {"open_timeout": "20s", "reopen_timeout": "30s"}}))
    for gateway in gateways:
        gateway.wait_nodes(*(node.address for node in nodes))
        gateway.wait_nodes(*(node.address for node in nodes), service="roma.room.service")
        gateway.wait_link("route feed", "following")
    return etcd, redis, nodes, gateways


def race(gateways, keys, first_uid, meanwhile=lambda: None):
    """Everybody comes to every gateway at once; meanwhile() happens in the middle of it."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    together = context.Barrier(len(gateways))
    racers = [context.Process(target=come,
                              args=(gateway.address, keys, first_uid, together, results))
              for gateway in gateways]
    for racer in racers:
        racer.start()
    logins = sum(gateway.counter("logins") for gateway in gateways)
    wait_for(lambda: sum(gateway.counter("logins") for gateway in gateways) > logins + PLAYERS,
             "a sixth of them to be in", 120)
    meanwhile()
    faults = [results.get(timeout=patient(300)) for _ in racers]
    for racer in racers:
        racer.join()
    assert faults == [0] * len(racers), "somebody was not served"


def who_served(nodes, first_uid):
    """{(color, module, oid): [addresses]} of this race."""
    served = collections.defaultdict(list)
    for node in nodes:
        for what in node.served():
            if first_uid <= what[2] < first_uid + PLAYERS:
                served[what].append(node.address)
    assert len(served) == len(COLORS) * (PLAYERS + ROOMS)
    return served


def test_each_is_served_by_exactly_one_node(world, start, keys, tmp_path):
    etcd, redis, nodes, gateways = world

    first_uid = 100_000
    race(gateways, keys, first_uid)
    for _ in range(20):
        if sum(gateway.counter("route_races_lost") for gateway in gateways):
            break
        first_uid += PLAYERS  # they came one after another, all of them: once more
        race(gateways, keys, first_uid)
    else:
        raise AssertionError("no gateway ever lost a race")
    served = who_served(nodes, first_uid)
    assert {what: where for what, where in served.items() if len(where) > 1} == {}
    # And that is what Redis says.
    for (color, mod, oid), (address,) in served.items():
        key = (room_key if mod == ROOM else player_key)(oid, color)
        assert redis.get(key) == address

    # While a node is added, and another takes nobody new any more.
    added = []

    def change():
        added.append(Node(start, etcd, "blue", tmp_path / "record-added"))
        nodes[0].register(weight=0)

    race(gateways, keys, 200_000, change)
    served = who_served(nodes + added, 200_000)
    assert {what: where for what, where in served.items() if len(where) > 1} == {}
    assert any(added[0].address in where for where in served.values()), "the new node has its share"
    # Those it has stay with it.
    old = [oid for (_, mod, oid), where in who_served(nodes, first_uid).items()
           if mod == 1 and where == [nodes[0].address]]
    with gateways[1].player(uid=old[0], color="blue") as player:
        player.ask(1, 1)
    assert redis.get(player_key(old[0])) == nodes[0].address

    # And it gets nobody new, by any gateway.
    for i, gateway in enumerate(gateways):
        for uid in range(250_000 + 100 * i, 250_020 + 100 * i):
            with gateway.player(uid=uid, color="blue") as player:
                player.ask(1, 1)
                assert redis.get(player_key(uid)) != nodes[0].address

    # While a node is killed: what was on it goes to one other, everything else stays.
    dead = nodes[1]
    race(gateways, keys, 300_000, dead.die)
    for what, where in who_served(nodes + added, 300_000).items():
        assert len([address for address in where if address != dead.address]) <= 1, (what, where)
    assert sum(gateway.counter("routes_not_kept") for gateway in gateways) == 0
