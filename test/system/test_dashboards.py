"""What an operator looks at, packaging/: the alert rules do what they say, and rules, dashboard and
README speak of the metrics that there are, SYMPTOMS.md of the events of the log."""

import glob
import json
import os
import re
import subprocess

import pytest

from janus.patience import patient, wait_for
from janus.programs import Gateway, Roma, etcd_settings, nodes_of, redis_settings
from janus.prometheus import Prometheus, scrape
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


def rules():
    """The text of each alert rule, by its name."""
    text = read("packaging", "prometheus", "janus-alerts.yml")
    return dict(re.findall(r"- alert: (\w+)\n(.*?)(?=\n      - alert|\Z)", text, re.S))


def metrics_in(text):
    return {SUFFIX.sub("", name) for name in NAME.findall(text)}


def test_the_rules_are_rules():
    promtool("check", "rules", "janus-alerts.yml")
    promtool("check", "config", "--syntax-only", "prometheus.yml")


def test_each_rule_fires_where_it_is_to_and_is_silent_where_not():
    promtool("test", "rules", "janus-alerts.test.yml")
    tests = read("packaging", "prometheus", "janus-alerts.test.yml")
    assert len(rules()) > 20
    for rule in rules():
        assert f"name: {rule} fires" in tests and f"name: {rule} is silent" in tests


def test_each_rule_says_how_bad_it_is_what_to_do_and_where_to_read_on():
    chapters = set(re.findall(r"^##+ (.+)$", read("README.md"), re.M))
    for name, text in rules().items():
        assert re.search(r"^        for: \d+[mh]$", text, re.M), name
        assert re.search(r"^          severity: (critical|warning|info)$", text, re.M), name
        assert re.search(r"^          summary: .*\$labels\.instance", text, re.M), name
        assert re.search(r"^          description: >-\n {12}\S", text, re.M), name
        assert re.search(r"^          readme: '(.+)'$", text, re.M)[1] in chapters, name


def test_a_prometheus_with_the_rules_notices_that_redis_is_gone(start):
    roma, redis, etcd = start(Roma), start(Redis), start(Etcd)
    gateway = start(Gateway, nodes=nodes_of(roma.address), settings={
        **redis_settings(redis.address), **etcd_settings(*etcd.endpoints)})
    prometheus = start(Prometheus, gateway, rules=[os.path.join(RULES, "janus-alerts.yml")])

    def loaded():
        return {rule["name"]: rule for group in prometheus.get("rules")["groups"]
                for rule in group["rules"]}

    def noticed():
        return bool(loaded()["JanusRedisDown"]["alerts"])

    wait_for(lambda: prometheus.value("sum(janus_redis_masters_up)") == 1, "Redis to be seen", 30)
    wait_for(lambda: {rule["health"] for rule in loaded().values()} == {"ok"},
             "each rule to be evaluated without a fault", 30)
    assert loaded().keys() == rules().keys() and not noticed()
    redis.kill()
    wait_for(noticed, "the alert", 30)


def test_rules_and_dashboard_speak_of_metrics_that_there_are(families):
    assert metrics_in("".join(rules().values())) - families == set()
    dashboard = json.loads(read("packaging", "grafana", "janus-dashboard.json"))
    expressions = [target["expr"] for panel in dashboard["panels"]
                   for target in panel.get("targets", [])]
    assert len(expressions) > 30
    for expression in expressions:
        assert metrics_in(expression) and 'instance=~"$instance"' in expression, expression
    expressions += [variable["query"]["query"] for variable in dashboard["templating"]["list"]
                    if variable["type"] == "query"]
    assert metrics_in("\n".join(expressions)) - families == set()


def test_the_readme_has_every_metric_says_what_it_is_and_has_no_other(families):
    rows = re.findall(r"^\| `((?:janus|process)_[a-z0-9_]+)` \| (.*?) \|", read("README.md"), re.M)
    told = {name for name, meaning in rows if meaning not in ("", "None")}
    assert len(rows) == len({name for name, _ in rows}), "one stands there twice"
    assert families - told == set(), "not in the README"
    assert told - families == set(), "only in the README"


def test_the_symptoms_have_every_warning_and_error_of_the_log_and_no_other():
    sources = "".join(read(path) for folder in ("master", "worker", "common") for path in glob.glob(
        os.path.join(ROOT, folder, "**", "*.[ch]"), recursive=True))
    events = set(re.findall(r"""(?:log_(?:warn|error)\(|
                                   log_(?:limited|write)\(LOG_LEVEL_(?:WARN|ERROR),)
                                \s*"(\w+)\"""", sources, re.X))
    assert len(events) > 50
    symptoms = read("packaging", "doc", "SYMPTOMS.md")
    assert {name for name in events if f"`{name}`" not in symptoms} == set(), "not among the symptoms"
    # The first of each row; some are reasons, or other words of the gateway's.
    first = "".join(line.split("|")[1] for line in symptoms.splitlines() if line.startswith("|"))
    told = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", first))
    assert {name for name in told if f'"{name}"' not in sources} == set(), "only among the symptoms"
