"""A process that encodes files and adds them to a catalog, so that a decoder may hang or crash: it is replaced.

It reads requests and writes replies, each a line of JSON. A request is a list of paths; the reply to it comes when
their rows are on the disk. The time that decoding may take is watched by the kernel's alarm, which ends the process
whatever it is stuck in, and also if the one that started it is gone.
"""

import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fasthash._process import Process, ProcessDied, replies
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


_SERVE = "fasthash._worker:serve"


class Worker(Process):
    """The other process, seen from here. Raises FastHashError where it cannot open the catalog."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(_SERVE)
        self._deadline = settings.deadline
        try:
            self.send(asdict(settings))
            self.receive()
        except ProcessDied as error:
            raise FastHashError(f"{settings.catalog}: the process that was to open it {error}") from None
        except FastHashError:
            self.close()
            raise

    def receive(self) -> Any:
        """The reply, waited for. Raises ProcessDied; FastHashError where the catalog could not be read or written."""
        try:
            reply = super().receive()
        except ProcessDied as death:
            if "SIGALRM" in str(death):
                raise ProcessDied(f"came to no end within {self._deadline:g} s") from None
            raise
        if "error" in reply:
            raise FastHashError(reply["error"])
        return reply["files"]


# ---- in the worker -------------------------------------------------------------------------------------------------


def serve() -> None:
    """Serve requests from stdin until it is closed."""
    reply = replies()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)  # who started it will say when to stop

    from fasthash.catalog import Catalog

    try:
        values = json.loads(sys.stdin.readline())
        settings = Settings(**{**values, "limits": Limits(**values["limits"])})
        with Catalog.open(settings.catalog) as catalog:
            with contextlib.suppress(FastHashError):  # what the first image has to wait for is no matter of a deadline
                catalog.encoder.encode(np.ones((32, 32), np.float32))
            reply({"files": []})
            for line in sys.stdin:
                reply({"files": _add(catalog, settings, json.loads(line))})
    except BrokenPipeError:
        os._exit(1)  # nobody listens
    except FastHashError as error:
        reply({"error": str(error)})


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
    wanted = settings.answer + 1
    while True:
        try:
            hits = catalog.search(item, wanted, settings.metric, settings.exclude_within or None)
        except FastHashError as error:  # the query has no time to exclude around
            return {**query, "error": str(error)}
        others = [hit.to_dict() for hit in hits if hit.path != item.image.path][: settings.answer]
        if len(others) == settings.answer or len(hits) < wanted:
            return {**query, "results": [{**hit, "rank": rank} for rank, hit in enumerate(others, start=1)]}
        wanted *= 4  # the file is in the catalog more than once, as it was before
