"""The catalog: durable, idempotent, searched exactly."""

import shutil
import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest

import fasthash as fh


@pytest.fixture(scope="module")
def encoder(encoder_path):
    return fh.load_encoder(encoder_path)


@pytest.fixture
def catalog(tmp_path, encoder, frames):
    with fh.Catalog.create(tmp_path / "catalog", encoder) as catalog:
        catalog.add(frames)
        yield catalog


def test_rows_are_what_the_encoder_gives(catalog, encoder, frames):
    rows = catalog.rows()
    assert rows.paths == [str(path) for path in frames]
    np.testing.assert_array_equal(rows.hashes, encoder.encode(list(frames)))
    np.testing.assert_array_equal(rows.codes, encoder.binarize(rows.hashes))
    assert (np.diff(rows.times) == np.timedelta64(2, "h")).all()
    assert len(catalog) == len(frames)


def test_an_opened_catalog_is_the_same(catalog, frames):
    before = catalog.rows()
    catalog.close()
    with fh.Catalog.open(catalog.path) as opened:
        assert opened.encoder.fingerprint == catalog.encoder.fingerprint
        np.testing.assert_array_equal(opened.rows().hashes, before.hashes)
        assert len(opened) == len(frames)


def test_search_is_exact(catalog, frames):
    hits = catalog.search(frames[7], 36)
    assert hits[0].path == str(frames[7])
    assert [hit.rank for hit in hits] == list(range(1, 37))
    rows = catalog.rows()
    vector = catalog.encoder.encode(frames[7])
    distances = np.sqrt(((rows.hashes.astype(float) - vector) ** 2).sum(axis=1)).astype("f4")
    order = np.lexsort((np.arange(36), distances))
    assert [hit.path for hit in hits] == [rows.paths[i] for i in order]
    np.testing.assert_allclose([hit.distance for hit in hits], distances[order], rtol=1e-6)


@pytest.mark.parametrize("metric", ["l2", "cosine", "hamming"])
def test_filters_are_exact_and_no_result_is_lost_to_them(catalog, frames, metric):
    rows = catalog.rows()
    query = rows.times[10]
    hits = catalog.search(frames[10], 99, metric, exclude_within=np.timedelta64(4, "h"))
    assert len(hits) == 36 - 5
    assert all(abs(np.datetime64(hit.time) - query) > np.timedelta64(4, "h") for hit in hits)
    hits = catalog.search(frames[10], 3, metric, between=(rows.times[20], rows.times[30]))
    assert len(hits) == 3
    assert all(rows.times[20] <= np.datetime64(hit.time) <= rows.times[30] for hit in hits)
    assert catalog.search(frames[10], 3, metric, label="FRI") == []


def test_a_query_without_a_time_cannot_be_excluded_around(catalog):
    with pytest.raises(fh.ArgumentError, match="exclude_within"):
        catalog.search(np.ones((40, 40), "f4"), exclude_within=np.timedelta64(1, "h"))


def test_adding_again_changes_nothing(catalog, frames, tmp_path):
    copy = tmp_path / "copy.fits"
    shutil.copy(frames[0], copy)
    report = catalog.add([*frames[:3], copy])
    assert report.added == []
    assert len(report.known) == 4
    assert len(catalog) == 36


def test_one_bad_file_does_not_stop_the_others(tmp_path, encoder, frames):
    bad = tmp_path / "bad.fits"
    bad.write_bytes(b"SIMPLE  = T")
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        report = catalog.add([frames[0], bad, tmp_path / "missing.fits", frames[1]])
        assert len(report.added) == len(catalog) == 2
        assert len(report.failures) == 2
        assert any("bad.fits" in line for line in report.failures)


def test_rows_added_by_another_connection_are_seen(frames, tmp_path, encoder):
    with fh.Catalog.create(tmp_path / "two", encoder) as writer, fh.Catalog.open(tmp_path / "two") as reader:
        for n, path in enumerate(frames[:5], start=1):
            writer.add(path)
            assert len(reader.search(frames[0], 10)) == n


def test_threads_search_while_one_adds(tmp_path, encoder, frames):
    problems = []
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        catalog.add(frames[:4])
        done = threading.Event()

        def look():
            try:
                while not done.is_set():
                    assert len(catalog.search(frames[0], 4)) == 4
            except Exception as error:
                problems.append(error)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        for path in frames[4:]:
            catalog.add(path)
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []


def test_what_add_acknowledged_survives_kill_9(tmp_path, encoder, frames):
    fh.Catalog.create(tmp_path / "c", encoder).close()
    code = (
        "import sys, fasthash as fh\n"
        "catalog = fh.Catalog.open(sys.argv[1])\n"
        "for path in sys.argv[2:]:\n"
        "    print(*catalog.add(path).added, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "c"), *map(str, frames)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        acknowledged = [process.stdout.readline().strip() for _ in range(5)]
        process.kill()
    with fh.Catalog.open(tmp_path / "c") as catalog:
        assert set(acknowledged) <= set(catalog.rows().paths)


def test_a_changed_row_is_named(catalog):
    catalog.close()
    connection = sqlite3.connect(catalog.path / "catalog.sqlite")
    with connection:
        connection.execute("UPDATE journal SET time = time + 1 WHERE seq = 3")
    connection.close()
    with pytest.raises(fh.CorruptFileError, match=r"entry 3 .*is damaged"):
        fh.Catalog.open(catalog.path)


def test_another_encoder_is_refused(catalog, tmp_path, encoder):
    catalog.close()
    other = tmp_path / "other.onnx"
    data = encoder.data
    blank = fh.encoder._CHECKSUM.sub(fh.encoder.CHECKSUM_BLANK, data).replace(b'"solar-paper"', b'"solar-papes"')
    other.write_bytes(fh.encoder.seal(blank))
    fh.load_encoder(other)
    shutil.copy(other, catalog.path / "encoder.onnx")
    with pytest.raises(fh.CorruptFileError, match="not the encoder that this catalog was made with"):
        fh.Catalog.open(catalog.path)


def test_damaged_and_missing_catalogs_are_named(catalog, tmp_path):
    catalog.close()
    (catalog.path / "catalog.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(fh.CorruptFileError, match=r"catalog\.sqlite"):
        fh.Catalog.open(catalog.path)
    with pytest.raises(fh.FastHashError, match="no catalog here"):
        fh.Catalog.open(tmp_path / "nowhere")


def test_nothing_is_overwritten(catalog, encoder):
    with pytest.raises(fh.FastHashError, match="exists already"):
        fh.Catalog.create(catalog.path, encoder)
    assert len(catalog) == 36


def test_an_empty_catalog_has_no_hits(tmp_path, encoder, frames):
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        assert len(catalog) == 0
        assert catalog.search(frames[0]) == []


@pytest.mark.parametrize(("arguments", "name"), [({"k": 0}, "k"), ({"metric": "l1"}, "metric")])
def test_wrong_arguments_are_named(catalog, frames, arguments, name):
    with pytest.raises(fh.ArgumentError, match=name):
        catalog.search(frames[0], **arguments)


def test_spans_and_times_may_be_text_or_hours(catalog, frames):
    hours = [catalog.search(frames[9], 99, exclude_within=span) for span in ("6h", 6, np.timedelta64(6, "h"))]
    assert len(hours[0]) == 36 - 7
    assert hours[0] == hours[1] == hours[2]
    assert len(catalog.search(frames[9], 99, between=("2014-05-02", "2014-05-02T06:00"))) == 4
    for wrong in (
        {"exclude_within": "soon"},
        {"exclude_within": -1},
        {"between": ("2014-05-02",)},
        {"between": (None, 1)},
    ):
        with pytest.raises(fh.ArgumentError, match=next(iter(wrong))):
            catalog.search(frames[9], **wrong)


def test_a_closed_catalog_says_so(catalog, frames):
    catalog.close()
    with pytest.raises(fh.FastHashError, match="closed"):
        catalog.search(frames[0])
