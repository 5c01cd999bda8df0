"""The solar comparison: our encoders, the papers' baselines and plain representations, by the window protocol."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash.baselines import itq, pca, random_projection
from fasthash.encoder import Encoder
from fasthash.errors import FastHashError
from fasthash.evaluation import evaluate_window
from fasthash.io import DEFAULT_LIMITS, Image, Limits, read_image
from fasthash.reproduce import Describe, Hash, Method, Published, Row, codes_of, compare, describe_all, hashes_of
from fasthash.solar import baselines
from fasthash.solar.simulator import simulate
from fasthash.times import format_time

# Three and a bit solar rotations near the maximum of cycle 24, with a seed that no shipped encoder was trained on.
START, DAYS, CADENCE_MINUTES, SIZE, SEED = "2014-03-01", 90, 120, 256, 2026
WINDOW, EXCLUDED = "48h", "6h"
COMPONENTS, N_BITS = 50, 64

PAPER = "Grycuk and Scherer, table of methods; real SDO/HMI"
_Progress = Callable[[int, int], None]


def reproduce_solar(
    frames: Sequence[str] | None,
    encoders: Sequence[Encoder],
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[str], _Progress] = lambda _: lambda *_: None,
) -> tuple[dict[str, Any], list[Row]]:
    """Compare representations on the frames of these paths; where there is None, on a simulated series.

    ``progress``: from what is being done to a function of (done, total). Returns a report for JSON and the rows.
    Raises FastHashError where fewer than two frames can be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = frames or []
        if frames is None:
            series = folder, START, DAYS, CADENCE_MINUTES, SIZE
            paths = [str(path) for path in simulate(*series, seed=SEED, progress=progress("simulated"))]
        show = progress("described")
        told = describe_all(
            {**DESCRIPTORS, **{e.name: e.front_end.describe for e in encoders}},
            _read(paths, limits),
            lambda done: show(done, len(paths)),
        )
    times = np.array([image.time for image in told.images])
    reports: dict[str, Any] = {}

    def judge(hashes: NDArray[Any], metric: str) -> dict[str, Any]:
        reports.update((span, evaluate_window(hashes, times, WINDOW, span, metric)) for span in ("0h", EXCLUDED))
        whole, apart = reports["0h"], reports[EXCLUDED]
        scores = {"precision": whole.precision, "ci95": list(whole.ci95)}
        return scores | {"precision_6h": apart.precision, "ci95_6h": list(apart.ci95)}

    rows = compare([*_ours(encoders), *METHODS], told, slice(None), judge, progress("compared"))
    if not reports:
        raise FastHashError("; ".join(row.skipped for row in rows))
    whole, apart = reports["0h"], reports[EXCLUDED]
    return {
        "data": _describe_data(told.images),
        "protocol": "48-h window (24 h either side), k = number of similar images, the query itself never counts; "
        "_6h: nor does anything within 6 h of it",
        "n_images": len(told.images),
        "n_queries": whole.n_queries,
        "si_mean": whole.si_mean,
        "chance": whole.chance,
        "chance_6h": apart.chance,
        "left_out": told.problems,
    }, rows


def _read(paths: Sequence[str], limits: Limits) -> Iterator[Image | str]:
    for path in paths:
        try:
            image = read_image(path, limits)
        except FastHashError as error:
            yield str(error)
            continue
        yield f"{path}: its time is unknown" if np.isnat(image.time) else image


def _describe_data(images: Sequence[Image]) -> str:
    simulated = sum(bool(image.header.get("SIMULATE")) for image in images)
    first, last = (format_time(f(image.time for image in images))[:16] for f in (min, max))
    made = {0: "", len(images): "SIMULATED by fasthash, "}.get(simulated, f"{simulated} of them SIMULATED, ")
    return f"{made}{len(images)} frames from {first} to {last}"


# ---- what is compared ----------------------------------------------------------------------------------------------

DESCRIPTORS: dict[str, Describe] = {
    "MFGDV": baselines.histogram,
    "ten parameters": baselines.grid_parameters,
    "regions": baselines.region_signatures,
    "grid hash": baselines.grid_hash,
    "thumbnail": baselines.thumbnail,
    "pixels": lambda image: baselines.thumbnail(image, 64),
}


def _ours(encoders: Sequence[Encoder]) -> Iterator[Method]:
    for encoder in encoders:
        paper = Published(0.930, PAPER) if encoder.name == "solar-paper" else None
        yield hashes_of(encoder, paper)
        yield codes_of(encoder)


def _as_they_are(_: NDArray[np.float32]) -> Hash:
    return lambda rows: rows


def _of_unit_variance(archive: NDArray[np.float32]) -> Hash:
    mean, spread = archive.mean(axis=0), archive.std(axis=0)
    return lambda rows: ((rows - mean) / np.where(spread > 0, spread, 1)).astype(np.float32)


def _principal(archive: NDArray[np.float32]) -> Hash:
    return pca(archive, COMPONENTS).transform


def _of_roots(fit: Callable[[NDArray[np.float32]], Hash]) -> Callable[[NDArray[np.float32]], Hash]:
    def fitted(archive: NDArray[np.float32]) -> Hash:
        to_hash = fit(np.sqrt(archive))
        return lambda rows: to_hash(np.sqrt(rows))

    return fitted


METHODS = (
    Method("MFGDV", "MFGDV", _as_they_are),
    Method("MFGDV roots", "MFGDV", lambda _: np.sqrt),
    Method("PCA-50 of MFGDV roots", "MFGDV", _of_roots(_principal)),
    Method("LSH of MFGDV roots", "MFGDV", _of_roots(lambda a: random_projection(a, N_BITS).binarize), N_BITS),
    Method("ITQ of MFGDV roots", "MFGDV", _of_roots(lambda a: itq(a, N_BITS).binarize), N_BITS),
    Method(
        "ten parameters", "ten parameters", _of_unit_variance, published=Published(0.850, f"Angryk et al.; {PAPER}")
    ),
    Method(
        "regions, bag of words",
        "regions",
        baselines.region_words,
        published=Published(0.848, f"Banda and Angryk; {PAPER}"),
    ),
    Method("grid-based concise hash", "grid hash", _as_they_are, metric="cosine"),
    Method("thumbnail, 8 x 8", "thumbnail", _as_they_are),
    Method("PCA-50 of pixels, 64 x 64", "pixels", _principal),
)
