"""What all groups measure with: the gateway and others beside it, its backend, a load generator."""

import json
import os
import socket
import subprocess
import sys

from figures import say
from janus import go, wire
from janus.grpc_go import GoGate
from janus.patience import wait_for
from janus.programs import BIN, Gateway, Program, Roma, merged, nodes_of

CLIENTS = 200
SIZE = 128  # bytes of a message
TURNS = 5
TURN_S = 3
WORKERS = 2
COLOR = "bench"

# Without the limits that a load from one address would run into.
SETTINGS = {
    "worker": {"count": WORKERS},
    "log": {"level": "warn"},
    "limits": {
        "connections_per_address": 0,
        "handshakes_per_s": 0,
        "handshake_clock": "60s",  # some are made beforehand
        "tls_handshakes_per_s": 0,
        "messages_per_s": 0,
        "bytes_per_s": 0,
        "idle_timeout": "600s",
    },
}


class QuietGateway(Gateway):
    """A gateway that says when it is ready, and little else: its log costs CPU too."""

    def start(self):
        Program.__init__(self, [os.path.join(BIN, "janusd"), "-c", self.config_path])
        self.await_workers()

    def await_workers(self):
        def running():
            if not os.path.exists(self.socket_path):
                return False
            status = self.ctl("status")
            return status["workers"]["running"] == WORKERS and status

        wait_for(running, "the workers to run", 30)
        self.address = self.listener("tcp")


class Rig:
    """The gateway and its backend, with keys for the load generator."""

    def __init__(self, directory):
        self.directory = directory
        self.programs = []

    def start(self):
        self.keys = wire.Keys()
        self.roma = self.add(Roma())
        self.gateway = self.add_gateway("gateway")
        self.key_directory = self.gateway.tool_keys()

    def add_gateway(self, name, settings=None, nodes=None, kind=QuietGateway):
        directory = os.path.join(self.directory, name)
        os.mkdir(directory)
        if nodes is None:
            nodes = [dict(node, color=COLOR) for node in nodes_of(self.roma.address)]
        return self.add(kind(directory, self.keys, nodes,
                             settings=merged(SETTINGS, settings or {})))

    def add(self, program):
        self.programs.append(program)
        return program

    def stop(self):
        for program in reversed(self.programs):
            program.kill()
            for pid in program.session_pids() if hasattr(program, "session_pids") else []:
                os.kill(pid, 9)

    def load(self, kind, *arguments, gateway=True, url=None, path=None):
        """gateway: True for the rig's own, another one, or False; url: of another of its
        listeners than the first; path: what to put before the command."""
        command = [os.path.join(BIN, "janus-bench"), kind, "--json", *arguments]
        if gateway:
            target = self.gateway if gateway is True else gateway
            command += ["--connect", url or address_of(target),
                        "--keys", self.key_directory, "--color", COLOR,
                        "--pid-tree", str(target.pid)]
        command = path(command) if path else command
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=300)
        if done.returncode != 0:
            sys.exit(f"bench: {' '.join(command)} failed with {done.returncode}")
        return json.loads(done.stdout)


def address_of(gateway):
    return ":".join(map(str, gateway.address))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_go_gate(rig):
    """A gateway of the ecosystem's Go layers, on as many cores as the gateway has workers; None
    where there is no Go."""
    try:
        go.program("go-gate")
    except go.NoGo as fault:
        say(f"no gateway in Go to compare with: {fault}")
        return None
    return rig.add(GoGate(rig.directory, rig.keys, rig.roma.address, WORKERS))


def entrances_of(gateway):
    listeners = {one["transport"]: one["address"] for one in gateway.ctl("status")["listeners"]}
    return {kind: f"{kind}@{listeners[kind]}" for kind in ("grpc", "http")}
