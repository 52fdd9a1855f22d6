"""Several listeners, each with its own address, limits, lists and options; PROXY headers, by
hand and from a real HAProxy; IPv6."""

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import urllib.request

import pytest

from janus import wire
from janus.client import Client
from janus.patience import patient, wait_for
from janus.programs import Gateway, Roma, merged, nodes_of, redis_settings
from janus.push import HttpPusher, json_body
from janus.redis_server import Redis, gateway_key, player_key
from janus.servers import Server

V2 = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = "127.0.0.1"


def v2(command=0x21, family=0x11, content=b"", length=None):
    return V2 + struct.pack(">BBH", command, family, len(content) if length is None else length) \
        + content


def v2_ipv4(source, port, more=b""):
    return v2(content=socket.inet_aton(source) + socket.inet_aton("192.0.2.1")
              + struct.pack(">HH", port, 443) + more)


def v2_ipv6(source, port):
    return v2(family=0x21, content=socket.inet_pton(socket.AF_INET6, source) + b"\0" * 16
              + struct.pack(">HH", port, 443))


(PROXIED, PROXIED_WS, FOREIGN_PROXY, DENYING, ALLOWING, FEW, IPV6, IPV6_WS) = range(8)

SETTINGS = {
    "server": {"listeners": [
        {"transport": "tcp", "addr": f"{LOCAL}:0", "proxy": ["127.0.0.0/8"],
         "deny": ["203.0.113.0/24"], "connections_per_address": 2},
        {"transport": "ws", "addr": f"{LOCAL}:0", "proxy": ["127.0.0.0/8"], "ping_interval": "0s"},
        {"transport": "tcp", "addr": f"{LOCAL}:0", "proxy": ["192.0.2.0/24"]},
        {"transport": "tcp", "addr": f"{LOCAL}:0", "deny": ["127.0.0.2", "10.0.0.0/8"]},
        {"transport": "tcp", "addr": f"{LOCAL}:0", "allow": ["127.0.0.8/29"]},
        {"transport": "tcp", "addr": f"{LOCAL}:0", "connections_per_worker": 1},
        {"transport": "tcp", "addr": "[::1]:0", "allow": ["::1"]},
        {"transport": "ws", "addr": "[::1]:0", "deny": ["::2"], "ping_interval": "0s"}]},
    "limits": {"handshake_timeout": f"{int(patient(2))}s"},
    "worker": {"count": 1},
}


@pytest.fixture(scope="module")
def places(gateway):
    """The addresses of the listeners of SETTINGS."""
    addresses = [one["address"] for one in gateway.ctl("status")["listeners"][3:]]
    return [(host.strip("[]"), int(port)) for host, _, port in
            (address.rpartition(":") for address in addresses[:8])]


def works(client, text=b"hello"):
    assert client.ask(wire.USER, 1, text).data == text


# --- PROXY ----------------------------------------------------------------------------------


@pytest.mark.parametrize("header,address", [
    (b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 443\r\n", "198.51.100.7:56324"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", "[2001:db8::7]:56324"),
    (b"PROXY TCP6 ::ffff:198.51.100.8 ::1 1 1\r\n", "198.51.100.8:1"),
    (v2_ipv4("198.51.100.9", 56325), "198.51.100.9:56325"),
    (v2_ipv4("198.51.100.9", 56325, b"\x04\x01\0" + b"\0" * 256), "198.51.100.9:56325"),
    (v2_ipv6("2001:db8::9", 56326), "[2001:db8::9]:56326"),
    (b"PROXY UNKNOWN\r\n", None), (b"PROXY UNKNOWN ff ee 1\r\n", None),
    (v2(command=0x20, family=0), None), (v2(family=0), None),
    (v2(command=0x20, content=b"x" * 2000), None)])
@pytest.mark.parametrize("bytewise", [False, True], ids=["at_once", "bytewise"])
def test_the_address_of_a_proxy_header_is_the_client_s(gateway, backend, places, header, address,
                                                       bytewise):
    with gateway.client(places[PROXIED], uid=30201) as client:
        for piece in [header[i:i + 1] for i in range(len(header))] if bytewise else []:
            client.send_raw(piece)
        client.send_raw((b"" if bytewise else header) + client.handshake_frame())
        client.finish_login()
        works(client)
        address = address or client.name()
        assert gateway.session_of(30201)["address"] == address
        assert backend.streams_of(30201)[-1].metadata["x-md-global-client-ip"] == address
    gateway.wait_gauge("sessions", 0)


def test_a_proxy_header_before_a_websocket(gateway, places):
    header = b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 443\r\n"
    with gateway.websocket(places[PROXIED_WS], uid=30202, first=header) as client:
        client.login()
        works(client)
        assert gateway.session_of(30202)["address"] == "198.51.100.7:56324"


BAD_HEADERS = {
    "none": wire.frame(b"x" * 100),
    "other_text": b"GET / HTTP/1.1\r\n\r\n",
    "a_family_of_nobody": b"PROXY TCP5 198.51.100.7 192.0.2.1 1 1\r\n",
    "no_address": b"PROXY TCP4 198.51.100 192.0.2.1 1 1\r\n",
    "the_wrong_family": b"PROXY TCP4 ::1 ::1 1 1\r\n",
    "a_missing_port": b"PROXY TCP4 198.51.100.7 192.0.2.1 1\r\n",
    "a_large_port": b"PROXY TCP4 198.51.100.7 192.0.2.1 65536 1\r\n",
    "a_padded_port": b"PROXY TCP4 198.51.100.7 192.0.2.1 01 1\r\n",
    "a_negative_port": b"PROXY TCP4 198.51.100.7 192.0.2.1 -1 1\r\n",
    "more_behind_it": b"PROXY TCP4 198.51.100.7 192.0.2.1 1 1 x\r\n",
    "two_blanks": b"PROXY TCP4  198.51.100.7 192.0.2.1 1 1\r\n",
    "no_carriage_return": b"PROXY TCP4 198.51.100.7 192.0.2.1 1 1\n",
    "a_zero_byte": b"PROXY TCP4 198.51.100.7 192.0.2.1 1 1\0\r\n",
    "unknown_and_more": b"PROXY UNKNOWNS\r\n",
    "too_long": b"PROXY UNKNOWN " + b"x" * 100,
    "v2_of_version_1": v2(command=0x11),
    "v2_with_a_command_of_nobody": v2(command=0x22),
    "v2_over_udp": v2(family=0x12, content=b"x" * 12),
    "v2_with_a_family_of_nobody": v2(family=0x41, content=b"x" * 36),
    "v2_too_short_for_ipv4": v2(content=b"x" * 11),
    "v2_too_short_for_ipv6": v2(family=0x21, content=b"x" * 35),
    "v2_too_long": v2(length=5000),
    "v2_broken_signature": b"\r\n\r\n\0\r\nQUIX\n" + b"x" * 10,
}


@pytest.mark.parametrize("kind", BAD_HEADERS)
def test_a_bad_header_closes(gateway, places, kind):
    with gateway.closes("proxy_header"):
        with gateway.client(places[PROXIED]) as client:
            client.send_raw(BAD_HEADERS[kind])
            assert client.receive_end() is None


@pytest.mark.parametrize("header", [b"P", b"PROXY TCP4 198.51.100.7 192.0.2.1 1 1\r", V2,
                                    v2(length=12) + b"x" * 11], ids=["1", "v1", "v2", "content"])
def test_a_truncated_header(gateway, places, header):
    with gateway.closes("client_closed"):
        with gateway.client(places[PROXIED]) as client:
            client.send_raw(header)
    with gateway.closes("handshake_timeout"):
        with gateway.client(places[PROXIED]) as client:
            client.send_raw(header)
            assert client.receive_end() is None


@pytest.mark.parametrize("header", [b"PROXY TCP4 198.51.100.7 192.0.2.1 1 1\r\n",
                                    v2_ipv4("198.51.100.7", 1)], ids=["v1", "v2"])
@pytest.mark.parametrize("index", [FOREIGN_PROXY, DENYING], ids=["other_network", "no_proxy"])
def test_a_header_from_one_who_is_not_trusted_is_no_message(gateway, places, header, index):
    with gateway.closes("frame_length"):
        with gateway.client(places[index], first=header) as client:
            assert client.receive_end() is None


def test_limits_and_lists_go_by_the_address_of_the_header(gateway, places):
    def come(source):
        client = gateway.client(places[PROXIED], first=v2_ipv4(source, 1000))
        return client

    with gateway.closes("address_denied"):
        with come("203.0.113.5") as client:
            assert client.receive_end() is None
    held = [come("198.51.100.20"), come("198.51.100.20"), come("198.51.100.21")]
    with gateway.closes("address_limit", others_open=3):
        with come("198.51.100.20") as client:
            assert client.receive_end() is None
    held.pop(0).close()
    gateway.wait_gauge("connections", 2)
    with come("198.51.100.20") as client:
        client.login()
    for client in held:
        client.close()


# Alone on its ports: it would share one with whatever else asks for SO_REUSEPORT, and each would
# get some of the connections.
HAPROXY = """
global
  maxconn 100
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen v2
  bind fd@{fds[0]}
  server gate {tcp} send-proxy-v2
listen v1
  bind fd@{fds[1]}
  server gate {tcp} send-proxy
listen ws
  bind fd@{fds[2]}
  mode http
  timeout tunnel 60s
  server gate {ws} send-proxy-v2 check
listen ready
  bind fd@{fds[3]}
  mode http
  http-request return status 200
"""


class HaProxy(Server):
    """It stands before three of the gateway's listeners."""

    def __init__(self, places):
        super().__init__()
        # Bound here, so that nobody else has the ports meanwhile; it listens on them.
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(4)]
        for one in sockets:
            one.bind((LOCAL, 0))
        self.ports = [one.getsockname()[1] for one in sockets]
        self.inherited = [one.fileno() for one in sockets]
        with open(os.path.join(self.directory, "haproxy.cfg"), "w") as out:
            out.write(HAPROXY.format(fds=self.inherited, tcp="%s:%d" % places[PROXIED],
                                     ws="%s:%d" % places[PROXIED_WS]))
        self.start()
        for one in sockets:
            one.close()

    def command(self):
        return ["haproxy", "-db", "-f", "haproxy.cfg"]

    def answers(self):
        # At a port of its own: what comes to the others counts at the gateway as a client's.
        with urllib.request.urlopen(f"http://{LOCAL}:{self.ports[3]}/", timeout=5) as answer:
            return answer.status == 200


def test_haproxy_in_front(start, gateway, places):
    ports = start(HaProxy, places).ports
    for uid, port in ((30211, ports[0]), (30212, ports[1])):
        with Client((LOCAL, port), gateway.keys, uid=uid) as client:
            client.login()
            works(client)
            assert gateway.session_of(uid)["address"] == client.name()
    with gateway.websocket((LOCAL, ports[2]), uid=30213) as client:
        client.login()
        works(client)
        assert gateway.session_of(30213)["address"] == client.name()


# --- Lists and limits -------------------------------------------------------------------------


@pytest.mark.parametrize("index,source,let_in", [
    (DENYING, "127.0.0.1", True), (DENYING, "127.0.0.2", False), (DENYING, "127.0.0.3", True),
    (ALLOWING, "127.0.0.8", True), (ALLOWING, "127.0.0.15", True), (ALLOWING, "127.0.0.16", False),
    (ALLOWING, "127.0.0.1", False)])
def test_who_may_come_in(gateway, places, index, source, let_in):
    if let_in:
        with gateway.client(places[index], source=source, uid=30221) as client:
            client.login()
            works(client)
    else:
        with gateway.closes("address_denied"):
            with gateway.client(places[index], source=source) as client:
                assert client.receive_end() is None


def test_a_listener_s_own_limit_leaves_the_others_alone(gateway, places):
    gateway.wait_gauge("connections", 0)
    with gateway.client(places[FEW], uid=30222) as first:
        first.login()
        with gateway.closes("connection_limit", others_open=1):
            with gateway.client(places[FEW]) as second:
                assert second.receive_end() is None
        with gateway.player(30223) as elsewhere:
            works(elsewhere)
        works(first)
    gateway.wait_gauge("connections", 0)
    with gateway.client(places[FEW], uid=30224) as third:
        third.login()


# --- IPv6 ---------------------------------------------------------------------------------------


def test_ipv6_from_the_socket_to_the_backend(gateway, backend, places):
    for index, uid in ((IPV6, 30231), (IPV6_WS, 30232)):
        open_client = gateway.websocket if index == IPV6_WS else gateway.client
        with open_client(places[index], uid=uid) as client:
            client.login()
            works(client)
            assert client.name().startswith("[::1]:")
            assert gateway.session_of(uid)["address"] == client.name()
            assert backend.streams_of(uid)[-1].metadata["x-md-global-client-ip"] == client.name()
            assert gateway.ctl("sessions", "--address", "::1")["total"] == 1
            gateway.wait_log(rf"event=session_opened .*uid={uid} address=\[::1\]:\d+ ")


def test_backends_redis_and_the_own_ports_over_ipv6(start):
    roma = start(Roma, listen="[::1]:0")
    redis = start(Redis, bind="127.0.0.1 ::1")
    gateway = start(Gateway, nodes=nodes_of(roma.address), settings=merged(
        redis_settings(f"[::1]:{redis.port}"),
        {"server": {"grpc": {"addr": "[::1]:0"}, "http": {"addr": "[::1]:0"}}}))
    gateway.wait_link("redis", "up")
    advertise = gateway.ctl("status")["advertise"]
    assert advertise.startswith("[::1]:")
    with gateway.player(30234) as client:
        works(client)
        assert redis.client().get(player_key(30234)) == roma.address
        wait_for(lambda: redis.client().get(gateway_key(30234)) == advertise, "the gateway route")
        pusher = HttpPusher(gateway, "--globoff")
        answer = pusher.ok("/push", {"uid": "30234", "bodies": [json_body(b"news")]})
        assert answer["pushed"]
        assert client.receive().data == b"news"


def test_ipv4_over_an_ipv6_socket_is_ipv4(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={
        "server": {"tcp": {"addr": "[::]:0", "deny": ["127.0.0.2"]}}})
    address = (LOCAL, gateway.listener("tcp")[1])
    with gateway.client(address, uid=30233) as client:
        client.login()
        works(client)
        assert gateway.session_of(30233)["address"] == client.name()
    with gateway.closes("address_denied"):
        with gateway.client(address, source="127.0.0.2") as client:
            assert client.receive_end() is None


# --- Options ------------------------------------------------------------------------------------


def socket_options(port):
    """What ss tells of the accepted connections at port."""
    return subprocess.run(["ss", "-Hntoei", "sport", "=", f":{port}"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout


def test_the_options_of_a_listener_are_those_of_its_connections(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"server": {
        "tcp": {"keepalive": "300s", "defer_accept": "5s", "backlog": 7},
        "listeners": [{"transport": "tcp", "addr": f"{LOCAL}:0", "keepalive": "0s"}]}})
    first, second = gateway.listener("tcp"), gateway.listener("tcp", 1)
    listening = subprocess.run(["ss", "-Hlnt", "sport", "=", f":{first[1]}"], check=True,
                               stdout=subprocess.PIPE, text=True).stdout.split("\n")
    assert all(line.split()[2] == "7" for line in listening if line), listening

    # With defer_accept a client that says nothing is not accepted.
    accepted = gateway.counter("connections_accepted")
    with socket.create_connection(first), gateway.player(30241) as player:
        assert gateway.counter("connections_accepted") == accepted + 1
        assert "timer:(keepalive," in socket_options(first[1])
        with gateway.client(second, uid=30242) as other:
            other.login()
            assert "keepalive" not in socket_options(second[1])
        works(player)


def accepted_sockets(gateway, port):
    """Copies of the gateway's sockets of accepted connections at that port."""
    pidfd_getfd = 438  # which Python does not offer
    libc = ctypes.CDLL(None, use_errno=True)
    for pid in gateway.worker_pids().values():
        pidfd = os.pidfd_open(pid)
        for fd in os.listdir(f"/proc/{pid}/fd"):
            copy = libc.syscall(pidfd_getfd, pidfd, int(fd), 0)
            if copy < 0:
                continue
            try:
                one = socket.socket(fileno=copy)
            except OSError:
                os.close(copy)
                continue
            with one:
                with contextlib.suppress(OSError):
                    if one.family == socket.AF_INET and one.getsockname()[1] == port:
                        one.getpeername()  # a listening one has none
                        yield one
        os.close(pidfd)


@pytest.mark.parametrize("nodelay", [True, False])
def test_nodelay_and_the_user_timeout_are_those_of_the_connection(start, backend, nodelay):
    gateway = start(Gateway, nodes=nodes_of(backend.address), settings={"server": {
        "tcp": {"nodelay": nodelay, "user_timeout": "7s"}}})
    with gateway.player(30244) as client:
        works(client)
        options = [(bool(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
                    one.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
                   for one in accepted_sockets(gateway, gateway.listener("tcp")[1])]
        assert options == [(nodelay, 7000)]


def test_a_gateway_may_listen_for_websockets_alone(start, backend):
    gateway = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"server": {"tcp": {"addr": ""}}})
    assert gateway.listener("tcp") is None
    with gateway.player(30243, gateway.websocket) as client:
        works(client)
    gateway.wait_log(r"event=ready .* ws=127\.0\.0\.1:\d+ ")


# --- None for KCP -----------------------------------------------------------------------------


def unix_sockets(pid):
    """The names of the unix sockets that a process has open, "" of those that have none."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            inodes.add(link.removeprefix("socket:[").rstrip("]"))
    with open("/proc/net/unix") as unix:
        rows = [line.split() for line in unix]
    return [row[7] if len(row) > 7 else "" for row in rows if row[6] in inodes]


def test_workers_have_sockets_for_each_other_only_where_kcp_is_listened_for(start, backend):
    without = start(Gateway, nodes=nodes_of(backend.address),
                    settings={"server": {"kcp": {"addr": ""}}})
    with_kcp = start(Gateway, nodes=nodes_of(backend.address))
    assert all(len(unix_sockets(pid)) > 100 for pid in with_kcp.worker_pids().values())
    assert all(len(unix_sockets(pid)) < 10 for pid in without.worker_pids().values())
    without.reload({"limits": {"idle_timeout": "77s"}, "kcp": {"pending_per_address": 3}})
    with without.player(48700) as player:
        player.send(wire.USER, 1, b"here")
        assert player.receive().data == b"here"
        without.ctl("worker", "restart", "0")
        player.send(wire.USER, 1, b"still")
        assert player.receive().data == b"still"
