"""The ecosystem's own KCP stack, in Go, for tests in Python: a bridge that carries the test
client's bytes on its streams, a server of the same layers, and a bad line. The programs are those
of test/interop, built once into build/go."""

import fcntl
import functools
import os
import shutil
import socket
import subprocess

import pytest

from .client import Client
from .patience import patient
from .programs import Program, write_file

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
SOURCE = os.path.join(ROOT, "test", "interop")
BUILT = os.path.join(ROOT, "build", "go")


class NoGo(Exception):
    """Why the Go programs can't be had here."""


@functools.lru_cache(maxsize=None)
def _build():
    """Once in each process; what another has built in the meantime costs Go's cache a look."""
    if not shutil.which("go"):
        return "no Go toolchain"
    os.makedirs(BUILT, exist_ok=True)
    with open(os.path.join(BUILT, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetched = subprocess.run(["go", "mod", "download"], cwd=SOURCE,
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if fetched.returncode != 0:
            return "the Go modules can't be fetched: " + fetched.stderr.strip()[-500:]
        built = subprocess.run(["go", "build", "-o", BUILT + os.sep, "./cmd/..."], cwd=SOURCE,
                               stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout + built.stderr
    return None


def program(name):
    """The path of kcp-bridge, kcp-echo or lossy-path; raises NoGo."""
    missing = _build()
    if missing:
        raise NoGo(missing)
    return os.path.join(BUILT, name)


def require_go():
    """Skips the test, and says why, where the Go programs can't be had."""
    try:
        program("kcp-bridge")
    except NoGo as fault:
        pytest.skip(f"the ecosystem's KCP client is not tried: {fault}")


@functools.lru_cache(maxsize=None)
def no_path():
    """Why lossy-path can't run here, or None."""
    done = subprocess.run([program("lossy-path"), "--", "true"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=patient(30))
    return done.stderr.strip() if done.returncode else None


def behind(arguments, **faults):
    """The command that runs `arguments` behind a bad line: behind([...], loss=5, delay="25ms").
    There {near} is the address of this machine."""
    return [program("lossy-path"), *_options(faults), "--", *arguments]


def _options(settings):
    """keepalive_timeout="5s", acknodelay=False and the like as Go's flags."""
    return [f"-{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}"
            for name, value in settings.items()]


class KcpClient(Client):
    """A client whose bytes go over a stream of the bridge at `address`."""

    def __init__(self, address, keys, session="-", local=None, conv=None, **options):
        """session: the name of the KCP session, which is made where there is none; "-" is one
        for this stream alone. local, conv: of a session that is made."""
        line = f"session {session}"
        line += f" local={local}" if local else ""
        line += f" conv={conv}" if conv is not None else ""
        super().__init__(address, keys, first=line.encode() + b"\n", **options)
        try:
            words = _answer(self.socket)
        except BaseException:
            self.close()
            raise
        self.local, self.conv, self.stream = words[0], int(words[1]), int(words[2])

    def name(self):
        """ip:port as the gateway saw it when the stream was opened."""
        return self.local


def _answer(connection):
    """The words of the bridge's answer, which is one line."""
    line = b""
    while not line.endswith(b"\n"):
        # Byte by byte: what follows belongs to the stream.
        got = connection.recv(1)
        assert got, f"the bridge ended after {line!r}"
        line += got
    verdict, _, rest = line.decode().strip().partition(" ")
    assert verdict == "ok", rest
    return rest.split()


class Bridge(Program):
    """A client process of the ecosystem, of any number of KCP sessions. settings are the flags of
    kcp-bridge: start(Bridge, gateway, data=8, parity=2, loss=10, delay="25ms", profile=...)."""

    def __init__(self, server, address=None, **settings):
        """server: a Gateway, or whatever has listener("kcp") and client(address, kind, ...)."""
        require_go()
        self.server = server
        host, port = address or server.listener("kcp")
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1"
        host = f"[{host}]" if ":" in host else host
        super().__init__([program("kcp-bridge"), "-gateway", f"{host}:{port}", *_options(settings)])
        try:
            self.address = ("127.0.0.1", int(self.wait_log(r"^(\d+)$").group(1)))
        except BaseException:
            self.kill()
            raise

    def client(self, session="-", **options):
        return self.server.client(self.address, kind=KcpClient, session=session, **options)

    def player(self, uid=10001, session="-", **options):
        """A client, logged in."""
        client = self.client(uid=uid, session=session, **options)
        client.login()
        return client

    def _command(self, line):
        with socket.create_connection(self.address, timeout=patient(30)) as connection:
            connection.sendall(line.encode() + b"\n")
            return _answer(connection)

    def rebind(self, session, local=None):
        """Lets the session go on from another UDP port; returns ip:port of it."""
        return self._command(f"rebind {session}" + (f" local={local}" if local else ""))[0]

    def statistics(self, session):
        """{srtt, rto, streams, closed} of the session at the client's end, as text."""
        return dict(word.split("=") for word in self._command(f"statistics {session}"))

    def end(self, session):
        """Forgets the session, of which the gateway learns nothing."""
        self._command(f"end {session}")

    def stop(self):
        self.kill()
        self._reader.join(patient(10))
        assert "panic:" not in self.log() and "fatal error:" not in self.log(), self.log()[-8000:]


class KcpEcho(Program):
    """A Go server of the same layers: the handshake, and each message sent back."""

    def __init__(self, directory, keys, **settings):
        require_go()
        self.keys = keys
        key = write_file(os.path.join(str(directory), "echo.key"), keys.server_pem())
        # The ecosystem's own size of the socket's buffer loses every burst.
        settings = {"sockbuf": 1 << 20, **settings}
        super().__init__([program("kcp-echo"), "-login", f"-key={key}", *_options(settings)])
        try:
            host, _, port = self.wait_log(r"^(\S+:[1-9]\d*)$").group(1).rpartition(":")
            self.address = (host.strip("[]"), int(port))
        except BaseException:
            self.kill()
            raise

    def listener(self, transport):
        assert transport == "kcp"
        return self.address

    def client(self, address, kind=KcpClient, **options):
        return kind(address, self.keys, **options)

    stop = Bridge.stop
