"""Catalogs as tables: what goes out comes back, to the last bit, and nothing else is taken."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fasthash as fh
from fasthash.cli import main
from fasthash.exchange import _escaped, _unescaped, export_table, import_table

try:
    import pyarrow  # noqa: F401

    NO_PARQUET = False
except ImportError:
    NO_PARQUET = True
SUFFIXES = [".xml", pytest.param(".parquet", marks=pytest.mark.skipif(NO_PARQUET, reason="pyarrow is not installed"))]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory, encoder_path, frames):
    """Rows with and without times, and names that are hard to write down."""
    folder = tmp_path_factory.mktemp("odd")
    names = ["ü ß.npy", "trailing .npy", "back\\slash\\x41.npy", "line\nbreak.npy", "😀.npy", os.fsdecode(b"\xff.npy")]
    for seed, name in enumerate(names):
        np.save(folder / name, np.random.default_rng(seed).normal(0, 200, (16, 16)).astype("f4"))
    with fh.Catalog.create(folder / "catalog", encoder_path) as catalog:
        catalog.add([*frames[:5], folder])
        assert len(catalog) == 11
        yield catalog


def assert_same(catalog, other):
    ours, theirs = catalog.rows(details=True), other.rows(details=True)
    assert ours.paths == theirs.paths
    assert ours.digests == theirs.digests
    assert ours.metadata == theirs.metadata
    np.testing.assert_array_equal(ours.cells, theirs.cells)
    np.testing.assert_array_equal(ours.times, theirs.times)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.hashes.view("u4"), theirs.hashes.view("u4"))
    np.testing.assert_array_equal(ours.codes, theirs.codes)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_is_exact(catalog, tmp_path, suffix, frames):
    file = tmp_path / f"rows{suffix}"
    assert export_table(catalog, file) == 11
    report = import_table(file, tmp_path / "copy")
    assert len(report.added) == 11
    with fh.Catalog.open(tmp_path / "copy") as copy:
        assert_same(catalog, copy)
        assert copy.add(frames[:5]).added == []  # known by their content
    assert len(import_table(file, tmp_path / "copy").known) == 11
    assert sorted(os.listdir(tmp_path)) == ["copy", file.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_catalog_goes_and_comes(tmp_path, encoder_path, suffix):
    with fh.Catalog.create(tmp_path / "empty", encoder_path) as empty:
        assert export_table(empty, tmp_path / f"rows{suffix}") == 0
    assert import_table(tmp_path / f"rows{suffix}", tmp_path / "copy").added == []
    with fh.Catalog.open(tmp_path / "copy") as copy:
        assert len(copy) == 0


@given(st.text())
def test_any_text_is_escaped_and_comes_back(text):
    assert _unescaped(_escaped(text)) == text
    assert _escaped(text).isprintable()


def edited(file, target, change):
    """A table with something changed by another program."""
    from astropy.io.votable import from_table, parse_single_table
    from astropy.io.votable.tree import Param

    source = parse_single_table(str(file))
    table = change(source.to_table()) or source.to_table()
    votable = from_table(table)
    for param in source.params:
        inner = votable.get_first_table()
        inner.params.append(Param(votable, name=param.name, datatype="char", arraysize="*", value=str(param.value)))
    votable.to_xml(str(target), tabledata_format="binary2")
    return target


def test_an_edited_table_is_taken_without_its_checksums_only(catalog, tmp_path):
    def relabel(table):
        table["label"] = np.array([f"class {row % 2}" for row in range(len(table))])
        return table

    def relabel_openly(table):
        table = relabel(table)
        table.remove_column("checksum")
        return table[::-1]

    export_table(catalog, tmp_path / "rows.xml")
    with pytest.raises(fh.ReadError, match=r"edited\.xml: row 1 .*does not fit its checksum"):
        import_table(edited(tmp_path / "rows.xml", tmp_path / "edited.xml", relabel), tmp_path / "copy")
    import_table(edited(tmp_path / "rows.xml", tmp_path / "edited.xml", relabel_openly), tmp_path / "copy")
    with fh.Catalog.open(tmp_path / "copy") as copy:
        assert copy.rows().paths == catalog.rows().paths[::-1]
        assert copy.rows().labels.tolist() == [f"class {row % 2}" for row in range(11)][::-1]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("code", lambda a: a ^ 1, "its code is not that of its hash"),
        ("hash", lambda a: a * np.float32(np.nan), "its hash holds NaN"),
        ("hash", lambda a: a.astype("f8"), "column hash: expected float32 of 50 values, got float64 of 50"),
        ("hash", lambda a: a[:, :49], "column hash: expected float32 of 50 values, got float32 of 49"),
        ("time", lambda a: np.full(len(a), "noon"), "row 1 .*time: expected a time"),
        ("digest", lambda a: np.full(len(a), "AB"), "row 1 .*digest: expected 32"),
        ("path", lambda a: np.full(len(a), r"\ud800"), "row 1 .*path: no file has a name like"),
        ("label", lambda a: np.full(len(a), r"\udc80"), "row 1 .*label: expected text"),
        ("metadata", lambda a: np.full(len(a), "[" * 100_000), "row 1 .*recursion"),
        ("cells", lambda a: np.ones((len(a), 7), "u1"), "row 1 .*cells: expected uint8"),
    ],
)
def test_what_cannot_be_right_is_named_and_nothing_is_added(catalog, tmp_path, name, value, message):
    def change(table):
        table.remove_column("checksum")
        table[name] = value(np.asarray(table[name]))
        return table

    export_table(catalog, tmp_path / "rows.xml")
    with pytest.raises(fh.ReadError, match=rf"edited\.xml: .*{message}"):
        import_table(edited(tmp_path / "rows.xml", tmp_path / "edited.xml", change), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_is_an_error_or_does_not_matter(catalog, tmp_path, suffix):
    file = tmp_path / f"rows{suffix}"
    export_table(catalog, file)
    data = file.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for trial in range(40):
        place = int(rng.integers(len(data)))
        flipped = bytes([data[place] ^ 1 << trial % 8]) + data[place + 1 :]
        file.write_bytes(data[:place] + (b"" if trial % 2 else flipped))
        target = tmp_path / f"copy{trial}"
        try:
            import_table(file, target)
        except fh.FastHashError as error:
            assert file.name in str(error)  # noqa: PT017
            refused += 1
            assert not target.exists()
        else:
            with fh.Catalog.open(target) as copy:
                assert_same(catalog, copy)
    assert refused >= 20


def test_another_encoder_is_refused(catalog, tmp_path):
    export_table(catalog, tmp_path / "rows.xml")
    fh.Catalog.create(tmp_path / "other", "radio-8").close()
    with pytest.raises(fh.EncoderError, match="another encoder"):
        import_table(tmp_path / "rows.xml", tmp_path / "other")
    with pytest.raises(fh.EncoderError, match="another encoder"):
        import_table(tmp_path / "rows.xml", tmp_path / "new", "radio-8")
    assert not (tmp_path / "new").exists()


def test_the_commands(catalog, tmp_path, capsys):
    file = str(tmp_path / "rows.xml")
    assert main(["export", str(catalog.path), file]) == 0
    assert capsys.readouterr().out == f"{file}: 11 images\n"
    assert main(["import", file, str(tmp_path / "copy")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'copy'}: 11 images added, 0 were there already\n"
    for arguments, named in [
        (["export", str(catalog.path), "rows.csv"], "rows.csv: expected a name ending in .parquet or .xml or .vot"),
        (["export", "nowhere", file], "nowhere: no catalog here"),
        (["import", "nowhere.xml", str(tmp_path / "copy")], "nowhere.xml: "),
    ]:
        assert main(arguments) == 1
        assert f"error: {named}" in capsys.readouterr().err
