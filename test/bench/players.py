"""Players whom a load generator holds while something is measured."""

import json
import os
import subprocess
import sys

from janus.programs import BIN
from rig import COLOR, address_of


class IdlePlayers:
    """Logged-in players with a tunnel each, who say nothing, or no more than heartbeats."""

    def __init__(self, rig, url, count, *arguments, color=COLOR, first_uid=5000000):
        command = [os.path.join(BIN, "janus-bench"), "idle", "--json", "--connect", url, "--keys",
                   rig.key_directory, "--color", color, "--clients", str(count), "--source",
                   "127.0.0.1-8", "--uid", str(first_uid), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self.process.stdout.readline()  # when all of them have had an answer
        if not line or json.loads(line)["clients"] < count:
            sys.exit("bench: not all of the idle players came in")

    def end(self):
        """They leave; returns what became of them."""
        text = self.process.communicate(timeout=60)[0]
        return json.loads(text.splitlines()[-1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()


class Crowd:
    """Players who receive what their load generator pushes through an entrance."""

    def __init__(self, kind, clients, size, *arguments):
        command = [os.path.join(BIN, "janus-bench"), kind, "--json", "--clients", str(clients),
                   "--size", str(size), "--source", "127.0.0.1-8", "--uid", "5000000", "--sid", "2",
                   *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def result(self):
        text = self.process.communicate()[0]
        if self.process.returncode != 0:
            sys.exit(f"bench: {' '.join(self.process.args)} failed")
        result = json.loads(text.splitlines()[-1])
        if result["failed"]:
            sys.exit(f"bench: {result['failed']:.0f} pushes failed")
        return result


def players_of(rig, gateway=None):
    gateway = gateway or rig.gateway
    return ["--connect", address_of(gateway), "--keys", rig.key_directory,
            "--color", COLOR, "--pid-tree", str(gateway.pid)]
