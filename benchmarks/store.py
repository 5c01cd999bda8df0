"""Stored runs: one JSON file each in benchmarks/results/, with its command, day, machine and figures.

    {"command": "python -m pytest ...", "date": "2026-01-31", "environment": {...}, "figures": {TEST: {NAME: VALUE}}}
    {"command": "fasthash reproduce solar", "date": ..., "environment": {...}, "output": [LINE, ...]}

Benchmarks store figures, by --store. Every other command has its output kept, line by line:

    python -m benchmarks.store NAME --command 'fasthash reproduce solar'
    python -m benchmarks.store 'reproduce_*' --data FOLDER      # the commands stored under these names, once more

A command runs in bash, in an empty folder where it finds the files of FOLDER under their names.

What the documentation shows is drawn from these files (benchmarks/tables.py), so a figure has one home.
"""

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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


def store(name: str, command: str, where: dict[str, Any], **result: Any) -> Path:
    """Write one run; ``where`` is what `environment` said before it, ``result`` its ``figures`` or its ``output``."""
    run = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "environment": {**where, "load_after": round(os.getloadavg()[0], 2)},
        **result,
    }
    path = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    with atomic_write(path) as file:
        file.write((json.dumps(run, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def run_and_store(name: str, command: str, data: Path | None = None) -> Path:
    """Run a command in bash, with this Python and this fasthash, and keep what it prints, unless it fails."""
    where = environment()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory() as folder:
        for file in [] if data is None else data.resolve().iterdir():
            (Path(folder) / file.name).symlink_to(file)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(RESULTS.parent.parent)},
            stdout=subprocess.PIPE,
            text=True,
        )
    if done.returncode or not done.stdout.strip():
        sys.exit(f"{name}: exit status {done.returncode}, {len(done.stdout)} characters of output; nothing is stored")
    said = done.stdout.rstrip().replace(str(Path.home()), "~")
    return store(name, command, where, output=[line.rstrip() for line in said.splitlines()])


def stored(name: str) -> dict[str, Any]:
    """The last stored run of that name; without any figures where there is none, or where it has an output."""
    path = RESULTS / f"{name}.json"
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"figures": {}, **run}


def numbers(result: Any) -> Iterator[float]:
    """Every number of a run's figures or output, that in text included."""
    if isinstance(result, (int, float)):
        yield float(result)
    elif isinstance(result, str):
        yield from (float(text.replace(",", "")) for text in re.findall(r"\d[\d,]*\.?\d*|\.\d+", result))
    else:
        for part in result.values() if isinstance(result, dict) else result:
            yield from numbers(part)


def changes(before: Figures, now: Figures) -> list[tuple[str, str, float, float]]:
    """Test, name, stored and new value of every number that both runs have."""
    return [
        (test, name, old, new)
        for test, values in now.items()
        for name, new in values.items()
        for old in [before.get(test, {}).get(name)]
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (old, new))
    ]


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.store", description="Run commands, keep what they print."
    )
    parser.add_argument(
        "names", nargs="*", default=["*"], metavar="NAME", help="of stored outputs, or patterns of them"
    )
    parser.add_argument("--command", help="what to run (default: the command stored under NAME)")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="whose files the commands need")
    args = parser.parse_args()
    if args.command and args.names == ["*"]:
        parser.error("--command needs a NAME to keep what it prints under")
    commands = dict.fromkeys(args.names, args.command) if args.command else dict(repeatable(args.names))
    if not commands:
        parser.error(f"no output is stored under {' '.join(args.names)}; --command says what to run")
    for name, command in commands.items():
        print(f"stored: {run_and_store(name, command, args.data)}", flush=True)


def repeatable(patterns: list[str]) -> Iterator[tuple[str, str]]:
    """Names and commands of the stored outputs, but those of long trainings, which have ``"again": false``."""
    for path in sorted(path for pattern in patterns for path in RESULTS.glob(f"{pattern}.json")):
        run = stored(path.stem)
        if "output" in run and run.get("again", True):
            yield path.stem, run["command"]


if __name__ == "__main__":
    main()
