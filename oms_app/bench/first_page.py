"""Seconds from starting OMS Studio to the first page: `python -m oms_app.bench.first_page`.

Median of 5 starts with a warm disk cache.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

RUNS = 5
TIMEOUT = 120.0  # seconds


def free_port() -> int:
    """A port of this computer that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_once() -> float:
    """Seconds until GET / answers 200. Raises TimeoutError after TIMEOUT."""
    port = free_port()
    began = time.monotonic()
    command = [sys.executable, "-m", "oms_app.cli.page", "--port", str(port)]  # what app.py and oms-studio run
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while time.monotonic() - began < TIMEOUT:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    if page.status == 200:
                        return time.monotonic() - began
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        raise TimeoutError(f"no page within {TIMEOUT} s")
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    seconds = [start_once() for _ in range(RUNS)]
    print(json.dumps({"median": round(statistics.median(seconds), 2), "runs": [round(s, 2) for s in seconds]}))
