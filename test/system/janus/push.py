"""What servers push, and how it comes in: the messages of every entrance."""

from .wire import Message

BROADCAST_TOPIC = "gate.broadcast.message"


class PushBody(Message):
    FIELDS = {"data": (1, "bytes"), "data_version": (2, "uint"), "obj": (3, "int"),
              "mod": (4, "int"), "seq": (5, "int")}


class PushMessage(Message):
    FIELDS = {"bodies": (1, [PushBody]), "uids": (2, ["int"]), "broadcast": (3, "bool"),
              "color": (4, "string"), "sid": (5, "int")}


class PushRequest(Message):
    FIELDS = {"bodies": (1, [PushBody]), "color": (2, "string"), "sid": (3, "int"),
              "uid": (4, "int")}


class PushResponse(Message):
    FIELDS = {"pushed": (1, "bool")}


class MulticastRequest(Message):
    FIELDS = {"bodies": (1, [PushBody]), "uids": (2, ["int"]), "color": (3, "string")}


class MulticastResponse(Message):
    FIELDS = {"pushed_uids": (1, ["int"]), "handed_on_uids": (1000, ["int"]),
              "not_found_uids": (1001, ["int"]), "refused_uids": (1002, ["int"])}


class BroadcastRequest(Message):
    FIELDS = {"bodies": (1, [PushBody]), "color": (2, "string"), "sid": (3, "int")}


class BroadcastResponse(Message):
    FIELDS = {"reached": (1000, "int"), "published": (1001, "bool")}


class GatePushRequest(Message):
    FIELDS = {"body": (1, PushBody)}


def body(data, mod=3, seq=7, **more):
    return PushBody(data=data, mod=mod, seq=seq, **more)


class Publisher:
    """As the ecosystem's Broadcaster does it: over the topics in Redis."""

    def __init__(self, redis, gateway):
        self.client = redis.client()
        self.own_topic = gateway.ctl("status")["advertise"]

    def push(self, uids, *bodies):
        return self.client.publish(self.own_topic,
                                   PushMessage(bodies=list(bodies), uids=list(uids)).encode())

    def broadcast(self, *bodies, **more):
        return self.client.publish(BROADCAST_TOPIC,
                                   PushMessage(bodies=list(bodies), **more).encode())
