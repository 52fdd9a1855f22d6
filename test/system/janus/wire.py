"""The client protocol's bytes, written a second time and independently of the gateway:
protobuf messages by small field tables, sealing and keys by `cryptography`."""

import base64
import os
import struct
import time

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Malformed(Exception):
    """Bytes that are not what they should be."""


def _varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(raw, at):
    value = shift = 0
    while True:
        if at >= len(raw) or shift > 63:
            raise Malformed("varint")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & ((1 << 64) - 1), at


def _scalar(value, kind):
    if kind == "int" and value >= 1 << 63:
        return value - (1 << 64)
    return bool(value) if kind == "bool" else value


def _scalars(raw, kind):
    at, values = 0, []
    while at < len(raw):
        value, at = _read_varint(raw, at)
        values.append(_scalar(value, kind))
    return values


class Message:
    """A proto3 message; FIELDS maps a name to its number and kind: a scalar's, a message's class,
    or one of these in a list for a repeated field."""

    FIELDS = {}
    DEFAULTS = {"bytes": b"", "string": "", "int": 0, "uint": 0, "bool": False}

    def __init__(self, **values):
        for name, (_, kind) in self.FIELDS.items():
            setattr(self, name, values.pop(name, self._default(kind)))
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    @classmethod
    def _default(cls, kind):
        if isinstance(kind, list):
            return []
        return cls.DEFAULTS.get(kind) if isinstance(kind, str) else None

    def encode(self):
        out = bytearray()
        for name, (number, kind) in sorted(self.FIELDS.items(), key=lambda item: item[1][0]):
            value = getattr(self, name)
            if value == self._default(kind):
                continue
            if isinstance(kind, list) and kind[0] in ("int", "uint"):
                raw = b"".join(_varint(int(one)) for one in value)
                out += _varint(number << 3 | 2) + _varint(len(raw)) + raw
            else:
                for one in value if isinstance(kind, list) else [value]:
                    out += self._field(number, kind[0] if isinstance(kind, list) else kind, one)
        return bytes(out)

    @staticmethod
    def _field(number, kind, value):
        if kind in ("bytes", "string") or not isinstance(kind, str):
            raw = (value.encode() if kind == "string" or not isinstance(kind, str)
                   else bytes(value))
            return _varint(number << 3 | 2) + _varint(len(raw)) + raw
        return _varint(number << 3) + _varint(int(value))

    @classmethod
    def decode(cls, raw):
        by_number = {number: (name, kind) for name, (number, kind) in cls.FIELDS.items()}
        message = cls()
        at = 0
        while at < len(raw):
            key, at = _read_varint(raw, at)
            name, kind = by_number.get(key >> 3, (None, None))
            if key & 7 == 0:
                value, at = _read_varint(raw, at)
                value = _scalar(value, kind[0] if isinstance(kind, list) else kind)
            elif key & 7 == 2:
                length, at = _read_varint(raw, at)
                if at + length > len(raw):
                    raise Malformed("length")
                value = raw[at : at + length]
                at += length
                if kind == "string":
                    value = value.decode()
                elif isinstance(kind, list) and isinstance(kind[0], str):  # packed
                    for one in _scalars(value, kind[0]):
                        getattr(message, name).append(one)
                    continue
                elif kind and not isinstance(kind, str):
                    value = (kind[0] if isinstance(kind, list) else kind).decode(value)
            else:
                raise Malformed(f"wire type {key & 7}")
            if name and isinstance(kind, list):
                getattr(message, name).append(value)
            elif name:
                setattr(message, name, value)
        return message

    def __repr__(self):
        shown = ((name, getattr(self, name)) for name in self.FIELDS)
        inside = ", ".join(f"{name}={value!r:.60}" for name, value in shown if value)
        return f"{type(self).__name__}({inside})"

    def __eq__(self, other):
        return type(self) is type(other) and self.__dict__ == other.__dict__


class Packet(Message):
    FIELDS = {
        "data": (1, "bytes"),
        "data_version": (2, "uint"),
        "obj": (3, "int"),
        "mod": (4, "int"),
        "seq": (5, "int"),
        "ver": (6, "int"),
        "index": (7, "int"),
        "conn_id": (8, "int"),
        "frag_id": (9, "int"),
        "frag_count": (10, "int"),
        "frag_index": (11, "int"),
        "compress": (20, "bool"),
    }


class TunnelMessage(Message):
    """A room tunnel's request or response; the player tunnel's has the first six fields only."""

    FIELDS = {
        "data": (1, "bytes"),
        "data_version": (2, "uint"),
        "obj": (3, "int"),
        "mod": (4, "int"),
        "seq": (5, "int"),
        "index": (6, "int"),
        "conn_id": (7, "int"),
        "frag_id": (8, "int"),
        "frag_count": (9, "int"),
        "frag_index": (10, "int"),
    }


class CSHandshake(Message):
    FIELDS = {
        "pub": (1, "bytes"),
        "sign": (2, "bytes"),
        "token": (3, "string"),
        "server_id": (4, "int"),
        "timestamp": (5, "int"),
        "cert_version": (6, "int"),
    }


class SCHandshake(Message):
    FIELDS = {
        "pub": (1, "bytes"),
        "sign": (2, "bytes"),
        "timestamp": (3, "int"),
        "cert_version": (4, "int"),
        "start_index": (5, "int"),
    }


class CSHeartbeat(Message):
    FIELDS = {"client_time": (1, "int")}


class SCHeartbeat(Message):
    FIELDS = {"server_time": (1, "int"), "code": (2, "int")}


class SCServerUnexpectedErr(Message):
    FIELDS = {"mod": (1, "int"), "seq": (2, "int"), "msg": (3, "string")}


class SCServerLogout(Message):
    FIELDS = {"code": (1, "int")}


class AuthToken(Message):
    FIELDS = {
        "rand": (1, "string"),
        "color": (2, "string"),
        "account_id": (3, "int"),
        "server_id": (4, "int"),
        "timeout": (5, "int"),
        "location": (6, "int"),
        "status": (7, "int"),
        "unencrypted": (8, "bool"),
    }


SYSTEM, DEV, USER, ROOM = 1, 2, 3, 6
HANDSHAKE, HEARTBEAT, UNEXPECTED_ERROR, LOGOUT = 1, 2, 3, 4
LOGOUT_SERVER, LOGOUT_WAITING, LOGOUT_UNAUTHORIZED = 0, 1, 2
LOGOUT_KICKED = 4


def frame(body):
    return struct.pack(">i", len(body)) + body


def seal(key, plain, nonce=None):
    nonce = nonce or os.urandom(12)
    return nonce + AESGCM(key).encrypt(nonce, plain, None)


def unseal(key, sealed):
    return AESGCM(key).decrypt(sealed[:12], sealed[12:], None)


def token_text(sealed):
    return base64.urlsafe_b64encode(sealed).decode()


class Keys:
    """Everything secret.conf needs, and the other halves that clients and the account service have."""

    def __init__(self, account_key=b"0123456789abcdef0123456789abcdef"):
        self.account_key = account_key
        self.server = Ed25519PrivateKey.generate()
        self.client = Ed25519PrivateKey.generate()
        self.certificate_pem = self._certificate()

    def _certificate(self, start=-3600, end=86400):
        import datetime

        from cryptography import x509
        from cryptography.x509.oid import NameOID

        now = datetime.datetime.utcnow()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.client.public_key())
            .serial_number(1)
            .not_valid_before(now + datetime.timedelta(seconds=start))
            .not_valid_after(now + datetime.timedelta(seconds=end))
            .sign(self.client, None)
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()

    def expired_certificate(self):
        return self._certificate(-7200, -3600)

    def server_pem(self):
        return private_pem(self.server)

    def client_pem(self):
        return private_pem(self.client)

    def server_public_pem(self):
        return self.server.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

    def token(self, uid=10001, color="blue", sid=7, status=1, lifetime_s=600, **more):
        content = AuthToken(
            rand=os.urandom(6).hex(),
            color=color,
            account_id=uid,
            server_id=sid,
            timeout=int(time.time()) + lifetime_s,
            status=status,
            **more,
        )
        return token_text(seal(self.account_key, content.encode()))


class Exchange:
    """A client's half of the key exchange."""

    def __init__(self, private=None):
        self.private = (
            X25519PrivateKey.from_private_bytes(private) if private else X25519PrivateKey.generate()
        )
        self.public = raw_public(self.private)

    def shared(self, peer_public):
        return self.private.exchange(X25519PublicKey.from_public_bytes(peer_public))


def private_pem(private):
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def raw_public(private):
    return private.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
