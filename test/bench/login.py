"""Logins, each on a connection of its own: how many there are in a second, and with what CPU. With
routes in Redis each waits for one more answer, so these are compared with those in memory."""

from figures import median, median_ratio, report, say
from janus.programs import redis_settings
from janus.redis_server import Redis
from rig import TURN_S, TURNS


def bench_login(rig):
    redis = rig.add(Redis())
    with_redis = rig.add_gateway("redis", redis_settings(redis.address))
    results, results_redis = [], []
    for turn in range(TURNS):
        say(f"logins, turn {turn + 1} of {TURNS}")
        timing = ["--duration", f"{TURN_S}s", "--warmup", "1s"]
        results.append(rig.load("login", *timing))
        results_redis.append(rig.load("login", *timing, gateway=with_redis))
    report("login.per_s", median(results, "logins_per_s"), "1/s")
    report("login.cpu_us", median(results, "cpu_us"), "us")
    report("login.redis_per_s", median(results_redis, "logins_per_s"), "1/s")
    report("login.redis_ratio", median_ratio(results_redis, results, "logins_per_s"), "ratio")
