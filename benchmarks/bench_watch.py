"""A folder that is watched beside the same files added directly: what following it and a second process cost.

    python -m pytest -s benchmarks/bench_watch.py

Images of 256 x 256 pixels (.npy), noise, encoder solar-paper. "alone": one file at a time, from its move into the
folder until its row is on the disk, beside `Catalog.add` of one file in turns. "backlog": 512 files that are there at
once, beside `Catalog.add` of all of them, each into a new catalog; the watch first lets them stand still for 0.1 s.
"""

import contextlib
import itertools
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fasthash as fh
from fasthash.watch import Settings, Watch

ENCODER, SIDE, BACKLOG, POLL = "solar-paper", 256, 512, 0.1


@pytest.fixture
def drafts(tmp_path):
    """An endless row of images that no watch looks at yet."""
    (tmp_path / "drafts").mkdir()

    def make(number):
        path = tmp_path / "drafts" / f"{number:06d}.npy"
        np.save(path, np.random.default_rng(number).normal(0, 300, (SIDE, SIDE)).astype("f4"))
        return path

    return map(make, itertools.count())


@contextlib.contextmanager
def watching(folder, catalog):
    folder.mkdir()
    fh.Catalog.create(catalog, ENCODER).close()
    watch = Watch(folder, Settings(str(catalog)), POLL)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(watch.run)
        yield watch
        watch.stop()
        running.result()


def wait_for(watch, added):
    while watch.metrics().added < added:
        time.sleep(0.0002)


def test_alone(benchmark, timed_in_turns, tmp_path, drafts):
    with (
        watching(tmp_path / "in", tmp_path / "watched") as watch,
        fh.Catalog.create(tmp_path / "c", ENCODER) as catalog,
    ):
        numbers = itertools.count(1)

        def by_watch():
            path = next(waiting)
            path.rename(tmp_path / "in" / path.name)
            wait_for(watch, next(numbers))

        waiting = iter(list(itertools.islice(drafts, 400)))
        times = timed_in_turns(100, watch=by_watch, add=lambda: catalog.add(next(waiting)))
        benchmark.pedantic(by_watch, rounds=100, iterations=1)
        metrics = watch.metrics()
    benchmark.extra_info |= {f"{name}_ms": round(1e3 * seconds, 2) for name, seconds in times.items()}
    benchmark.extra_info["watch_by_add"] = round(times["watch"] / times["add"], 2)
    benchmark.extra_info |= {
        "lag_p50_ms": round(1e3 * metrics.lag_p50, 2),
        "lag_p99_ms": round(1e3 * metrics.lag_p99, 2),
    }
    print(f"\n{benchmark.extra_info}")


def test_backlog(benchmark, timed_in_turns, tmp_path, drafts):
    files = list(itertools.islice(drafts, BACKLOG))
    rounds = 3
    watched, numbers = [], itertools.count()
    with contextlib.ExitStack() as stack:
        for n in range(2 * rounds + 2):
            watch = stack.enter_context(watching(tmp_path / f"in{n}", tmp_path / f"watched{n}"))
            folder = tmp_path / f"new{n}"
            shutil.copytree(files[0].parent, folder)
            watched.append((watch, folder, tmp_path / f"in{n}" / "new"))

        def by_watch():
            watch, folder, place = next(waiting)
            folder.rename(place)
            wait_for(watch, BACKLOG)

        def by_add():
            with fh.Catalog.create(tmp_path / f"added{next(numbers)}", ENCODER) as catalog:
                catalog.add(files)

        waiting = iter(watched)
        times = timed_in_turns(rounds, watch=by_watch, add=by_add)
        benchmark.pedantic(by_watch, rounds=rounds, iterations=1)
    for name, seconds in times.items():
        benchmark.extra_info[f"{name}_images_per_second"] = round(BACKLOG / seconds)
    benchmark.extra_info["watch_by_add"] = round(times["watch"] / times["add"], 2)
    print(f"\n{benchmark.extra_info}")
