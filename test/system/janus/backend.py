"""A Roma in this process, over grpcio: tests see each stream as it arrived and say what it does."""

import queue
import threading
from concurrent import futures

import grpc

from . import wire
from .patience import patient, wait_for

METHODS = {
    "/player.intra.v1.TunnelService/Tunnel": "player",
    "/room.intra.v1.TunnelService/Tunnel": "room",
    "/team.intra.v1.TunnelService/Tunnel": "team",
}


def _read(path):
    with open(path, "rb") as file:
        return file.read()


class Stream:
    """One tunnel as Roma sees it."""

    def __init__(self, kind, context):
        self.kind = kind
        self.metadata = dict(context.invocation_metadata())
        self.peer_names = context.auth_context().get("x509_common_name", [])  # of its certificate
        self.requests = []  # TunnelMessage, in order of arrival
        self.raw_requests = []
        self.ended = threading.Event()
        self.may_read = threading.Event()
        self.may_read.set()
        self._outbox = queue.Queue()

    def send(self, **fields):
        self.send_raw(wire.TunnelMessage(**fields).encode())

    def send_raw(self, raw):
        self._outbox.put(raw)

    def end(self, code=None, details=""):
        """Ends the stream, with an error when code is a grpc.StatusCode."""
        self._outbox.put((code, details))

    def wait_requests(self, count):
        wait_for(lambda: len(self.requests) >= count, f"{count} messages on the {self.kind} tunnel")
        return self.requests


def echo(stream, request):
    """Roma's simplest answer: the same message back."""
    stream.send(**request.__dict__)


class Backend:
    """Serves every tunnel; `answer(stream, request)` is called for each message, in order. tls:
    Certificates; clients need one of them when client_certificates is set."""

    def __init__(self, answer=echo, max_streams=None, port=0, tls=None, client_certificates=False):
        self.answer = answer
        self.streams = []
        self.on_stream = lambda stream: None
        self._lock = threading.Lock()
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        if max_streams:
            options.append(("grpc.max_concurrent_streams", max_streams))
        self._pool = futures.ThreadPoolExecutor(max_workers=600)
        self._server = grpc.server(self._pool, options=options)
        self._server.add_generic_rpc_handlers((_Handler(self),))
        address = f"127.0.0.1:{port}"
        if tls:
            self.port = self._server.add_secure_port(address, grpc.ssl_server_credentials(
                [(_read(tls.server_key), _read(tls.server_cert))],
                _read(tls.ca) if client_certificates else None, client_certificates))
        else:
            self.port = self._server.add_insecure_port(address)
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def _serve(self, kind, requests, context):
        stream = Stream(kind, context)
        with self._lock:
            self.streams.append(stream)
        context.add_callback(lambda: (stream.ended.set(), stream.end()))

        def read():
            try:
                for raw in requests:
                    stream.raw_requests.append(raw)
                    request = wire.TunnelMessage.decode(raw)
                    stream.requests.append(request)
                    self.answer(stream, request)
                    while not stream.may_read.wait(1) and not stream.ended.is_set():
                        pass
            except Exception:  # the stream was cancelled
                pass
            stream.end()

        reader = threading.Thread(target=read, daemon=True)
        self.on_stream(stream)  # before any message is answered
        reader.start()
        while True:
            item = stream._outbox.get()
            if isinstance(item, bytes):
                yield item
            elif hasattr(item, "__next__"):
                yield from item
            else:
                code, details = item
                if code is not None:
                    context.abort(code, details)
                return

    def streams_of(self, uid=None, kind="player", oid=None):
        with self._lock:
            return [
                stream
                for stream in self.streams
                if stream.kind == kind
                and (uid is None or stream.metadata["x-md-global-uid"] == str(uid))
                and (oid is None or stream.metadata["x-md-global-oid"] == str(oid))
            ]

    def stream_of(self, uid, kind="player", oid=None):
        """The player's latest stream of that kind, waiting for it to come."""
        return wait_for(lambda: self.streams_of(uid, kind, oid), f"a {kind} tunnel of {uid}")[-1]

    def stop(self):
        self._server.stop(0).wait(patient(10))
        self._pool.shutdown(wait=False)


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, backend):
        self._backend = backend

    def service(self, details):
        kind = METHODS.get(details.method)
        if kind is None:
            return None
        return grpc.stream_stream_rpc_method_handler(
            lambda requests, context: self._backend._serve(kind, requests, context)
        )
