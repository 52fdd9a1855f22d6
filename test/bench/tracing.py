"""What tracing takes where it is off, and where one trace in a hundred is recorded: the CPU for a
round trip, compared with a gateway that was built without it."""

import os

from figures import median_ratio, report, rotated, say
from janus.programs import BIN, Program
from rig import CLIENTS, SIZE, QuietGateway

TRACE_TURNS = 11
PLAIN = os.path.join(os.path.dirname(BIN), "..", "plain", "bin")


class PlainGateway(QuietGateway):
    """Built without tracing."""

    def start(self):
        Program.__init__(self, [os.path.join(PLAIN, "janusd"), "-c", self.config_path])
        self.await_workers()


def bench_trace(rig):
    from janus.otlp_receiver import OtlpReceiver  # runs protoc, which no other group needs

    receiver = OtlpReceiver()
    one_percent = {"trace": {"endpoint": receiver.url, "sampler": "traceidratio", "ratio": "0.01"}}
    gateways = {"plain": rig.add_gateway("plain", kind=PlainGateway),
                "off": rig.add_gateway("off"), "one_percent": rig.add_gateway("one", one_percent)}
    names = list(gateways)
    turns = {name: [] for name in names}
    for turn in range(TRACE_TURNS):
        say(f"round trips with and without tracing, turn {turn + 1} of {TRACE_TURNS}")
        for name in rotated(names, turn):
            turns[name].append(rig.load("roundtrip", "--clients", str(CLIENTS), "--size", str(SIZE),
                                        "--duration", "1500ms", "--warmup", "500ms",
                                        gateway=gateways[name]))
        say(", ".join(f"{name} {results[-1]['cpu_us']:.2f} us" for name, results in turns.items()))
    for name in ("off", "one_percent"):
        report(f"trace.{name}_ratio", median_ratio(turns[name], turns["plain"], "cpu_us"), "ratio")
    receiver.stop()
