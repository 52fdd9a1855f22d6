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


# `make asan` leaves out what has nothing to do with C, where a sanitizer sees nothing that others
# don't show it. Where somebody plays, that is marked needs_release, and `make system-release` runs
# it on the default engine; so it does with measures_memory, which goes without its measure here.
# In the others no tunnel is opened, so it is no matter which engine would carry it: of their
# gateways nobody is a player (completion, dashboards, deployment), or there is none at all
# (harness, kcp_bridge, manual).
UNDER_ASAN = "asan" in os.environ.get("JANUS_BUILD", "")
if UNDER_ASAN:
    collect_ignore = [f"test_{name}.py" for name in (
        "completion", "dashboards", "deployment", "harness", "kcp_bridge", "manual")]


def pytest_configure(config):
    config.addinivalue_line("markers", "needs_release: is left out under AddressSanitizer")
    config.addinivalue_line("markers", "measures_memory: but not under AddressSanitizer")


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if UNDER_ASAN and item.get_closest_marker("needs_release")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


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
