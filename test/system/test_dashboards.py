"""What an operator looks at, packaging/: the alert rules do what they say, and rules, dashboard and
README speak of the metrics that there are."""

import json
import os
import re
import subprocess

import pytest

from janus.patience import patient
from janus.programs import Gateway, Roma, etcd_settings, nodes_of, redis_settings
from janus.prometheus import scrape
from janus.etcd_server import Etcd
from janus.redis_server import Redis

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
RULES = os.path.join(ROOT, "packaging", "prometheus")
NAME = re.compile(r"\b(?:janus|process)_[a-z0-9_]+")
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def read(*path):
    with open(os.path.join(ROOT, *path)) as file:
        return file.read()


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], cwd=RULES, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=patient(60), text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def families(start_module):
    """The names that a gateway with all there is has."""
    roma, redis, etcd = start_module(Roma), start_module(Redis), start_module(Etcd)
    gateway = start_module(Gateway, nodes=nodes_of(roma.address), settings={
        **redis_settings(redis.address), **etcd_settings(*etcd.endpoints)})
    return {line.split()[2] for line in scrape(gateway)[1].splitlines()
            if line.startswith("# TYPE")}


def metrics_in(text):
    return {SUFFIX.sub("", name) for name in NAME.findall(text)}


def test_the_rules_are_rules():
    promtool("check", "rules", "janus-alerts.yml")
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_each_rule_fires_where_it_is_to_and_is_silent_where_not():
    promtool("test", "rules", "janus-alerts.test.yml")
    rules = re.findall(r"- alert: (\w+)", read("packaging", "prometheus", "janus-alerts.yml"))
    tests = read("packaging", "prometheus", "janus-alerts.test.yml")
    assert len(rules) > 15
    for rule in rules:
        assert f"name: {rule} fires" in tests and f"name: {rule} is silent" in tests


def test_rules_and_dashboard_speak_of_metrics_that_there_are(families):
    rules = "\n".join(re.findall(r"expr: .*", read("packaging", "prometheus", "janus-alerts.yml")))
    assert metrics_in(rules) - families == set()
    dashboard = json.loads(read("packaging", "grafana", "janus-dashboard.json"))
    expressions = [target["expr"] for panel in dashboard["panels"]
                   for target in panel.get("targets", [])]
    assert len(expressions) > 30
    assert metrics_in("\n".join(expressions)) - families == set()


def test_the_readme_has_every_metric_and_no_other(families):
    told = set(re.findall(r"^\| `((?:janus|process)_[a-z0-9_]+)`", read("README.md"), re.M))
    assert families - told == set(), "not in the README"
    assert told - families == set(), "only in the README"
