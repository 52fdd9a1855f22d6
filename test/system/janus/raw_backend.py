"""Backends that are no gRPC server at all."""

import socket
import struct
import threading


class RawBackend:
    """Accepts connections; manner says what happens to them: "reset" them at once, stay "silent",
    or answer with "garbage"."""

    def __init__(self, manner):
        self.manner = manner
        self.accepted = 0
        self._kept = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.manner == "reset":
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                peer.close()
                continue
            if self.manner == "garbage":
                try:
                    peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(range(256)) * 16)
                except OSError:
                    pass
            self._kept.append(peer)

    def stop(self):
        self._listener.close()
        for peer in self._kept:
            peer.close()


_held = []


def closed_port():
    """An address where nobody listens, nor will: it is held, so that nobody else gets it."""
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.bind(("127.0.0.1", 0))
    _held.append(holder)
    return "127.0.0.1:%d" % holder.getsockname()[1]
