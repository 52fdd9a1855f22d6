"""The Go programs of test/interop, built once into build/go."""

import fcntl
import functools
import os
import shutil
import subprocess

import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
SOURCE = os.path.join(ROOT, "test", "interop")
BUILT = os.path.join(ROOT, "build", "go")


class NoGo(Exception):
    """Why the Go programs can't be had here."""


@functools.lru_cache(maxsize=None)
def _build():
    """Once in each process; what another has built in the meantime costs Go's cache a look."""
    if not shutil.which("go"):
        return "no Go toolchain"
    os.makedirs(BUILT, exist_ok=True)
    with open(os.path.join(BUILT, ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetched = subprocess.run(["go", "mod", "download"], cwd=SOURCE,
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if fetched.returncode != 0:
            return "the Go modules can't be fetched: " + fetched.stderr.strip()[-500:]
        built = subprocess.run(["go", "build", "-o", BUILT + os.sep, "./cmd/..."], cwd=SOURCE,
                               stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout + built.stderr
    return None


def program(name):
    """The path of one of test/interop/cmd; raises NoGo."""
    missing = _build()
    if missing:
        raise NoGo(missing)
    return os.path.join(BUILT, name)


def require_go(what):
    """Skips the test, and says what is not tried and why, where the Go programs can't be had."""
    missing = _build()
    if missing:
        pytest.skip(f"{what} is not tried: {missing}")


def flags(settings):
    """keepalive_timeout="5s", acknodelay=False and the like as Go's flags."""
    return [f"-{name.replace('_', '-')}={str(value).lower() if isinstance(value, bool) else value}"
            for name, value in settings.items()]


def assert_no_panic(log):
    assert "panic:" not in log and "fatal error:" not in log, log[-8000:]
