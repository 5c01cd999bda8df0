"""Every table of figures in the documentation comes from a stored run, or names the command that printed it."""

import re

import pytest

from benchmarks.store import RESULTS, changes, stored
from benchmarks.tables import BLOCK, ROOT, TABLES, pages, render

TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
FIGURE = re.compile(r"^\W*\d?[\d.,]*\d\b")
SOURCE = re.compile(r"<!-- (figures|constants): .+ -->\s*$")
each_page = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_tables_are_those_of_the_stored_runs(page):
    assert render(page) == page.read_text(encoding="utf-8"), "run: python -m benchmarks.tables"


@each_page
def test_every_table_of_figures_has_a_source(page):
    text = page.read_text(encoding="utf-8")
    drawn = [found.span() for found in BLOCK.finditer(text)]
    for found in TABLE.finditer(text):
        cells = [cell.strip() for row in found[0].splitlines()[2:] for cell in row.strip("|").split("|")[1:]]
        has_figures = sum(bool(FIGURE.match(cell)) for cell in cells) * 2 > len([cell for cell in cells if cell])
        if has_figures and not any(start < found.start() < stop for start, stop in drawn):
            assert SOURCE.search(text[: found.start()].rstrip()), found[0].splitlines()[0]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_stored_run_names_its_command_and_machine(path):
    run = stored(path.stem)
    assert (ROOT / re.search(r"benchmarks[/.]\w+(\.py)?", run["command"])[0]).exists()
    assert {"processor", "simd_level", "cores", "versions", "load_before", "load_after"} <= set(run["environment"])
    assert all(run["figures"].values())


def test_every_table_is_used_and_every_run_drawn():
    assert set(TABLES) == {found[2] for page in pages() for found in BLOCK.finditer(page.read_text(encoding="utf-8"))}
    drawn = {run for draw in TABLES.values() for run in draw()[1]}
    assert drawn == {path.stem for path in RESULTS.glob("*.json")}


def test_changes_are_those_of_numbers_in_both_runs():
    before = {"a": {"ms": 2.0, "level": "avx2", "curve": [1]}, "gone": {"ms": 1.0}}
    now = {"a": {"ms": 3.0, "level": "avx512", "curve": [2], "new": 1.0}, "added": {"ms": 1.0}}
    assert changes(before, now) == [("a", "ms", 2.0, 3.0)]
