"""What Prometheus sees of a gateway: by a real Prometheus, by promtool, and to the message."""

import json
import os
import signal

import pytest

from janus import wire
from janus.patience import wait_for
from janus.programs import Gateway, Roma, etcd_settings, node, nodes_of, redis_settings, run
from janus.prometheus import (OPENMETRICS, Prometheus, check_metrics, samples, scrape, total)
from janus.etcd_server import Etcd
from janus.redis_server import Redis

CLIENTS, EACH = 20, 50


def send_load(gateway, *arguments):
    done = run("janus-bench", "roundtrip", "--json", "--clients", str(CLIENTS), "--each", str(EACH),
               "--warmup", "0s", "--duration", "120s",
               "--connect", ":".join(map(str, gateway.address)), "--keys", gateway.tool_keys(),
               "--color", "blue", *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["failed"] == 0 and report["sent"] == CLIENTS * EACH
    return report


@pytest.fixture(scope="module")
def watched(start_module):
    roma = start_module(Roma)
    return start_module(Gateway, nodes=nodes_of(roma.address))


def test_promtool_finds_nothing_wrong_with_the_page(watched):
    send_load(watched)
    kind, page = scrape(watched)
    assert kind.startswith("text/plain; version=0.0.4")
    assert check_metrics(page) == ""


def test_a_scraper_that_wants_openmetrics_gets_it(watched):
    kind, page = scrape(watched, OPENMETRICS + "; version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert page.endswith("\n# EOF\n")
    assert "# TYPE janus_logins counter\n" in page
    assert "janus_logins_total{" in page
    kind, page = scrape(watched, OPENMETRICS + ";q=0,text/plain")
    assert kind.startswith("text/plain") and "# TYPE janus_logins_total counter\n" in page


def test_each_family_is_told_once_and_its_series_stand_together(watched):
    for accept in "text/plain", OPENMETRICS:
        families = [line.split()[2] for line in scrape(watched, accept)[1].splitlines()
                    if line.startswith("# TYPE")]
        assert len(families) == len(set(families)) > 50


def test_no_label_names_a_player_or_an_address(watched):
    with watched.player(71999) as client:
        client.ask(wire.USER, 1)
        page = scrape(watched)[1]
        assert "71999" not in page and client.name() not in page
        allowed = {"worker", "transport", "tunnel", "reason", "service", "tier", "direction", "le",
                   "version"}
        assert {label for _, labels in samples(page) for label, _ in labels} <= allowed


def test_a_histogram_adds_up(watched):
    send_load(watched)
    found = samples(scrape(watched)[1])
    for (name, labels), value in found.items():
        if not name.endswith("_bucket"):
            continue
        family = name[:-len("_bucket")]
        rest = tuple(one for one in labels if one[0] != "le")
        if dict(labels)["le"] == "+Inf":
            assert value == found[family + "_count", rest]
        else:
            assert value <= found[family + "_count", rest]
    assert total(scrape(watched)[1], "janus_message_latency_seconds_sum", direction="in") > 0


def test_prometheus_counts_what_the_load_sent_to_the_message(start, watched):
    before = scrape(watched)[1]
    prometheus = start(Prometheus, watched)
    wait_for(lambda: prometheus.value('up{job="janus"}') == 1, "the first scrape", 60)
    send_load(watched)
    sent = CLIENTS * EACH
    grown = {
        "janus_messages_in_total": sent,
        "janus_tunnel_messages_out_total": sent,
        "janus_tunnel_messages_in_total": sent,
        "janus_message_latency_seconds_count": 2 * sent,
        "janus_logins_total": CLIENTS,
        "janus_handshake_seconds_count": CLIENTS,
        "janus_tunnels_opened_total": CLIENTS,
        "janus_tunnel_open_seconds_count": CLIENTS,
        "janus_connections_accepted_total": CLIENTS,
        "janus_closed_total": CLIENTS,
    }
    for name, count in grown.items():
        wanted = total(before, name) + count
        wait_for(lambda: prometheus.value(f"sum({name})") == wanted, f"{name} to be {wanted}", 60)
    wait_for(lambda: prometheus.value("sum(janus_sessions)") == 0, "nobody to be there", 60)
    assert prometheus.value('sum(janus_tunnels_opened_total{tunnel="room"})') == 0
    assert prometheus.value("histogram_quantile(0.99, sum by (le) "
                            '(janus_message_latency_seconds_bucket{direction="in"}))') > 0
    types = prometheus.get("metadata")
    assert types["janus_sessions"][0]["type"] == "gauge"
    assert types["janus_message_latency_seconds"][0]["type"] == "histogram"


def test_levels_follow_what_is_there(watched, start):
    watched.wait_gauge("connections", 0)
    with watched.player(71001) as first, watched.player(71002, client=watched.websocket) as second:
        first.ask(wire.USER, 1)
        second.ask(wire.USER, 1)
        page = scrape(watched)[1]
        assert total(page, "janus_sessions", transport="tcp") == 1
        assert total(page, "janus_sessions", transport="ws") == 1
        assert total(page, "janus_sessions") == 2
        assert total(page, "janus_tunnels", tunnel="player") == 2
        assert total(page, "janus_directory_sessions") == 2
        assert total(page, "janus_nodes", service="roma.player.service") == 1
        assert total(page, "janus_workers_running") == 2


def test_each_process_is_there_with_what_the_kernel_says(watched):
    page = scrape(watched)[1]
    pids = {"master": watched.pid, **{str(i): pid for i, pid in watched.worker_pids().items()}}
    for worker, pid in pids.items():
        assert total(page, "process_open_fds", worker=worker) == pytest.approx(
            len(os.listdir(f"/proc/{pid}/fd")), abs=4)
        assert total(page, "process_resident_memory_bytes", worker=worker) > 1 << 20
        assert total(page, "process_start_time_seconds", worker=worker) == pytest.approx(
            os.stat(f"/proc/{pid}").st_mtime, abs=30)
        assert total(page, "process_threads", worker=worker) >= 1


def test_a_name_that_the_format_has_to_escape_is_escaped(start, backend):
    name = 'pl"ay\\er'
    types = [{"name": name, "service": name, "method": "/a.B/C", "default": True, "main": True}]
    gateway = start(Gateway, nodes=[node(backend.address, name)], settings={
        "tunnel": {"types": types}})
    page = scrape(gateway)[1]
    assert check_metrics(page) == ""
    assert total(page, "janus_nodes", service='pl\\"ay\\\\er') == 1
    assert total(page, "janus_tunnels", tunnel='pl\\"ay\\\\er') == 0


def test_no_counter_goes_back_when_a_worker_is_replaced(start):
    roma = start(Roma)
    gateway = start(Gateway, nodes=nodes_of(roma.address))
    send_load(gateway)
    before = scrape(gateway)[1]
    old = gateway.worker_pids()[0]
    os.kill(old, signal.SIGKILL)
    gateway.wait_log(r"event=worker_died .*worker=0\b|event=worker_died worker=0\b")

    def replaced():
        worker = gateway.ctl("workers")["workers"][0]
        return worker["pid"] != old and worker["state"] == "running"

    wait_for(replaced, "the worker to be replaced")
    after = samples(scrape(gateway)[1])
    counters = {line.split()[2] for line in before.splitlines()
                if line.startswith("# TYPE") and line.endswith((" counter", " histogram"))}
    shrunk = {key: (value, after.get(key)) for key, value in samples(before).items()
              if any(key[0] in (name, name + "_bucket", name + "_count", name + "_sum")
                     for name in counters) and after.get(key, -1) < value}
    assert shrunk == {}
    assert after["janus_worker_restarts_total", (("worker", "0"),)] == 1


def test_calls_of_redis_and_etcd_are_timed(start):
    roma, redis, etcd = start(Roma), start(Redis), start(Etcd)
    gateway = start(Gateway, nodes=[], settings={
        **redis_settings(redis.address), **etcd_settings(*etcd.endpoints)})
    page = scrape(gateway)[1]
    assert total(page, "janus_etcd_call_seconds_count") > 0
    assert total(page, "janus_redis_call_seconds_count", worker="master") > 0
    assert total(page, "janus_redis_call_seconds_count", worker="0") > 0
    wait_for(lambda: total(scrape(gateway)[1], "janus_etcd_up") == 1, "etcd to be watched")
    assert total(scrape(gateway)[1], "janus_redis_masters_up") == 1
    redis.kill()
    wait_for(lambda: total(scrape(gateway)[1], "janus_redis_masters_up") == 0, "Redis to be missed")
    assert roma.process.poll() is None
