"""A process killed, a disk full, bytes changed, many readers: nothing acknowledged is lost, nothing wrong comes back.

Small numbers of what faults.py does in large ones.
"""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("faults.py")


def run(*arguments):
    """In a process of its own, since it forks; what it counted."""
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_what_was_acknowledged_survives_kill_9():
    report = run("kills", "--count", "15")
    assert report["acknowledged"] > 0


def test_writes_that_fail_are_told_and_cost_nothing_acknowledged():
    report = run("writes", "--count", "10")
    assert report["adding failed"] > 0
    assert report["creating: clear error"] > 0


def test_damage_is_told_or_mended():
    report = run("damage", "--count", "12")
    assert {"encoder.onnx", "catalog.sqlite"} <= set(report["files"])


def test_readers_beside_a_writer_miss_nothing():
    report = run("readers", "--count", "3", "--seconds", "2")
    assert report["added"] > 0
    assert report["searches"] > 0
