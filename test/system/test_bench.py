"""janus-bench: each kind of load runs against a real gateway and reports what it did."""

import json
import os

import pytest
from janus.certificates import Certificates
from janus.patience import wait_for
from janus.programs import BIN, Gateway, Program, Roma, nodes_of, run


@pytest.fixture(scope="module")
def loaded(start_module, tmp_path_factory):
    roma = start_module(Roma)
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    tls = {"enabled": True, "cert": certificates.server_cert, "key": certificates.server_key}
    gateway = start_module(Gateway, nodes=nodes_of(roma.address), settings={
        "queue": {"client_grace": "500ms"},
        "server": {"listeners": [{"transport": transport, "addr": "127.0.0.1:0", "tls": tls}
                                 for transport in ("tcp", "ws")]}})
    secure = {one["transport"]: one["address"] for one in gateway.ctl("status")["listeners"]
              if one.get("tls")}

    def load(kind, *arguments, address=None):
        done = run("janus-bench", kind, "--json", "--duration", "500ms", "--warmup", "0s",
                   "--connect", address or ":".join(map(str, gateway.address)),
                   "--keys", gateway.tool_keys(), "--color", "blue", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    load.gateway, load.roma = gateway, roma
    load.tls, load.wss = f"tls://{secure['tcp']}", f"wss://{secure['ws']}/ws"
    load.trust = ["--tls-ca", certificates.ca]
    load.kcp = "kcp://%s:%d" % gateway.listener("kcp")
    return load


def test_round_trips_are_counted_and_timed(loaded):
    report = loaded("roundtrip", "--clients", "10", "--pid-tree", str(loaded.gateway.pid))
    assert report["count"] > 0 and report["failed"] == 0
    assert 0 < report["p50_us"] <= report["p99_us"] <= report["max_us"]
    assert report["cpu_us"] > 0


def test_a_fixed_rate_sends_what_was_asked_for(loaded):
    # Far below what can be had, so that it is the rate that shows.
    report = loaded("rate", "--clients", "10", "--rate", "200")
    assert 0 < report["count"] <= 200 * report["seconds"] + report["clients"]


def test_logins_are_counted(loaded):
    before = loaded.gateway.counter("logins")
    report = loaded("login", "--clients", "4")
    assert report["count"] > 0 and report["failed"] == 0
    assert loaded.gateway.counter("logins") >= before + report["count"]


@pytest.mark.parametrize("options", [
    [], ["--kcp-fec", "off"], ["--kcp-profile", "low-latency"], ["--kcp-streams", "4"]])
def test_round_trips_go_over_kcp(loaded, options):
    report = loaded("roundtrip", "--clients", "10", *options, address=loaded.kcp)
    assert report["clients"] == 10 and report["count"] > 0 and report["failed"] == 0


def test_logins_over_kcp_are_counted(loaded):
    report = loaded("login", "--clients", "4", address=loaded.kcp)
    assert report["count"] > 0 and report["failed"] == 0


def test_round_trips_go_over_a_websocket_within_tls(loaded):
    report = loaded("roundtrip", "--clients", "10", *loaded.trust, address=loaded.wss)
    assert report["count"] > 0 and report["failed"] == 0


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_handshakes_of_tls_are_counted(more, loaded):
    report = loaded("handshake", "--clients", "4", "--pid-tree", str(loaded.gateway.pid),
                    *loaded.trust, *more, address=loaded.tls)
    assert report["count"] > 0 and report["failed"] == 0 and report["cpu_us"] > 0


def test_idle_players_send_heartbeats_and_are_answered(loaded):
    report = loaded("idle", "--clients", "20", "--heartbeat", "50ms")
    assert report["clients"] == 20 and report["lost"] == 0 and report["failed"] == 0
    assert report["heartbeats"] > 20 > report["heartbeats_late"]


def test_idle_players_stay_in(loaded):
    report = loaded("idle", "--clients", "20")
    assert (report["clients"], report["lost"]) == (20, 0)


def test_a_backend_is_measured_without_the_gateway(loaded):
    report = loaded("direct", "--clients", "5", address=loaded.roma.address)
    assert report["count"] > 0 and report["own_cpu_us"] > 0


def test_players_who_never_read_are_closed(loaded):
    before = loaded.gateway.closed("slow_client")
    slow = Program([os.path.join(BIN, "janus-bench"), "slow", "--duration", "600s", "--connect",
                    ":".join(map(str, loaded.gateway.address)), "--keys",
                    loaded.gateway.directory, "--color", "blue", "--clients", "2",
                    "--request", "flood 1000000 1024"])
    try:
        wait_for(lambda: loaded.gateway.closed("slow_client") > before, "one to be closed")
    finally:
        slow.kill()


def test_routes_are_looked_up():
    done = run("janus-bench", "routes", "--json", "--routes", "5000", "--duration", "300ms")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["lookup_ns"] > 0 and result["memory_ns"] > 0 and result["busy_ratio"] > 0
    assert result["routes"] == 5000 and result["updates_per_s"] > 0
