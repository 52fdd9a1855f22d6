"""The tests' own client against the protocol's worked examples: what the other tests rely on."""

import os
import re
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from janus import wire

HERE = os.path.dirname(__file__)


def read_vectors():
    with open(os.path.join(HERE, "..", "vectors.txt")) as text:
        found = re.findall(r"^(\w+)(?: \(.*\))? = (\S+)$", text.read(), re.M)
    return dict(found)


V = read_vectors()


def raw(name):
    return bytes.fromhex(V[name])


def test_the_token_of_the_vectors_is_made():
    content = wire.AuthToken(rand="r4nd0m", color="blue", account_id=10001, server_id=7,
                             timeout=4102444800, status=1).encode()
    assert content == raw("auth_token_protobuf")
    sealed = wire.seal(V["account_aes_key"].encode(), content, raw("token_nonce"))
    assert sealed == raw("token_bytes")
    assert wire.token_text(sealed) == V["token"]


def test_the_key_exchange_of_the_vectors_is_computed():
    client = wire.Exchange(raw("client_x25519_private"))
    server = wire.Exchange(raw("server_x25519_private"))
    assert client.public == raw("client_x25519_public")
    assert client.shared(server.public) == server.shared(client.public) == raw("shared_key")


def test_the_handshake_frames_of_the_vectors_are_made():
    client = Ed25519PrivateKey.from_private_bytes(raw("client_ed25519_seed"))
    server = Ed25519PrivateKey.from_private_bytes(raw("server_ed25519_seed"))
    pub, server_pub = raw("client_x25519_public"), raw("server_x25519_public")
    asked = wire.CSHandshake(pub=pub, sign=client.sign(pub), token=V["token"],
                             timestamp=1750000000).encode()
    assert asked == raw("cs_handshake_protobuf")
    packet = wire.Packet(mod=1, seq=1, data=asked)
    assert wire.frame(packet.encode()) == raw("cs_handshake_frame")
    answer = wire.SCHandshake(pub=server_pub, sign=server.sign(server_pub), timestamp=1750000001,
                              start_index=1).encode()
    packet = wire.Packet(mod=1, seq=1, data=answer)
    assert wire.frame(packet.encode()) == raw("sc_handshake_frame")


def test_the_sealed_message_of_the_vectors_is_made_and_read():
    packet = wire.Packet(data=b"hello", mod=3, seq=1, index=1)
    assert packet.encode() == raw("packet_protobuf")
    sealed = raw("encrypted_frame")[4:]
    assert struct.unpack(">i", raw("encrypted_frame")[:4])[0] == len(sealed)
    assert wire.seal(raw("shared_key"), packet.encode(), sealed[:12]) == sealed
    assert wire.Packet.decode(wire.unseal(raw("shared_key"), sealed)) == packet


def test_the_tunnel_request_of_the_vectors_is_read():
    message = wire.TunnelMessage.decode(raw("player_tunnel_request_protobuf"))
    assert message == wire.TunnelMessage(data=b"hello", obj=10001, mod=3, seq=1, index=1)


def test_negative_numbers_survive():
    packet = wire.Packet(obj=-5, mod=-1, index=-(2**31))
    assert wire.Packet.decode(packet.encode()) == packet
