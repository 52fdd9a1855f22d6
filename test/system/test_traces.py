"""Spans of what clients did come to a collector by OTLP."""

import os

import pytest
from janus.otlp_receiver import OtlpReceiver
from janus.patience import wait_for
from janus.programs import BIN, Gateway, nodes_of
from janus.push import GrpcPusher, HttpPusher, body, json_body
from test_upgrade import refused, script

TUNNEL = "player.intra.v1.TunnelService/Tunnel"
TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


@pytest.fixture
def receiver(start):
    return start(OtlpReceiver)


def traced(start, backend, receiver, environment=None, **more):
    return start(Gateway, nodes=nodes_of(backend.address), environment=environment,
                 settings={"worker": {"count": 1}, "trace": {"endpoint": receiver.url, **more}})


def test_a_players_way_is_one_trace(start, backend, receiver):
    gateway = traced(start, backend, receiver)
    with gateway.player(uid=7001) as player:
        for i in range(3):
            player.ask(3, 10 + i, b"secret payload")
        assert HttpPusher(gateway).ok("/push", {"uid": "7001", "bodies": [json_body(b"x")]})
        player.receive()
        name = player.name()
    root = receiver.find("connection", user_id="7001")[0]
    assert (root.kind, root.parent_id, root.failed) == (2, "", False)
    assert f'{root.attributes["client.address"]}:{root.attributes["client.port"]}' == name
    assert root.attributes["janus.close.reason"] == "client_closed"
    assert root.attributes["network.transport"] == "tcp"
    assert root.attributes["server.port"] == gateway.address[1]
    assert root.resource["service.name"] == "janus.gate.interface"
    messages = receiver.find("message", 3, user_id="7001")
    assert [message.attributes["janus.seq"] for message in messages] == [10, 11, 12]
    tunnel = receiver.find(TUNNEL, user_id="7001")[0]
    assert tunnel.kind == 3
    assert tunnel.attributes["rpc.grpc.status_code"] == 0
    assert tunnel.attributes["rpc.method"] == "Tunnel"
    host, port = backend.address.split(":")
    assert (tunnel.attributes["server.address"], tunnel.attributes["server.port"]) == (
        host, int(port))
    handshake = receiver.find("handshake", user_id="7001")[0]
    assert all(handshake.checks.values()) and "signature" in handshake.checks
    push = receiver.find("push", user_id="7001")[0]
    close = receiver.find("close", user_id="7001")[0]
    for span in (*messages, tunnel, handshake, push, close):
        assert (span.trace_id, span.parent_id) == (root.trace_id, root.span_id), span.name
        assert root.start <= span.end and span.start <= span.end <= root.end + 10**9
        assert span.attributes["session.id"] == root.attributes["session.id"]
        assert "secret" not in str(span.attributes)


def test_a_failed_handshake_is_exported_though_not_sampled(start, backend, receiver):
    gateway = traced(start, backend, receiver, sampler="always_off")
    with gateway.player(uid=7002) as good:
        good.ask(3, 1)
    with gateway.client(uid=7003) as client:
        client.send_raw(client.handshake_frame(sign=bytes(64)))
        client.receive_end()
    failed = receiver.find("handshake")[0]
    assert failed.failed and failed.attributes["error.type"] == "handshake_signature"
    assert failed.checks["signature"] is False
    assert all(passed for name, passed in failed.checks.items() if name != "signature")
    root = receiver.find("connection")[0]
    assert root.failed and (root.trace_id, root.span_id) == (failed.trace_id, failed.parent_id)
    assert {span.name for span in receiver.spans} == {"handshake", "connection"}


@pytest.mark.parametrize("flags, sampled", [("01", True), ("00", False)])
def test_a_push_brings_its_parent(start, backend, receiver, flags, sampled):
    gateway = traced(start, backend, receiver, sampler="parentbased_always_on")
    parent = f"00-{TRACE}-{SPAN}-{flags}"
    pusher = HttpPusher(gateway)
    with gateway.player(uid=7004) as other:
        assert pusher.ok("/push", {"uid": "7004", "bodies": [json_body(b"x")]},
                         "-H", f"traceparent: {parent}")["pushed"]
        other.receive()
        grpc = GrpcPusher(gateway)
        grpc.metadata.append(("traceparent", parent))
        assert grpc.push(7004, body(b"y"))
        other.receive()
    receiver.find("connection", user_id="7004")
    pushes = [span for span in receiver.spans if span.name == "push"]
    assert [(span.trace_id, span.parent_id) for span in pushes] == (
        [(TRACE, SPAN)] * 2 if sampled else [])


@pytest.mark.parametrize("flags", ["01", "00"])
def test_a_websockets_traceparent_decides_and_roma_gets_the_tunnels(start, backend, receiver, flags):
    gateway = traced(start, backend, receiver)
    uid = 7100 + int(flags)
    with gateway.websocket(uid=uid, upgrade=False) as player:
        player.upgrade(traceparent=f"00-{TRACE}-{SPAN}-{flags}", tracestate="rojo=1")
        player.login()
        player.ask(3, 1)
        metadata = backend.stream_of(uid).metadata
    version, trace_id, span_id, sent_flags = metadata["traceparent"].split("-")
    assert (version, trace_id, sent_flags) == ("00", TRACE, flags)
    assert metadata["tracestate"] == "rojo=1"
    if flags == "01":
        root = receiver.find("connection", user_id=str(uid))[0]
        assert (root.trace_id, root.parent_id, root.state) == (TRACE, SPAN, "rojo=1")
        assert root.attributes["network.protocol.name"] == "websocket"
        tunnel = receiver.find(TUNNEL, user_id=str(uid))[0]
        assert (tunnel.span_id, tunnel.parent_id) == (span_id, root.span_id)
    else:
        gateway.wait_gauge("connections", 0)
        assert gateway.counter("spans_finished") == 0


@pytest.mark.parametrize("parent", [f"00-{TRACE}-{SPAN}-1", f"00-{TRACE.upper()}-{SPAN}-01",
                                    [f"00-{TRACE}-{SPAN}-01"] * 2, "x" * 5000])
def test_a_malformed_traceparent_is_none(start, backend, receiver, parent):
    gateway = traced(start, backend, receiver)
    with gateway.websocket(uid=7102, upgrade=False) as player:
        player.upgrade(traceparent=parent)
        player.login()
    root = receiver.find("connection", user_id="7102")[0]
    assert root.parent_id == "" and root.trace_id != TRACE


def test_a_tracestate_that_metadata_can_not_carry_is_none(start, backend, receiver):
    gateway = traced(start, backend, receiver)
    pids = gateway.worker_pids()
    with gateway.websocket(uid=7104, upgrade=False) as player:
        player.upgrade(traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="a=1,\tb=2")
        player.login()
        player.ask(3, 1)
        metadata = backend.stream_of(7104).metadata
    assert metadata["traceparent"].split("-")[1] == TRACE
    assert "tracestate" not in metadata
    assert gateway.worker_pids() == pids


def test_without_an_endpoint_there_is_no_trace_context(start, backend, receiver):
    gateway = start(Gateway, nodes=nodes_of(backend.address))
    with gateway.player(uid=7103) as player:
        player.ask(3, 1)
        assert "traceparent" not in backend.stream_of(7103).metadata
    assert gateway.counter("spans_finished") == 0


def test_a_collector_that_is_gone_and_back_gets_the_spans(start, backend):
    receiver = start(OtlpReceiver)
    receiver.stop()
    gateway = traced(start, backend, receiver)
    with gateway.player(uid=7104) as player:
        player.ask(3, 1)
        gateway.wait_counter("span_export_failures", 1)
        back = start(OtlpReceiver, port=receiver.port)
    back.find("connection", user_id="7104")
    assert gateway.counter("spans_dropped") == 0


def test_a_slow_collector_holds_up_nobody(start, backend, receiver):
    gateway = traced(start, backend, receiver)
    receiver.proceed.clear()
    with gateway.player(uid=7105) as player:
        for i in range(20):
            player.ask(3, i)
    receiver.proceed.set()
    assert len(receiver.find("message", 20, user_id="7105")) == 20


def test_a_collector_that_is_away_gets_the_spans_later(start, backend, receiver):
    gateway = traced(start, backend, receiver)
    receiver.answers = [(429, {"Retry-After": "1"}), (503, {})]
    with gateway.player(uid=7005) as player:
        player.ask(3, 1)
    receiver.find("connection", user_id="7005")
    assert gateway.counter("span_export_retries") == 2
    wait_for(lambda: gateway.counter("spans_exported") == gateway.counter("spans_finished"),
             "all to be exported")
    assert gateway.counter("spans_dropped") == 0


def test_after_an_upgrade_that_came_to_nothing_it_is_tried_again_all_the_same(
        start, backend, receiver, tmp_path):
    gateway = traced(start, backend, receiver)
    # Good in its trial, and gone when it is to take over.
    program = script(tmp_path, f'rm "$0"; exec {os.path.join(BIN, "janusd")} "$@"')
    assert "can't be executed" in refused(gateway, "--program", program)
    receiver.answers = [(503, {})]
    with gateway.player(uid=7010) as player:
        player.ask(3, 1)
    receiver.find("connection", user_id="7010")
    assert gateway.counter("spans_dropped") == 0


def test_what_is_refused_is_not_said_again(start, backend, receiver):
    gateway = traced(start, backend, receiver)
    receiver.answers = [(400, {})] * 100
    with gateway.player(uid=7006) as player:
        player.ask(3, 1)
    gateway.wait_counter("spans_rejected", 4)
    assert gateway.counter("span_export_retries") == 0


def test_beyond_the_bound_spans_are_dropped_and_counted(start, backend, receiver):
    gateway = traced(start, backend, receiver, spans_per_s=1)
    with gateway.player(uid=7007) as player:
        for i in range(50):
            player.ask(3, i)
    gateway.wait_counter("spans_dropped", 30)


def test_the_environment_overrides_the_configuration(start, backend, receiver):
    gateway = traced(start, backend, receiver, sampler="always_off", environment={
        "OTEL_TRACES_SAMPLER": "always_on", "OTEL_SERVICE_NAME": "gate-7",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a%20b", "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receiver.url + "/custom",
        "OTEL_RESOURCE_ATTRIBUTES": "team=red"})
    gateway.wait_log(r"environment_malformed variable=OTEL_EXPORTER_OTLP_TIMEOUT .*used=\"10000\"")
    with gateway.player(uid=7008):
        pass
    span = receiver.find("connection", user_id="7008")[0]
    assert (span.resource["service.name"], span.resource["team"]) == ("gate-7", "red")
    path, headers = receiver.requests[0]
    assert (path, headers["x-key"]) == ("/custom", "a b")
    # What may be a secret is in no process's environment any more, the others are.
    for pid in (gateway.pid, *gateway.worker_pids().values()):
        with open(f"/proc/{pid}/environ", "rb") as environ:
            text = environ.read()
        assert b"a%20b" not in text and b"OTEL_SERVICE_NAME=gate-7" in text


def test_the_last_spans_go_out_when_it_stops(start, backend, receiver):
    gateway = traced(start, backend, receiver)
    with gateway.player(uid=7009) as player:
        player.ask(3, 1)
        gateway.stop()
    root = receiver.find("connection", user_id="7009")[0]
    assert root.attributes["janus.close.reason"] == "drain"


def test_a_log_line_names_its_trace(start, backend, receiver):
    gateway = traced(start, backend, receiver)
    with gateway.player(uid=7010) as player:
        player.ask(3, 1)
    root = receiver.find("connection", user_id="7010")[0]
    for event in "session_opened", "session_closed":
        line = gateway.wait_log(rf"event={event} .*uid=7010\b.*").group(0)
        assert f"trace_id={root.trace_id}" in line


def test_spans_that_the_collector_would_not_take_are_counted(start, backend):
    receiver = start(OtlpReceiver, partial=1)
    gateway = traced(start, backend, receiver)
    with gateway.player(uid=7011) as player:
        player.ask(3, 1)
    receiver.find("connection", user_id="7011")
    finished = gateway.counter("spans_finished")
    wait_for(lambda: gateway.counter("spans_exported") + gateway.counter("spans_rejected") ==
             finished, "every span to be told of")
    assert gateway.counter("spans_rejected") == len(receiver.requests)


@pytest.mark.parametrize("variable, value", [("OTEL_SDK_DISABLED", "true"),
                                             ("OTEL_TRACES_EXPORTER", "none")])
def test_the_environment_switches_it_off(start, backend, receiver, variable, value):
    gateway = traced(start, backend, receiver, environment={variable: value})
    with gateway.player(uid=7012) as player:
        player.ask(3, 1)
        assert "traceparent" not in backend.stream_of(7012).metadata
    gateway.wait_gauge("connections", 0)
    assert gateway.counter("spans_finished") == 0 and receiver.requests == []
