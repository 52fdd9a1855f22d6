"""What the servers of a test have in common: a process on a port of its own, which is kept over
restarts, and which can be stalled and killed."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile

from .patience import patient, wait_for


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


class Server:
    """One process. command() says how it is started; answers() whether it is there."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="janus-test-server-")
        self.process = None

    def command(self):
        raise NotImplementedError

    def answers(self):
        raise NotImplementedError

    def start(self, wait=True):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                cwd=self.directory, start_new_session=True)
        if wait:
            self.wait()

    def wait(self):
        def there():
            assert self.process.poll() is None, "the server ended: " + self.log()
            try:
                return self.answers()
            except Exception:  # not yet
                return False

        wait_for(there, f"{type(self).__name__} to answer", 60)

    def log(self):
        with open(os.path.join(self.directory, "log"), errors="replace") as log:
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
        self.kill()
