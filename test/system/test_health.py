"""What the operations port says of the gateway: /health, /health/ready and /stats."""

import http.client
import json
import os
import signal

from janus.etcd_server import Etcd
from janus.patience import patient, wait_for
from janus.programs import ENGINE, Gateway, etcd_settings, nodes_of
from janus.push import GrpcPusher

SERVING, NOT_SERVING = 1, 2


class Port:
    def __init__(self, gateway):
        self.address = gateway.listener("http")

    def ask(self, path, method="GET"):
        """The status and the body."""
        connection = http.client.HTTPConnection(*self.address, timeout=patient(30))
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, path):
        status, body = self.ask(path)
        return status, json.loads(body)

    def ready(self):
        """The status, the state, and the checks that fail."""
        status, answer = self.json("/health/ready")
        return status, answer["status"], [c["name"] for c in answer["checks"] if not c["ok"]]

    def stats(self, name):
        status, answer = self.json("/stats/" + name)
        assert status == 200
        return answer


def watch(pusher):
    states = pusher.channel.unary_stream("/grpc.health.v1.Health/Watch", lambda x: x, lambda x: x)
    return states(b"", timeout=patient(60))


def state(raw):
    return raw[1] if raw else 0


READY = (200, "ready", [])


def test_without_a_node_for_the_main_tunnel_it_is_alive_but_not_ready(start, backend):
    etcd = start(Etcd)
    gateway = start(Gateway, nodes=[], settings=etcd_settings(*etcd.endpoints))
    gateway.wait_link("etcd", "watching")
    port, pusher = Port(gateway), GrpcPusher(gateway)
    states = watch(pusher)
    assert state(next(states)) == NOT_SERVING
    assert port.ready() == (503, "not ready", ["nodes"])
    assert port.json("/health")[1]["status"] == "ok"
    etcd.register(backend.address, service="roma.room.service")
    gateway.wait_nodes(backend.address, service="roma.room.service")
    assert port.ready() == (503, "not ready", ["nodes"])
    key = etcd.register(backend.address)
    assert state(next(states)) == SERVING  # nobody has asked over HTTP meanwhile
    assert port.ready() == READY
    etcd.delete(key)
    assert state(next(states)) == NOT_SERVING
    assert port.ready() == (503, "not ready", ["nodes"])
    pusher.close()


def test_with_all_workers_dead_it_is_not_ready_until_one_runs(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "worker": {"count": 1, "restart_backoff": "3s", "restart_backoff_max": "3s"}})
    port, pusher = Port(gateway), GrpcPusher(gateway)
    states = watch(pusher)
    assert state(next(states)) == SERVING
    os.kill(gateway.worker_pids()[0], signal.SIGKILL)
    assert state(next(states)) == NOT_SERVING
    assert state(next(states)) == SERVING
    wait_for(lambda: port.ready() == READY, "it to be ready")
    pusher.close()


def test_while_it_stops_it_says_that_it_drains(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    port, pusher = Port(gateway), GrpcPusher(gateway)
    states = watch(pusher)
    assert state(next(states)) == SERVING
    workers = list(gateway.worker_pids().values())
    for pid in workers:  # so that it does not end before it has been asked
        os.kill(pid, signal.SIGSTOP)
    gateway.process.send_signal(signal.SIGTERM)
    assert state(next(states)) == NOT_SERVING
    status, word, failing = port.ready()
    assert (status, word) == (503, "draining") and "draining" in failing
    assert port.ask("/health")[0] == 200
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    pusher.close()


def test_the_numbers_are_what_clients_did(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    port = Port(gateway)
    with gateway.player(uid=1) as one, gateway.player(uid=2) as two:
        for player in (one, two):
            for _ in range(3):
                player.ask(1, 1)
        wait_for(lambda: port.stats("connections")["messages_in"] == 6, "six messages")
        connections = port.stats("connections")
        assert (connections["open"], connections["sessions"], connections["logins"]) == (2, 2, 2)
        assert connections["sessions_by_transport"] == {"tcp": 2, "tls": 0, "ws": 0, "wss": 0,
                                                         "kcp": 0}
        tunnels = port.stats("tunnels")
        assert (tunnels["open"], tunnels["opened"], tunnels["messages_out"]) == (2, 2, 6)
        assert tunnels["engine"] in ([ENGINE] if ENGINE else ["grpc", "http2"])
        types = {one["name"]: one for one in tunnels["types"]}
        assert (types["player"]["open"], types["player"]["messages_out"]) == (2, 6)
        assert types["room"]["opened"] == 0
        workers = port.stats("workers")["workers"]
        assert sum(worker["messages_in"] for worker in workers) == 6
        assert {worker["worker"]: worker["pid"] for worker in workers} == gateway.worker_pids()
    wait_for(lambda: port.stats("connections")["closed"]["client_closed"] == 2, "both to be gone")
    wait_for(lambda: port.stats("routes")["tiers"]["gateway"]["used"] == 0, "their routes to be gone")
    assert port.stats("routes")["tiers"] == gateway.ctl("routes", "stats")["stats"]
    build = port.stats("build")
    assert build["version"] == gateway.ctl("status")["version"]
    assert build["libraries"]["nghttp2"]
    assert build["libraries"]["grpc"] and gateway.directory not in json.dumps(build)


def test_head_works_and_what_there_is_not_is_refused(gateway):
    port = Port(gateway)
    for path in ("/health", "/health/ready", "/stats/connections", "/stats/build"):
        assert port.ask(path, "HEAD") == (200, b"")
        assert port.ask(path, "POST")[0] == 405
    for path in ("/healthz", "/stats", "/stats/players"):
        assert port.ask(path)[0] == 404
