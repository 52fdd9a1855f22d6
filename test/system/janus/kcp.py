"""The ecosystem's own KCP stack, in Go, for tests in Python: a bridge that carries the test
client's bytes on its streams, a server of the same layers, and a bad line."""

import functools
import os
import socket
import subprocess

from .client import Client
from .go import assert_no_panic, flags, program, require_go
from .patience import patient
from .programs import Program, write_file


@functools.lru_cache(maxsize=None)
def no_path():
    """Why lossy-path can't run here, or None."""
    done = subprocess.run([program("lossy-path"), "--", "true"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=patient(30))
    return done.stderr.strip() if done.returncode else None


def behind(arguments, **faults):
    """The command that runs `arguments` behind a bad line: behind([...], loss=5, delay="25ms").
    There {near} is the address of this machine."""
    return [program("lossy-path"), *flags(faults), "--", *arguments]


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
        require_go("the ecosystem's KCP stack")
        self.server = server
        host, port = address or server.listener("kcp")
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1"
        host = f"[{host}]" if ":" in host else host
        super().__init__([program("kcp-bridge"), "-gateway", f"{host}:{port}", *flags(settings)])
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
        assert_no_panic(self.log())


class KcpEcho(Program):
    """A Go server of the same layers: the handshake, and each message sent back."""

    def __init__(self, directory, keys, **settings):
        require_go("the ecosystem's KCP stack")
        self.keys = keys
        key = write_file(os.path.join(str(directory), "echo.key"), keys.server_pem())
        # The ecosystem's own size of the socket's buffer loses every burst.
        settings = {"sockbuf": 1 << 20, **settings}
        super().__init__([program("kcp-echo"), "-login", f"-key={key}", *flags(settings)])
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
