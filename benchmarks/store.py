"""Stored runs: one JSON file for each benchmark in benchmarks/results/, with its command, machine and figures.

    {"command": "python -m pytest ...", "date": "2026-01-31", "environment": {...}, "figures": {TEST: {NAME: VALUE}}}

Tables in the documentation are drawn from these files (benchmarks/tables.py), so a figure has one home.
"""

import datetime
import json
import os
import platform
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from fasthash._storage import atomic_write
from fasthash._validation import available_cores
from fasthash.hamming import simd_level

RESULTS = Path(__file__).parent / "results"
PACKAGES = [
    "numpy",
    "numba",
    "onnxruntime",
    "nmslib",
    "astropy",
    "faiss-cpu",
    "hnswlib",
    "usearch",
    "fast-histogram",
    "boost-histogram",
]
Figures = dict[str, dict[str, Any]]


def environment() -> dict[str, Any]:
    """What a timing depends on: processor, instruction set, cores, versions, and how busy the machine is now."""
    versions = {each.name: each.version for each in distributions() if each.name in PACKAGES}
    return {
        "processor": processor(),
        "simd_level": simd_level(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **dict(sorted(versions.items()))},
        "load_before": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """Name, family and model, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or "unknown"
    facts = dict((part.strip() for part in line.split(":", 1)) for line in lines if ":" in line)
    return f"{facts.get('model name', 'unknown')}, family {facts.get('cpu family')}, model {facts.get('model')}"


def store(name: str, command: str, where: dict[str, Any], figures: Figures) -> Path:
    """Write one run; ``where`` is what `environment` said before it."""
    run = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "environment": {**where, "load_after": round(os.getloadavg()[0], 2)},
        "figures": figures,
    }
    path = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    with atomic_write(path) as file:
        file.write((json.dumps(run, indent=1) + "\n").encode())
    return path


def stored(name: str) -> dict[str, Any]:
    """The last stored run of that name; without any figures where there is none."""
    try:
        run: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    except FileNotFoundError:
        return {"figures": {}}
    return run


def changes(before: Figures, now: Figures) -> list[tuple[str, str, float, float]]:
    """Test, name, stored and new value of every number that both runs have."""
    return [
        (test, name, old, new)
        for test, values in now.items()
        for name, new in values.items()
        for old in [before.get(test, {}).get(name)]
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (old, new))
    ]
