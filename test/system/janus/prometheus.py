"""A real Prometheus server that scrapes a gateway, and the format it reads taken apart."""

import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request

from .patience import patient
from .servers import Server, on_free_ports

SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
TEXT = "text/plain"
OPENMETRICS = "application/openmetrics-text"


def scrape(gateway, accept=TEXT):
    """(content type, page) of the gateway's /metrics."""
    host, port = gateway.listener("http")
    request = urllib.request.Request(f"http://{host}:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=patient(10)) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def samples(page):
    """{(name, ((label, value), ...)): number} of a page; each series only once."""
    found = {}
    for line in page.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = SAMPLE.match(line).groups()
        key = name, tuple(sorted(LABEL.findall(labels or "")))
        assert key not in found, line
        found[key] = float(value)
    return found


def total(page, name, **labels):
    """The sum of all series of that name with these labels."""
    wanted = set(labels.items())
    parts = [value for (one, has), value in samples(page).items()
             if one == name and wanted <= set(has)]
    assert parts, f"no {name} with {labels}"
    return sum(parts)


class Prometheus(Server):
    def __init__(self, gateway, interval="200ms", rules=()):
        super().__init__()
        self.target = "{}:{}".format(*gateway.listener("http"))
        self.interval, self.rules = interval, [os.path.abspath(path) for path in rules]
        on_free_ports(1, self._begin)

    def _begin(self, ports):
        self.address = f"127.0.0.1:{ports[0]}"
        with open(os.path.join(self.directory, "prometheus.yml"), "w") as out:
            json.dump({"global": {"scrape_interval": self.interval, "scrape_timeout": "200ms",
                                  "evaluation_interval": self.interval},
                       "rule_files": self.rules,
                       "scrape_configs": [{"job_name": "janus", "static_configs": [
                           {"targets": [self.target]}]}]}, out)
        self.start()

    def command(self):
        return [shutil.which("prometheus"), "--config.file=prometheus.yml",
                f"--web.listen-address={self.address}", "--storage.tsdb.path=data"]

    def answers(self):
        with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
            return answer.status == 200

    def get(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=patient(10)) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """[(labels, number)]"""
        return [(one["metric"], float(one["value"][1]))
                for one in self.get("query", query=expression)["result"]]

    def value(self, expression):
        """Of what has one result; None while there is none."""
        found = self.query(expression)
        return found[0][1] if len(found) == 1 else None


def check_metrics(page):
    """What promtool finds wrong with the page: "" for nothing."""
    done = subprocess.run(["promtool", "check", "metrics"], input=page.encode(),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=patient(30))
    return done.stdout.decode() if done.returncode != 0 else ""
