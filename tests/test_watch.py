"""A folder that is followed: nothing is missed, nothing is added twice, and no file stops the others."""

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from faults import damaged

import fasthash as fh
from fasthash import _arrivals, _inotify
from fasthash._arrivals import Arrival, Arrivals
from fasthash.cli import main
from fasthash.watch import LEDGER, Ledger, Settings, Watch

WAIT = 30.0


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def catalog(tmp_path, encoder_path):
    fh.Catalog.create(tmp_path / "catalog", encoder_path).close()
    return str(tmp_path / "catalog")


def put(folder, number, name=None):
    """A tiny image of its own, which appears whole."""
    path = folder / (name or f"{number:04d}.npy")
    draft = folder / f".{path.name}"
    with draft.open("wb") as file:
        np.save(file, np.random.default_rng(number).normal(0, 200, (16, 16)).astype("f4"))
    draft.rename(path)
    return str(path)


def wait_until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextlib.contextmanager
def watching(folder, catalog, poll=0.1, **settings):
    """A Watch at work in a thread; yields it, with lists of what it answered and said, and stops it."""
    answers, said = [], []
    watch = Watch(folder, Settings(catalog, **settings), poll, answers.append, said.append)
    watch.answers, watch.said = answers, said
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(watch.run)
        try:
            yield watch
        finally:
            watch.stop()
            running.result(WAIT)


def handled(watch):
    metrics = watch.metrics()
    return metrics.added + metrics.known + metrics.quarantined


def paths_in(catalog):
    with fh.Catalog.open(catalog) as opened:
        return sorted(opened.rows().paths)


# ---- what comes is added ---------------------------------------------------------------------------------------------


def test_what_was_there_and_what_comes_is_added_wherever_it_is(folder, catalog):
    expected = [put(folder, n) for n in range(3)]
    with watching(folder, catalog) as watch:
        wait_until(lambda: watch.metrics().added == 3)
        (folder / "2014" / "05").mkdir(parents=True)
        expected += [put(folder / "2014" / "05", n) for n in range(3, 6)]
        expected.append(put(folder, 6))
        (folder / "readme.txt").write_text("no image")
        (folder / ".hidden.npy").write_text("no image")
        (folder / "folder.npy").mkdir()
        os.mkfifo(folder / "pipe.npy")
        wait_until(lambda: watch.metrics().added == 7)
        assert watch.metrics().waiting == 0
        assert 0 <= watch.metrics().lag_p50 <= watch.metrics().lag_p99 < WAIT
    assert paths_in(catalog) == sorted(expected)
    assert watch.said == []


def test_without_the_kernels_notices_all_is_found_too(folder, catalog, monkeypatch):
    def none():
        raise OSError("this system has no inotify")

    monkeypatch.setattr(_arrivals._inotify, "Inotify", none)
    with watching(folder, catalog) as watch:
        expected = [put(folder, n) for n in range(3)]
        (folder / "later").mkdir()
        expected.append(put(folder / "later", 3))
        wait_until(lambda: watch.metrics().added == 4)
    assert paths_in(catalog) == sorted(expected)
    assert len(watch.said) == 1
    assert "tells of no new files" in watch.said[0]


def test_a_file_is_taken_when_it_is_whole(folder, catalog):
    data = (folder / put(folder, 1)).read_bytes()
    os.unlink(folder / "0001.npy")
    with watching(folder, catalog) as watch, (folder / "slow.npy").open("wb", buffering=0) as file:
        for byte in range(0, len(data), 200):
            file.write(data[byte : byte + 200])
            time.sleep(0.05)
        assert handled(watch) == 0
        file.close()
        wait_until(lambda: watch.metrics().added == 1)
        assert watch.metrics().quarantined == 0


def test_a_changed_file_is_added_again(folder, catalog):
    with watching(folder, catalog) as watch:
        path = put(folder, 1)
        wait_until(lambda: watch.metrics().added == 1)
        put(folder, 2, "0001.npy")
        wait_until(lambda: watch.metrics().added == 2)
    assert paths_in(catalog) == [path, path]


def test_a_backlog_beyond_memory_is_worked_off(folder, catalog, monkeypatch):
    monkeypatch.setattr(_arrivals, "CAPACITY", 8)
    expected = [put(folder, n) for n in range(40)]
    held = []
    with watching(folder, catalog) as watch:
        while len(watch._outcomes) == 0 or watch.metrics().added < 40:
            held.append(watch._arrivals.waiting)
            if len(expected) < 60:
                expected.append(put(folder, len(expected)))
            time.sleep(0.01)
        wait_until(lambda: watch.metrics().added == len(expected))
    assert max(held) <= 8
    assert paths_in(catalog) == sorted(expected)


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_answers_are_what_a_search_gives(folder, catalog, frames):
    with fh.Catalog.open(catalog) as opened:
        opened.add(frames[:20])
    with watching(folder, catalog, answer=3, exclude_within="3h") as watch:
        shutil.copy(frames[25], folder)
        wait_until(lambda: watch.answers)
    with fh.Catalog.open(catalog) as opened:
        hits = opened.search(frames[25], 3, exclude_within="3h")
    (answer,) = watch.answers
    assert answer["query"] == str(folder / frames[25].name)
    assert [hit["path"] for hit in answer["results"]] == [hit.path for hit in hits]
    assert [hit["rank"] for hit in answer["results"]] == [1, 2, 3]


def test_an_image_is_no_answer_to_itself_and_one_without_a_time_says_so(folder, catalog):
    with watching(folder, catalog, answer=5) as watch:
        paths = [put(folder, 1), put(folder, 2)]
        wait_until(lambda: len(watch.answers) == 2)
    for answer in watch.answers:
        assert answer["query"] not in [hit["path"] for hit in answer["results"]]
    assert {answer["query"] for answer in watch.answers} == set(paths)
    with watching(folder, catalog, answer=5, exclude_within="1h") as watch:
        put(folder, 3)
        wait_until(lambda: watch.answers)
    assert "no known time" in watch.answers[0]["error"]


def test_what_a_file_was_before_takes_no_place_of_an_answer(folder, catalog):
    with fh.Catalog.open(catalog) as opened:
        opened.add([put(folder, n) for n in range(3)])
    pixels = np.random.default_rng(9).normal(0, 200, (16, 16)).astype("f4")
    with watching(folder, catalog, answer=2) as watch:
        for version in range(4):
            np.save(folder / ".latest.npy", pixels + version / 100)
            (folder / ".latest.npy").rename(folder / "latest.npy")
            wait_until(lambda version=version: sum("latest" in each["query"] for each in watch.answers) == version + 1)
    assert all(len(answer["results"]) == 2 for answer in watch.answers if "latest" in answer["query"])


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_bad_files_are_listed_left_and_tried_again_only_when_they_change(folder, catalog, capsys):
    good = put(folder, 1)
    (folder / "bad.npy").write_bytes(b"\x93NUMPY")
    with watching(folder, catalog) as watch:
        wait_until(lambda: handled(watch) == 2)
        time.sleep(0.5)
        assert watch.metrics().quarantined == 1
        assert len(watch.said) == 1
        assert "quarantined" in watch.said[0]
        assert "bad.npy" in watch.said[0]
    assert main(["quarantine", catalog, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["files"]
    assert entry["path"] == str(folder / "bad.npy")
    with watching(folder, catalog) as watch:
        put(folder, 2)
        wait_until(lambda: handled(watch) == 1)
        assert watch.metrics().added == 1
        put(folder, 3, "bad.npy")
        wait_until(lambda: watch.metrics().added == 2)
    assert paths_in(catalog) == sorted([good, str(folder / "0002.npy"), str(folder / "bad.npy")])
    assert main(["quarantine", catalog]) == 0
    assert capsys.readouterr().out == ""


def test_released_files_are_tried_again(folder, catalog, capsys):
    (folder / "bad.npy").write_bytes(b"\x93NUMPY")
    with watching(folder, catalog) as watch:
        wait_until(lambda: watch.metrics().quarantined == 1)
        assert main(["quarantine", catalog, "--release"]) == 0
        assert capsys.readouterr().err == "1 files released\n"
        wait_until(lambda: watch.metrics().quarantined == 2)


@pytest.mark.parametrize("option", [[], ["--release"], ["--json"]])
def test_a_catalog_that_was_never_watched_has_no_quarantine(catalog, capsys, option):
    before = sorted(os.listdir(catalog))
    assert main(["quarantine", catalog, *option]) == 0
    done = capsys.readouterr()
    assert done.err == ("0 files released\n" if option == ["--release"] else "nothing is in quarantine\n")
    assert done.out == (json.dumps({"catalog": catalog, "files": []}) + "\n" if option == ["--json"] else "")
    assert sorted(os.listdir(catalog)) == before


# Files of these names do to the process that decodes them what they say.
POISON = """
import os, sys, time
import fasthash.encoder as encoder
read = encoder.open_image
def poisoned(path, *settings, **more):
    if path.endswith("/hang.npy"): time.sleep(1000)
    if path.endswith("/crash.npy"): os.kill(os.getpid(), 11)
    return read(path, *settings, **more)
encoder.open_image = poisoned
from fasthash._worker import serve
"""


def test_a_decoder_that_hangs_or_crashes_is_replaced_and_its_file_put_in_quarantine(
    folder, catalog, tmp_path, monkeypatch
):
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "poison.py").write_text(POISON)
    monkeypatch.syspath_prepend(tmp_path / "poison")
    monkeypatch.setattr("fasthash._worker._SERVE", "poison:serve")
    for n, name in enumerate(["a.npy", "crash.npy", "b.npy", "hang.npy", "c.npy"]):
        put(folder, n, name)
    with watching(folder, catalog, deadline=2.0) as watch:
        wait_until(lambda: handled(watch) == 5)
    with contextlib.closing(Ledger(catalog)) as ledger:
        (crash, crashed), (hang, hung) = ledger.quarantine()
    assert (os.path.basename(crash), os.path.basename(hang)) == ("crash.npy", "hang.npy")
    assert "died of SIGSEGV" in crashed
    assert "no end within 2 s" in hung
    assert [os.path.basename(path) for path in paths_in(catalog)] == ["a.npy", "b.npy", "c.npy"]


def test_a_worker_killed_from_outside_costs_nothing(folder, catalog):
    with watching(folder, catalog) as watch:
        for n in range(2):
            os.kill(watch._worker._process.pid, signal.SIGKILL)
            put(folder, n)
            wait_until(lambda n=n: watch.metrics().added == n + 1)
    assert len(paths_in(catalog)) == 2
    assert watch.metrics().quarantined == 0


def changed(data, place, new):
    return data[:place] + new + data[place + len(new) :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"no database",
        lambda data: changed(data, 47, b"\7"),  # the format of its schema
        lambda data: changed(data, data.rfind(b"0001.npy"), b"0009.npy"),  # its index alone
    ],
)
def test_a_damaged_ledger_costs_no_row(folder, catalog, tmp_path, damage):
    expected = [put(folder, n) for n in range(3)]
    with watching(folder, catalog) as watch:
        wait_until(lambda: watch.metrics().added == 3)
    ledger = tmp_path / "catalog" / LEDGER
    ledger.write_bytes(damage(ledger.read_bytes()))
    with watching(folder, catalog) as watch:
        wait_until(lambda: watch.metrics().known == 3)
    assert "was damaged" in watch.said[0]
    assert paths_in(catalog) == expected


def test_any_damage_to_the_ledger_is_found_when_it_is_opened(tmp_path):
    rng = random.Random(0)
    files = [Arrival(f"/{number}.npy", number, 10**15 + number, 0.0) for number in range(100)]
    with contextlib.closing(Ledger(tmp_path)) as ledger:
        ledger.note((file, "bad" * (file.size % 2)) for file in files)
    sound = (tmp_path / LEDGER).read_bytes()
    for _ in range(30):
        (tmp_path / LEDGER).write_bytes(damaged(sound, rng))
        with contextlib.closing(Ledger(tmp_path)) as ledger:
            assert not any(file._replace(size=file.size + 1000) in ledger for file in files)
            ledger.note([(files[0], "")])
            assert files[0] in ledger


def test_a_catalog_that_cannot_be_written_ends_the_watch_and_quarantines_nothing(folder, catalog):
    watch = Watch(folder, Settings(catalog), 0.1)
    connection = sqlite3.connect(os.path.join(catalog, "catalog.sqlite"))
    with connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    connection.close()
    put(folder, 1)
    with pytest.raises(fh.FastHashError, match="disk full"):
        watch.run()
    with contextlib.closing(Ledger(catalog)) as ledger:
        assert ledger.quarantine() == []


def test_a_folder_that_goes_away_is_named(folder, catalog):
    watch = Watch(folder, Settings(catalog), 0.1)
    folder.rmdir()
    with pytest.raises(fh.FastHashError, match=f"{folder}: cannot be watched"):
        watch.run()


# ---- the queue -------------------------------------------------------------------------------------------------------


def test_a_scan_takes_no_file_twice_and_waits_until_it_stands_still(folder):
    done = set()
    arrivals = Arrivals(str(folder), lambda arrival: arrival[:3] in done, 0.2, print)
    arrivals.close()  # without notices
    put(folder, 1)
    assert arrivals.look() > 0
    assert arrivals.take(9) == []
    time.sleep(0.25)
    arrivals.look()
    (arrival,) = arrivals.take(9)
    for _ in range(3):
        time.sleep(0.25)
        arrivals.look()
        assert arrivals.take(9) == []
    done.add(arrival[:3])
    arrivals.done(arrival)
    time.sleep(0.25)
    arrivals.look()
    assert arrivals.waiting == 0


def test_any_number_of_folders_may_come_while_there_is_no_room(folder, monkeypatch):
    arrivals = Arrivals(str(folder), lambda _: False, 60, print)
    arrivals.look()
    (folder / "new").mkdir()
    put(folder / "new", 1)
    came = _inotify.Event(_inotify.CREATE | _inotify.IS_FOLDER, str(folder), "new")
    with monkeypatch.context() as patch:
        patch.setattr(_inotify.Inotify, "read", lambda _: [came] * 300_000)
        patch.setattr(_arrivals, "CAPACITY", 0)
        arrivals.look()
    wait_until(lambda: arrivals.look() > 0)
    assert arrivals.waiting == 1
    arrivals.close()


# ---- the command -----------------------------------------------------------------------------------------------------


def start(folder, catalog, *options):
    command = [sys.executable, "-m", "fasthash", "watch", str(folder), str(catalog), "--poll", "0.1", *options]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stderr.readline().startswith("watching ")
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly_and_show_the_metrics(folder, tmp_path, encoder_path, number):
    process = start(folder, tmp_path / "new", "--encoder", str(encoder_path), "--answer", "1", "--json")
    put(folder, 1)
    assert json.loads(process.stdout.readline()) == {
        "query": str(folder / "0001.npy"), "time": "", "metric": "l2", "results": []}  # fmt: skip

    def shown():
        process.send_signal(signal.SIGUSR1)
        return process.stderr.readline()

    wait_until(lambda: "1 added, 0 known, 0 quarantined, 0 waiting" in shown())
    process.send_signal(number)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0
    assert json.loads(out)["added"] == 1
    assert err.startswith("1 added")
    assert paths_in(tmp_path / "new") == [str(folder / "0001.npy")]


def test_after_kill_9_it_goes_on_without_gaps_or_doubles(folder, catalog):
    expected = []
    for _ in range(2):
        process = start(folder, catalog)
        expected += [put(folder, len(expected) + n) for n in range(40)]
        time.sleep(0.3)
        process.kill()
        process.communicate()
    with watching(folder, catalog) as watch:
        wait_until(lambda: watch.metrics().waiting == 0 and paths_in(catalog) == expected)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere", "CATALOG"], "nowhere: no such folder"),
        ([".", "nowhere"], "nowhere: no catalog here"),
        ([".", "CATALOG", "--answer", "-1"], "--answer"),
        ([".", "CATALOG", "--exclude-within", "soon"], "--exclude-within"),
    ],
)
def test_what_cannot_be_watched_is_named(arguments, named, catalog, capsys):
    assert main(["watch", *(catalog if word == "CATALOG" else word for word in arguments)]) == 1
    assert f"error: {named}" in capsys.readouterr().err
