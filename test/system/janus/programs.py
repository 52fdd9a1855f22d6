"""The programs under test, each as an object that starts it, waits until it is ready, and ends it
with an account of what it left behind."""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading

from . import wire
from .client import Client
from .patience import patient, wait_for
from .websocket import WebSocketClient

BUILD = os.path.abspath(os.environ.get("JANUS_BUILD", "build/release"))
BIN = os.path.join(BUILD, "bin")
# What carries the tunnels of every gateway whose test does not say; the gateway's default if "".
ENGINE = os.environ.get("JANUS_ENGINE", "")
SANITIZER_REPORT = re.compile(r"(Address|Thread|Leak|UndefinedBehavior)Sanitizer|runtime error:")


class Program:
    """A process whose standard error is collected line by line."""

    def __init__(self, arguments, environment=None):
        self.lines = []
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for raw in self.process.stdout:
            with self._changed:
                self.lines.append(raw.decode(errors="replace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def log(self):
        with self._changed:
            return "\n".join(self.lines)

    def mark(self):
        """A place in the log, for wait_log(since=)."""
        return len(self.lines)

    def wait_log(self, pattern, since=0, timeout=30):
        """The first match of pattern in a line of the log from `since` on."""
        found = []

        def look():
            for line in self.lines[since:]:
                match = re.search(pattern, line)
                if match:
                    found.append(match)
                    return True
            return self._ended

        with self._changed:
            self._changed.wait_for(look, patient(timeout))
            tail = "\n".join(self.lines[-40:])
        assert found, f"no line with {pattern!r} in the log; it ends with:\n{tail}"
        return found[0]

    def wait_exit(self, timeout=30):
        code = self.process.wait(patient(timeout))
        return code

    def stall(self):
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.pid, signal.SIGCONT)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait()

    def session_pids(self):
        """Every process of this program's session: itself and whatever it started."""
        pids = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    fields = stat.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self.pid and fields[0] != "Z":
                pids.append(int(entry))
        return pids


def resident_bytes(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) * 1024


def private_bytes(pid):
    """Without the tables that are shared, of which more and more is touched with time."""
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"RssAnon:\s+(\d+) kB", status.read()).group(1)) * 1024


def libconfig(value, depth=0):
    """A Python value as libconfig text."""
    pad = "  " * depth
    if isinstance(value, dict):
        inside = "".join(f"{pad}  {key} = {libconfig(item, depth + 1)};\n"
                         for key, item in value.items())
        return "{\n" + inside + pad + "}"
    if isinstance(value, (list, tuple)):
        opening, closing = ("[", "]") if value and not isinstance(value[0], dict) else ("(", ")")
        return opening + ", ".join(libconfig(item, depth + 1) for item in value) + closing
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{text}"'
    return f"{value}L" if abs(value) > 0x7FFFFFFF else str(value)


def libconfig_file(settings):
    return "".join(f"{key} = {libconfig(value)};\n" for key, value in settings.items())


def merged(base, changes):
    out = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            value = merged(out[key], value)
        out[key] = value
    return out


def node(address, service="roma.player.service", color="blue", weight=100, **more):
    return {"service": service, "addr": address, "color": color, "weight": weight, **more}


def nodes_of(*addresses, services=("roma.player.service", "roma.room.service"), **more):
    return [node(address, service, **more) for address in addresses for service in services]


def redis_settings(*addresses, **more):
    """Routes in Redis, with little patience for a Redis that is away."""
    return {"routes": "redis", "data": {"redis": {
        "addr": list(addresses), "backoff": "20ms", "backoff_max": "300ms", **more}}}


def etcd_settings(*endpoints, **more):
    return {"registry": "etcd", "etcd": {
        "endpoints": list(endpoints), "backoff": "50ms", "backoff_max": "500ms",
        "lease_ttl": "3s", "timeout": "2s", **more}}


def secret_settings(keys, certificate=None, **more):
    return {
        "secret": {
            **more,
            "account_aes_key": keys.account_key.decode(),
            "server_cert_version": 1,
            "server_cert_private_key": keys.server_pem(),
            "client_cert_version": 1,
            "client_cert": certificate or keys.certificate_pem,
        }
    }


def write_file(path, text, mode=0o600):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as out:
        out.write(text)
    os.chmod(path, mode)
    return str(path)


class Gateway(Program):
    """janusd with its workers, on a free port. settings are laid over these, which differ from
    the product's own: two workers, no rates, and a stop at once, so that a test may hurry."""

    DEFAULTS = {
        "server": {"tcp": {"addr": "127.0.0.1:0"}, "ws": {"addr": "127.0.0.1:0"},
                   "kcp": {"addr": "127.0.0.1:0"},
                   "grpc": {"addr": "127.0.0.1:0"},
                   "http": {"addr": "127.0.0.1:0"}},
        "worker": {"count": 2},
        "drain": {"stop_spread": "0s"},
        "limits": {"messages_per_s": 0, "bytes_per_s": 0, "handshakes_per_s": 0,
                   "tls_handshakes_per_s": 0},
        "log": {"level": "debug"},
    }

    def __init__(self, directory, keys, nodes, settings=None, secrets=None, environment=None,
                 start=True):
        self.directory = str(directory)
        self.keys = keys
        self.expect_clean = True
        self.settings = merged(
            merged(self.DEFAULTS, {
                "control": {"socket": os.path.join(self.directory, "control.sock")},
                "nodes": nodes,
                **({"tunnel": {"engine": ENGINE}} if ENGINE else {})}),
            settings or {},
        )
        self.socket_path = self.settings["control"]["socket"]
        secret = os.path.join(self.directory, "secret.conf")
        write_file(secret, libconfig_file(secrets or secret_settings(keys)))
        self.configure({})
        self.environment = environment
        if start:
            self.start()

    def configure(self, changes):
        """Lays changes over the settings in its file."""
        self.settings = merged(self.settings, changes)
        self.config_path = write_file(
            os.path.join(self.directory, "janus.conf"),
            libconfig_file(self.settings) + '@include "secret.conf"\n',
            0o644,
        )

    def reload(self, changes=None):
        """{setting: how} of what it says has changed."""
        if changes is not None:
            self.configure(changes)
        return {one["setting"]: one["how"] for one in self.ctl("reload")["changed"]}

    def start(self):
        super().__init__([os.path.join(BIN, "janusd"), "-c", self.config_path], self.environment)
        try:
            self.wait_log(r"event=ready\b", timeout=60)
            self.address = self.listener("tcp") or self.listener("ws")
        except BaseException:
            self.abandon()
            raise

    # --- What the operator sees -------------------------------------------------------------

    def ctl(self, *arguments):
        done = subprocess.run(
            [os.path.join(BIN, "janusctl"), "--socket", self.socket_path, *arguments, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=patient(30),
        )
        assert done.returncode == 0, (
            f"janusctl {arguments}: {done.returncode} {done.stderr.decode()}\n"
            f"janusd: {self.process.poll()}; its log ends with:\n" + "\n".join(self.lines[-20:]))
        return json.loads(done.stdout)

    def listener(self, transport, index=0):
        """(host, port) of the listener of that transport, in the order of the configuration."""
        addresses = [one["address"] for one in self.ctl("status")["listeners"]
                     if one["transport"] == transport]
        if index >= len(addresses):
            return None
        host, _, port = addresses[index].rpartition(":")
        return host.strip("[]"), int(port)

    def total(self):
        return self.ctl("stats")["total"]

    def counter(self, name):
        return self.total()["counters"][name]

    def closed(self, reason):
        return self.total()["closed"][reason]

    def gauge(self, name):
        return self.total()["gauges"][name]

    def wait_counter(self, name, at_least, timeout=30):
        wait_for(lambda: self.counter(name) >= at_least, f"{name} to reach {at_least}", timeout)

    def wait_gauge(self, name, value, timeout=30):
        wait_for(lambda: self.gauge(name) == value, f"{name} to become {value}", timeout)

    def wait_gauge_over(self, name, value, timeout=30):
        wait_for(lambda: self.gauge(name) > value, f"{name} to pass {value}", timeout)

    @contextlib.contextmanager
    def closes(self, reason, count=1, others_open=0, timeout=30):
        """The body makes the gateway close `count` connections for `reason` and for no other; a
        log line names it. Connections of earlier tests are awaited to be gone first."""
        self.wait_gauge("connections", others_open)
        before = self.total()
        mark = self.mark()
        yield

        def difference():
            now = self.total()["closed"]
            return {name: now[name] - before["closed"][name]
                    for name in now if now[name] != before["closed"][name]}

        wait_for(lambda: sum(difference().values()) >= count, f"{count} closed: {reason}", timeout)
        assert difference() == {reason: count}
        if self.counter("log_suppressed") == before["counters"]["log_suppressed"]:
            self.wait_log(rf"reason={reason}\b", since=mark)

    def worker_pids(self):
        return {worker["worker"]: worker["pid"] for worker in self.ctl("workers")["workers"]}

    def memory_bytes(self):
        return sum(resident_bytes(pid) for pid in self.session_pids())

    def tool_keys(self):
        """A folder for --keys of janus-client and janus-bench."""
        write_file(os.path.join(self.directory, "client.key"), self.keys.client_pem())
        return self.directory

    def client(self, address=None, kind=Client, **options):
        options.setdefault("encrypted", self.settings.get("label", {}).get("encrypted", True))
        return kind(address or self.address, self.keys, **options)

    def websocket(self, address=None, **options):
        """A client over WebSocket, its upgrade done."""
        return self.client(address or self.listener("ws"), WebSocketClient, **options)

    def player(self, uid=10001, client=None, **options):
        """A client, logged in."""
        client = (client or self.client)(uid=uid, **options)
        client.login()
        return client

    def route(self, tier, oid, color="blue"):
        return self.ctl("routes", "get", tier, str(oid), "--color", color)

    def nodes(self, service="roma.player.service"):
        """{address: node} of one service."""
        return {node["address"]: node for node in self.ctl("nodes")["nodes"]
                if node["service"] == service}

    def wait_nodes(self, *addresses, service="roma.player.service", timeout=60):
        wait_for(lambda: set(self.nodes(service)) == set(addresses),
                 f"the nodes of {service} to be {addresses}", timeout)

    def link(self, name):
        return next(link for link in self.ctl("status")["links"] if link["name"] == name)

    def wait_link(self, name, state, timeout=60):
        return wait_for(lambda: self.link(name)["state"] == state, f"{name} to be {state}", timeout)

    def session_of(self, uid):
        return wait_for(lambda: self.ctl("sessions", "--uid", str(uid))["sessions"],
                        f"a session of {uid}")[0]

    # --- The end ----------------------------------------------------------------------------

    def stop(self, timeout=30):
        """Ends it as a service manager would and checks that it left nothing bad behind."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(patient(timeout))
        except subprocess.TimeoutExpired:
            tail = "\n".join(self.lines[-40:])
            self.abandon()
            raise AssertionError(f"janusd did not end after SIGTERM; its log ends with:\n{tail}")
        left = self.session_pids()
        self.abandon()
        report = SANITIZER_REPORT.search(self.log())
        assert not report, self.log()[max(0, report.start() - 200):][:8000]
        if self.expect_clean:
            assert code == 0, f"janusd ended with {code}:\n" + "\n".join(self.lines[-40:])
        assert not left, f"janusd left processes behind: {left}"

    def abandon(self):
        """Makes sure nothing of it lives on."""
        for pid in self.session_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        wait_for(lambda: not self.session_pids(), "all of it to be gone")
        self._reader.join(patient(10))


class Roma(Program):
    """janus-roma, the stand-in for Roma."""

    def __init__(self, *arguments, listen="127.0.0.1:0", record=None):
        more = ["--record", str(record)] if record else []
        self.record = record
        super().__init__([self.program(), "--listen", listen, *arguments, *more])
        self.address = self.wait_log(r"listening on (\S+:[1-9]\d*)").group(1)

    @staticmethod
    def program():
        return os.path.join(BIN, "janus-roma")

    def recorded(self, oid, mod):
        """The data of each message to that object and module, in the order of arrival."""
        lines = []
        with open(self.record) as record:
            for line in record:
                fields = line.rstrip("\n").split("\t")
                if line.endswith("\n") and fields[:2] == [str(oid), str(mod)]:
                    lines.append(fields[4])
        return lines

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patient(10))
        self.kill()
        self._reader.join(patient(10))
        report = SANITIZER_REPORT.search(self.log())
        assert not report, self.log()[max(0, report.start() - 200):][:8000]


def run(program, *arguments, environment=None, timeout=60):
    """Runs a program of the project to its end."""
    return subprocess.run(
        [os.path.join(BIN, program), *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})}, timeout=patient(timeout), text=True,
    )


__all__ = ["Gateway", "Roma", "Program", "run", "node", "nodes_of", "redis_settings",
           "etcd_settings", "wire"]
