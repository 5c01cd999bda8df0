"""Pictures a person would rather look at: what a search found, and how good the rankings are.

Every function writes one file, whole or not at all; the suffix says which kind (.png, .pdf, .svg). The figures are
built by themselves, without pyplot: neither a user's open figures nor the backend in use are touched.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasthash._storage import atomic_write
from fasthash.errors import ArgumentError
from fasthash.times import NAT, parse_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fasthash.evaluation import WindowReport

SUFFIXES = (".png", ".pdf", ".svg")

# From the palette of Okabe and Ito, told apart by colour-blind eyes too.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"
_RED = "#C8102E"
_INK, _GREY, _PALE = "#222222", "#6F6F6F", "#EBEBEB"
_DPI = 150
_MAX_PIXELS = 768  # of a picture's longer side; more would only make the file larger


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of a gallery, and what is known of it.

    ``image`` is a float array (H, W), NaN where there is nothing to show, or None where the file is not at hand;
    ``time`` is ISO 8601 or datetime64, "" or NaT where unknown; ``distance`` is that from the query; ``wrong`` where
    the picture is not what was wanted, which `galleries` shows.
    """

    image: NDArray[Any] | None = None
    time: Any = ""
    label: str = ""
    distance: float | None = None
    wrong: bool = False


def gallery(
    query: Picture,
    hits: Sequence[Picture],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    field_limit: float = 250.0,
    columns: int = 6,
) -> None:
    """Draw a query and what was found for it, nearest first, as a grid of pictures.

    An image with values of both signs is taken for a magnetogram: grey from ``-field_limit`` to ``field_limit``
    (gauss), row 0 at the bottom as in FITS. Any other image is scaled from its 1st to its 99.5th percentile, or to its
    peak where most of it is empty, row 0 at the top. Raises ArgumentError for an image that has not two axes, and for
    a path with another suffix than .png, .pdf or .svg.
    """
    _check_suffix(path)
    if columns < 2:
        raise ArgumentError(f"columns: expected at least 2, got {columns}")
    pictures = [query, *hits]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    captions = [_caption(picture, query, rank) for rank, picture in enumerate(pictures)]
    # Inches: a picture's side, the room for the longest caption below it, the room for the title, the margin.
    side, head, margin = 1.9, 0.45 if title else 0.1, 0.1
    text = 0.32 + 0.14 * max(rest.count("\n") + bool(rest) for _, rest in captions)
    width, height = columns * side + 2 * margin, rows * (side + text) + head
    figure = _figure(width, height)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=margin / width,
        right=1 - margin / width,
        top=1 - head / height,
        bottom=text / height,
        wspace=0.08,
        hspace=text / side,
    )
    if title:
        figure.suptitle(title, x=0.5, fontsize=12, color=_INK)
    for rank, axes in enumerate(grid.flat):
        if rank < len(pictures):
            _draw_picture(axes, pictures[rank].image, field_limit, *captions[rank], _ORANGE if rank == 0 else None)
        else:
            axes.set_axis_off()
    _save(figure, path)


def galleries(
    rows: Sequence[Sequence[Picture]], path: str | os.PathLike[str], *, title: str = "", field_limit: float = 250.0
) -> None:
    """Draw several queries, each with what was found for it: a row is a query and its hits, nearest first.

    Pictures that are ``wrong`` are framed red. Images and errors are as in `gallery`; ArgumentError without a row too.
    """
    _check_suffix(path)
    if not rows or not all(rows):
        raise ArgumentError("rows: expected at least one, each with a query")
    columns, side, text, head = max(map(len, rows)), 1.35, 0.4, 0.5 if title else 0.1
    width, height = columns * side + 0.2, len(rows) * (side + text) + head
    figure = _figure(width, height)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    margins = {"left": 0.1 / width, "right": 1 - 0.1 / width, "top": 1 - head / height, "bottom": text / height}
    figure.subplots_adjust(**margins, wspace=0.08, hspace=text / side)
    figure.suptitle(title, fontsize=11, color=_INK)
    for row, line in zip(rows, grid, strict=True):
        for rank, axes in enumerate(line):
            if rank < len(row):
                frame = _BLUE if rank == 0 else _RED if row[rank].wrong else None
                _draw_picture(axes, row[rank].image, field_limit, *_caption(row[rank], row[0], rank), frame)
            else:
                axes.set_axis_off()
    _save(figure, path)


def precision_curve(
    curve: Any,
    chance: float,
    path: str | os.PathLike[str],
    *,
    interval: Any = None,
    ceiling: Any = None,
    si_mean: float | None = None,
    title: str = "Precision of retrieval",
) -> None:
    """Draw mean precision at k = 1, 2, … against k, between chance and the best there can be.

    ``curve`` (depth,), ``interval`` (2, depth) and ``ceiling`` (depth,) are `WindowReport.curve`, `.curve_ci95` and
    `.ceiling`; ``si_mean`` marks how many similar images a query has on average. Raises ArgumentError for shapes that
    do not fit, and for a path with another suffix than .png, .pdf or .svg.
    """
    _check_suffix(path)
    figure, (axes,) = _charts(title)
    _draw_curve(axes, curve, chance, interval, ceiling, si_mean)
    _save(figure, path)


def precision_by_window(
    window_hours: Any,
    precision: Any,
    chance: Any,
    path: str | os.PathLike[str],
    *,
    interval: Any = None,
    title: str = "Precision against the window",
) -> None:
    """Draw mean precision against the width of the window within which frames are called similar, beside chance.

    ``window_hours``, ``precision`` and ``chance`` (n,) and ``interval`` (2, n) are those of some `WindowReport`: see
    `evaluate_windows`. Raises ArgumentError for shapes that do not fit, and for a path with another suffix than .png,
    .pdf or .svg.
    """
    _check_suffix(path)
    figure, (axes,) = _charts(title)
    _draw_windows(axes, window_hours, precision, chance, interval)
    _save(figure, path)


def percentile_sweep(
    percentiles: Any,
    curves: Mapping[str, Any],
    chance: float,
    path: str | os.PathLike[str],
    *,
    own: float | None = None,
    title: str = "Mean average precision against the percentile",
) -> None:
    """Draw mean average precision against the percentile of each image's values at which its bits are cut.

    ``curves``: by name, one value for each of ``percentiles`` (n,); at most three. ``own`` marks what the encoder's own
    thresholds give the first of them. Raises ArgumentError for shapes that do not fit, and for a path with another
    suffix than .png, .pdf or .svg.
    """
    _check_suffix(path)
    figure, (axes,) = _charts(title)
    if own is not None:
        axes.axhline(own, color=_BLUE, linewidth=1, linestyle=":", label=f"thresholds of its own ({own:.3f})")
    _draw_scores(axes, "percentiles", percentiles, curves, chance)
    _label(axes, "percentile of an image's values", "mean average precision")
    _save(figure, path)


def code_length_study(
    bits: Any,
    curves: Mapping[str, Any],
    chance: float,
    path: str | os.PathLike[str],
    *,
    title: str = "Mean average precision against the length of the code",
) -> None:
    """Draw mean average precision against the bits of a code, for encoders of several lengths; several may have one.

    Arguments and errors are those of `percentile_sweep`, ``bits`` (n,) in place of the percentiles, in any order.
    """
    _check_suffix(path)
    figure, (axes,) = _charts(title)
    _draw_scores(axes, "bits", bits, curves, chance, marker="o")
    axes.set_xscale("log", base=2)
    axes.set_xticks(np.unique(bits), [f"{value:g}" for value in np.unique(bits)], minor=False)
    _label(axes, "bits of a code", "mean average precision")
    _save(figure, path)


def training_curves(
    training: Mapping[str, Any], path: str | os.PathLike[str], *, title: str = "How the training went"
) -> None:
    """Draw the loss of a training against the epoch, and beside it what its judgements by images kept out say.

    ``training``: what an encoder's metadata have under that name, "losses" (n_epochs,) and, where there was early
    stopping, "judgements" of equally long "epoch", "map" and "accuracy", "kept_epoch", and "held_out" with "chance",
    or None. Raises ArgumentError where it has no losses or shapes do not fit, and for a path with another suffix than
    .png, .pdf or .svg.
    """
    _check_suffix(path)
    losses, judged = np.asarray(training.get("losses") or [], float), training.get("judgements") or {}
    if losses.ndim != 1 or not len(losses):
        raise ArgumentError(f"training: expected losses (n_epochs,), got {losses.shape}")
    figure, (axes, *more) = _charts(title, *["Images kept out"] * bool(judged.get("epoch")))
    axes.plot(np.arange(1, len(losses) + 1), losses, color=_BLUE, linewidth=2, label="loss")
    axes.set_ylim(bottom=0)
    _label(axes, "epoch", "mean loss")
    for axes in more:
        curves = {"mAP of valid": judged["map"], "accuracy of the reference": judged["accuracy"]}
        _draw_scores(axes, "epoch", judged["epoch"], curves, (training.get("held_out") or {}).get("chance"))
        axes.axvline(training["kept_epoch"], color=_GREY, linewidth=1, linestyle=":", label="weights kept")
        _label(axes, "epoch", "mAP, or share of the images", in_corner=True)
    _save(figure, path)


def comparison(
    names: Sequence[str],
    scores: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    chance: float,
    interval: Any = None,
    published: Sequence[float | None] | None = None,
    title: str = "",
) -> None:
    """Draw how well several representations retrieve, one line each, in the order given, from the top down.

    ``scores``: by name, one value for each of ``names`` (n,); at most three. ``interval`` (n, 2) belongs to the first
    of them, and so does ``chance``. ``published``: figures from the literature, on data of its own; None where there
    is none. Raises ArgumentError for shapes that do not fit, and for a path with another suffix than .png, .pdf or
    .svg.
    """
    _check_suffix(path)
    if not names or not scores:
        raise ArgumentError("names, scores: expected at least one of each")
    place = np.arange(len(names))[::-1]
    figure = _figure(8.4, 1.3 + 0.3 * len(names))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    if interval is not None:
        low, high = np.asarray(_as_shape("interval", interval, (len(names), 2))).T
        axes.hlines(place, low, high, color=_BLUE, linewidth=5, alpha=0.3)
    for (text, values), colour, marker in zip(scores.items(), (_BLUE, _GREEN, _GREY), "osD", strict=False):
        along = np.asarray(_as_shape(f"scores[{text!r}]", values, place.shape))
        axes.plot(along, place, marker, color=colour, label=text)
    if published is not None:
        theirs = _as_shape("published", [np.nan if value is None else value for value in published], place.shape)
        axes.plot(np.asarray(theirs), place, "D", color=_INK, markerfacecolor="none", label="published, other data")
    axes.axvline(chance, color=_ORANGE, linewidth=1.5, linestyle=_DASHED, label=f"chance ({chance:.3f})")
    axes.set_yticks(place, names)
    axes.set_xlim(0, 1)
    _style(axes)
    axes.grid(axis="x", color=_PALE, linewidth=0.8)
    axes.set_xlabel(next(iter(scores)), fontsize=10, color=_INK)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=_INK)
    figure.legend(loc="outside lower right", ncols=4, fontsize=9, labelcolor=_INK, frameon=False)
    _save(figure, path)


def distance_against_time(
    hours: Any,
    distances: Any,
    path: str | os.PathLike[str],
    *,
    window_hours: float | None = 48.0,
    metric: str = "l2",
    title: str = "Distance of hashes against time between frames",
) -> None:
    """Draw the distance of pairs of frames against the time between them, with the median of each stretch of time.

    ``hours`` and ``distances``, both (n,), are any pairs: one query against its archive, or many. Time is shown with
    its sign, in days where it spans more than four; the window within which frames are called similar is shaded.
    Raises ArgumentError for shapes that do not fit, and for a path with another suffix than .png, .pdf or .svg.
    """
    _check_suffix(path)
    figure, (axes,) = _charts(title)
    _draw_distances(axes, hours, distances, window_hours, metric)
    _save(figure, path)


def evaluation_sheet(
    report: "WindowReport",
    by_window: "Sequence[WindowReport]",
    hours: Any,
    distances: Any,
    path: str | os.PathLike[str],
    *,
    title: str = "",
) -> None:
    """Draw three charts side by side: `precision_curve`, `precision_by_window` and `distance_against_time`.

    ``report`` is that of `evaluate_window`, ``by_window`` those of `evaluate_windows`, ``hours`` and ``distances`` (n,)
    those of `distances_in_time`. Raises ArgumentError for a path with another suffix than .png, .pdf or .svg.
    """
    _check_suffix(path)
    headings = ("Precision against the number retrieved", "Precision against the window", "Distance against time")
    figure, (curve, windows, pairs) = _charts(*headings)
    if title:
        figure.suptitle(title, fontsize=13, color=_INK)
    _draw_curve(curve, report.curve, report.chance, report.curve_ci95, report.ceiling, report.si_mean)
    columns = np.array([[r.window_hours, r.precision, r.chance, *r.ci95] for r in by_window]).T.reshape(5, -1)
    _draw_windows(windows, columns[0], columns[1], columns[2], columns[3:], report.window_hours)
    _draw_distances(pairs, hours, distances, report.window_hours, report.metric)
    _save(figure, path)


def _draw_curve(axes: "Axes", curve: Any, chance: float, interval: Any, ceiling: Any, si_mean: float | None) -> None:
    curve = np.asarray(curve, float)
    if curve.ndim != 1 or len(curve) == 0:
        raise ArgumentError(f"curve: expected shape (depth,), got {curve.shape}")
    interval = _as_shape("interval", interval, (2, len(curve)))
    ceiling = _as_shape("ceiling", ceiling, curve.shape)
    k = np.arange(1, len(curve) + 1)
    _draw_precision(axes, k, curve, interval)
    if ceiling is not None:
        axes.plot(k, ceiling, color=_GREEN, linewidth=1.5, linestyle="-.", label="best possible")
    axes.axhline(chance, color=_ORANGE, linewidth=1.5, linestyle=_DASHED, label=f"chance ({chance:.3f})")
    if si_mean is not None and si_mean <= len(curve):
        axes.axvline(si_mean, color=_GREY, linewidth=1, linestyle=":", label=f"similar images a query ({si_mean:.1f})")
    axes.set_xlim(1, max(2, len(curve)))
    _label(axes, "retrieved images k", "mean precision at k")


def _draw_windows(
    axes: "Axes", window_hours: Any, precision: Any, chance: Any, interval: Any, marked: float | None = None
) -> None:
    hours = np.asarray(window_hours, float)
    if hours.ndim != 1 or len(hours) == 0:
        raise ArgumentError(f"window_hours: expected shape (n,), got {hours.shape}")
    precision, chance = _as_shape("precision", precision, hours.shape), _as_shape("chance", chance, hours.shape)
    _draw_precision(axes, hours, precision, _as_shape("interval", interval, (2, len(hours))), marker="o")
    axes.plot(hours, chance, color=_ORANGE, linewidth=1.5, linestyle=_DASHED, marker="o", markersize=3, label="chance")
    if marked is not None:
        axes.axvline(marked, color=_GREY, linewidth=1, linestyle=":", label=f"window of {marked:g} h")
    axes.set_xticks(hours, [f"{value:g}" for value in hours])
    axes.set_xlim(0, 1.04 * hours.max())
    _label(axes, "width of the window (hours)", "mean precision, k = similar images")


def _draw_precision(axes: "Axes", x: Any, precision: Any, interval: Any, marker: str = "") -> None:
    if interval is not None:
        axes.fill_between(x, *interval, color=_BLUE, alpha=0.18, linewidth=0, label="95 % interval")
    marker = marker or ("o" if len(x) == 1 else "")
    axes.plot(x, precision, color=_BLUE, linewidth=2, marker=marker, markersize=5, label="this encoder")
    axes.set_ylim(0, 1.02)


def _draw_scores(
    axes: "Axes", name: str, x: Any, curves: Mapping[str, Any], chance: float | None, marker: str = ""
) -> None:
    """Curves through the mean of the values at each x, and the values themselves where ``marker`` says how."""
    x = np.asarray(x, float)
    if x.ndim != 1 or len(x) == 0:
        raise ArgumentError(f"{name}: expected shape (n,), got {x.shape}")
    places, at = np.unique(x, return_inverse=True)
    for (text, values), colour in zip(curves.items(), (_BLUE, _GREEN, _GREY), strict=False):
        heights = np.asarray(_as_shape(f"curves[{text!r}]", values, x.shape))
        means = np.bincount(at, heights) / np.bincount(at)
        axes.plot(places, means, color=colour, linewidth=2, label=text, marker="o" if len(places) == 1 else "")
        if marker:
            axes.plot(x, heights, marker, color=colour, markersize=4)
    if chance is not None:
        axes.axhline(chance, color=_ORANGE, linewidth=1.5, linestyle=_DASHED, label=f"chance ({chance:.3f})")
    axes.set_ylim(0, 1.02)


def _draw_distances(axes: "Axes", hours: Any, distances: Any, window_hours: float | None, metric: str) -> None:
    hours, distances = np.asarray(hours, float), np.asarray(distances, float)
    if hours.ndim != 1 or hours.shape != distances.shape or len(hours) == 0:
        raise ArgumentError(f"hours, distances: expected the same shape (n,), got {hours.shape} and {distances.shape}")
    unit, scale = ("days", 24.0) if np.ptp(hours) > 96 else ("hours", 1.0)
    if window_hours is not None:
        half = window_hours / 2
        axes.axvspan(-half / scale, half / scale, color=_GREEN, alpha=0.13, linewidth=0, label=f"within {half:g} h")
    axes.plot(hours / scale, distances, ".", color=_BLUE, markersize=3, alpha=_alpha(len(hours)), rasterized=True)
    axes.plot([], [], ".", color=_BLUE, label="pair of frames")  # the legend's, not as pale
    axes.plot(*_running_median(hours / scale, distances), color=_ORANGE, linewidth=2, label="median")
    margin = 0.02 * (np.ptp(hours) or 1) / scale
    axes.set_xlim(hours.min() / scale - margin, hours.max() / scale + margin)
    axes.set_ylim(bottom=0)
    _label(axes, f"time between frames ({unit})", f"{_METRIC_NAMES.get(metric, metric)} of hashes", in_corner=True)


def field_comparison(
    pictures: Sequence[Picture],
    samples: Sequence[NDArray[Any]],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    note: str = "",
    field_limit: float = 150.0,
) -> None:
    """Draw a real and a simulated magnetogram, and the histograms of two ``samples`` of their field strengths (gauss).

    The first line of a picture's label is its name, also in the legend. Field beyond 1000 G counts in the last bins.
    Raises ArgumentError for images that have not two axes, and for a path with another suffix than .png, .pdf or .svg.
    """
    _check_suffix(path)
    figure = _figure(12.4, 4.7)
    figure.subplots_adjust(left=0.008, right=0.985, top=0.87, bottom=0.13, wspace=0.03)
    *disks, axes = figure.subplots(1, 3, gridspec_kw={"width_ratios": [1, 1, 1.22]})
    edges = np.linspace(-1000, 1000, 81)
    for disk, picture, field, colour in zip(disks, pictures, samples, (_INK, _ORANGE), strict=True):
        name, _, rest = picture.label.partition("\n")
        _draw_picture(disk, picture.image, field_limit, name, rest)
        shares = np.histogram(np.clip(field, -1000, 1000), edges)[0] / max(1, len(field))
        axes.stairs(np.where(shares > 0, shares, np.nan), edges, color=colour, linewidth=1.6, label=name)
    axes.set_yscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xticks([-1000, -500, 0, 500, 1000])
    axes.set_xlabel("line-of-sight field (G)", fontsize=10, color=_INK)
    axes.set_title("share of pixels in 25 G", fontsize=10, color=_INK, loc="left")
    _style(axes)
    axes.legend(frameon=False, fontsize=10, labelcolor=_INK)
    position = axes.get_position()
    axes.set_position((position.x0 + 0.05, position.y0, position.width - 0.05, position.height))
    figure.suptitle(title, x=0.012, y=0.965, ha="left", fontsize=12, color=_INK)
    figure.text(0.985, 0.945, note, ha="right", fontsize=10, color=_GREY)
    _save(figure, path)


def magnetic_regions(
    field: Any,
    labels: Any,
    path: str | os.PathLike[str],
    *,
    cell: int,
    disk: tuple[float, float, float],
    rotation: float = 0.0,
    title: str = "",
    field_limit: float = 300.0,
) -> None:
    """Draw a magnetogram with its regions outlined and numbered: solar north up, positive field red, negative blue.

    ``field`` (H, W): gauss, row 0 at the bottom as in FITS, NaN where there is none; colours saturate at
    ``field_limit``. ``labels``: integers (h, w), 0 or the number of the region that a square of ``cell`` x ``cell``
    pixels belongs to. ``disk``: centre (zero-based pixel, x then y) and radius; ``rotation``: degrees by which the Sun
    is to be turned counter-clockwise for north to be up (CROTA2).
    Raises ArgumentError for shapes that do not fit, and for a path with another suffix than .png, .pdf or .svg.
    """
    from matplotlib.transforms import Affine2D

    _check_suffix(path)
    field, labels = np.asarray(field, np.float32), np.asarray(labels)
    if field.ndim != 2 or labels.ndim != 2 or 0 in field.shape or 0 in labels.shape or labels.dtype.kind not in "iu":
        shapes = f"{field.shape} and {labels.dtype} {labels.shape}"
        raise ArgumentError(f"field, labels: expected shapes (H, W) and integers (h, w), got {shapes}")
    x, y, radius = disk
    upright = Affine2D().translate(-x, -y).rotate_deg(rotation).scale(1 / radius)  # the disk becomes the unit circle
    figure, axes = _chart_of_disk(title)
    shown = _draw_field(axes, field, upright, field_limit)
    for number in np.unique(labels[labels > 0]):
        _outline(axes, labels == number, upright, cell, str(number))
    bar = figure.colorbar(shown, cax=axes.inset_axes((0.35, -0.025, 0.3, 0.014)), orientation="horizontal")
    bar.outline.set_visible(False)
    bar.set_ticks([-field_limit, 0, field_limit])
    bar.ax.tick_params(labelsize=8, colors=_GREY, length=0)
    bar.ax.set_xlabel("line-of-sight field (G)", fontsize=8, color=_GREY)
    _save(figure, path)


def _chart_of_disk(title: str) -> "tuple[Figure, Axes]":
    figure = _figure(7.2, 7.8)
    axes = figure.add_axes((0.03, 0.08, 0.94, 0.91))
    axes.set_axis_off()
    axes.text(-1.04, 1.14, title, fontsize=12, color=_INK, va="center")
    for x, y, letter in ((0, 1.03, "N"), (-1.03, 0, "E"), (1.03, 0, "W")):
        axes.text(x, y, letter, fontsize=9, color=_GREY, ha="center", va="center")
    return figure, axes


def _draw_field(axes: "Axes", field: NDArray[np.float32], upright: Any, limit: float) -> Any:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Circle

    colours = LinearSegmentedColormap.from_list("field", ["#053061", "#3B82C4", "#F4F4F4", "#D6453B", "#67001F"])
    small = _shrink(field)
    factor = field.shape[1] // small.shape[1]
    extent = (-0.5, small.shape[1] * factor - 0.5, -0.5, small.shape[0] * factor - 0.5)
    place = upright + axes.transData
    shown = axes.imshow(small, cmap=colours, vmin=-limit, vmax=limit, origin="lower", extent=extent, transform=place)
    axes.set(xlim=(-1.06, 1.06), ylim=(-1.03, 1.19), aspect="equal")  # imshow sets others
    limb = axes.add_patch(Circle((0, 0), 1, facecolor="none", edgecolor="#9A9A9A", linewidth=1))
    shown.set_clip_path(limb)
    return shown


def _outline(axes: "Axes", inside: NDArray[np.bool_], upright: Any, cell: int, text: str) -> None:
    """A line around a region, a little outside of its cells, and its number above."""
    from matplotlib.patheffects import withStroke
    from scipy.ndimage import gaussian_filter

    rows, columns = np.nonzero(inside)
    margin = 4  # cells, beyond which the blurred region has faded
    part = inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    blurred = gaussian_filter(np.pad(part.astype(float), margin), 1.0)
    row, column = np.indices(blurred.shape)
    pixel = ((place + 0.5) * cell - 0.5 for place in (column + columns.min() - margin, row + rows.min() - margin))
    x, y = upright.transform(np.stack([*pixel], axis=-1).reshape(-1, 2)).T.reshape(2, *blurred.shape)
    axes.contour(x, y, blurred, [0.12], colors=_INK, linewidths=0.9)
    top = np.argmax(np.where(blurred >= 0.12, y, -np.inf))
    halo = [withStroke(linewidth=2.5, foreground="white")]
    style: dict[str, Any] = {"fontsize": 9, "fontweight": "bold", "color": _INK, "path_effects": halo}
    axes.text(x.flat[top], y.flat[top] + 0.008, text, ha="center", va="bottom", **style)


_DASHED = (0, (5, 3))
_METRIC_NAMES = {"l2": "Euclidean distance", "cosine": "cosine distance", "hamming": "Hamming distance (bits)"}


def _draw_picture(
    axes: "Axes", image: NDArray[Any] | None, field_limit: float, heading: str, rest: str, frame: str | None = None
) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor(_PALE)
    for spine in axes.spines.values():
        spine.set(color=frame or "#CCCCCC", linewidth=3 if frame else 0.8)
    if image is None:
        axes.set_box_aspect(1)
        axes.text(0.5, 0.5, "no picture", ha="center", va="center", color=_GREY, fontsize=9, transform=axes.transAxes)
    else:
        _show(axes, image, field_limit)
    _write_below(axes, heading, 5, fontsize=9, fontweight="bold", color=frame or _INK)
    _write_below(axes, rest, 17, fontsize=8, linespacing=1.3, color=_GREY)


def _write_below(axes: "Axes", text: str, points: float, **style: Any) -> None:
    middle, offset = (0.5, 0.0), (0.0, -points)
    axes.annotate(text, middle, offset, "axes fraction", "offset points", ha="center", va="top", **style)


def _caption(picture: Picture, query: Picture, rank: int) -> tuple[str, str]:
    """What stands under a picture: rank and distance, then its time, and how far that is from the query's."""
    heading = "query" if rank == 0 else f"{rank}"
    if rank and picture.distance is not None:
        heading += "  ·  d = " + _number(picture.distance)
    time, query_time = _as_time(picture.time), _as_time(query.time)
    lines = [] if np.isnat(time) else [str(time.astype("datetime64[m]")).replace("T", " ")]
    extra = [picture.label] if picture.label else []
    if rank and not np.isnat(time) and not np.isnat(query_time):
        extra.insert(0, _offset((time - query_time) / np.timedelta64(1, "h")))
    return heading, "\n".join(lines + ["  ·  ".join(extra)] * bool(extra))


def _as_time(value: Any) -> np.datetime64:
    if isinstance(value, np.datetime64):
        return value
    return parse_time("time", value) if value else NAT


def _number(distance: float) -> str:
    return str(distance) if isinstance(distance, (int, np.integer)) else f"{distance:#.4g}"


def _offset(hours: float) -> str:
    sign = "\N{MINUS SIGN}" if hours < 0 else "+"
    return f"{sign}{abs(hours):.1f} h" if abs(hours) < 96 else f"{sign}{abs(hours) / 24:.1f} d"


def _show(axes: "Axes", image: NDArray[Any], field_limit: float) -> None:
    pixels = np.asarray(image, np.float32)
    if pixels.ndim != 2 or pixels.size == 0:
        raise ArgumentError(f"image: expected shape (H, W), got {pixels.shape}")
    pixels = _shrink(pixels)
    finite = pixels[np.isfinite(pixels)]
    signed = finite.size > 0 and finite.min() < 0 < finite.max()
    if signed:
        low, high = -field_limit, field_limit
    else:
        low, high = np.percentile(finite, [1, 99.5]) if finite.size else (0, 1)
        if finite.size and np.median(finite) == finite.min():  # a source on nothing: the peak is no outlier
            high = finite.max()
    pixels = np.where(np.isfinite(pixels), pixels, np.nan)
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, origin="lower" if signed else "upper", aspect="equal")


def _shrink(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average blocks of pixels, NaN being nothing, until the longer side is at most _MAX_PIXELS."""
    factor = -(-max(pixels.shape) // _MAX_PIXELS)
    height, width = (max(1, size // factor) for size in pixels.shape)
    if factor == 1 or min(pixels.shape) < factor:
        return pixels
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor)
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0).sum(axis=(1, 3))
    return np.where(2 * count >= factor**2, total / np.maximum(count, 1), np.nan).astype(np.float32)


def _as_shape(name: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64] | None:
    if value is None:
        return None
    array = np.asarray(value, float)
    if array.shape != shape:
        raise ArgumentError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def _alpha(n: int) -> float:
    return float(np.clip(300 / n, 0.08, 0.6))


def _running_median(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Medians of x and y in up to 120 stretches of equal length; empty ones are left out."""
    edges = np.linspace(x.min(), x.max(), min(120, max(1, len(x) // 10)) + 1)
    stretch = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    filled = np.unique(stretch)
    return (
        np.array([np.median(x[stretch == s]) for s in filled]),
        np.array([np.median(y[stretch == s]) for s in filled]),
    )


def _charts(*titles: str) -> "tuple[Figure, NDArray[Any]]":
    """A figure with one empty chart for each title, side by side."""
    figure = _figure(6.4 if len(titles) == 1 else 5.4 * len(titles), 4.0)
    figure.set_layout_engine("constrained")
    grid = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, title in zip(grid, titles, strict=True):
        axes.set_title(title, fontsize=12, color=_INK, loc="left", pad=10)
        _style(axes)
    return figure, grid


def _style(axes: "Axes") -> None:
    axes.tick_params(labelsize=9, colors=_GREY)
    axes.grid(axis="y", color=_PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")


def _label(axes: "Axes", x: str, y: str, in_corner: bool = False) -> None:
    axes.set_xlabel(x, fontsize=10, color=_INK)
    axes.set_ylabel(y, fontsize=10, color=_INK)
    legend = axes.legend(fontsize=9, labelcolor=_INK, loc="lower right" if in_corner else "best", framealpha=0.85)
    legend.get_frame().set_linewidth(0)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _check_suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ArgumentError(f"path: expected a name that ends in {', '.join(SUFFIXES)}, got {os.fspath(path)}")
    return suffix


def _save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    suffix = _check_suffix(path)
    with atomic_write(path) as file:
        figure.savefig(file, format=suffix[1:], dpi=_DPI)
