"""Pushes to one player each, over Redis, HTTP and gRPC: how many there are in a second, the CPU for
each, and the time."""

from figures import median, report, say
from janus.patience import wait_for
from janus.programs import redis_settings
from janus.redis_server import Redis
from players import Crowd, players_of
from rig import SIZE, TURN_S, TURNS, entrances_of

PUSH_PLAYERS = 1000


def bench_push(rig):
    redis = rig.add(Redis())
    gateway = rig.add_gateway("redis", redis_settings(redis.address))
    wait_for(lambda: gateway.link("topics")["state"] == "subscribed", "the topics")
    entrances = {"redis": f"redis@{redis.address}", **entrances_of(gateway)}
    results = {kind: [] for kind in entrances}
    for turn in range(TURNS):
        say(f"pushes to one player each, turn {turn + 1} of {TURNS}")
        for kind, entrance in entrances.items():
            results[kind].append(Crowd(
                "push", PUSH_PLAYERS, SIZE, *players_of(rig, gateway), "--entrance", entrance,
                "--topic", gateway.ctl("status")["advertise"], "--duration", f"{TURN_S}s",
                "--warmup", "1s").result())
    for kind, got in results.items():
        for key, unit in (("deliveries_per_s", "1/s"), ("cpu_us", "us"), ("p99_us", "us")):
            report(f"push.{kind}.{key}", median(got, key), unit)
