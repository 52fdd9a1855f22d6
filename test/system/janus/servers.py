"""What the servers of a test have in common: a process on a port of its own, which is kept over
restarts, and which can be stalled and killed."""

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile

from .patience import patient, wait_for


class PortTaken(Exception):
    """Somebody else took the port between its choice and the server's start."""


def free_ports(count):
    """Ports that nobody uses now, each only once."""
    sockets = []
    for _ in range(count):
        probe = socket.socket()
        probe.bind(("127.0.0.1", 0))
        sockets.append(probe)
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


def on_free_ports(count, begin, below=65536, tries=5):
    """begin(ports), and again with others when somebody took one of them in between."""
    for left in reversed(range(tries)):
        ports = []
        while len(ports) < count:
            ports += [port for port in free_ports(8) if port < below and port not in ports]
        try:
            return begin(ports[:count])
        except PortTaken:
            if not left:
                raise


class Server:
    """One process. command() says how it is started; answers() whether it is there. It dies with
    the thread that started it, so that an interrupted run leaves no servers behind: start it in
    one that lives as long as the test."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="janus-test-server-")
        self.process = None
        self._answered = False  # once it has, others know its port
        self._log_start = 0
        atexit.register(self.stop)  # also when the constructor of what it belongs to failed

    inherited = ()  # descriptors that it gets, under the same numbers

    def command(self):
        raise NotImplementedError

    def answers(self):
        raise NotImplementedError

    def start(self, wait=True):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command()], stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, cwd=self.directory, start_new_session=True,
                pass_fds=self.inherited)
        if wait:
            self.wait()

    def wait(self):
        wait_for(self.there, f"{type(self).__name__} to answer", 60)

    def there(self):
        """Whether it answers yet; raises when it ended instead."""
        if self.process.poll() is not None:
            if "ddress already in use" not in self.log():
                raise AssertionError("the server ended: " + self.log())
            if not self._answered:
                raise PortTaken(self.log())
            self.start(wait=False)  # a restart needs this very port; it will be free again
            return False
        try:
            answers = bool(self.answers())
        except Exception:  # not yet
            return False
        self._answered = self._answered or answers
        return answers

    def log(self):
        """What it said last, since its latest start."""
        with open(os.path.join(self.directory, "log"), errors="replace") as log:
            log.seek(self._log_start)
            return "".join(log.readlines()[-20:])

    def stall(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self):
        if self.process and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(patient(10))

    def stop(self):
        """For good: its data is gone too."""
        atexit.unregister(self.stop)
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
