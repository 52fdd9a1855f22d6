"""Players whom a load generator holds while something is measured."""

import json
import os
import subprocess
import sys

from janus.programs import BIN
from rig import COLOR


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
    return ["--connect", ":".join(map(str, gateway.address)), "--keys", rig.key_directory,
            "--color", COLOR, "--pid-tree", str(gateway.pid)]
