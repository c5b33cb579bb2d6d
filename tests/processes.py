"""Processes that tests start: a port for them, and a wait that ends with the first failure."""

import socket
import time


def wait(processes, seconds=150):
    """Waits for the last to end well or the first to end badly, and for no one longer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        if None not in codes or any(codes):
            return codes
        time.sleep(0.05)
    return [process.poll() for process in processes]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
