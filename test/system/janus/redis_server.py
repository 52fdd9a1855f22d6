"""Real Redis servers: one, one with a replica and Sentinels, a Cluster of three."""

import contextlib
import os

import redis
from redis.cluster import ClusterNode
from redis.cluster import RedisCluster as ClusterClient

from .patience import wait_for
from .servers import Server, on_free_ports


def route_key(service, color, oid):
    return f"r_{service}_{{{color}}}_{{{oid}}}"


def player_key(uid, color="blue"):
    return route_key("roma.player.service", color, uid)


def room_key(oid, color="blue"):
    return route_key("roma.room.service", color, oid)


def gateway_key(uid, color="blue"):
    return route_key("janus.gate.interface", color, uid)


class Redis(Server):
    """One server without persistence: restarted, it is empty. options are settings by name."""

    def __init__(self, port=None, password=None, users=(), tls=None, **options):
        super().__init__()
        self.password, self.users, self.tls, self.options = password, users, tls, options
        if port:
            self._begin([port])
        else:  # a cluster's bus is 10000 above
            on_free_ports(1, self._begin, below=55000 if "cluster_enabled" in options else 65536)

    def _begin(self, ports):
        self.port = ports[0]
        self.address = f"127.0.0.1:{self.port}"
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.directory, "redis.conf"))  # of the port that was taken
        self.start()

    def command(self):
        settings = {"save": '""', "bind": "127.0.0.1", "dir": self.directory,
                    "repl-diskless-sync-delay": 0, "enable-debug-command": "local"}
        if self.tls:
            settings.update({
                "port": 0, "tls-port": self.port, "tls-ca-cert-file": self.tls.ca,
                "tls-cert-file": self.tls.server_cert, "tls-key-file": self.tls.server_key})
        else:
            settings["port"] = self.port
        if self.password:
            settings["requirepass"] = self.password
        settings.update({key.replace("_", "-"): value for key, value in self.options.items()})
        path = os.path.join(self.directory, "redis.conf")
        if not os.path.exists(path):  # Redis and Sentinel rewrite it as roles change
            with open(path, "w") as out:
                out.writelines(f"{key} {value}\n" for key, value in settings.items())
                out.writelines(f"user {user}\n" for user in self.users)
        return ["redis-server", path, *self.mode()]

    def mode(self):
        return []

    def client(self, timeout=5):
        more = {}
        if self.tls:
            more = {"ssl": True, "ssl_ca_certs": self.tls.ca,
                    "ssl_certfile": self.tls.client_cert, "ssl_keyfile": self.tls.client_key}
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, decode_responses=True,
                           socket_timeout=timeout, **more)

    def answers(self):
        # By its process id: whoever has taken the port may be a Redis too.
        return self.client().info("server")["process_id"] == self.process.pid

    def get(self, key):
        return self.client().get(key)

    def wait_key(self, key, value=None, timeout=30):
        """The key's value, once there is one, or once it is that one."""
        def there():
            try:
                found = self.get(key)
            except redis.RedisError:  # it is coming up, or changing its role
                return None
            return found if found is not None and value in (None, found) else None

        return wait_for(there, f"{key} in Redis to be {value or 'there'}", timeout)

    def restart(self):
        self.kill()
        self.start()


class Sentinels:
    """A master, a replica, and three Sentinels that watch over them under the name `game`."""

    def __init__(self):
        self.servers = [Redis()]
        self.servers.append(Redis(replicaof=f"127.0.0.1 {self.servers[0].port}"))
        wait_for(lambda: self.servers[1].client().info("replication")["master_link_status"] == "up",
                 "the replica to follow")
        self.sentinels = [_Sentinel(self.servers[0]) for _ in range(3)]
        for sentinel in self.sentinels:
            wait_for(lambda: sentinel.knows_all(), "a Sentinel to know the others")
        self.addresses = [sentinel.address for sentinel in self.sentinels]

    def master(self):
        """The server that the Sentinels name now."""
        for sentinel in self.sentinels:
            port = int(sentinel.client().sentinel_get_master_addr_by_name("game")[1])
        return next(server for server in self.servers if server.port == port)

    def fail_over(self):
        """Makes the replica master, as an operator would; returns it."""
        before = self.master()
        wait_for(lambda: self._ask_failover(), "a Sentinel to fail over")
        return self.wait_other_master(before)

    def _ask_failover(self):
        try:
            return self.sentinels[0].client().execute_command("SENTINEL", "FAILOVER", "game")
        except redis.ResponseError:
            return False

    def wait_other_master(self, before):
        wait_for(lambda: self.master() is not before, "another master", 60)
        master = self.master()
        wait_for(lambda: master.client().role()[0] == "master", "it to be master")
        return master

    def stop(self):
        for server in self.sentinels + self.servers:
            server.stop()


class _Sentinel(Redis):
    def __init__(self, master):
        self.watched = master
        super().__init__(sentinel=f"monitor game 127.0.0.1 {master.port} 2")

    def command(self):
        command = super().command()
        path = command[1]
        with open(path) as config:
            text = config.read()
        if "down-after" not in text:
            with open(path, "w") as config:  # what Sentinel knows, and nothing else
                config.write(f"port {self.port}\nbind 127.0.0.1\ndir {self.directory}\n"
                             f"sentinel monitor game 127.0.0.1 {self.watched.port} 2\n"
                             "sentinel down-after-milliseconds game 1000\n"
                             "sentinel failover-timeout game 3000\n")
        return command

    def mode(self):
        return ["--sentinel"]

    def knows_all(self):
        state = self.client().sentinel_master("game")
        return state["num-other-sentinels"] == 2 and state["num-slaves"] == 1


class RedisCluster:
    """Three masters with all slots between them."""

    def __init__(self):
        self.servers = [Redis(cluster_enabled="yes", cluster_node_timeout=2000,
                              cluster_require_full_coverage="no") for _ in range(3)]
        self.addresses = [server.address for server in self.servers]
        share = 16384 // 3 + 1
        for i, server in enumerate(self.servers):
            first, last = i * share, min((i + 1) * share, 16384) - 1
            server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            server.client().execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            server.client().execute_command(
                "CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        self.wait_whole()

    def wait_whole(self):
        def whole(server):
            info = server.client().cluster("info")
            return (info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"
                    and info["cluster_slots_ok"] == "16384")

        for server in self.servers:
            wait_for(lambda: whole(server), "the Cluster to be whole", 60)

    def client(self):
        return ClusterClient(startup_nodes=[ClusterNode("127.0.0.1", server.port)
                                            for server in self.servers], decode_responses=True)

    def slot(self, key):
        return int(self.servers[0].client().execute_command("CLUSTER", "KEYSLOT", key))

    def owner(self, key):
        slot = self.slot(key)
        for first, last, master, *_ in self.servers[0].client().execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == master[1])
        raise AssertionError(f"nobody has slot {slot}")

    def get(self, key):
        return self.owner(key).get(key)

    def begin_move(self, key):
        """Half of what moves the key's slot: new keys go to the target by ASK, those there
        stay. Returns (source, target, slot)."""
        slot, source = self.slot(key), self.owner(key)
        target = next(server for server in self.servers if server is not source)
        ids = {server: server.client().execute_command("CLUSTER", "MYID")
               for server in self.servers}
        target.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        return source, target, slot

    def end_move(self, source, target, slot):
        """The other half: what is there moves too, and everybody learns the new owner."""
        while True:
            keys = source.client().execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
            if not keys:
                break
            source.client().execute_command(
                "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        owner = target.client().execute_command("CLUSTER", "MYID")
        for server in [target, source] + self.servers:
            server.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", owner)

    def flush(self):
        for server in self.servers:
            server.client().flushall()

    def stop(self):
        for server in self.servers:
            server.stop()


__all__ = ["Redis", "Sentinels", "RedisCluster", "player_key", "room_key", "gateway_key",
           "route_key"]
