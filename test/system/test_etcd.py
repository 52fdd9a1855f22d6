"""Nodes from a real etcd: what is known, and what every kind of trouble makes of it."""

import json
import time

import pytest
from janus.certificates import Certificates
from janus.etcd_server import Etcd, b64
from janus.patience import ms, patient, wait_for
from janus.programs import Gateway, etcd_settings, secret_settings

PLAYER = "roma.player.service"


def gateway_on(start, etcd, secrets=None, **options):
    gateway = start(Gateway, nodes=[], settings=etcd_settings(*etcd.endpoints, **options),
                    secrets=secrets)
    gateway.wait_link("etcd", "watching")
    return gateway


@pytest.fixture(scope="module")
def etcd(start_module):
    return start_module(Etcd)


@pytest.fixture(scope="module")
def gateway(start_module, etcd):
    return gateway_on(start_module, etcd)


@pytest.fixture(autouse=True)
def nothing_registered(request):
    yield
    if "etcd" in request.fixturenames:
        etcd = request.getfixturevalue("etcd")
        for key in etcd.list("/microservices/roma"):
            etcd.delete(key)


def test_nodes_come_change_and_go(gateway, etcd, backend):
    key = etcd.register(backend.address, weight=50)
    etcd.register(backend.address, service="roma.room.service")
    gateway.wait_nodes(backend.address)
    gateway.wait_nodes(backend.address, service="roma.room.service")
    node = gateway.nodes()[backend.address]
    assert (node["color"], node["weight"], node["state"], node["tls"]) == ("blue", 50, "up", False)
    with gateway.player(uid=701) as player:
        player.ask(1, 1)
        player.ask(6, 1, obj=5)
        assert gateway.nodes()[backend.address]["tunnels"] == 1
    etcd.register(backend.address, weight=0, id=key.rpartition("/")[2])
    wait_for(lambda: gateway.nodes()[backend.address]["state"] == "draining", "weight 0 to be seen")
    etcd.register("127.0.0.1:9", scheme="grpcs", color="")
    gateway.wait_nodes(backend.address, "127.0.0.1:9")
    assert gateway.nodes()["127.0.0.1:9"]["tls"] and gateway.nodes()["127.0.0.1:9"]["weight"] == 100
    etcd.delete(key)
    gateway.wait_nodes("127.0.0.1:9")


def test_a_lease_that_runs_out_takes_its_node_along(gateway, etcd):
    etcd.register("127.0.0.1:11", ttl=5)
    gateway.wait_nodes("127.0.0.1:11")
    gateway.wait_nodes()


def test_two_instances_at_one_address_count_once(gateway, etcd):
    first = etcd.register("127.0.0.1:12")
    etcd.register("127.0.0.1:12")
    gateway.wait_nodes("127.0.0.1:12")
    assert len(gateway.ctl("nodes")["nodes"]) == 1
    etcd.delete(first)
    etcd.register("127.0.0.1:13")
    gateway.wait_nodes("127.0.0.1:12", "127.0.0.1:13")


GOOD = {"id": "x", "name": PLAYER, "metadata": {"color": "blue"}, "endpoints": ["grpc://h:1"]}


@pytest.mark.parametrize("value", [
    "", "{", "[]", "null", "7", b"\xff\xfe".decode("latin1"), "x" * 100_000, '{"a":' * 3000,
    json.dumps({**GOOD, "name": 5}),
    json.dumps({**GOOD, "endpoints": "grpc://h:1"}),
    json.dumps({**GOOD, "endpoints": []}),
    json.dumps({**GOOD, "endpoints": ["http://h:1", "grpc://", "grpc://h", "grpc://h:0", 5, None]}),
    json.dumps({**GOOD, "endpoints": ["grpc://" + "h" * 500 + ":1"]}),
    json.dumps({**GOOD, "metadata": {"color": "c" * 64}}),
    json.dumps({**GOOD, "metadata": {"weight": "-1"}}),
    json.dumps({**GOOD, "metadata": {"weight": "many"}}),
    json.dumps({**GOOD, "metadata": {"weight": "1" * 40}}),
])
def test_a_value_that_does_not_parse_costs_that_value_only(gateway, etcd, value):
    malformed = gateway.counter("nodes_malformed")
    etcd.put(f"/microservices/{PLAYER}/bad", value)
    gateway.wait_counter("nodes_malformed", malformed + 1)
    etcd.register("127.0.0.1:14")
    gateway.wait_nodes("127.0.0.1:14")


def test_a_service_whose_name_begins_alike_is_another(gateway, etcd):
    malformed = gateway.counter("nodes_malformed")
    etcd.register("127.0.0.1:15", service=PLAYER + "2")
    etcd.register("127.0.0.1:16")
    gateway.wait_nodes("127.0.0.1:16")
    assert gateway.counter("nodes_malformed") == malformed


def test_the_gateway_registers_itself_with_all_that_others_need(gateway, etcd):
    (own,) = etcd.wait_gateways(1)
    assert own["name"] == "janus.gate.interface"
    assert set(own["metadata"]) >= {"svc", "profile", "ver", "color"}
    port = gateway.address[1]
    assert f"tcp://127.0.0.1:{port}" in own["endpoints"]
    assert "ws://%s:%d/ws" % gateway.listener("ws") in own["endpoints"]
    assert "kcp://%s:%d" % gateway.listener("kcp") in own["endpoints"]
    assert any(endpoint.startswith("grpc://") for endpoint in own["endpoints"])
    assert gateway.link("etcd")["registered"]


def test_a_lost_lease_is_replaced_and_a_shutdown_deregisters(start, etcd, gateway):
    etcd.wait_gateways(1)
    other = gateway_on(start, etcd, lease_ttl="600s", timeout="20s")
    etcd.wait_gateways(2)
    (key,) = [key for key, value in etcd.list("/microservices/janus.gate.interface/").items()
              if f":{other.address[1]}" in value]
    etcd.revoke_lease_of(key)
    other.wait_log("event=registration_removed")
    etcd.wait_gateways(2)
    mark = other.mark()
    other.stop()
    etcd.wait_gateways(1)  # not by the lease running out
    deregistered = next(i for i, line in enumerate(other.lines[mark:]) if "deregistered" in line)
    stopping = next(i for i, line in enumerate(other.lines[mark:]) if "worker_stopping" in line)
    assert deregistered < stopping, "it is out of the registry before it turns anybody away"


def test_a_registration_that_somebody_removes_is_put_again(start, etcd, gateway):
    for _ in range(3):
        (key,) = etcd.list("/microservices/janus.gate.interface/")
        mark = gateway.mark()
        etcd.delete(key)
        gateway.wait_log("event=registered", since=mark)
        etcd.wait_gateways(1)
    assert gateway.link("etcd")["registered"]


def test_a_registration_after_an_undrain_is_watched_too(start):
    etcd = start(Etcd)
    gateway = gateway_on(start, etcd)
    etcd.wait_gateways(1)
    gateway.ctl("drain", "--no-wait", "--timeout", "1h")
    etcd.wait_gateways(0)
    wait_for(lambda: gateway.ctl("drain", "status")["drain"]["state"] != "deregistering",
             "the registry to let it go")
    gateway.ctl("undrain")
    for _ in range(2):
        (key,) = wait_for(lambda: etcd.list("/microservices/janus.gate.interface/"), "it")
        mark = gateway.mark()
        etcd.delete(key)
        gateway.wait_log("event=registration_removed", since=mark)
        etcd.wait_gateways(1)


def test_a_registration_that_is_removed_while_nobody_looks_is_put_again(start):
    etcd = start(Etcd)
    gateway = gateway_on(start, etcd, lease_ttl="600s")
    (key,) = wait_for(lambda: etcd.list("/microservices/janus.gate.interface/"), "it")
    gateway.stall()
    etcd.members[0].kill()
    etcd.members[0].start()
    etcd.delete(key)
    gateway.resume()
    etcd.wait_gateways(1)


def test_compaction_while_away_means_a_fresh_list(start):
    etcd = start(Etcd)
    old = etcd.register("127.0.0.1:21")
    gateway = gateway_on(start, etcd)
    gateway.wait_nodes("127.0.0.1:21")
    etcd.members[0].kill()
    gateway.wait_log("event=etcd_lost")
    assert set(gateway.nodes()) == {"127.0.0.1:21"}, "the last known nodes stay"
    etcd.members[0].start()
    etcd.register("127.0.0.1:22")
    etcd.delete(old)
    etcd.compact()
    gateway.wait_nodes("127.0.0.1:22")
    assert gateway.link("etcd")["lost"] >= 1 and gateway.link("etcd")["last_error"]


def test_an_etcd_that_comes_back_empty_does_not_take_the_nodes_at_once(start, backend):
    etcd = start(Etcd)
    etcd.register(backend.address)
    gateway = gateway_on(start, etcd, empty_hold=f"{patient(10)}s")
    gateway.wait_nodes(backend.address)
    with gateway.player(uid=731) as player:
        player.ask(1, 1)
        etcd.restart_empty()
        gateway.wait_log("event=nodes_held")
        assert gateway.nodes()[backend.address]["state"] == "held"
        with gateway.player(uid=732) as newcomer:
            newcomer.ask(1, 1)
        etcd.wait_gateways(1)  # under a new lease
        etcd.register("127.0.0.1:31")
        gateway.wait_nodes(backend.address, "127.0.0.1:31")
        gateway.wait_nodes("127.0.0.1:31")  # its hold is over
        assert player.ask(1, 2).seq == 2


def test_a_node_that_registers_anew_is_held_no_more(start, backend):
    etcd = start(Etcd)
    etcd.register(backend.address)
    gateway = gateway_on(start, etcd, empty_hold="600s")
    gateway.wait_nodes(backend.address)
    etcd.restart_empty()
    gateway.wait_log("event=nodes_held")
    key = etcd.register(backend.address)
    wait_for(lambda: gateway.nodes()[backend.address]["state"] == "up", "it to be listed again")
    etcd.delete(key)
    gateway.wait_nodes()


def test_three_members_leader_killed_member_stalled(start):
    etcd = start(Etcd, members=3)
    gateway = gateway_on(start, etcd, timeout="1s")
    etcd.register("127.0.0.1:41")
    gateway.wait_nodes("127.0.0.1:41")
    # The member in use hangs: noticed by its silence on the lease.
    used = next(member for member in etcd.members
                if member.address in gateway.link("etcd")["where"])
    used.stall()
    mark = gateway.mark()
    gateway.wait_log("event=etcd_watching", since=mark, timeout=60)
    others = [member for member in etcd.members if member is not used]
    etcd.members = others + [used]
    wait_for(lambda: _registers(etcd, "127.0.0.1:42"), "the others to have a leader", 60)
    gateway.wait_nodes("127.0.0.1:41", "127.0.0.1:42")
    used.resume()
    # The leader dies.
    leader = wait_for(lambda: _leader(etcd), "a leader", 60)
    leader.kill()
    etcd.members = [member for member in etcd.members if member is not leader] + [leader]
    wait_for(lambda: _registers(etcd, "127.0.0.1:43"), "a new leader", 60)
    gateway.wait_nodes("127.0.0.1:41", "127.0.0.1:42", "127.0.0.1:43", timeout=60)
    wait_for(lambda: len(etcd.gateways()) == 1, "the gateway to be registered", 60)


def _registers(etcd, address):
    try:
        return etcd.register(address, id="id-" + address.rpartition(":")[2])
    except OSError:
        return None


def _leader(etcd):
    try:
        return etcd.leader()
    except OSError:
        return None


def test_without_a_majority_the_last_known_nodes_stay(start, backend):
    etcd = start(Etcd, members=3)
    etcd.register(backend.address)
    gateway = gateway_on(start, etcd, timeout="1s")
    gateway.wait_nodes(backend.address)
    for member in etcd.members[:2]:
        member.kill()
    gateway.wait_log("event=etcd_lost", timeout=60)
    with gateway.player(uid=741) as player:
        player.ask(1, 1)
    assert set(gateway.nodes()) == {backend.address}
    for member in etcd.members[:2]:
        member.start(wait=False)
    gateway.wait_link("etcd", "watching")
    etcd.register("127.0.0.1:44")
    gateway.wait_nodes(backend.address, "127.0.0.1:44")


def test_an_etcd_that_says_nothing_is_given_up_in_time(start):
    etcd = start(Etcd)
    etcd.members[0].stall()
    gateway = start(Gateway, nodes=[], settings=etcd_settings(
        *etcd.endpoints, timeout=f"{ms(0.5)}ms"))
    gateway.wait_log("event=etcd_lost .*call=/etcdserverpb.KV/Range "
                     'why="no answer within etcd.timeout')
    etcd.members[0].resume()
    gateway.wait_link("etcd", "watching")


def test_user_and_password_and_a_token_that_expires(start, keys):
    etcd = start(Etcd, root_password="etcdsecret")
    gateway = gateway_on(start, etcd, username="root",
                         secrets=secret_settings(keys, etcd_password="etcdsecret"))
    etcd.register("127.0.0.1:51")
    gateway.wait_nodes("127.0.0.1:51")
    # Restarted, it knows no token any more: another has to be had.
    etcd.members[0].kill()
    etcd.members[0].start(wait=False)
    wait_for(lambda: _logged_in(etcd), "etcd to be back")
    etcd.register("127.0.0.1:52")
    gateway.wait_nodes("127.0.0.1:51", "127.0.0.1:52")
    assert "etcdsecret" not in gateway.log()
    wrong = start(Gateway, nodes=[], settings=etcd_settings(*etcd.endpoints, username="root"),
                  secrets=secret_settings(keys, etcd_password="wrong"))
    wrong.wait_log("event=etcd_lost.*authentication failed")
    assert "authentication failed" in wrong.link("etcd")["last_error"]


def _logged_in(etcd):
    try:
        etcd.log_in()
        return True
    except OSError:
        return False


def test_tls_with_a_client_certificate(start, tmp_path):
    tls = Certificates(tmp_path)
    etcd = start(Etcd, tls=tls)
    gateway = gateway_on(start, etcd, tls={
        "ca": tls.ca, "cert": tls.client_cert, "key": tls.client_key})
    etcd.register("127.0.0.1:61")
    gateway.wait_nodes("127.0.0.1:61")
    stranger = start(Gateway, nodes=[], settings=etcd_settings(*etcd.endpoints))
    stranger.wait_log("event=etcd_lost")
    assert stranger.ctl("nodes")["nodes"] == []


def test_a_gateway_that_may_not_register_still_watches(start, keys):
    etcd = start(Etcd, root_password="etcdsecret")
    etcd.call("/v3/auth/role/add", {"name": "reader"})
    etcd.call("/v3/auth/role/grant", {"name": "reader", "perm": {
        "permType": "READ", "key": b64("/microservices/"), "range_end": b64("/microservices0")}})
    etcd.call("/v3/auth/user/add", {"name": "gate", "password": "gatepass"})
    etcd.call("/v3/auth/user/grant", {"user": "gate", "role": "reader"})
    gateway = gateway_on(start, etcd, username="gate",
                         secrets=secret_settings(keys, etcd_password="gatepass"))
    gateway.wait_log("event=not_registered.*permission denied")
    etcd.register("127.0.0.1:81")
    gateway.wait_nodes("127.0.0.1:81")
    assert gateway.link("etcd")["lost"] == 0 and not gateway.link("etcd")["registered"]
    # Once it may, it does.
    etcd.call("/v3/auth/role/grant", {"name": "reader", "perm": {
        "permType": "READWRITE", "key": b64("/microservices/"),
        "range_end": b64("/microservices0")}})
    etcd.wait_gateways(1)
    assert gateway.link("etcd")["lost"] == 0


def test_a_shutdown_deregisters_also_when_the_token_has_run_out(start, keys):
    etcd = start(Etcd, root_password="etcdsecret", auth_token_ttl=1)
    gateway = gateway_on(start, etcd, username="root", lease_ttl="600s", timeout="20s",
                         secrets=secret_settings(keys, etcd_password="etcdsecret"))
    wait_for(lambda: _gateways_after_log_in(etcd) == 1, "the gateway to be registered")
    token = etcd.token  # nobody uses it for a while; the gateway's is as old
    _wait_until_expired(etcd, token)
    gateway.stop()
    assert _gateways_after_log_in(etcd) == 0


def _gateways_after_log_in(etcd):
    etcd.log_in()
    return len(etcd.gateways())


def _wait_until_expired(etcd, token):
    """Asked at ever longer intervals, since every question prolongs it."""
    for pause in (1, 2, 4, 8, 16):
        time.sleep(pause)
        etcd.token = token
        try:
            etcd.gateways()
        except OSError:
            return
    raise AssertionError("the token does not run out")


def test_an_etcd_that_went_back_loses_no_node_at_once(start):
    """Restored from a backup or emptied, and one node was quicker than we."""
    etcd = start(Etcd)
    for port in range(91, 95):
        etcd.register(f"127.0.0.1:{port}", id=str(port))
    gateway = gateway_on(start, etcd, empty_hold="600s")
    gateway.wait_nodes(*(f"127.0.0.1:{port}" for port in range(91, 95)))
    mark = gateway.mark()
    gateway.stall()
    etcd.restart_empty()
    etcd.register("127.0.0.1:91", id="91")
    gateway.resume()
    gateway.wait_log("event=etcd_went_back", since=mark)
    gateway.wait_log("event=etcd_watching", since=mark)
    states = {address: node["state"] for address, node in gateway.nodes().items()}
    assert states == {"127.0.0.1:91": "up", "127.0.0.1:92": "held", "127.0.0.1:93": "held",
                      "127.0.0.1:94": "held"}
