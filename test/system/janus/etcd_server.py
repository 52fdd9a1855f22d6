"""A real etcd of one member or three, spoken to through its JSON gateway."""

import base64
import json
import os
import shutil
import ssl
import urllib.request
import uuid

from .patience import wait_for
from .servers import Server, on_free_ports


def b64(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def prefix_end(prefix):
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


class Member(Server):
    def __init__(self, cluster, name):
        super().__init__()
        self.cluster, self.name = cluster, name

    def on_ports(self, client_port, peer_port):
        self.peer_port = peer_port
        self.address = f"127.0.0.1:{client_port}"

    def command(self):
        scheme = "https" if self.cluster.tls else "http"
        url = f"{scheme}://{self.address}"
        command = [
            "etcd", "--name", self.name, "--data-dir", os.path.join(self.directory, "data"),
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", f"http://127.0.0.1:{self.peer_port}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{self.peer_port}",
            "--initial-cluster", self.cluster.initial(), "--initial-cluster-state", "new",
            "--heartbeat-interval", "100", "--election-timeout", "1000", "--log-level", "warn"]
        if self.cluster.tls:
            tls = self.cluster.tls
            command += ["--cert-file", tls.server_cert, "--key-file", tls.server_key,
                        "--trusted-ca-file", tls.ca, "--client-cert-auth"]
        for name, value in self.cluster.options.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        return command

    def answers(self):
        # Says whether there is a leader, and asks for no token.
        return self.cluster.call("/health", None, member=self)["health"] == "true"

    def empty(self):
        shutil.rmtree(os.path.join(self.directory, "data"), ignore_errors=True)


class Etcd:
    """members is 1 or 3. tls: Certificates, clients need one of them. root_password: with
    authentication. options are etcd's, by name: auth_token_ttl=1 for tokens that expire a second
    after their last use (a restart does not forget them, they are in etcd's log)."""

    def __init__(self, members=1, tls=None, root_password=None, **options):
        self.tls, self.root_password, self.token = tls, None, None
        self.options = options
        self.members = [Member(self, f"m{i}") for i in range(members)]
        on_free_ports(2 * members, self._begin)
        if root_password:
            self._authenticate(root_password)
        scheme = "https://" if tls else ""
        self.endpoints = [scheme + member.address for member in self.members]

    def initial(self):
        return ",".join(f"{m.name}=http://127.0.0.1:{m.peer_port}" for m in self.members)

    def _begin(self, ports):
        for i, member in enumerate(self.members):
            member.on_ports(*ports[2 * i:2 * i + 2])
        self.restart_empty()

    def _authenticate(self, password):
        self.call("/v3/auth/user/add", {"name": "root", "password": password})
        self.call("/v3/auth/user/grant", {"user": "root", "role": "root"})
        self.call("/v3/auth/enable", {})
        self.root_password = password
        self.log_in()

    def log_in(self):
        self.token = None
        self.token = self.call("/v3/auth/authenticate",
                               {"name": "root", "password": self.root_password})["token"]

    def call(self, path, body, member=None, timeout=5):
        """Of the first member that answers, unless one is named. Without a body it is a GET."""
        error = None
        for one in [member] if member else self.members:
            context = None
            if self.tls:
                context = ssl.create_default_context(cafile=self.tls.ca)
                context.load_cert_chain(self.tls.client_cert, self.tls.client_key)
            request = urllib.request.Request(
                f"{'https' if self.tls else 'http'}://{one.address}{path}",
                None if body is None else json.dumps(body).encode(),
                {"Authorization": self.token} if self.token else {})
            try:
                with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
                    return json.load(answer)
            except OSError as fault:
                error = fault
        raise error

    # --- Keys ---------------------------------------------------------------------------------

    def put(self, key, value, ttl=None):
        body = {"key": b64(key), "value": b64(value)}
        if ttl:
            body["lease"] = self.call("/v3/lease/grant", {"TTL": ttl})["ID"]
        self.call("/v3/kv/put", body)

    def list(self, prefix):
        """All keys with this prefix: {key: value}, and their leases in .leases."""
        answer = self.call("/v3/kv/range", {"key": b64(prefix),
                                            "range_end": b64(prefix_end(prefix))})
        kvs = answer.get("kvs", [])
        self.leases = {base64.b64decode(kv["key"]).decode(): kv.get("lease") for kv in kvs}
        return {base64.b64decode(kv["key"]).decode(): base64.b64decode(kv.get("value", "")).decode()
                for kv in kvs}

    def delete(self, key):
        self.call("/v3/kv/deleterange", {"key": b64(key)})

    def revoke_lease_of(self, key):
        self.list(key)
        self.call("/v3/lease/revoke", {"ID": self.leases[key]})

    def compact(self):
        """Forgets all history up to now."""
        revision = self.call("/v3/kv/range", {"key": b64("x")})["header"]["revision"]
        self.call("/v3/kv/compaction", {"revision": revision, "physical": True})

    # --- Instances of services ------------------------------------------------------------------

    def register(self, address, service="roma.player.service", color="blue", weight=None, id=None,
                 scheme="grpc", ttl=None, **metadata):
        """As kratos does it; returns the key."""
        id = id or str(uuid.uuid4())
        metadata = {"svc": service, "color": color, **metadata}
        if weight is not None:
            metadata["weight"] = str(weight)
        key = f"/microservices/{service}/{id}"
        self.put(key, json.dumps({
            "id": id, "name": service, "version": "v1", "metadata": metadata,
            "endpoints": ["http://127.0.0.1:1", f"{scheme}://{address}"], "unknown": [1]}), ttl)
        return key

    def gateways(self):
        """The values of the gateways that are registered."""
        return [json.loads(value)
                for value in self.list("/microservices/janus.gate.interface/").values()]

    def wait_gateways(self, count, timeout=60):
        wait_for(lambda: len(self.gateways()) == count, f"{count} gateways in etcd", timeout)
        return self.gateways()

    # --- Trouble ------------------------------------------------------------------------------

    def leader(self):
        for member in self.members:
            status = self.call("/v3/maintenance/status", {}, member=member)
            if status.get("leader") == status["header"]["member_id"]:
                return member
        return None

    def restart_empty(self):
        for member in self.members:
            member.kill()
            member.empty()
        for member in self.members:
            member.start(wait=False)
        # Each is asked each time: one that ended keeps the others from having a leader.
        wait_for(lambda: all([member.there() for member in self.members]), "etcd to answer", 60)

    def kill(self):
        for member in self.members:
            member.kill()

    def stop(self):
        for member in self.members:
            member.stop()
