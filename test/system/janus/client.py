"""A game client for tests: one blocking socket, and every step of the protocol on its own, so
that a test can do any of them wrongly."""

import socket
import struct
import time
import zlib

from . import wire
from .patience import patient


class Client:
    def __init__(self, address, keys, uid=10001, color="blue", sid=7, status=1, source=None,
                 encrypted=True, receive_buffer=None, tls=None, server_name="localhost",
                 first=b""):
        """tls: an ssl.SSLContext. first: what a proxy would send before anything else."""
        self.keys = keys
        self.uid, self.color, self.sid, self.status = uid, color, sid, status
        self.encrypted = encrypted
        self.exchange = wire.Exchange()
        self.session_key = None
        self.index = 0
        self.reset = False  # the connection ended with a reset instead of an end of file
        self.last_body = None  # the last frame's body as it came
        self._pending = bytearray()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(patient(30))
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(address)
        if first:
            self.socket.sendall(first)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def name(self):
        """ip:port as the gateway sees it."""
        host, port = self.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    # --- Sending ----------------------------------------------------------------------------

    def handshake_message(self, **changes):
        values = {
            "pub": self.exchange.public,
            "sign": None,
            "token": None,
            "server_id": self.sid,
            "timestamp": int(time.time()),
        }
        values.update(changes)
        if values["token"] is None:
            values["token"] = self.keys.token(self.uid, self.color, self.sid, self.status)
        if values["sign"] is None:
            values["sign"] = self.keys.client.sign(values["pub"])
        return wire.CSHandshake(**values)

    def handshake_frame(self, **changes):
        message = self.handshake_message(**changes)
        packet = wire.Packet(mod=wire.SYSTEM, seq=wire.HANDSHAKE, data=message.encode())
        return wire.frame(packet.encode())

    def login(self, **changes):
        """The whole handshake; returns the answer after checking its signature."""
        self.send_raw(self.handshake_frame(**changes))
        return self.finish_login()

    def finish_login(self):
        body = self.receive_body()
        assert body is not None, "the gateway closed the connection instead of answering the login"
        packet = wire.Packet.decode(body)
        assert (packet.mod, packet.seq) == (wire.SYSTEM, wire.HANDSHAKE)
        answer = wire.SCHandshake.decode(packet.data)
        self.keys.server.public_key().verify(answer.sign, answer.pub)
        if self.encrypted:
            self.session_key = self.exchange.shared(answer.pub)
        self.index = answer.start_index
        return answer

    def send_raw(self, raw):
        self.socket.sendall(raw)

    def send_sealed(self, plain):
        """plain is the serialized packet, right or wrong."""
        body = wire.seal(self.session_key, plain) if self.encrypted else plain
        self.send_raw(wire.frame(body))

    def packet(self, mod, seq, data=b"", **more):
        """The next packet, numbered."""
        if "index" not in more:
            more["index"] = self.index
            self.index += 1
        return wire.Packet(mod=mod, seq=seq, data=data, **more)

    def send(self, mod, seq, data=b"", **more):
        self.send_sealed(self.packet(mod, seq, data, **more).encode())

    # --- Receiving --------------------------------------------------------------------------

    def _receive_exactly(self, count):
        while len(self._pending) < count:
            got = self._receive_some()
            if not got:
                return None
            self._pending += got
        taken = bytes(self._pending[:count])
        del self._pending[:count]
        return taken

    def _receive_some(self):
        """What has come next on the byte stream of frames; b"" at its end."""
        try:
            return self.socket.recv(65536)
        except ConnectionResetError:
            self.reset = True
            return b""

    def receive_body(self):
        """The next frame's body, or None at the end."""
        header = self._receive_exactly(4)
        if header is None:
            return None
        (length,) = struct.unpack(">i", header)
        assert 0 < length <= 16384, f"a frame of {length} bytes from the gateway"
        self.last_body = self._receive_exactly(length)
        return self.last_body

    def receive(self):
        """The next packet with its data inflated, or None at the end."""
        body = self.receive_body()
        if body is None:
            return None
        plain = wire.unseal(self.session_key, body) if self.session_key else body
        packet = wire.Packet.decode(plain)
        packet.raw_data = packet.data
        if packet.compress:
            packet.data = zlib.decompress(packet.data)
        return packet

    def ask(self, mod, seq, data=b"", **more):
        """Sends a message and returns the answer."""
        self.send(mod, seq, data, **more)
        answer = self.receive()
        assert answer is not None, "the gateway closed the connection instead of answering"
        return answer

    def expect(self, count):
        """So many packets, whatever they are."""
        for _ in range(count):
            assert self.receive() is not None, "the gateway closed the connection"

    def receive_error(self):
        """The next packet, which must be an SCServerUnexpectedErr."""
        packet = self.receive()
        assert packet is not None, "the gateway closed the connection"
        assert (packet.mod, packet.seq) == (wire.SYSTEM, wire.UNEXPECTED_ERROR), packet
        return wire.SCServerUnexpectedErr.decode(packet.data)

    def receive_end(self):
        """Reads to the end of the connection; returns the logout code, or None when there was
        none."""
        code = None
        while True:
            packet = self.receive()
            if packet is None:
                return code
            if (packet.mod, packet.seq) == (wire.SYSTEM, wire.LOGOUT):
                code = wire.SCServerLogout.decode(packet.data).code

    def receive_nothing(self, seconds):
        """True when neither a byte nor the end comes within seconds."""
        if self._pending:
            return False
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) is None
        except socket.timeout:
            return True
        finally:
            self.socket.settimeout(patient(30))
