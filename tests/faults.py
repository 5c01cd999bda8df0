"""What can go wrong with a catalog, made to go wrong, and what becomes of it counted.

    python tests/faults.py kills --count 500        # kill -9 of a process that adds, at random moments
    python tests/faults.py writes --count 200       # writes that fail or are cut short: by a limit, by a full disk
    python tests/faults.py damage --count 1000      # bits flipped, bytes lost, in each file a catalog has
    python tests/faults.py readers --seconds 120    # one process that adds, eight that search

Each prints one JSON object and exits with 1 if anything in it should not be. Small numbers of each are a test
(test_faults.py). Children are forked from a process without threads, and open the catalog anew.
"""

import argparse
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

import fasthash as fh
from fasthash.encoder import ENCODERS

# What children would import, each anew.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
for module in (
    "onnxruntime",
    "fasthash.catalog",
    "fasthash.hamming_index",
    "fasthash.index",
    "fasthash.solar.magnetogram",
):
    importlib.import_module(module)
fh.GridHistogram().transform(np.random.default_rng(0).random((16, 16), "f4"), num_threads=1)

ENCODER = ENCODERS / "solar-paper.onnx"
# How a child ends.
FINE, CLEAR_ERROR, WRONG, ODD, NO_MEMORY = 0, 3, 4, 5, 6
OUTCOMES = {FINE: "fine", CLEAR_ERROR: "clear error", WRONG: "wrong", ODD: "unclear error", NO_MEMORY: "no memory"}
METRICS = ("l2", "cosine", "hamming")


def pixels(number):
    """The image of a number: tiny, and like no other."""
    return np.random.default_rng(number).normal(0, 300, (16, 16)).astype("f4")


def image(folder, number):
    """The file of it."""
    path = Path(folder) / f"{number:06d}.npy"
    np.save(path, pixels(number))
    return str(path)


def number_of(path):
    return int(Path(path).stem)


def fork(work, *arguments):
    """Run ``work`` in a child that ends with what it returns; the child's pid."""
    pid = os.fork()
    if pid:
        return pid
    status = ODD
    try:
        status = work(*arguments) or FINE
    except MemoryError:
        status = NO_MEMORY
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(pid):
    """How a child ended, in a word or two."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return f"crash: {signal.Signals(-code).name}" if code < 0 else OUTCOMES.get(code, f"status {code}")


def outcome(work, *arguments):
    return ended(fork(work, *arguments))


def create(catalog):
    fh.Catalog.create(catalog, ENCODER).close()


# ---- kill -9 -------------------------------------------------------------------------------------------------------


def add_for_ever(catalog, folder, first, pipe, other_end):
    """Add images, one or a few at a time, and write the paths to a pipe once they are acknowledged."""
    os.close(other_end)  # or it would not end with who reads them
    with fh.Catalog.open(catalog) as opened:
        number = first
        while True:
            batch = [image(folder, number + i) for i in range(1 + number % 3)]
            number += len(batch)
            report = opened.add(batch, num_threads=1)
            os.write(pipe, "".join(f"{path}\n" for path in report.added).encode())


def check_rows(catalog, acknowledged):
    """Whether a catalog can be read, has every path acknowledged, none twice, and can be searched and added to."""
    with fh.Catalog.open(catalog) as opened:
        paths = opened.rows().paths
        whole = set(acknowledged) <= set(paths) and len(paths) == len(set(paths)) == len(opened)
        if whole and paths:
            whole = opened.search(pixels(number_of(paths[-1])), 1)[0].path == paths[-1]
    return FINE if whole else WRONG


def read_lines(pipe, seconds=10.0):
    """What comes through a pipe in so many seconds, or until it is closed."""
    data, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            chunk = os.read(pipe, 65536)
            if not chunk:
                break
            data += chunk
    return data


def kills(folder, count, seed):
    """A process that adds without a break, killed again and again; the catalog checked each time."""
    rng, catalog = random.Random(seed), folder / "catalog"
    outcome(create, catalog)
    acknowledged, counts, first = [], Counter(), 0
    for _ in range(count):
        reading, writing = os.pipe()
        pid = fork(add_for_ever, catalog, folder, first, writing, reading)
        os.close(writing)
        if rng.random() < 0.8:  # else perhaps while it opens the catalog
            select.select([reading], [], [], 10)
        data = read_lines(reading, rng.uniform(0, 0.3))
        os.kill(pid, signal.SIGKILL)
        counts[f"adding: {ended(pid)}"] += 1
        data += read_lines(reading)
        os.close(reading)
        acknowledged += data.decode().splitlines()
        counts[f"after: {outcome(check_rows, catalog, acknowledged)}"] += 1
        first = 1 + max(map(number_of, folder.glob("*.npy")), default=-1)
    good = {"adding: crash: SIGKILL", "after: fine"}
    return {"kills": count, "acknowledged": len(acknowledged), **counts}, set(counts) <= good


# ---- writes that fail ----------------------------------------------------------------------------------------------


@contextmanager
def file_size_limit(size):
    """Writes beyond ``size`` bytes of a file fail (EFBIG); one that reaches it is cut short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_disk(disk, room):
    """All but ``room`` bytes of a small file system are taken (ENOSPC)."""
    about = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(max(0, about.f_bavail * about.f_frsize - room)))
    try:
        yield
    finally:
        filler.unlink()


def add_until_it_fails(catalog, images, shortage, pipe):
    """Add one image after the other while writing may fail, then go on without; all that was acknowledged is there."""
    acknowledged, failed = [], False
    with fh.Catalog.open(catalog) as opened:
        before = opened.rows().paths
        with shortage:
            try:
                for path in images[:-1]:
                    acknowledged += opened.add(path, num_threads=1).added
            except fh.FastHashError as error:
                failed = str(catalog) in str(error)
                if not failed:
                    return WRONG
        os.write(pipe, b"failed\n" if failed else b"")
        if not set(before + acknowledged) <= set(opened.rows().paths):
            return WRONG
        acknowledged += opened.add(images[-1], num_threads=1).added  # the same object, now that there is room
    return check_rows(catalog, before + acknowledged)


def create_and_fail(catalog, shortage):
    """A catalog that cannot be made leaves nothing, and a clear error."""
    with shortage:
        try:
            create(catalog)
        except fh.FastHashError as error:
            clear = str(catalog) in str(error) and os.listdir(catalog.parent) == []
            return CLEAR_ERROR if clear else WRONG
    return check_rows(catalog, [])


def writes(folder, count, seed):
    """Adding and making catalogs under limits of random size, and on a disk that is full, where one can be had."""
    rng, counts = random.Random(seed), Counter()
    images = [image(folder, number) for number in range(40)]
    with small_disk(folder / "disk") as disk:
        for trial in range(count):
            if disk is not None and trial % 2:
                place, room = disk, 2 ** rng.uniform(9, 18)
                shortage = full_disk(disk, int(room) // 4096 * 4096)
            else:
                place, shortage = folder, file_size_limit(int(2 ** rng.uniform(12, 18)))
            counts[f"adding: {_try_adding(place / 'catalog', images, shortage, counts)}"] += 1
            shutil.rmtree(place / "catalog")
            (place / "new").mkdir()
            size = int(2 ** rng.uniform(6, 20))
            shortage = full_disk(disk, size // 4096 * 4096) if place == disk else file_size_limit(size)
            counts[f"creating: {outcome(create_and_fail, place / 'new' / 'catalog', shortage)}"] += 1
            shutil.rmtree(place / "new")
    good = {"adding: fine", "adding failed", "creating: fine", "creating: clear error"}
    return {"trials": count, "full disk": disk is not None, **counts}, set(counts) <= good


def _try_adding(catalog, images, shortage, counts):
    outcome(create, catalog)
    reading, writing = os.pipe()
    pid = fork(add_until_it_fails, catalog, images, shortage, writing)
    os.close(writing)
    if os.read(reading, 100):
        counts["adding failed"] += 1
    os.close(reading)
    return ended(pid)


@contextmanager
def small_disk(path):
    """A file system of 2 MiB in memory; None where one may not be had (it takes root)."""
    path.mkdir()
    mounted = sys.platform == "linux" and os.geteuid() == 0
    if mounted:
        command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(path)]
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield path if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(path)], check=True)


# ---- damage --------------------------------------------------------------------------------------------------------


def fill(catalog, folder, rows):
    """A catalog with caches, as a process leaves it that ends at once: with SQLite's log still beside it."""
    images = [image(folder, number) for number in range(rows)]
    with fh.Catalog.create(catalog, ENCODER) as opened:
        opened.add(images[: rows // 2], num_threads=1)
        opened.compact()
    opened = fh.Catalog.open(catalog)
    opened.add(images[rows // 2 :], num_threads=1)
    answers(opened)
    os._exit(FINE)


def answers(catalog):
    """All that a catalog says, as JSON-able values."""
    rows = catalog.rows()
    said = [rows.paths, rows.times.astype(str).tolist(), rows.labels.tolist(), rows.hashes.tobytes().hex()]
    hits = [catalog.search(pixels(number), 5, metric) for number in (3, 10_000) for metric in METRICS]
    return [*said, rows.codes.tobytes().hex(), [[(hit.path, hit.distance) for hit in found] for found in hits]]


def write_answers(catalog, target):
    with fh.Catalog.open(catalog) as opened:
        target.write_text(json.dumps(answers(opened)))


def compare_answers(catalog, expected, new):
    """What a damaged catalog says against what it should; and then it takes a row more, or says that it cannot."""
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        with fh.Catalog.open(catalog) as opened:
            if json.loads(json.dumps(answers(opened))) != expected:
                return WRONG
            opened.add(new, num_threads=1)
        with fh.Catalog.open(catalog) as opened:
            return FINE if opened.rows().paths == [*expected[0], new] else WRONG
    except fh.FastHashError as error:
        if str(catalog) not in str(error):
            print(f"names no file of the catalog: {error}", file=sys.stderr)
            return ODD
        return CLEAR_ERROR


def damaged(data, rng):
    """Bytes of a file after something has happened to them."""
    data, place, kind = bytearray(data), rng.randrange(len(data)), rng.random()
    if kind < 0.5:
        data[place] ^= 1 << rng.randrange(8)
    elif kind < 0.75:
        del data[place:]
    elif kind < 0.85:
        data[place : place + 512] = bytes(len(data[place : place + 512]))
    else:
        data[place : place + 16] = rng.randbytes(len(data[place : place + 16]))
    return bytes(data)


def damage(folder, count, seed):
    """Each file of a catalog damaged in many ways, one at a time, and the catalog asked all it knows."""
    rng, sound, copy = random.Random(seed), folder / "sound", folder / "copy"
    outcome(fill, sound, folder, 40)
    shutil.copytree(sound, copy)
    outcome(write_answers, copy, folder / "answers")
    expected = json.loads((folder / "answers").read_text())
    shutil.rmtree(copy)
    new, counts = image(folder, 20_000), {}
    for file in sorted(path for path in sound.rglob("*") if path.is_file() and path.stat().st_size):
        name = str(file.relative_to(sound))
        counts[name] = Counter()
        for trial in range(count):
            shutil.copytree(sound, copy)
            (copy / name).write_bytes(damaged(file.read_bytes(), rng))
            became = outcome(compare_answers, copy, expected, new)
            counts[name][became] += 1
            if became not in ("fine", "clear error"):
                print(f"{name}, variant {trial}: {became}", file=sys.stderr)
            shutil.rmtree(copy)
    good = {"fine", "clear error"}
    return {"variants a file": count, "files": counts}, all(set(each) <= good for each in counts.values())


# ---- readers beside a writer ---------------------------------------------------------------------------------------


def add_and_tell(catalog, folder, count, until):
    """Add images one by one, and tell in shared memory how many were acknowledged."""
    with fh.Catalog.open(catalog) as opened:
        while time.monotonic() < until:
            opened.add(image(folder, count[0]), num_threads=1)
            count[0] += 1


def search_and_compare(catalog, count, until, seed, pipe):
    """Search for images that were acknowledged before, the latest most of all: each is the first of its hits."""
    rng, searches = random.Random(seed), 0
    with fh.Catalog.open(catalog) as opened:
        while time.monotonic() < until or not searches:
            acknowledged = int(count[0])
            if not acknowledged:
                continue
            number = acknowledged - 1 if rng.random() < 0.5 else rng.randrange(acknowledged)
            hits = opened.search(pixels(number), 3, rng.choice(METRICS[:2]))
            if number_of(hits[0].path) != number or hits[0].distance > 1e-3 or len(opened) < acknowledged:
                print(f"a search for {number} of {acknowledged} acknowledged gave {hits}", file=sys.stderr)
                return WRONG
            rows = opened.rows()
            row = rng.randrange(len(rows.paths))
            if not np.array_equal(rows.hashes[row], opened.encoder.encode(pixels(number_of(rows.paths[row])))[0]):
                print(f"row {row} is not the hash of {rows.paths[row]}", file=sys.stderr)
                return WRONG
            searches += 1
    os.write(pipe, f"{searches}\n".encode())
    return FINE


def readers(folder, count, seed, seconds):
    """One process that adds and ``count`` that search, for so many seconds."""
    catalog = folder / "catalog"
    outcome(create, catalog)
    shared = np.memmap(folder / "acknowledged", np.int64, "w+", shape=1)
    reading, writing = os.pipe()
    until = time.monotonic() + seconds
    pids = [fork(add_and_tell, catalog, folder, shared, until)]
    pids += [fork(search_and_compare, catalog, shared, until, seed + i, writing) for i in range(count)]
    os.close(writing)
    counts = Counter(ended(pid) for pid in pids)
    searches = sum(int(line) for line in read_lines(reading).split())
    os.close(reading)
    return {"added": int(shared[0]), "searches": searches, **counts}, set(counts) == {"fine"}


# ---- the command ---------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "writes", "damage", "readers"])
    parser.add_argument("--count", type=int, help="kills, trials, variants a file, or readers")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    count = args.count or {"kills": 500, "writes": 200, "damage": 1000, "readers": 8}[args.what]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        if args.what == "readers":
            report, good = readers(folder, count, args.seed, args.seconds)
        else:
            report, good = {"kills": kills, "writes": writes, "damage": damage}[args.what](folder, count, args.seed)
    print(json.dumps(report))
    return 0 if good else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
