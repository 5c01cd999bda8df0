"""Every figure of the documentation is one of a stored run, or is said to be none that was measured.

Tables and listings are drawn from the stored runs. Other figures stand in a paragraph, list or table below a comment
``<!-- stored: RUN, RUN.TEST -->``, and are found there, to the digits shown (of an output in the lines that hold the
words after the dot); or somewhere on the page a comment
``<!-- constants: ... -->`` names them and says what they are. Such a comment right above a table speaks for all of it.
"""

import re

import pytest

from benchmarks import store
from benchmarks.store import RESULTS, changes, numbers, stored
from benchmarks.tables import BLOCK, ROOT, TABLES, pages, render

UNIT = r"(?: ?%| (?:x(?!\s*\d)|times|[mu]?s|(?:micro|milli)?seconds?|minutes?|[kMG]i?B|(?:images|queries) a second)\b)"
FIGURE = re.compile(rf"(?<![\w.,:/^*-])(?:\d*\.\d+|\d[\d,]*(?={UNIT}| to \d[\d.,]*{UNIT})){UNIT}?")
NUMBER = re.compile(r"(?<![\w.-])(?:\d[\d,]*\.?\d*|\.\d+)(?!\w)")
STORED, CONSTANTS = (re.compile(rf"<!-- {word}: (.+?) -->", re.DOTALL) for word in ("stored", "constants"))
CODE = re.compile(r"^```python\n(?:.*\n)*?```$|^    .*$|`[^`\n]+`|\]\([^)]*\)|https?:\S+", re.MULTILINE)
each_page = pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_tables_are_those_of_the_stored_runs(page):
    assert render(page) == page.read_text(encoding="utf-8"), "run: python -m benchmarks.tables"


@each_page
def test_every_figure_is_stored_or_a_constant(page):
    assert list(without_source(page.read_text(encoding="utf-8"))) == []


def without_source(text):
    """The figures of a page that neither a stored run nor a constant accounts for."""
    constants = {squeezed(figure) for comment in CONSTANTS.findall(text) for figure in FIGURE.findall(comment)}
    for block in re.split(r"\n\n+", CODE.sub("", BLOCK.sub("", text))):
        shown = CONSTANTS.sub("", STORED.sub("", block)).strip()
        if shown.startswith("|") and CONSTANTS.search(block):
            continue
        runs = [name for names in STORED.findall(block) for name in names.split(", ")]
        values = [value for name in runs for value in numbers(named(name))]
        for figure in figures(shown):
            if squeezed(figure) not in constants and not any(shows(figure, value) for value in values):
                yield figure


def figures(block):
    """What looks measured: fractions, and numbers with a unit; in a table that is mostly numbers, all of them."""
    if block.startswith("|"):
        cells = [cell.strip() for row in block.splitlines()[2:] for cell in row.strip("|").split("|")[1:]]
        cells = [cell for cell in cells if cell]
        if 2 * sum(NUMBER.match(cell) is not None for cell in cells) > len(cells):
            return [number for cell in cells for number in NUMBER.findall(cell)]
    return FIGURE.findall(block)


def squeezed(figure):
    return re.sub(r"\s", "", figure)


def named(name):
    """The figures of a stored run, or of one test of it; its output, or the lines of it that hold some words."""
    file, _, part = name.partition(".")
    run = stored(file)
    if "output" not in run:
        return run["figures"][part] if part else run["figures"]
    lines = [line for line in run["output"] if part in line]
    assert lines, name
    return lines


def shows(figure, value):
    """Whether the figure is this value, to its digits."""
    digits = NUMBER.search(figure)[0].replace(",", "")
    places = len(digits.partition(".")[2])
    scales = (1, 100) if "%" in figure else (1,)
    return any(f"{scale * value:.{places}f}" == f"{float(digits):.{places}f}" for scale in scales)


STORED_PARAGRAPH = "<!-- stored: encoder.test_one_descriptor -->\nIt takes {} us, p99 {} times as long.\n"


def test_a_figure_that_differs_from_its_run_is_found():
    figures = stored("encoder")["figures"]["test_one_descriptor"]
    us, by = figures["fasthash_us"], figures["fasthash_p99_by_p50"]
    assert list(without_source(STORED_PARAGRAPH.format(f"{us:.1f}", by))) == []
    assert list(without_source(STORED_PARAGRAPH.format(f"{us + 0.1:.1f}", by))) == [f"{us + 0.1:.1f} us"]
    assert list(without_source("It takes 9.1 us.")) == ["9.1 us"]
    assert list(without_source("It takes 9.1 us.\n\n<!-- constants: 9.1 us of a paper -->")) == []


def test_figures_of_tables_are_looked_at_cell_by_cell():
    table = "| | a | b |\n|---|---|---|\n| one | 17 | .123 (.100 to .200) |\n"
    assert list(without_source(table)) == ["17", ".123", ".100", ".200"]
    assert list(without_source(f"<!-- constants: of the code -->\n{table}")) == []


@pytest.mark.parametrize("text", ["5 x 5 cells", "Python 3", "`--threads 4` ms", "2014-05-01", "48 h", "64 bits"])
def test_what_is_not_measured_is_no_figure(text):
    assert list(without_source(text)) == []


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_stored_run_names_its_command_and_machine(path):
    run = stored(path.stem)
    assert re.match(r"fasthash \w|python -m \w", run["command"])
    for module in re.findall(r"-m (?:pytest )?((?:benchmarks|tests|fasthash)[\w./]+)", run["command"]):
        assert (ROOT / module.removesuffix(".py").replace(".", "/")).with_suffix(".py").exists()
    machine = {"processor", "simd_level", "cores", "versions", "load_before", "load_after"}
    assert machine <= set(run["environment"])
    assert run["output"] if "output" in run else all(run["figures"].values())


def test_every_table_is_used_and_every_run_shown():
    texts = [page.read_text(encoding="utf-8") for page in pages()]
    blocks = {found.group(2, 3) for text in texts for found in BLOCK.finditer(text)}
    assert set(TABLES) == {name for kind, name in blocks if kind == "table"}
    shown = {run for draw in TABLES.values() for run in draw()[1]}
    shown |= {name for kind, name in blocks if kind == "output"}
    texts = [CODE.sub("", text) for text in texts]
    shown |= {name.split(".")[0] for text in texts for names in STORED.findall(text) for name in names.split(", ")}
    assert shown == {path.stem for path in RESULTS.glob("*.json")}


def test_changes_are_those_of_numbers_in_both_runs():
    before = {"a": {"ms": 2.0, "level": "avx2", "curve": [1]}, "gone": {"ms": 1.0}}
    now = {"a": {"ms": 3.0, "level": "avx512", "curve": [2], "new": 1.0}, "added": {"ms": 1.0}}
    assert changes(before, now) == [("a", "ms", 2.0, 3.0)]


def test_a_command_is_run_among_the_data_and_its_output_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path / "results")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "frame").write_text("mean .5 \n")
    store.run_and_store("one", "cat frame; pwd > other", tmp_path / "data")
    assert stored("one")["output"] == ["mean .5"]
    assert list(numbers(stored("one")["output"])) == [0.5]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["frame"]
    assert list(store.repeatable(["o*"])) == [("one", "cat frame; pwd > other")]


@pytest.mark.parametrize("command", ["false | echo 1", "true", "echo 1; exit 3"])
def test_of_a_command_that_fails_nothing_is_kept(command, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path / "results")
    with pytest.raises(SystemExit, match="nothing is stored"):
        store.run_and_store("one", command)
    assert not (tmp_path / "results").exists()


def test_an_output_is_kept_under_a_name(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["store", "--command", "echo 1"])
    with pytest.raises(SystemExit, match="2"):
        store.main()
    assert "--command needs a NAME" in capsys.readouterr().err


def test_numbers_are_those_of_values_and_of_text():
    assert list(numbers({"a": [1, 2.5], "b": {"c": "1,234 of .5 (0.25 to 3)"}})) == [1, 2.5, 1234, 0.5, 0.25, 3]
