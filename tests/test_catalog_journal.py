"""The journal of a catalog: what was acknowledged is there, what is not as it was written is named."""

import dataclasses
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from hashed import make_items
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import fasthash as fh
from fasthash import _journal
from fasthash import catalog as module


@pytest.fixture(scope="module")
def encoder(encoder_path):
    return fh.load_encoder(encoder_path)


@pytest.fixture(scope="module")
def items(encoder):
    return make_items(encoder, 60)


@pytest.fixture
def catalog(tmp_path, encoder, items):
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        catalog.insert(items[:40])
        yield catalog


def content(catalog):
    """All that a catalog says of its images."""
    rows = catalog.rows(details=True)
    columns = (rows.ids.tolist(), rows.paths, rows.digests, rows.times.astype(str), rows.labels, rows.metadata)
    arrays = zip(rows.hashes, rows.codes, rows.cells, strict=True)
    return list(zip(*columns, ([a.tobytes() for a in three] for three in arrays), strict=True))


def test_rows_are_what_was_inserted(catalog, items):
    rows = catalog.rows(details=True)
    assert rows.paths == [item.image.path for item in items[:40]]
    assert rows.digests == [item.image.digest for item in items[:40]]
    assert rows.metadata[1] == '{"TELESCOP": "SOHO", "CROTA2": 0.1}'
    assert rows.metadata[5] == ""
    assert rows.labels.tolist() == [item.label for item in items[:40]]
    np.testing.assert_array_equal(rows.times, np.array([item.image.time for item in items[:40]]))
    np.testing.assert_array_equal(rows.hashes, [item.hash for item in items[:40]])
    np.testing.assert_array_equal(rows.cells, [item.cells.reshape(-1) for item in items[:40]])
    assert catalog.verify() == 40


def test_an_insert_is_all_or_nothing(catalog, items, monkeypatch):
    before = content(catalog)

    def failing(before, entry, seal=_journal.seal):
        if entry.path == "frames/44.fits":
            raise sqlite3.OperationalError("database or disk is full")
        return seal(before, entry)

    monkeypatch.setattr(_journal, "seal", failing)
    with pytest.raises(fh.FastHashError, match=r"catalog\.sqlite: database or disk is full"):
        catalog.insert(items[40:50])
    monkeypatch.undo()
    assert content(catalog) == before
    report = catalog.insert(items[38:50])
    assert report.known == ["frames/38.fits", "frames/39.fits"]
    assert len(report.added) == 10
    assert len(catalog) == 50


def test_content_may_come_back_once_it_was_deleted(catalog, items):
    assert catalog.delete(["frames/3.fits", 6, "frames/3.fits"]) == 2
    assert len(catalog) == 38
    with pytest.raises(fh.ArgumentError, match=r"frames/3\.fits is not in this catalog"):
        catalog.delete("frames/3.fits")
    with pytest.raises(fh.ArgumentError, match="99"):
        catalog.relabel([7, 99], "FRI")
    assert catalog.get(7).label != "FRI"
    for label in (None, 5, b"FRI", "\udcff", "FRI\0", "\0FRI"):
        with pytest.raises(fh.ArgumentError, match="label"):
            catalog.relabel(7, label)
    report = catalog.insert([items[3], items[3], items[5]])
    assert report.added == ["frames/3.fits"]
    assert report.known == ["frames/3.fits", "frames/5.fits"]
    assert catalog.get("frames/3.fits").id == 44  # create, 40 images, two deletions


# ---- any sequence of changes ---------------------------------------------------------------------------------------


class Changes(RuleBasedStateMachine):
    """Catalogs in two processes' stead, against a list."""

    items = labels = encoder = folder = None

    @initialize()
    def create(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.catalogs = [fh.Catalog.create(self.folder, self.encoder), fh.Catalog.open(self.folder)]
        self.model = {}  # label by path, in order of addition
        self.ids = {}

    @rule(which=st.integers(0, 1), some=st.lists(st.integers(0, 19), max_size=6))
    def insert(self, which, some):
        report = self.catalogs[which].insert([self.items[i] for i in some])
        new = dict.fromkeys(self.items[i].image.path for i in some)
        assert report.added == [path for path in new if path not in self.model]
        for i in some:
            self.model.setdefault(self.items[i].image.path, self.items[i].label)

    @rule(which=st.integers(0, 1), i=st.integers(0, 19))
    def delete(self, which, i):
        path = self.items[i].image.path
        if path in self.model:
            self.catalogs[which].delete(path)
            del self.model[path]
            self.ids.pop(path, None)

    @rule(which=st.integers(0, 1), i=st.integers(0, 19), label=st.sampled_from(["", "a", "\N{SUN}"]))
    def relabel(self, which, i, label):
        path = self.items[i].image.path
        if path in self.model:
            self.catalogs[which].relabel(path, label)
            self.model[path] = label

    @rule(which=st.integers(0, 1))
    def compact(self, which):
        self.catalogs[which].compact()

    @rule(which=st.integers(0, 1))
    def reopen(self, which):
        self.catalogs[which].close()
        self.catalogs[which] = fh.Catalog.open(self.folder)

    @invariant()
    def both_are_as_the_list(self):
        for catalog in self.catalogs:
            rows = catalog.rows(details=True)
            assert dict(zip(rows.paths, rows.labels.tolist(), strict=True)) == self.model
            assert rows.paths == list(self.model)
            for path, number in zip(rows.paths, rows.ids.tolist(), strict=True):
                assert self.ids.setdefault(path, number) == number
            for metric in ("l2", "hamming"):
                found = catalog.search(self.items[0], 30, metric)
                assert {(hit.path, hit.label) for hit in found} == set(self.model.items())
            region = {hit.path for hit in catalog.search(self.items[0], 30, region="north")} if self.model else set()
            assert region == set(self.model)

    def teardown(self):
        for catalog in getattr(self, "catalogs", []):
            catalog.close()


def test_any_sequence_of_changes(tmp_path, items, encoder, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # noqa: ARG005
    monkeypatch.setattr(module, "_WORTH_A_FILE", 7)
    Changes.items, Changes.encoder, Changes.folder = items, encoder, tmp_path / "c"
    steps = settings(max_examples=8, stateful_step_count=12, deadline=None)
    run_state_machine_as_test(Changes, settings=steps)


# ---- damage --------------------------------------------------------------------------------------------------------


def flips(data, count, seed):
    """Copies of some bytes, each with a bit of it flipped, or cut short."""
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, len(data), count):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.integers(8)
        yield bytes(damaged)
    for at in rng.integers(0, len(data), count // 5):
        yield data[:at]


def outcome(path, query):
    """What a catalog says, all of its journal read; where it says that it is damaged, what is said beside its path."""
    try:
        with fh.Catalog.open(path) as catalog:
            catalog.verify()
            return content(catalog), catalog.search(query)
    except fh.FastHashError as error:
        said, named, more = str(error).partition(str(path))
        return said + more if named else None


@pytest.mark.parametrize("name", ["catalog.sqlite", "catalog.mark", "encoder.onnx", "cache/rows", "cache/hamming"])
def test_damage_is_told_or_mended(tmp_path, catalog, items, name):
    catalog.compact()
    catalog.insert(items[40:50])
    catalog.relabel("frames/7.fits", "other")
    wanted = content(catalog), catalog.search(items[20])
    catalog.close()
    whole = tmp_path / "whole"
    shutil.copytree(catalog.path, whole)
    told = 0
    for damaged in flips((whole / name).read_bytes(), 30, seed=len(name)):
        shutil.rmtree(catalog.path)
        shutil.copytree(whole, catalog.path)
        (catalog.path / name).write_bytes(damaged)
        found = outcome(catalog.path, items[20])
        told += found != wanted
        assert found == wanted or isinstance(found, str)
    assert told if name in ("catalog.sqlite", "encoder.onnx") else not told


@pytest.mark.parametrize("lost", ["wal", "wal cut", "wal flipped", "row", "last row", "an older database"])
def test_acknowledged_rows_that_are_lost_are_missed(tmp_path, catalog, items, lost):
    """As after a crash: the files are copied while the catalog is open, and the log has not been folded in."""
    older = tmp_path / "older"
    catalog.close()
    shutil.copytree(catalog.path, older)
    with fh.Catalog.open(catalog.path) as opened:
        opened.insert(items[40:45])
        opened.insert(items[45:50])
        crashed = tmp_path / "crashed"
        shutil.copytree(catalog.path, crashed, ignore=shutil.ignore_patterns("*-shm"))
    database, log = crashed / "catalog.sqlite", crashed / "catalog.sqlite-wal"
    data = log.read_bytes()
    assert isinstance(outcome(shutil.copytree(crashed, tmp_path / "sound"), items[0]), tuple)
    if lost == "wal":
        log.unlink()
    elif lost == "wal cut":
        log.write_bytes(data[: len(data) * 2 // 3])
    elif lost == "wal flipped":
        log.write_bytes(data[:-2000] + bytes([data[-2000] ^ 1]) + data[-1999:])
    elif lost == "an older database":
        shutil.copy(older / "catalog.sqlite", database)
        log.unlink()
    else:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DELETE FROM journal WHERE seq = ?", (51 if lost == "last row" else 20,))
    text = outcome(crashed, items[0])
    assert "entry 21" in text if lost == "row" else "51 was acknowledged" in text
    if lost in ("wal", "last row", "an older database"):
        (crashed / "catalog.mark").unlink()  # what the text says, to do without them
        assert isinstance(outcome(crashed, items[0]), tuple)


def test_a_writer_whose_mark_was_not_written_is_forgiven(catalog, items, monkeypatch):
    """Killed after the commit and before the acknowledgement."""
    monkeypatch.setattr(_journal.Journal, "acknowledge", lambda *_: None)
    catalog.insert(items[40:50])
    monkeypatch.undo()
    catalog.close()
    with fh.Catalog.open(catalog.path) as opened:
        assert len(opened) == 50
        opened.insert(items[50:])
        assert len(opened) == 60


def test_marks_never_go_back(catalog):
    journal, mark = catalog._journal, catalog.path / "catalog.mark"
    places = [_journal.Place(seq, bytes([seq] * 16)) for seq in (50, 52, 51, 60)]
    for place, wanted in zip(places, (50, 52, 52, 60), strict=True):
        journal.acknowledge(place)
        assert journal._acknowledged().seq == wanted
    data = mark.read_bytes()
    assert len(data) == 64
    for at in range(64):  # whichever slot is damaged, the other one counts
        mark.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert journal._acknowledged().seq in (52, 60)


def test_searches_go_on_with_what_was_read(catalog, items):
    """A catalog in use whose database is damaged tells so, again and again, and not only the first time."""
    with closing(sqlite3.connect(catalog.path / "catalog.sqlite")) as connection, connection:
        connection.execute("INSERT INTO journal (seq, kind, seal) VALUES (99, 'delete', x'00')")
    for _ in range(2):
        with pytest.raises(fh.CorruptFileError, match="entry 99"):
            catalog.search(items[0])


# ---- processes and threads -----------------------------------------------------------------------------------------

WRITER = """
import sys
from hashed import make_items
import fasthash as fh
with fh.Catalog.open(sys.argv[1]) as catalog:
    for item in make_items(catalog.encoder, 200, seed=int(sys.argv[2])):
        print(*catalog.insert([item]).added, flush=True)
"""


def test_every_acknowledged_row_is_in_the_next_search(tmp_path, encoder):
    """Two processes write, this one reads."""
    path = tmp_path / "c"
    fh.Catalog.create(path, encoder).close()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True, env=environment) for seed in (1, 2)
    ]
    items = {seed: make_items(encoder, 200, seed=seed) for seed in (1, 2)}
    with fh.Catalog.open(path) as reader:
        for i in range(25):
            for seed, writer in zip((1, 2), writers, strict=True):
                assert writer.stdout.readline().strip() == items[seed][i].image.path
                assert reader.search(items[seed][i], 1)[0].distance == 0
    for writer in writers:
        writer.kill()
        writer.communicate()
    with fh.Catalog.open(path) as reader:
        assert reader.verify() >= 50


def test_threads_write_search_and_compact_at_once(tmp_path, encoder):
    items = {seed: make_items(encoder, 40, seed=seed) for seed in range(3)}
    problems = []

    def write(seed):
        for item in items[seed]:
            catalog.insert([item])
            assert catalog.search(item, 1)[0].distance == 0
            assert catalog.search(item, 1, "hamming")[0].distance == 0
        catalog.delete([catalog.search(item, 1)[0].id for item in items[seed][:10]])

    def compact():
        for _ in range(4):
            catalog.compact()

    def guarded(work, *arguments):
        try:
            work(*arguments)
        except BaseException as error:
            problems.append(error)

    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        jobs = [(write, 0), (write, 1), (write, 2), (compact,)]
        threads = [threading.Thread(target=guarded, args=job) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert len(catalog) == catalog.verify() == 90


# ---- compaction and older formats ----------------------------------------------------------------------------------


def test_compact_drops_what_was_deleted_and_keeps_the_rest(catalog, items):
    catalog.relabel(["frames/1.fits", "frames/2.fits"], "FRIII")
    catalog.delete([f"frames/{i}.fits" for i in range(2, 40)])
    catalog.close()  # the log goes into the database
    size = (catalog.path / "catalog.sqlite").stat().st_size
    with fh.Catalog.open(catalog.path) as catalog, fh.Catalog.open(catalog.path) as other:
        before = content(catalog)
        catalog.compact()
        assert content(catalog) == content(other) == before
        other.insert(items[40:41])
        assert catalog.search(items[40], 1)[0].distance == 0
        assert catalog.get("frames/40.fits").id > 81  # no number comes twice
    assert (catalog.path / "catalog.sqlite").stat().st_size < size / 2
    assert b"frames/30.fits" not in (catalog.path / "catalog.sqlite").read_bytes()


def test_closing_waits_for_what_is_being_written(catalog, items, monkeypatch):
    written, go_on = threading.Event(), threading.Event()
    survivors = module.Catalog._survivors

    def slowly(*arguments):
        written.set()
        assert go_on.wait(10)
        yield from survivors(*arguments)

    monkeypatch.setattr(module.Catalog, "_survivors", slowly)
    catalog.delete(items[5].image.path)
    n = len(catalog)
    with ThreadPoolExecutor() as pool:
        compacted = pool.submit(catalog.compact)
        assert written.wait(10)
        closed = pool.submit(catalog.close)
        time.sleep(0.2)
        assert not closed.done()
        go_on.set()
        closed.result(10)
        assert compacted.exception(10) is None or "closed" in str(compacted.exception())
    with fh.Catalog.open(catalog.path) as opened:
        assert len(opened) == n
        assert opened._current().table.n_dead == 0


def test_compact_changes_nothing_in_a_damaged_journal(catalog):
    catalog.delete("frames/1.fits")
    with closing(sqlite3.connect(catalog.path / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE journal SET label = 'other' WHERE seq = 9")
    with pytest.raises(fh.CorruptFileError, match="entry 9"):
        catalog.compact()
    with closing(sqlite3.connect(catalog.path / "catalog.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM journal").fetchone()[0] == 42


def format1(path, encoder, rows):
    """A catalog as fasthash wrote them before there was a journal."""
    path.mkdir()
    (path / "encoder.onnx").write_bytes(encoder.data)
    with closing(sqlite3.connect(path / "catalog.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        connection.execute(
            "CREATE TABLE images (id INTEGER PRIMARY KEY, path TEXT NOT NULL, digest TEXT NOT NULL UNIQUE,"
            " time INTEGER, label TEXT NOT NULL, hash BLOB NOT NULL, checksum BLOB NOT NULL)"
        )
        about = {"format": "1", "encoder": encoder.fingerprint, "name": "its name"}
        connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        for name, digest, time, label, vector in rows:
            text = "\0".join((os.fsdecode(name), digest, str(time), label)).encode("utf-8", "surrogatepass")
            checksum = hashlib.blake2b(text + b"\0" + vector, digest_size=8).digest()
            sql = "INSERT INTO images (path, digest, time, label, hash, checksum) VALUES (?, ?, ?, ?, ?, ?)"
            connection.execute(sql, (name, digest, time, label, vector, checksum))


def test_a_catalog_of_format_1_becomes_one_of_today(tmp_path, encoder, items):
    rows = [
        (b"\xff.fits" if i == 4 else item.image.path, item.image.digest, None if i == 7 else i, item.label,
         item.hash.tobytes()) for i, item in enumerate(items[:20])
    ]  # fmt: skip
    format1(tmp_path / "c", encoder, rows)
    for _ in range(2):
        with fh.Catalog.open(tmp_path / "c") as catalog:
            assert catalog.encoder.name == "its name"
            found = catalog.rows(details=True)
            assert [os.fsencode(path) for path in found.paths] == [os.fsencode(row[0]) for row in rows]
            assert found.digests == [row[1] for row in rows]
            assert [None if np.isnat(t) else t.astype(int) for t in found.times] == [row[2] for row in rows]
            assert found.labels.tolist() == [row[3] for row in rows]
            assert found.cells == [None] * 20
            with pytest.raises(fh.FastHashError, match="region"):
                catalog.search(items[0], region="north")
            assert catalog.search(items[3], 1)[0].distance == 0
    with fh.Catalog.open(tmp_path / "c") as catalog:
        catalog.insert(items[15:30])
        assert len(catalog) == 30
        assert len(catalog.search(items[0], 99, region="north")) == 10  # those that have cells
        with pytest.raises(fh.ArgumentError, match="of the query image 2 there is only its hash"):
            catalog.search(2, region="north")


def test_a_damaged_catalog_of_format_1_is_left_as_it_is(tmp_path, encoder, items):
    format1(tmp_path / "c", encoder, [("a.fits", items[0].image.digest, 5, "", items[0].hash.tobytes())])
    with closing(sqlite3.connect(tmp_path / "c" / "catalog.sqlite")) as connection, connection:
        connection.execute("UPDATE images SET time = 6")
    for _ in range(2):
        with pytest.raises(fh.CorruptFileError, match=r"row 1 \(a\.fits\) is damaged"):
            fh.Catalog.open(tmp_path / "c")
    with closing(sqlite3.connect(tmp_path / "c" / "catalog.sqlite")) as connection:
        assert connection.execute("SELECT path, time FROM images").fetchall() == [("a.fits", 6)]


def test_a_catalog_of_a_later_format_is_named(catalog):
    catalog.close()
    with closing(sqlite3.connect(catalog.path / "catalog.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(fh.CorruptFileError, match="catalog format 3; this fasthash reads 2"):
        fh.Catalog.open(catalog.path)


def test_a_folder_that_cannot_be_written_is_searched(catalog, items, monkeypatch):
    """The superuser may write everywhere, so the refusal is played."""
    catalog.close()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    monkeypatch.setattr(module, "_WORTH_A_FILE", 7)
    before = sorted(path.name for path in catalog.path.iterdir())
    with fh.Catalog.open(catalog.path) as opened:
        assert opened.search(items[5], 1)[0].distance == 0
        with pytest.raises(fh.FastHashError, match="readonly"):
            opened.insert([dataclasses.replace(items[50], label="x")])
    assert sorted(path.name for path in catalog.path.iterdir() if path.name != "cache") == before


def test_caches_that_cannot_be_written_are_not_tried_at_every_change(tmp_path, encoder, items, monkeypatch):
    monkeypatch.setattr(module, "_WORTH_A_FILE", 7)
    tried, save = [], fh.Catalog._save_rows

    def noted(catalog, table):
        tried.append(table.place.seq)
        save(catalog, table)

    monkeypatch.setattr(fh.Catalog, "_save_rows", noted)
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        (catalog.path / "cache").touch()  # a file in the folder's place: not even the superuser may write there
        for item in items:
            catalog.insert([item])
            if catalog.is_folding:
                catalog._folding.join()
        assert catalog.search(items[5], 1)[0].distance == 0
    assert 5 < len(tried) < 10
    assert min(np.diff(tried)) > 7


def test_who_may_only_read_sees_what_others_write(catalog, items, monkeypatch):
    """The superuser may write everywhere, so the refusal is played."""
    catalog.close()
    access = os.access

    def refuse():
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))

    refuse()
    with fh.Catalog.open(catalog.path) as reader:
        n = len(reader)
        monkeypatch.undo()
        with fh.Catalog.open(catalog.path) as other:
            other.insert(items[50:52])
            refuse()
            assert len(reader) == n + 2
            monkeypatch.undo()
            other.delete(items[50].image.path)
        refuse()
        assert len(reader) == n + 1
        monkeypatch.undo()
    refuse()
    with fh.Catalog.open(catalog.path) as reader:
        monkeypatch.undo()
        with fh.Catalog.open(catalog.path) as other:
            other.compact()
        refuse()
        assert reader.search(items[51], 1)[0].distance == 0
        assert reader._current().table.n == n + 1  # what was deleted is gone
