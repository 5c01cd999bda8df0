"""The documentation holds: links lead somewhere, examples run, commands are understood, the reference is up to date.

On each page, ``python`` blocks and the ``$ fasthash`` lines of ``console`` blocks are run one after the other in an
empty folder. A comment ``<!-- not run: why -->`` before a block leaves it out; its commands are parsed all the same.
"""

import contextlib
import importlib.util
import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from fasthash import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CARDS = sorted((ROOT / "fasthash" / "encoders").glob("*.md"))
BLOCK = re.compile(r"^(?:<!-- (?P<not_run>not run: .+) -->\n+)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
CODE = re.compile(r"^```.*?^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^(?:\$ |    )(fasthash (?:.*\\\n)*.*)", re.M)


def ids(path):
    return str(path.relative_to(ROOT))


def prose(page):
    return CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page):
    """What GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\]\(.*?\)", "", heading)) for heading in headings]
    return {heading.strip().lower().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=ids)
def test_links_lead_somewhere(page):
    for link in LINK.findall(prose(page)):
        target, _, anchor = link.partition("#")
        if not target.startswith(("http:", "https:")):
            file = (page.parent / target).resolve() if target else page
            assert file.exists(), link
            assert not anchor or anchor in anchors(file), link


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_are_understood(page):
    for command in COMMAND.findall(page.read_text(encoding="utf-8")):
        words = shlex.split(re.sub(r"\s(#|>|>>|\|)\s.*", "", command.replace("\\\n", " ")))
        if "INPUT..." not in command and words[1:]:
            cli._parser().parse_args(words[1:])


def examples(page):
    return [
        found
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
        if found["language"] in ("python", "console")
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=ids)
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("example", None))
    monkeypatch.setitem(sys.modules, "example", module)
    for found in examples(page):
        if found["not_run"]:
            continue
        if found["language"] == "python":
            exec(compile(found["text"], str(page), "exec"), vars(module))
        else:
            for command in COMMAND.findall(found["text"]):
                with contextlib.redirect_stderr(io.StringIO()) as said:
                    assert cli.main(shlex.split(command.replace("\\\n", " "))[1:]) == 0, said.getvalue()


def test_the_reference_is_that_of_the_docstrings():
    spec = importlib.util.spec_from_file_location("build_api", ROOT / "docs" / "build_api.py")
    build_api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_api)
    assert build_api.PAGE.read_text(encoding="utf-8") == build_api.reference(), "run: make docs"
