"""Searches of a catalog against an oracle that looks at every row, in Python and NumPy."""

import dataclasses
import shutil

import numpy as np
import pytest
from hashed import HOUR, make_items
from hypothesis import given, settings
from hypothesis import strategies as st

import fasthash as fh
from fasthash import _neighbours
from fasthash import catalog as module

N = 240


@pytest.fixture(scope="module")
def encoder(encoder_path):
    return fh.load_encoder(encoder_path)


@pytest.fixture(scope="module")
def items(encoder):
    return make_items(encoder, N)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory, encoder, items):
    """Of 240 images, each tenth deleted."""
    with fh.Catalog.create(tmp_path_factory.mktemp("catalog") / "c", encoder) as catalog:
        catalog.insert(items)
        catalog.delete([item.image.path for item in items[::10]])
        yield catalog


def distances_to(query, items, encoder, metric):
    hashes = np.stack([item.hash for item in items]).astype(float)
    if metric == "hamming":
        codes = encoder.binarize(np.stack([item.hash for item in [query, *items]]))
        return np.unpackbits(codes[0] ^ codes[1:], axis=1).sum(axis=1).astype(float)
    own = query.hash.astype(float)
    if metric == "cosine":
        return 1 - hashes @ own / np.linalg.norm(hashes, axis=1) / np.linalg.norm(own)
    return np.linalg.norm(hashes - own, axis=1)


def oracle(query, items, distances, k, around=None, between=None, label=None, where=None, gap=None):
    """Paths of the k nearest images that were not deleted."""
    kept = []
    for i in np.lexsort((np.arange(len(items)), distances)):
        item, time = items[i], items[i].image.time
        if i % 10 == 0:
            continue
        if around is not None and abs(time - query.image.time) <= around:
            continue
        if between is not None and not between[0] <= time <= between[1]:
            continue
        if label is not None and item.label != label:
            continue
        if where and not all(fits(item.image.header.get(card), wanted) for card, wanted in where.items()):
            continue
        if gap is not None and any(abs(time - items[j].image.time) < gap for j in kept):
            continue
        kept.append(i)
    return [items[i].image.path for i in kept[:k]]


def fits(value, wanted):
    if isinstance(wanted, tuple):
        return isinstance(value, float) and wanted[0] <= value <= wanted[1]
    return value == wanted


def hours(low, high):
    return st.integers(low, high).map(lambda h: np.timedelta64(h * HOUR, "ms"))


times = st.integers(-5, N + 5).map(lambda h: np.datetime64(h * HOUR, "ms"))
cards = st.fixed_dictionaries(
    {}, optional={"TELESCOP": st.sampled_from(["SOHO", "SDO/HMI", "none"]), "CROTA2": st.just((3.3, 17.1))}
)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, N - 1).filter(lambda i: i % 7),
    st.sampled_from([1, 3, 10, N + 9]),
    st.sampled_from(["l2", "cosine", "hamming"]),
    st.none() | hours(0, 60),
    st.none() | st.tuples(times, times),
    st.none() | st.sampled_from(["", "FRI", "none"]),
    st.none() | cards,
    st.none() | hours(0, 40),
)
def test_every_filter_and_all_of_them(catalog, encoder, items, i, k, metric, around, between, label, where, gap):
    query = items[i]
    hits = catalog.search(query, k, metric, around, between, label, where, gap)
    distances = distances_to(query, items, encoder, metric)
    wanted = oracle(query, items, np.round(distances, 5), k, around, between, label, where, gap)
    found = [hit.path for hit in hits]
    assert len(found) == len(wanted)
    by_path = {item.image.path: distance for item, distance in zip(items, distances, strict=True)}
    if metric == "hamming" or gap is None:
        np.testing.assert_allclose([by_path[p] for p in found], [by_path[p] for p in wanted], atol=2e-5)
    if metric != "cosine":
        assert found == wanted
    np.testing.assert_allclose([hit.distance for hit in hits], [by_path[p] for p in found], atol=1e-5, rtol=1e-5)


def test_a_query_may_be_a_hash_an_id_or_encoded(catalog, items):
    by_item = catalog.search(items[11])
    number = by_item[0].id
    assert by_item[0].path == items[11].image.path
    assert catalog.search(items[11].hash) == catalog.search(number) == catalog.search(np.int64(number)) == by_item
    assert catalog.get(number) == catalog.get(items[11].image.path)
    assert catalog.search(number, exclude_within="5h") == catalog.search(items[11], exclude_within="5h")
    with pytest.raises(fh.ArgumentError, match="no known time"):
        catalog.search(items[11].hash, exclude_within="5h")


def test_what_does_not_fit_is_refused(catalog, items, encoder):
    other = dataclasses.replace(items[1], encoder="0" * 64)
    with pytest.raises(fh.EncoderError, match=r"frames/1\.fits: encoded by 000000000000, but the hashes of .* are by"):
        catalog.search(other)
    with pytest.raises(fh.EncoderError, match="encoded by"):
        catalog.insert([other])
    for wrong in (np.zeros(encoder.dim + 1, "f4"), np.zeros(encoder.dim), np.full(encoder.dim, np.nan, "f4")):
        with pytest.raises(fh.ArgumentError, match="hash"):
            catalog.search(wrong)
    # The first entry is no image, the first image is deleted; and bytes are a path, not so many ids.
    for image in (1, -1, 10**30, 2, "frames/0.fits", b"\x03\x04", 3.0, None, [3.0]):
        with pytest.raises(fh.ArgumentError, match="image"):
            catalog.get(image)
    for argument, value in (
        ("where", {"NAXIS": 2}),
        ("where", {"CROTA2": [1, 2]}),
        ("where", {"CROTA2": (1, "x")}),
        ("where", {"CROTA2": (1,)}),
        ("distinct", "soon"),
        ("region", "middle"),
        ("region", (0.4, 0.55, 0.6, 0.6)),
        ("region", (0, 1)),
    ):
        with pytest.raises(fh.ArgumentError, match=argument):
            catalog.search(items[1], **{argument: value})
    with pytest.raises(fh.ArgumentError, match="region"):
        catalog.search(items[1], metric="hamming", region="north")
    with pytest.raises(fh.ArgumentError, match="region: of the query hash there is only its hash"):
        catalog.search(items[1].hash, region="north")
    for cells in (items[1].cells[:, :, 0].astype(float), items[1].cells[:4, 0, 0]):
        with pytest.raises(fh.ArgumentError, match="cells"):
            catalog.insert([dataclasses.replace(items[1], cells=cells)])
    no_digest = dataclasses.replace(items[1], image=dataclasses.replace(items[1].image, digest=""))
    with pytest.raises(fh.ArgumentError, match="digest"):
        catalog.insert([no_digest])


@pytest.mark.parametrize("options", [{}, {"exclude_within": "9h"}, {"distinct": "3h"}, {"region": "east"}])
def test_many_at_once_are_as_one_by_one(catalog, items, options):
    some = [items[i] for i in (1, 2, 30, 31, 204)]
    assert catalog.search_many(some, 7, **options) == [catalog.search(item, 7, **options) for item in some]
    assert catalog.search_many([], 7, **options) == []


@pytest.mark.parametrize(
    ("region", "rows", "cols"),
    [
        ("south", [0, 1, 2], range(5)),  # of five rows the middle one lies on the border, and in both halves
        ("north", [2, 3, 4], range(5)),
        ("east", range(5), [0, 1, 2]),
        ((0.2, 0.4, 0.6, 1.0), [2, 3, 4], [1, 2]),
        ("0,0,.2,.2", [0], [0]),
    ],
)
def test_a_region_compares_its_cells_alone(catalog, items, region, rows, cols):
    part = np.ix_(list(rows), list(cols))
    own = items[13].cells[part].astype(float)
    distances = [np.sqrt(((item.cells[part] - own) ** 2).sum()) for item in items]
    hits = catalog.search(items[13], 12, region=region)
    assert [hit.path for hit in hits] == oracle(items[13], items, distances, 12)
    np.testing.assert_allclose(
        [hit.distance for hit in hits],
        np.sort(distances)[:12][:1].tolist()
        + [distances[int(hit.path.removeprefix("frames/").removesuffix(".fits"))] for hit in hits[1:]],
        rtol=1e-6,
    )
    assert hits == catalog.search(hits[0].id, 12, region=region)


def test_a_region_of_images_without_cells_and_of_no_images(tmp_path, encoder, items):
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        assert catalog.search(items[1], region="north") == []
        assert catalog.search_many([], region="north") == []
        catalog.insert([items[1], dataclasses.replace(items[2], cells=None)])
        assert [hit.id for hit in catalog.search(2, region="north")] == [2]
        with pytest.raises(fh.ArgumentError, match="region: of the query image 3 there is only its hash"):
            catalog.search(3, region="north")


def test_frames_alike_in_the_north_are_found_by_the_north(tmp_path, encoder_path):
    rng = np.random.default_rng(0)
    north, south = rng.normal(0, 300, (2, 40, 80)).astype("f4"), rng.normal(0, 30, (6, 40, 80)).astype("f4")
    with fh.Catalog.create(tmp_path / "c", encoder_path) as catalog:
        for i in range(6):  # rows of arrays run up: the first half is the south
            np.save(tmp_path / f"{i}.npy", np.concatenate([south[i], north[i % 2]]))
        catalog.add(tmp_path)
        hits = catalog.search(tmp_path / "0.npy", 3, region=(0, 0.6, 1, 1))
        assert [(hit.path[-5], hit.distance) for hit in hits] == [("0", 0.0), ("2", 0.0), ("4", 0.0)]


@pytest.fixture(scope="module")
def many(encoder):
    return make_items(encoder, 1500, seed=1)


def lower(patch):
    """The limits of what is scanned, and of what is worth a file."""
    patch.setattr(_neighbours, "SCANNED", 500)
    patch.setattr(_neighbours, "_NODE", 1)
    patch.setattr(module, "SCANNED", 500)
    patch.setattr(module, "_WORTH_A_FILE", 300)


class TestGraph:
    """More rows than are scanned, by way of lower limits."""

    @pytest.fixture(scope="class")
    @staticmethod
    def folder(tmp_path_factory, encoder, many):
        folder = tmp_path_factory.mktemp("large") / "c"
        with pytest.MonkeyPatch.context() as patch, fh.Catalog.create(folder, encoder) as catalog:
            lower(patch)
            catalog.insert(many[:1200])
            catalog.delete([item.image.path for item in many[:200:10]])
            catalog.compact()
        return folder

    @pytest.fixture
    def large(self, tmp_path, folder, monkeypatch):
        lower(monkeypatch)
        shutil.copytree(folder, tmp_path / "c")
        with fh.Catalog.open(tmp_path / "c") as catalog:
            yield catalog

    def proposals(self, monkeypatch):
        asked = []
        search = _neighbours.Graph.search

        def listening(graph, *arguments):
            asked.append(graph)
            return search(graph, *arguments)

        monkeypatch.setattr(_neighbours.Graph, "search", listening)
        return asked

    @pytest.mark.parametrize("metric", ["l2", "cosine"])
    def test_finds_what_a_scan_finds(self, large, many, metric, monkeypatch):
        large.compact(metric)
        large.insert(many[1200:1300])  # the tail
        large.delete(["frames/702.fits"])
        asked = self.proposals(monkeypatch)
        found = recalled = 0
        for i in (5, 701, 1201, 1299):
            for options in ({}, {"exclude_within": "20h"}, {"label": "FRI"}, {"distinct": "5h"}):
                if i % 7 == 0:
                    continue
                approximate = large.search(many[i], 10, metric, **options)
                exact = large.search(many[i], 10, metric, exact=True, **options)
                found += 10
                recalled += len(set(approximate) & set(exact))
        assert len(asked) >= 8
        assert recalled >= 0.95 * found

    def test_is_there_when_opened_again_and_seen_by_others(self, large, many, monkeypatch):
        asked = self.proposals(monkeypatch)
        with fh.Catalog.open(large.path) as other:
            assert other.search_many(many[300:310]) == large.search_many(many[300:310])
            assert len(asked) == 2
            other.insert(many[1200:1201])
            other.compact()
            assert large.search(many[1200], 1)[0].distance == 0
            assert len(asked) == 3

    @pytest.mark.parametrize("name", ["rows", "graph-l2", "hamming"])
    @pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
    def test_a_damaged_cache_changes_no_answer(self, large, many, name, damage):
        wanted = [large.search(many[600], 10, metric, exact=True) for metric in ("l2", "hamming")]
        large.close()
        path = large.path / "cache" / name
        data = bytearray(path.read_bytes())
        if damage == "delete":
            path.unlink()
        elif damage == "cut":
            path.write_bytes(data[: len(data) // 2])
        else:
            for at in (0, 5, 13, 20, len(data) // 2, len(data) - 1):
                data[at] ^= 16
                path.write_bytes(data)
                data[at] ^= 16
                with fh.Catalog.open(large.path) as opened:
                    assert [opened.search(many[600], 10, metric) for metric in ("l2", "hamming")] == wanted
                    assert len(opened) == 1180
                if name == "rows":
                    break  # it was mended
        with fh.Catalog.open(large.path) as opened:
            assert [opened.search(many[600], 10, metric) for metric in ("l2", "hamming")] == wanted
            opened.compact()
            assert [opened.search(many[600], 10, metric) for metric in ("l2", "hamming")] == wanted

    def test_folds_by_itself(self, tmp_path, encoder, many, monkeypatch):
        lower(monkeypatch)
        with fh.Catalog.create(tmp_path / "own", encoder) as catalog:
            for start in range(0, 1500, 100):
                catalog.insert(many[start : start + 100])
                assert catalog.search(many[start + 99], 1)[0].distance == 0
        names = {path.name for path in (tmp_path / "own" / "cache").iterdir()}
        assert names == {"rows", "hamming", "graph-l2"}
        with fh.Catalog.open(tmp_path / "own") as catalog:
            assert catalog._state.table.cached > 1000
            assert len(catalog) == 1500


def by_hamming(state, catalog, item, k):
    """What a search with this state gives: ids of the nearest by their codes."""
    codes = catalog.encoder.binarize(item.hash[np.newaxis])
    [(_, rows)] = state.neighbours.nearest(state.table, codes, "hamming", k, EVERYTHING, False, 1)
    return state.table["ids"][rows].tolist()


EVERYTHING = _neighbours.Selection(None, np.empty(0, np.int64))


def test_a_search_that_began_before_changes_leaves_the_tables_of_codes_as_they_are(tmp_path, encoder, items):
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        catalog.insert(items[:10])
        before = catalog._current()
        catalog.insert(items[10:12])
        catalog.delete("frames/3.fits")
        assert len(catalog.search(items[11], 20, "hamming")) == 11
        assert by_hamming(before, catalog, items[3], 10)[0] == 5  # deleted since
        assert len(catalog.search(items[11], 20, "hamming")) == 11
        assert catalog.search(items[11], 1, "hamming")[0].path == "frames/11.fits"


def test_tables_of_codes_that_another_wrote_since_a_search_began_lose_nothing(tmp_path, encoder, items):
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        catalog.insert(items[:10])
        before = catalog._current()
        with fh.Catalog.open(tmp_path / "c") as other:
            other.insert(items[10:12])
            other.compact()
        assert len(by_hamming(before, catalog, items[3], 20)) == 10
        assert catalog.search(items[11], 1, "hamming")[0].path == "frames/11.fits"


def test_a_graph_that_grew_since_a_search_began_is_not_asked(tmp_path, encoder, many, monkeypatch):
    lower(monkeypatch)
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        catalog.insert(many[:1000])
        before = catalog._current()
        catalog.insert(many[1000:1300])
        for metric in ("l2", "cosine"):
            catalog.compact(metric)
            query = many[1200].hash[np.newaxis]
            [(_, rows)] = before.neighbours.nearest(before.table, query, metric, 5, EVERYTHING, False, 1)
            [(_, exact)] = before.neighbours.nearest(before.table, query, metric, 5, EVERYTHING, True, 1)
            assert rows.tolist() == exact.tolist()


def test_hashes_that_no_graph_can_hold_are_scanned(tmp_path, encoder, many, monkeypatch):
    lower(monkeypatch)
    with fh.Catalog.create(tmp_path / "c", encoder) as catalog:
        catalog.insert([dataclasses.replace(item, hash=np.zeros(encoder.dim, "f4")) for item in many[:600]])
        catalog.compact()
        assert [hit.path for hit in catalog.search(many[0], 2)] == ["frames/0.fits", "frames/1.fits"]
