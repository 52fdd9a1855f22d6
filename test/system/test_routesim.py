"""janus-routesim: routing by many gateways and nodes in one process stays even and agreed, and the
simulation finds out where it does not."""

import json

import pytest
from janus.programs import run

SMALL = ["--gateways", "60", "--nodes", "48", "--players", "1500"]


def simulate(*arguments):
    done = run("janus-routesim", "--json", *SMALL, *arguments)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("more", [[], ["--seed", "7", "--colors", "3"],
                                  ["--feed-lag", "1s", "--registry-lag", "900ms"]])
def test_routing_stays_even_and_agreed_while_nodes_and_the_store_come_and_go(more):
    status, report = simulate(*more)
    assert status == 0 and report["broken"] == []
    phases = {phase["name"]: phase for phase in report["phases"]}
    # What the bounds speak of has happened.
    assert phases["logins"]["chosen"] > 1500
    assert phases["logins"]["cv"] < phases["logins"]["random_cv"] * 1.5
    assert phases["nodes come"]["moved"] == 0 < phases["nodes die"]["moved"]
    assert phases["nodes die"]["moved_from_living"] == 0
    assert phases["store away"]["rendezvous"] > 0
    assert phases["store away"]["disagree"] == {"worst": 0, "end": 0}
    meanwhile = phases["nodes change meanwhile"]["disagree"]
    assert meanwhile["end"] == 0 < meanwhile["worst"]
    assert phases["store back"]["split"]["end"] == 0
    assert phases["old routes run out"]["split"] == {"worst": 0, "end": 0}
    assert phases["store lost all"]["split"] == {"worst": 0, "end": 0}


def test_the_same_seed_gives_the_same_and_another_another():
    once, again, other = (simulate("--seed", seed)[1] for seed in ("3", "3", "4"))
    assert once == again != other


@pytest.mark.parametrize("fault, found", [
    ("alike", "logins: less even than by chance"),
    ("deaf", "gateways with the same nodes name different ones"),
    ("believe", "store back: "),
    ("overwrite", "objects have left nodes that are alive"),
])
def test_what_is_wrong_is_found(fault, found):
    status, report = simulate("--fault", fault)
    assert status == 1
    assert any(found in broken for broken in report["broken"]), report["broken"]


def test_the_report_for_people_names_each_phase_and_what_was_broken():
    done = run("janus-routesim", *SMALL, "--fault", "alike")
    assert done.returncode == 1
    assert "BROKEN logins: " in done.stdout and "store lost all" in done.stdout
    assert done.stdout.endswith("a bound was broken\n")


@pytest.mark.parametrize("arguments", [
    ["--gateways", "1"], ["--nodes", "many"], ["--fault", "none-such"], ["--colors", "90"],
    ["--feed-lag", "1h"], ["something"]])
def test_wrong_usage_is_told(arguments):
    done = run("janus-routesim", *arguments)
    assert done.returncode == 2 and done.stderr.startswith("janus-routesim: ")


def test_help_says_what_is_simulated():
    done = run("janus-routesim", "--help")
    assert done.returncode == 0 and "stand-in for Redis" in done.stdout
