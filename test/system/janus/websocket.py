"""A game client over WebSocket: the frames written by hand, so that any of them can be wrong."""

import base64
import hashlib
import os
import struct

from .client import Client

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def masked(payload, mask):
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def frame(opcode, payload=b"", fin=True, rsv=0, mask=b"mask", length=None, length_bytes=None):
    """One frame, as a client sends it. length: what the header says, if not the truth;
    length_bytes: of the extended length, if not the shortest."""
    length = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if length < 126 else 2 if length < 65536 else 8
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    second = (0x80 if mask else 0) | {0: length, 2: 126, 8: 127}[length_bytes]
    extended = length.to_bytes(length_bytes, "big") if length_bytes else b""
    return (bytes([first, second]) + extended + (mask or b"")
            + (masked(payload, mask) if mask else payload))


def request(path="/ws", host="gate", key=None, version="13", **more):
    """The upgrade, as text. A header named in more (with _ for -) is added, or left out when None;
    a list stands for several of it."""
    headers = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade",
               "Sec-WebSocket-Key": key or base64.b64encode(os.urandom(16)).decode(),
               "Sec-WebSocket-Version": version}
    headers.update({name.replace("_", "-"): value for name, value in more.items()})
    lines = [f"GET {path} HTTP/1.1"]
    for name, value in headers.items():
        values = value if isinstance(value, list) else [value]
        lines += [f"{name}: {one}" for one in values if one is not None]
    return "\r\n".join(lines) + "\r\n\r\n"


class WebSocketClient(Client):
    """After upgrade() it is a Client like any other; each frame of the game's is a message."""

    def __init__(self, *arguments, upgrade=True, path="/ws", **options):
        super().__init__(*arguments, **options)
        self.controls = []  # (opcode, payload) that came
        self.close_code = None
        self._bytes = bytearray()
        if upgrade:
            self.upgrade(path=path)

    # --- The upgrade ------------------------------------------------------------------------

    def upgrade(self, **fields):
        key = base64.b64encode(os.urandom(16)).decode()
        status, headers, _ = self.ask_http(request(key=key, **fields))
        assert status == 101, (status, headers)
        accept = base64.b64encode(hashlib.sha1(key.encode() + MAGIC).digest()).decode()
        assert headers["sec-websocket-accept"] == accept
        return headers

    def ask_http(self, text):
        """Sends text and reads the head of an answer: (status, headers, what came behind it)."""
        self.socket.sendall(text if isinstance(text, bytes) else text.encode())
        return self.read_http()

    def read_http(self):
        head = bytearray()
        while b"\r\n\r\n" not in head:
            got = self.socket.recv(4096)
            assert got, f"the gateway closed instead of answering; it said {bytes(head)!r}"
            head += got
        text, _, rest = bytes(head).partition(b"\r\n\r\n")
        first, *lines = text.decode().split("\r\n")
        headers = {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in lines}
        self._bytes += rest
        return int(first.split(" ")[1]), headers, rest

    # --- Frames -----------------------------------------------------------------------------

    def send_raw(self, raw):
        self.socket.sendall(frame(BINARY, raw))

    def send_frame(self, *arguments, **options):
        self.socket.sendall(frame(*arguments, **options))

    def _read_bytes(self, count):
        while len(self._bytes) < count:
            got = super()._receive_some()
            if not got:
                return None
            self._bytes += got
        taken = bytes(self._bytes[:count])
        del self._bytes[:count]
        return taken

    def receive_frame(self):
        """(opcode, payload) of the next frame, or None at the end of the connection."""
        head = self._read_bytes(2)
        if head is None:
            return None
        assert head[0] & 0x70 == 0 and head[0] & 0x80, "a frame is whole, and without extensions"
        assert not head[1] & 0x80, "a server does not mask"
        length = head[1]
        if length >= 126:
            length = int.from_bytes(self._read_bytes(2 if length == 126 else 8), "big")
        return head[0] & 0x0F, self._read_bytes(length)

    def _receive_some(self):
        """The next message's bytes; what else comes is noted."""
        while True:
            got = self.receive_frame()
            if got is None:
                return b""
            opcode, payload = got
            if opcode == BINARY:
                return payload
            self.controls.append(got)
            if opcode == CLOSE:
                (self.close_code,) = struct.unpack(">H", payload[:2]) if payload else (0,)
                self.close_reason = payload[2:].decode()
                return b""

    def receive_control(self, opcode):
        """The payload of the next control frame, which is to be of that kind."""
        got = self.receive_frame()
        assert got and got[0] == opcode, got
        return got[1]

    def receive_close(self):
        """Reads to the close frame, answers it, and waits for the end. Returns its code."""
        self.receive_end()
        assert self.close_code is not None, "the connection ended without a close frame"
        self.send_frame(CLOSE, struct.pack(">H", self.close_code))
        while self._read_bytes(1):
            pass
        return self.close_code


__all__ = ["WebSocketClient", "frame", "request", "CONTINUATION", "TEXT", "BINARY", "CLOSE", "PING",
           "PONG"]
