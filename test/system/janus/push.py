"""What servers push, and how it comes in: the messages of every entrance."""

import base64
import json
import subprocess

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
    FIELDS = {"reached": (1000, "int"), "published": (1001, "bool"), "refused": (1002, "int")}


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


class GrpcPusher:
    """A client of the push services, with whatever messages a test wants to send."""

    def __init__(self, gateway, token=None):
        import grpc
        self.address = gateway.ctl("status")["advertise"]
        self.channel = grpc.insecure_channel(self.address)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def call(self, path, request, answer=None, metadata=(), timeout=60):
        """request is a message or raw bytes; so is what comes back."""
        raw = request if isinstance(request, bytes) else request.encode()
        method = self.channel.unary_unary(path, lambda x: x, lambda x: x)
        reply = method(raw, metadata=[*self.metadata, *metadata], timeout=timeout)
        return answer.decode(reply) if answer else reply

    def gate_push(self, uid, one, **more):
        return self.call("/gate.service.push.v1.PushService/Push", GatePushRequest(body=one),
                         PushResponse, metadata=[("x-md-global-uid", str(uid))], **more).pushed

    def push(self, uid, *bodies, color=""):
        return self.call("/broadcaster.service.push.v1.PushService/Push",
                         PushRequest(bodies=list(bodies), uid=uid, color=color),
                         PushResponse).pushed

    def multicast(self, uids, *bodies, color=""):
        return self.call("/broadcaster.service.push.v1.PushService/Multicast",
                         MulticastRequest(bodies=list(bodies), uids=list(uids), color=color),
                         MulticastResponse)

    def broadcast(self, *bodies, color="", sid=0):
        return self.call("/broadcaster.service.push.v1.PushService/Broadcast",
                         BroadcastRequest(bodies=list(bodies), color=color, sid=sid),
                         BroadcastResponse)

    def close(self):
        self.channel.close()


def json_body(data, mod=3, seq=7, **more):
    return {"data": base64.b64encode(data).decode(), "mod": mod, "seq": seq, **more}


class HttpPusher:
    """curl, at the operations port."""

    def __init__(self, gateway, *arguments):
        address = next(listener["address"] for listener in gateway.ctl("status")["listeners"]
                       if listener["transport"] == "http")
        self.url = f"http://{address}"
        self.arguments = arguments

    def call(self, path, content, *arguments):
        """content goes as it is when it is bytes. The status, and the answer as JSON."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        done = subprocess.run(
            ["curl", "-sS", "--max-time", "60", "--data-binary", "@-", "-H",
             "Content-Type: application/json", "-w", "\n%{http_code}", *self.arguments, *arguments,
             self.url + path], input=raw, stdout=subprocess.PIPE, check=True)
        text, _, status = done.stdout.decode().rpartition("\n")
        return int(status), json.loads(text)

    def ok(self, path, content, *arguments):
        status, answer = self.call(path, content, *arguments)
        assert status == 200, answer
        return answer
