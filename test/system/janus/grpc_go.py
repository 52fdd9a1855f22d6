"""A Roma and a gateway over grpc-go, and proxies for gRPC that others wrote."""

import os
import signal
import socket
import threading

from .go import assert_no_panic, flags, program, require_go
from .patience import patient, wait_for
from .programs import Program, Roma, write_file
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


class GoGate(Program):
    """A gateway of the ecosystem's Go layers that runs on so many cores, before a backend."""

    def __init__(self, directory, keys, backend, cores):
        require_go("a gateway in Go")
        files = [write_file(os.path.join(str(directory), "go-gate." + name), text)
                 for name, text in (("account", keys.account_key.decode()),
                                    ("key", keys.server_pem()))]
        super().__init__([program("go-gate"), "-backend", backend, "-account", files[0],
                          "-key", files[1]], {"GOMAXPROCS": str(cores)})
        try:
            host, _, port = self.wait_log(r"^(\S+:[1-9]\d*)$").group(1).rpartition(":")
            self.address = (host, int(port))
        except BaseException:
            self.kill()
            raise

    def settle(self):
        """Has it give back the memory that holds nothing; returns how many tunnels there are."""
        mark = self.mark()
        os.kill(self.pid, signal.SIGUSR1)
        return int(self.wait_log(r"^players \d+ tunnels (\d+)$", since=mark).group(1))

    def stop(self):
        self.kill()
        self._reader.join(patient(10))
        assert_no_panic(self.log())


class _Proxy(Server):
    """Stands before one backend; address is where it listens. tls: Certificates, of its own and of
    the backend's."""

    def __init__(self, backend, tls=None):
        super().__init__()
        self.backend, self.tls = backend, tls
        on_free_ports(1, self._begin)

    def _begin(self, ports):
        self.port = ports[0]
        self.address = f"127.0.0.1:{self.port}"
        with open(os.path.join(self.directory, "proxy.conf"), "w") as out:
            out.write(self.configuration())
        self.start()

    def configuration(self):
        raise NotImplementedError

    def answers(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5):
            return True


class HaProxy(_Proxy):
    def configuration(self):
        bind = server = "proto h2"
        if self.tls:
            pem = os.path.join(self.directory, "own.pem")
            with open(pem, "w") as out:
                for path in (self.tls.server_cert, self.tls.server_key):
                    with open(path) as part:
                        out.write(part.read())
            bind = f"ssl crt {pem} alpn h2"
            server = f"ssl verify required ca-file {self.tls.ca} alpn h2"
        return f"""
global
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
listen grpc
  bind {self.address} {bind}
  server roma {self.backend} {server}
"""

    def command(self):
        return ["haproxy", "-db", "-f", "proxy.conf"]


class Nginx(_Proxy):
    def configuration(self):
        listen, scheme, more = "", "grpc", ""
        if self.tls:
            listen, scheme = "ssl", "grpcs"
            more = f"""
    ssl_certificate {self.tls.server_cert};
    ssl_certificate_key {self.tls.server_key};
    grpc_ssl_verify on;
    grpc_ssl_name localhost;
    grpc_ssl_trusted_certificate {self.tls.ca};"""
        return f"""
daemon off;
master_process off;
pid {self.directory}/pid;
events {{ worker_connections 4000; }}
http {{
  access_log off;
  client_body_temp_path {self.directory}/body;
  proxy_temp_path {self.directory}/proxy;
  fastcgi_temp_path {self.directory}/fastcgi;
  uwsgi_temp_path {self.directory}/uwsgi;
  scgi_temp_path {self.directory}/scgi;
  client_max_body_size 0;
  client_body_timeout 600s;
  grpc_read_timeout 600s;
  grpc_send_timeout 600s;
  server {{
    listen {self.address} {listen} http2;{more}
    location / {{ grpc_pass {scheme}://{self.backend}; }}
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
