"""The tests' own servers: each can do what the tests of the gateway rely on."""

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading

import grpc
import pytest
import redis as redis_py
from janus import servers
from janus.backend import METHODS
from janus.certificates import Certificates
from janus.etcd_server import Etcd
from janus.patience import patient, wait_for
from janus.redis_server import Redis, RedisCluster, Sentinels, player_key, room_key, route_key
from janus.renewing import RenewingBackend


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def one_taken(monkeypatch):
    """The first port that is said to be free is not."""
    free_ports = servers.free_ports
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        taken = holder.getsockname()[1]
        lies = [taken]
        monkeypatch.setattr(servers, "free_ports", lambda count:
                            [lies.pop() if lies else port for port in free_ports(count)])
        yield taken
        assert not lies


# --- What all servers have in common ----------------------------------------------------------


def test_a_server_whose_port_was_taken_starts_on_another(start, one_taken):
    redis = start(Redis)
    assert redis.port != one_taken and redis.client().ping()


def test_an_etcd_with_a_port_that_was_taken_starts_on_others(start, one_taken):
    etcd = start(Etcd, members=3)
    assert str(one_taken) not in " ".join(etcd.endpoints) + etcd.initial()
    etcd.put("a", "1")
    assert etcd.list("a") == {"a": "1"}


def test_a_restart_waits_for_its_port(start):
    redis = start(Redis)
    redis.kill()
    holder = socket.create_server(("127.0.0.1", redis.port))

    def let_go():
        with open(os.path.join(redis.directory, "log")) as log:
            wait_for(lambda: "ddress already in use" in log.read(), "the start to fail")
        holder.close()

    other = threading.Thread(target=let_go)
    other.start()
    redis.start()
    other.join()
    assert redis.client().ping()


def test_a_server_that_can_not_start_says_why():
    with pytest.raises(AssertionError, match="no-such-setting"):
        Redis(no_such_setting=1)


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from janus.redis_server import Redis
try:
    Redis(no_such_setting=1)
except AssertionError:
    print(Redis().process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_ends_leaves_no_server_behind(tmp_path, killed):
    run = subprocess.Popen([sys.executable, "-c", CHILD, os.path.dirname(__file__)],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                           env={**os.environ, "TMPDIR": str(tmp_path)})
    with run:
        pid = int(run.stdout.readline())
        assert is_running(pid) and len(list(tmp_path.iterdir())) == 2
        if killed:
            run.kill()
    wait_for(lambda: not is_running(pid), "the server to end")
    if not killed:
        assert list(tmp_path.iterdir()) == []


def test_a_stalled_server_is_stopped_and_its_data_is_gone():
    redis = Redis()
    redis.stall()
    redis.stop()
    assert not is_running(redis.process.pid) and not os.path.exists(redis.directory)


# --- Redis ------------------------------------------------------------------------------------


def test_redis_stalls_and_comes_back_empty_on_its_port(start):
    redis = start(Redis)
    redis.client().set("a", "1")
    assert redis.wait_key("a", "1") == "1"
    redis.stall()
    with pytest.raises(redis_py.TimeoutError):
        redis.client(timeout=0.2).get("a")
    redis.resume()
    assert redis.get("a") == "1"
    address = redis.address
    redis.kill()
    with pytest.raises(redis_py.ConnectionError):
        redis.get("a")
    redis.start()
    assert redis.get("a") is None and redis.address == address


def test_redis_with_password_and_users(start):
    redis = start(Redis, password="secret", users=["gate on >pass ~r_* +get"])
    assert redis.client().ping()
    with pytest.raises(redis_py.AuthenticationError):
        redis_py.Redis(host="127.0.0.1", port=redis.port).get("r_")
    gate = redis_py.Redis(host="127.0.0.1", port=redis.port, username="gate", password="pass")
    assert gate.get("r_") is None
    with pytest.raises(redis_py.exceptions.NoPermissionError):
        gate.get("other")


def test_tls_wants_the_authoritys_certificates_on_both_sides(start, tmp_path):
    tls = Certificates(tmp_path / "own")
    redis = start(Redis, tls=tls)
    etcd = start(Etcd, tls=tls)
    assert redis.client().ping()
    etcd.put("a", "1")
    stranger = Certificates(tmp_path / "stranger")
    redis.tls = etcd.tls = stranger  # the server is not known to it
    with pytest.raises(redis_py.ConnectionError, match="certificate verify failed"):
        redis.client().ping()
    with pytest.raises(OSError, match="certificate verify failed"):
        etcd.list("a")
    stranger.ca = tls.ca  # it is not known to the server
    with pytest.raises(redis_py.ConnectionError):
        redis.client().ping()
    with pytest.raises(OSError):
        etcd.list("a")


def test_sentinels_fail_over(start):
    sentinels = start(Sentinels)
    before = sentinels.master()
    before.client().set("a", "1")
    before.client().wait(1, 0)
    after = sentinels.fail_over()
    assert after is not before and after.get("a") == "1"


def test_a_slot_of_a_cluster_moves(start):
    cluster = start(RedisCluster)
    stays, comes = player_key(1), player_key(2)  # of one color, in one slot
    cluster.client().set(stays, "there")
    move = source, target, _ = cluster.begin_move(stays)
    assert source.get(stays) == "there"
    with pytest.raises(redis_py.ResponseError, match="ASK"):
        source.client().set(comes, "new")
    cluster.client().set(comes, "new")
    cluster.end_move(*move)
    with pytest.raises(redis_py.ResponseError, match="MOVED"):
        source.get(stays)
    assert cluster.owner(stays) is target
    assert (target.get(stays), target.get(comes)) == ("there", "new")


# --- etcd -------------------------------------------------------------------------------------


def test_etcd_registers_compacts_and_comes_back_empty(start):
    etcd = start(Etcd)
    key = etcd.register("127.0.0.1:1", color="red", ttl=600)
    assert '"color": "red"' in etcd.list("/microservices/roma.player.service/")[key]
    etcd.revoke_lease_of(key)
    assert etcd.list("/microservices/") == {}
    etcd.put("a", "1")
    etcd.compact()
    with pytest.raises(OSError):  # revision 2 is forgotten
        etcd.call("/v3/kv/range", {"key": "YQ==", "revision": 2})
    endpoints = list(etcd.endpoints)
    etcd.restart_empty()
    assert etcd.list("a") == {} and etcd.endpoints == endpoints


def test_etcd_with_a_password_is_there_after_a_restart(start):
    etcd = start(Etcd, root_password="secret")
    etcd.put("a", "1")
    etcd.token = "expired"
    with pytest.raises(OSError):
        etcd.list("a")
    etcd.members[0].kill()
    etcd.members[0].start()
    etcd.log_in()
    assert etcd.list("a") == {"a": "1"}


def test_another_member_of_etcd_leads_when_the_leader_dies(start):
    etcd = start(Etcd, members=3)
    etcd.put("a", "1")
    leader = etcd.leader()
    leader.kill()
    etcd.members.remove(leader)
    other = wait_for(etcd.leader, "another leader")
    etcd.members.append(leader)
    assert other is not leader and etcd.list("a") == {"a": "1"}
    leader.start()


# --- The backend that renews ------------------------------------------------------------------


@contextlib.contextmanager
def tunnel(backend, oid, kind="player"):
    """A call as the gateway makes it."""
    method = next(path for path, name in METHODS.items() if name == kind)
    requests = queue.Queue()
    with grpc.insecure_channel(backend.address) as channel:
        call = channel.stream_stream(method)(  # cancelled when nobody holds it
            iter(requests.get, None), timeout=patient(30), metadata=[
                ("x-md-global-uid", "1"), ("x-md-global-color", "blue"),
                ("x-md-global-oid", str(oid))])
        yield call
        requests.put(None)


def ended_well(call):
    return list(call) == [] and call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("kind, key", [
    ("player", player_key(5)), ("room", room_key(5)),
    ("team", route_key("roma.team.service", "blue", 5))])
def test_a_route_is_renewed_until_it_is_lost(start, kind, key):
    redis = start(Redis)
    backend = start(RenewingBackend, redis.client, ttl_s=30, first_s=0.05)
    redis.client().set(key, backend.address, px=10_000)
    with tunnel(backend, 5, kind) as call:
        wait_for(lambda: redis.client().pttl(key) > 20_000, "it to be renewed")
        assert backend.lost == []
        redis.client().delete(key)
        backend.look_at_all()
        assert ended_well(call) and backend.lost == [(key, "missing")]


def test_a_route_that_names_another_ends_the_stream(start):
    redis = start(Redis)
    redis.client().set(player_key(5), "127.0.0.1:9", px=10_000)
    backend = start(RenewingBackend, redis.client, first_s=0.05)
    with tunnel(backend, 5) as call:
        assert ended_well(call) and backend.lost == [(player_key(5), "127.0.0.1:9")]
    assert redis.client().pttl(player_key(5)) <= 10_000


@pytest.mark.parametrize("error", [
    redis_py.ConnectionError("gone"), redis_py.exceptions.ReadOnlyError("gone"),
    redis_py.exceptions.RedisClusterException("gone")])
def test_errors_are_borne_three_times(start, error):
    looks = []

    def client():
        looks.append(error)
        raise error

    backend = start(RenewingBackend, client, ttl_s=0.5, first_s=0.05)
    with tunnel(backend, 5) as call:
        assert ended_well(call) and backend.lost == [(player_key(5), "gone")]
    assert len(looks) == 4


def test_a_stalled_redis_keeps_no_new_stream_waiting(start):
    asked, go_on = threading.Event(), threading.Event()

    def client():
        asked.set()
        go_on.wait(patient(90))  # longer than a tunnel lives
        raise redis_py.TimeoutError("stalled")

    backend = start(RenewingBackend, client, ttl_s=600, first_s=0.05)
    with tunnel(backend, 5):
        assert asked.wait(patient(30))
        with tunnel(backend, 6) as other:
            backend.stream_of(1, oid=6).end()
            assert ended_well(other)
        go_on.set()


def test_a_backend_that_can_not_look_any_more_fails_its_test():
    backend = RenewingBackend(lambda: None, first_s=0.05)
    with tunnel(backend, 5):
        wait_for(lambda: backend.fault, "the fault")
        with pytest.raises(AssertionError, match="nobody looked"):
            backend.stop()
