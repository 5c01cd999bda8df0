"""Encoding of very many files: over processes, over the machines of a Dask cluster, and again after an interruption.

All ways give what `Encoder.encode_files` gives, in the same order: files are hashed one by one, so no result depends on
how the work was shared out. Of each file comes its path, digest, time, label, hash and remarks; headers and cells stay
where it was read. Sole importer of distributed.
"""

import base64
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._parallel import map_ahead
from fasthash._process import Process, ProcessDied, replies
from fasthash._storage import read_container, write_container
from fasthash._validation import available_cores, check_int
from fasthash._version import __version__
from fasthash.encoder import Encoded, Encoder, Failure
from fasthash.errors import CorruptFileError, FastHashError, MissingDependencyError
from fasthash.io import DEFAULT_LIMITS, Image, Limits

# Seconds that a cluster may take to answer, and to have a worker.
_PATIENCE = 30
# Seconds of work that a killed run may lose.
_EVERY = 10.0

# ---- processes -----------------------------------------------------------------------------------------------------


def encode_in_processes(
    encoder: Encoder, paths: Iterable[str], processes: int = -1, limits: Limits = DEFAULT_LIMITS
) -> Iterator[Encoded | Failure]:
    """Hash many files in worker processes (-1: one a core), each of which has one file at a time.

    A worker that dies, or is killed, is replaced; its file is tried once more, and then a Failure.
    """
    processes = available_cores() if processes == -1 else check_int("processes", processes, 1)
    idle: SimpleQueue[_Worker | None] = SimpleQueue()
    for _ in range(processes):
        idle.put(None)  # started when it is first needed

    def encode(path: str) -> Encoded | Failure:
        deaths: list[str] = []
        while len(deaths) < 2:
            worker = idle.get()
            try:
                worker = worker or _Worker(encoder, limits)
                return _with_remark(worker.encode(path), deaths)
            except ProcessDied as death:
                worker = None
                deaths.append(str(death))
            finally:
                idle.put(worker)
        return Failure(path, f"{path}: the process that encoded it {deaths[0]}, its replacement {deaths[1]}")

    try:
        yield from map_ahead(encode, paths, processes)
    finally:
        for _ in range(processes):
            if worker := idle.get():
                worker.close()


def _with_remark(item: Encoded | Failure, deaths: list[str]) -> Encoded | Failure:
    if not deaths or isinstance(item, Failure):
        return item
    text = f"the process that encoded it {deaths[0]}; the second try went well"
    return replace(item, image=replace(item.image, remarks=(*item.image.remarks, text)))


class _Worker(Process):
    """A process that runs `_serve`: paths go in, results come out."""

    def __init__(self, encoder: Encoder, limits: Limits) -> None:
        super().__init__("fasthash.bulk:_serve")
        self.send({"source": encoder.source, "size": len(encoder.data), "limits": asdict(limits)}, encoder.data)
        try:
            self.receive()
        except ProcessDied as death:
            raise FastHashError(f"a worker process {death} before it had any file") from None

    def encode(self, path: str) -> Encoded | Failure:
        self.send(path)
        return _from_json(self.receive())


def _serve() -> None:
    """A worker: takes its encoder, then paths, from stdin, until that ends."""
    questions, reply = sys.stdin.buffer, replies()
    start = json.loads(questions.readline())
    encoder, limits = Encoder(questions.read(start["size"]), start["source"]), Limits(**start["limits"])
    reply("ready")
    for path in questions:
        reply(_as_json(encoder.encode_file(json.loads(path), limits)))


# ---- results as JSON can hold them: what processes and clusters send back, and checkpoints keep ----------------------


def _as_json(item: Encoded | Failure) -> dict[str, Any]:
    if isinstance(item, Failure):
        return asdict(item)
    return {**_facts(item), "hash": base64.b64encode(item.hash.astype("<f4").tobytes()).decode()}


def _from_json(facts: dict[str, Any]) -> Encoded | Failure:
    if "message" in facts:
        return Failure(**facts)
    return _encoded(facts, np.frombuffer(base64.b64decode(facts.pop("hash")), "<f4").astype(np.float32))


def _facts(item: Encoded) -> dict[str, Any]:
    image = item.image
    time_ms = None if np.isnat(image.time) else int(image.time.astype("datetime64[ms]").astype(np.int64))
    return {
        "path": image.path, "digest": image.digest, "time": time_ms, "label": item.label, "remarks": image.remarks,
    }  # fmt: skip


def _encoded(facts: dict[str, Any], vector: NDArray[np.float32]) -> Encoded:
    taken = np.datetime64("NaT" if facts["time"] is None else facts["time"], "ms")
    nothing = np.empty((0, 0), np.float32)
    image = Image(nothing, facts["path"], taken, digest=facts["digest"], remarks=tuple(facts["remarks"]))
    return Encoded(image, vector, facts["label"])


# ---- a Dask cluster ------------------------------------------------------------------------------------------------


def encode_on_dask(
    encoder: Encoder, paths: Iterable[str], cluster: str = "local", limits: Limits = DEFAULT_LIMITS
) -> Iterator[Encoded | Failure]:
    """Hash many files on the workers of a Dask cluster, which must find them under the same paths.

    The files of a worker that is lost go to another one; one that several workers in turn were lost with is a Failure.

    Parameters
    ----------
    cluster : address of its scheduler ("tcp://host:8786"), or "local" for one on this host, a worker a core

    Raises
    ------
    FastHashError
        Where there is no such cluster, it has no workers, theirs is another version of fasthash, or it is lost.
    MissingDependencyError
        Without the extra [dask].
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise MissingDependencyError("a cluster needs Dask: pip install 'fasthash[dask]'") from error
    with contextlib.ExitStack() as opened, _naming(cluster):
        address: Any = cluster
        if cluster == "local":
            opened.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 1}))  # as with processes
            local = distributed.LocalCluster(n_workers=available_cores(), threads_per_worker=1, dashboard_address=":0")
            address = opened.enter_context(local)
        client = opened.enter_context(distributed.Client(address, timeout=_PATIENCE))
        client.wait_for_workers(1, timeout=_PATIENCE)
        if (theirs := client.submit(_version, pure=False).result()) != __version__:
            raise FastHashError(f"its workers run fasthash {theirs}, this is {__version__}")
        # A task of its own: should all workers that hold the encoder be lost, the scheduler has it made anew.
        data = client.submit(bytes, encoder.data, pure=False)

        suspect = Lock()

        def ask(path: str) -> Encoded | Failure:
            task = client.submit(_encode_on_worker, data, encoder.source, path, asdict(limits), pure=False)
            return _from_json(task.result())

        def encode(path: str) -> Encoded | Failure:
            with contextlib.suppress(distributed.scheduler.KilledWorker):
                return ask(path)
            # Dask suspects every file that a dead worker had been given. Tried one suspect at a time, the guilty shows.
            try:
                with suspect:
                    return ask(path)
            except distributed.scheduler.KilledWorker:
                return Failure(path, f"{path}: the workers that encoded it died, one after another")

        # A thread waits for a file: two for each thread of a worker, so that it has its next file at once.
        yield from map_ahead(encode, paths, 2 * max(1, sum(client.nthreads().values())))


@contextlib.contextmanager
def _naming(cluster: str) -> Iterator[None]:
    """What goes wrong with a cluster becomes an error that names it."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FastHashError(f"Dask cluster {cluster}: {reason}") from error


def _version() -> str:
    return __version__


def _encode_on_worker(data: bytes, source: str, path: str, limits: dict[str, int]) -> dict[str, Any]:
    return _as_json(_loaded(data, source).encode_file(path, Limits(**limits)))


@lru_cache(maxsize=2)
def _loaded(data: bytes, source: str) -> Encoder:
    return Encoder(data, source)


# ---- checkpoints ---------------------------------------------------------------------------------------------------


class Checkpoint:
    """What an interrupted run had done, in a folder beside its output, ``OUTPUT.partial``.

    A file in it holds the results of up to ten seconds; as all files of fasthash it is there whole or not at all, and
    checksummed. A result counts for a file of the same path, size and time of change, for the same encoder, limits and
    version of fasthash. Failures are not kept.

    Attributes
    ----------
    done : dict of path to Encoded
    problems : list of str
        A line for each file that is damaged; what it held is done again.
    """

    def __init__(self, output: str | os.PathLike[str], encoder: Encoder, limits: Limits = DEFAULT_LIMITS) -> None:
        self.folder = Path(f"{os.fspath(output)}.partial")
        self.done: dict[str, Encoded] = {}
        self.problems: list[str] = []
        self._key = {"encoder": encoder.fingerprint, "limits": asdict(limits), "version": __version__}
        self._new: list[tuple[Encoded, list[int] | None]] = []
        self._parts = sorted(self.folder.glob("[0-9]*.part"))
        for part in self._parts:
            try:
                meta, arrays = read_container(part, "encoded")
            except CorruptFileError as error:
                self.problems.append(str(error))
                continue
            if meta["key"] == self._key:
                for facts, mark, vector in zip(meta["images"], meta["marks"], arrays["hashes"], strict=True):
                    if mark is not None and mark == _mark(facts["path"]):
                        self.done[facts["path"]] = _encoded(facts, vector)

    def resume(
        self, paths: list[str], encode: Callable[[Iterable[str]], Iterator[Encoded | Failure]]
    ) -> Generator[Encoded | Failure, None, None]:
        """``encode(paths)``, but for those that are done; the new results are kept as they come."""
        marks: dict[str, list[int] | None] = {}

        def new() -> Iterator[str]:
            for path in paths:
                if path not in self.done:
                    marks[path] = _mark(path)  # before it is read
                    yield path

        results = encode(new())
        saved = time.monotonic()
        try:
            for path in paths:
                item = self.done.get(path) or next(results)
                if isinstance(item, Encoded) and path in marks:
                    self._new.append((item, marks.pop(path)))
                    if time.monotonic() - saved > _EVERY:
                        self._save()
                        saved = time.monotonic()
                yield item
        except BaseException:
            self._save()
            raise

    def _save(self) -> None:
        if not self._new:
            return
        self.folder.mkdir(exist_ok=True)
        last = int(self._parts[-1].stem) if self._parts else 0
        self._parts.append(self.folder / f"{last + 1:08}.part")
        meta = {"key": self._key, "images": [_facts(item) for item, _ in self._new], "marks": [m for _, m in self._new]}
        write_container(self._parts[-1], "encoded", meta, {"hashes": np.stack([item.hash for item, _ in self._new])})
        self._new.clear()

    def remove(self) -> None:
        """Once the output is written."""
        for part in self._parts:
            part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not there, or not empty
            self.folder.rmdir()


def _mark(path: str) -> list[int] | None:
    """What changes with a file's content: its size and time of change, for a member those of its zip."""
    for place in (Path(path), *Path(path).parents):
        if place.is_file():
            about = place.stat()
            return [about.st_size, about.st_mtime_ns]
    return None
