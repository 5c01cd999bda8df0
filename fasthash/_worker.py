"""A process that encodes files and adds them to a catalog, so that a decoder may hang or crash: it is replaced.

It reads requests and writes replies, each a line of JSON. A request is a list of paths; the reply to it comes when
their rows are on the disk. The time that decoding may take is watched by the kernel's alarm, which ends the process
whatever it is stuck in, and also if the one that started it is gone.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fasthash.errors import FastHashError
from fasthash.io import DEFAULT_LIMITS, Limits


@dataclass(frozen=True)
class Settings:
    """What a worker is to do.

    catalog : path
    deadline : seconds that decoding may take before the process is killed
    num_threads, limits : as in `Catalog.add`
    answer : neighbours to find of each file, itself left out; 0: none
    metric, exclude_within : as in `Catalog.search`; "" excludes nothing
    """

    catalog: str
    deadline: float = 60.0
    num_threads: int = -1
    limits: Limits = DEFAULT_LIMITS
    answer: int = 0
    metric: str = "l2"
    exclude_within: str = ""


_START = "from fasthash._worker import serve; serve()"


class WorkerDied(Exception):
    """The process ended before it replied; the text says how."""


class Worker:
    """The other process, seen from here. Raises FastHashError where it cannot open the catalog."""

    def __init__(self, settings: Settings) -> None:
        self._deadline = settings.deadline
        # The import path is set before anything is imported, or a folder named fasthash beside the user would be found.
        code = f"import sys; sys.path[:] = {sys.path!r}; {_START}"
        # In a session of its own: Ctrl-C is for the one who started it.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        try:
            self.send(asdict(settings))
            self.receive()
        except WorkerDied as error:
            raise FastHashError(f"{settings.catalog}: the process that was to open it {error}") from None
        except FastHashError:
            self.close()
            raise

    @property
    def fd(self) -> int:
        """What becomes readable when a reply is there."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def send(self, request: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: receive says so
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self) -> Any:
        """The reply, waited for. Raises WorkerDied; FastHashError where the catalog could not be read or written."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            self.close()
            raise WorkerDied(self._last_words())
        reply = json.loads(line)
        if "error" in reply:
            raise FastHashError(reply["error"])
        return reply["files"]

    def _last_words(self) -> str:
        code = self._process.returncode
        if code == -signal.SIGALRM:
            return f"came to no end within {self._deadline:g} s"
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    def close(self, grace: float = 1.0) -> None:
        """Let it end by itself, for so many seconds; then kill it. Its rows are in the catalog or not, never half."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# ---- in the worker -------------------------------------------------------------------------------------------------


def serve() -> None:
    """Serve requests from stdin until it is closed."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no reply
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # who started it will say when to stop

    def reply(**content: Any) -> None:
        replies.write(json.dumps(content) + "\n")
        replies.flush()

    from fasthash.catalog import Catalog

    try:
        values = json.loads(sys.stdin.readline())
        settings = Settings(**{**values, "limits": Limits(**values["limits"])})
        with Catalog.open(settings.catalog) as catalog:
            with contextlib.suppress(FastHashError):  # what the first image has to wait for is no matter of a deadline
                catalog.encoder.encode(np.ones((32, 32), np.float32))
            reply(files=[])
            for line in sys.stdin:
                reply(files=_add(catalog, settings, json.loads(line)))
    except BrokenPipeError:
        os._exit(1)  # nobody listens
    except FastHashError as error:
        reply(error=str(error))


def _add(catalog: Any, settings: Settings, paths: list[str]) -> list[dict[str, Any]]:
    """One entry for each path: ``outcome`` "added", "known" or "failed", ``reason``, ``answer``."""
    from fasthash.encoder import Failure

    signal.setitimer(signal.ITIMER_REAL, settings.deadline)
    items = list(catalog.encoder.encode_files(paths, settings.num_threads, settings.limits))
    signal.setitimer(signal.ITIMER_REAL, 0)  # the disk may take as long as it needs
    encoded = [item for item in items if not isinstance(item, Failure)]
    known = set(catalog.insert(encoded).known)
    entries = []
    for path, item in zip(paths, items, strict=True):
        if isinstance(item, Failure):
            entries.append({"path": path, "outcome": "failed", "reason": item.message})
            continue
        entry: dict[str, Any] = {"path": path, "outcome": "known" if path in known else "added"}
        if settings.answer:
            entry["answer"] = _answer(catalog, settings, item)
        entries.append(entry)
    return entries


def _answer(catalog: Any, settings: Settings, item: Any) -> dict[str, Any]:
    from fasthash.times import format_time

    query = {"query": item.image.path, "time": format_time(item.image.time), "metric": settings.metric}
    try:
        hits = catalog.search(item, settings.answer + 1, settings.metric, settings.exclude_within or None)
    except FastHashError as error:  # the query has no time to exclude around
        return {**query, "error": str(error)}
    others = [asdict(hit) for hit in hits if hit.path != item.image.path][: settings.answer]
    return {**query, "results": [{**hit, "rank": rank} for rank, hit in enumerate(others, start=1)]}
