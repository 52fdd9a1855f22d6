"""A backend that looks after its routes as Roma does."""

import threading
import time

import redis
from redis.exceptions import RedisClusterException  # no RedisError

from .backend import Backend, echo
from .redis_server import route_key

RENEW = """
local v = redis.call('GET', KEYS[1])
if v == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return 'renewed' end
return v or 'missing'
"""


class RenewingBackend(Backend):
    """Every stream's route is looked at first_s after the start of the stream and then every half
    ttl_s: renewed while it names this node; missing or naming another, it ends the stream at once,
    and `lost` says so. Other errors are borne three times, a tenth of the TTL apart.

    client is a function that returns a client of redis-py. One thread looks at all routes: where
    Redis is stalled, its timeout should be well below a tenth of the TTL."""

    def __init__(self, client, ttl_s=2.0, first_s=0.3, answer=echo, **more):
        self.redis = client
        self.ttl_s, self.first_s = ttl_s, first_s
        self.lost = []
        self.fault = None  # what ended the thread that looks
        self._looking = True
        self._looking_lock = threading.Lock()  # held while Redis is asked
        self._stopped = threading.Event()
        self._due = []
        self._due_lock = threading.Lock()  # not held then: streams begin meanwhile
        super().__init__(answer=answer, **more)
        self.on_stream = self._follow
        threading.Thread(target=self._run, daemon=True).start()

    def _follow(self, stream):
        with self._due_lock:
            self._due.append([time.monotonic() + self.first_s, stream, 0])

    def _run(self):
        try:
            while not self._stopped.wait(0.02):
                with self._looking_lock:
                    if self._looking:
                        self._check_all(time.monotonic())
        except Exception as fault:
            self.fault = fault

    def look_away(self):
        """No stream's route is looked at until look_at_all(): with a test's short times to live,
        one look in the moment between a loss and its mending would be likely; with Roma's, it is
        one in many thousand."""
        with self._looking_lock:
            self._looking = False

    def look_at_all(self):
        """Every stream's route is looked at, now."""
        with self._looking_lock:
            self._looking = True
            self._check_all(float("inf"))

    def _check_all(self, until):
        with self._due_lock:
            due = [item for item in self._due if item[0] <= until]
        for item in due:
            self._check(item)

    def _check(self, item):
        stream = item[1]
        key = route_key(f"roma.{stream.kind}.service", stream.metadata["x-md-global-color"],
                        stream.metadata["x-md-global-oid"])
        found = None
        if not stream.ended.is_set():
            try:
                found = self.redis().eval(RENEW, 1, key, self.address, int(self.ttl_s * 1000))
                item[2] = 0
            except (redis.RedisError, RedisClusterException) as error:
                item[2] += 1
                found = "renewed" if item[2] <= 3 else str(error)
        if found == "renewed":
            item[0] = time.monotonic() + (self.ttl_s / 10 if item[2] else self.ttl_s / 2)
            return
        with self._due_lock:
            self._due.remove(item)
        if found is not None:
            self.lost.append((key, found))
            stream.end()

    def stop(self):
        self._stopped.set()
        super().stop()
        assert self.fault is None, f"nobody looked after the routes any more: {self.fault!r}"
