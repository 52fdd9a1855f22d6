"""Waiting for events, never for luck. Sanitizer builds are slower: JANUS_TEST_PATIENCE scales
every time limit."""

import os
import time

FACTOR = float(os.environ.get("JANUS_TEST_PATIENCE", "1"))


def patient(seconds):
    return seconds * FACTOR


def ms(seconds):
    return int(patient(seconds) * 1000)


def wait_for(check, what, timeout=30, pause=0.005):
    """Asks check again and again until it returns something true, and returns that. With pause 0
    check is what brings it about."""
    deadline = time.monotonic() + patient(timeout)
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patient(timeout):.0f} s in vain for {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
