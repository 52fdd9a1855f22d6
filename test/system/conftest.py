"""Fixtures of the system tests: real programs on free ports, ended and examined after use."""

import os
import resource
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from janus.backend import Backend  # noqa: E402
from janus.certificates import Certificates  # noqa: E402
from janus.programs import BIN, Gateway, Roma, nodes_of  # noqa: E402
from janus.wire import Keys  # noqa: E402


# What these are about is not C: a sanitizer has nothing to see there that others don't show it.
#
# No tunnel is opened in any of the first, so the engine that carries tunnels is no matter either: of
# their gateways nobody is a player (completion, dashboards, deployment), or there is none at all
# (harness, kcp_bridge, manual). The others play sessions: `make system-release` runs them on the
# default engine, with the tests whose measure of memory a sanitizer spoils (leave_no_trace).
WITHOUT_TUNNELS = ("completion", "dashboards", "deployment", "harness", "kcp_bridge", "manual")
WITH_TUNNELS = ("web", "web_clients")
if "asan" in os.environ.get("JANUS_BUILD", ""):
    collect_ignore = [f"test_{name}.py" for name in (*WITHOUT_TUNNELS, *WITH_TUNNELS)]


def pytest_sessionstart(session):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if not os.access(os.path.join(BIN, "janusd"), os.X_OK):
        pytest.exit(f"no janusd in {BIN}: build it first (make), or set JANUS_BUILD", 2)


@pytest.fixture(scope="session")
def keys():
    return Keys()


def _starter(tmp_path_factory, keys):
    """A function that starts things, and a function that ends them all, gateways first."""
    started = []

    def start(kind, *arguments, **options):
        if kind is Gateway:
            options.setdefault("keys", keys)
            thing = Gateway(tmp_path_factory.mktemp("gateway"), *arguments, **options)
        else:
            thing = kind(*arguments, **options)
        started.append(thing)
        return thing

    def stop():
        faults = []
        for thing in sorted(started, key=lambda thing: not isinstance(thing, Gateway)):
            try:
                thing.stop()
            except AssertionError as fault:
                faults.append(str(fault))
        assert not faults, "\n".join(faults)

    return start, stop


@pytest.fixture(scope="module")
def start_module(tmp_path_factory, keys):
    """start(Gateway, nodes=...), start(Backend), ...: lives as long as the module's tests."""
    start, stop = _starter(tmp_path_factory, keys)
    yield start
    stop()


@pytest.fixture
def start(tmp_path_factory, keys):
    """The same for one test."""
    start, stop = _starter(tmp_path_factory, keys)
    yield start
    stop()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def backend(start_module):
    return start_module(Backend)


@pytest.fixture(scope="module")
def roma(start_module, tmp_path_factory):
    return start_module(Roma, record=tmp_path_factory.mktemp("roma") / "record")


@pytest.fixture(scope="module")
def gateway(start_module, backend, request):
    """One gateway for the module, over its `backend`; SETTINGS of the module are laid over."""
    return start_module(
        Gateway, nodes=nodes_of(backend.address), settings=getattr(request.module, "SETTINGS", {})
    )
