"""A Roma over grpc-go, and proxies for gRPC that others wrote."""

import os
import socket
import threading

from .go import assert_no_panic, flags, program, require_go
from .patience import wait_for
from .programs import Roma
from .servers import Server, on_free_ports


class GoRoma(Roma):
    """go-roma: does what janus-roma does. settings are its further flags: start(GoRoma,
    max_streams=3, max_age="2s")."""

    def __init__(self, *arguments, **settings):
        require_go("a backend over grpc-go")
        own = {name: settings.pop(name) for name in ("listen", "record") if name in settings}
        super().__init__("-log", *arguments, *flags(settings), **own)

    @staticmethod
    def program():
        return program("go-roma")

    def count(self, word):
        """How many lines of its log begin with it: connected, disconnected, opened, ended."""
        with self._changed:
            return sum(line.startswith(word + " ") for line in self.lines)

    def wait_count(self, word, at_least, timeout=30):
        wait_for(lambda: self.count(word) >= at_least, f"{at_least} {word}", timeout)

    def stop(self):
        super().stop()
        assert_no_panic(self.log())


class _Proxy(Server):
    """Stands before one backend; address is where it listens."""

    def __init__(self, backend):
        super().__init__()
        self.backend = backend
        on_free_ports(1, self._begin)

    def _begin(self, ports):
        self.port = ports[0]
        self.address = f"127.0.0.1:{self.port}"
        with open(os.path.join(self.directory, "proxy.conf"), "w") as out:
            out.write(self.CONFIGURATION.format(port=self.port, backend=self.backend,
                                                directory=self.directory))
        self.start()

    def answers(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True


class HaProxy(_Proxy):
    CONFIGURATION = """
global
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
listen grpc
  bind 127.0.0.1:{port} proto h2
  server roma {backend} proto h2
"""

    def command(self):
        return ["haproxy", "-db", "-f", "proxy.conf"]


class Nginx(_Proxy):
    CONFIGURATION = """
daemon off;
worker_processes 1;
pid {directory}/pid;
events {{ worker_connections 4000; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  client_max_body_size 0;
  client_body_timeout 600s;
  grpc_read_timeout 600s;
  grpc_send_timeout 600s;
  server {{
    listen 127.0.0.1:{port} http2;
    location / {{ grpc_pass grpc://{backend}; }}
  }}
}}
"""

    def command(self):
        return ["nginx", "-e", "stderr", "-p", self.directory, "-c",
                os.path.join(self.directory, "proxy.conf")]


PREFACE = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
PING = 6


class FrameTap:
    """Stands before a backend and counts the frames that clients send it, by type."""

    def __init__(self, backend):
        host, _, port = backend.rpartition(":")
        self.backend = (host, int(port))
        self.frames = {}
        self.connections = 0
        self._sockets = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def of_type(self, kind):
        with self._lock:
            return self.frames.get(kind, 0)

    def pings(self):
        """What clients asked; they also answer."""
        return self.of_type(PING)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self.backend)
            except OSError:
                return
            self.connections += 1
            self._sockets += [client, server]
            for source, sink, look in ((client, server, self._look), (server, client, None)):
                threading.Thread(target=self._carry, args=(source, sink, look),
                                 daemon=True).start()

    @staticmethod
    def _carry(source, sink, look):
        seen = bytearray()
        begun = False
        try:
            while True:
                data = source.recv(65536)
                if not data:
                    break
                if look:
                    seen += data
                    if not begun and len(seen) >= PREFACE:
                        begun = True
                        del seen[:PREFACE]
                    if begun:
                        look(seen)
                sink.sendall(data)
        except OSError:  # one end or the other has gone
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _look(self, seen):
        while len(seen) >= 9:
            length, kind, flag = int.from_bytes(seen[:3], "big"), seen[3], seen[4]
            if len(seen) < 9 + length:
                return
            if not (kind == PING and flag & 1):
                with self._lock:
                    self.frames[kind] = self.frames.get(kind, 0) + 1
            del seen[:9 + length]

    def stop(self):
        self._listener.close()
        for one in self._sockets:
            one.close()
