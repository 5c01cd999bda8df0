"""Pictures of the stored runs, for the documentation.

python -m benchmarks.plots             # docs/recall-speed.png, docs/growth.png
"""

import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.store import stored
from benchmarks.tables import GROWTH, LIBRARIES, exponent, grown

DOCS = Path(__file__).parent.parent / "docs"
LEAST_MISSED = 1e-4  # of 10,000 neighbours, one
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")  # of Okabe and Ito


def recall_speed(path: Path) -> None:
    """Neighbours missed against queries a second, one panel a set of vectors; further right and up is better."""
    runs = stored("hnsw")["figures"]
    figure = Figure(figsize=(4.2 * len(runs), 3.8), layout="constrained")
    for axes, (test, figures) in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True):
        for name, colour in zip(LIBRARIES, COLOURS, strict=False):
            recall, speed = np.transpose(figures[f"{name}_curve"])
            missed = np.maximum(1 - recall, LEAST_MISSED)
            axes.plot(missed, speed, "o-", color=colour, label=name, markersize=3.5, linewidth=1.2)
        axes.axvline(0.01, color="#BBBBBB", linewidth=0.8, zorder=0)
        kind, n = test.removeprefix("test_hnsw[").removesuffix("]").split("-")
        finish(axes, f"{int(n):,} vectors, {kind}", "neighbours missed, 1 - recall@10", "queries a second, one thread")
        axes.set(xscale="log", yscale="log")
        axes.invert_xaxis()
    save(figure, path)


def growth(path: Path) -> None:
    """Time of a query against the number of rows, with the fitted exponents."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    found, _ = grown()
    for (test, words), colour in zip(GROWTH.items(), COLOURS, strict=True):
        columns = found[test]
        label = f"{words.replace('`', '')}: n^{exponent(columns)}"
        axes.plot(columns["n"], columns["us"], "o-", color=colour, label=label, markersize=3.5, linewidth=1.2)
    axes.set(xscale="log", yscale="log")
    finish(axes, "one query, one thread", "rows", "microseconds")
    save(figure, path)


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=130, metadata={"Software": None})
    print(os.path.relpath(path))


if __name__ == "__main__":
    recall_speed(DOCS / "recall-speed.png")
    growth(DOCS / "growth.png")
