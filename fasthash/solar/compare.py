"""How much the simulator's field is like the Sun's: one real magnetogram beside the simulated one of its date.

The real frame is averaged down to the simulated one's pixels, which are rendered for its position angle. Then the field
strengths within 0.95 of the disk's radius are compared: at the limb itself, foreshortening is stronger than any model.

    python -m fasthash.solar.compare REAL.fits -o picture.png --active-regions TABLE
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import check_int
from fasthash.errors import FastHashError, ReadError
from fasthash.io import read_image
from fasthash.solar.active_regions import read_active_regions, statistical_regions
from fasthash.solar.ephemeris import observer, to_days
from fasthash.solar.field_map import field_map
from fasthash.solar.frame_file import FIELD_OF_VIEW
from fasthash.solar.magnetogram import disk_from_header, mask_sky
from fasthash.solar.simulator import render
from fasthash.times import format_time

QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.99, 0.999)
_INSIDE = 0.95  # of the disk's radius
# Gauss; 79 bins between, even in the inverse hyperbolic sine: of 0.3 G in the quiet core, wider with the field.
_EDGES = 2.0 * np.sinh(np.linspace(-6.5, 6.5, 80))


@dataclass(frozen=True)
class Comparison:
    """Two frames of one date, float32 (size, size), gauss, NaN off the disk, and which pixels are compared.

    ``rotation``: CROTA2 of both. ``time``: UTC.
    """

    real: NDArray[np.float32]
    simulated: NDArray[np.float32]
    compared: NDArray[np.bool_]
    rotation: float
    time: datetime

    def distance(self) -> float:
        """Total variation: the share of pixels that would have to change their bin to make both histograms one."""
        real, simulated = (self._shares(image) for image in (self.real, self.simulated))
        return float(0.5 * np.abs(real - simulated).sum())

    def _shares(self, image: NDArray[np.float32]) -> NDArray[np.float64]:
        field = np.clip(image[self.compared], _EDGES[0], _EDGES[-1])
        return np.histogram(field, _EDGES)[0] / len(field)

    def to_dict(self) -> dict[str, Any]:
        """Date, distance, and for both frames the mean and the quantiles of the unsigned field, in gauss."""
        report: dict[str, Any] = {"time": f"{self.time.isoformat(timespec='seconds')}Z", "size": len(self.real)}
        report["distance"] = round(self.distance(), 4)
        for name, image in (("real", self.real), ("simulated", self.simulated)):
            strength = np.abs(image[self.compared]).astype(np.float64)
            levels = [float(f"{value:.3g}") for value in np.quantile(strength, QUANTILES)]
            report[name] = {"mean": float(f"{strength.mean():.3g}"), "quantiles": levels}
        return report | {"quantiles": list(QUANTILES)}


def compare(
    path: str | os.PathLike[str],
    active_regions: str | os.PathLike[str] | None = None,
    size: int = 256,
    seed: int = 0,
) -> Comparison:
    """Simulate the date of a real magnetogram at ``size`` pixels a side and average the real one down to that.

    ``active_regions``: the table that drives the simulation (`read_active_regions`); None draws regions, which then are
    those of the season, not of the day. Raises ReadError for a file without disk or time, ArgumentError.
    """
    image = read_image(path)
    check_int("size", size, 16, min(image.pixels.shape))
    disk = disk_from_header(image.header)
    if disk is None or np.isnat(image.time):
        raise ReadError(f"{path}: its header does not tell {'the time' if disk else 'where the solar disk lies'}")
    when: datetime = image.time.astype("datetime64[ms]").astype(datetime)
    regions = read_active_regions(active_regions, seed) if active_regions else statistical_regions(when, 1, seed)
    rotation = (disk.rotation + 180) % 360 - 180
    simulated = render(regions, when, size, seed, rotation=rotation)
    radius = observer(to_days(when)).angular_radius / FIELD_OF_VIEW  # in image sides
    # The averages of `field_map` belong to a square around the disk: here to the whole image, as it is turned.
    square = replace(disk, radius=disk.radius / (2 * radius), rotation=0.0)
    pixels = mask_sky(image.pixels, disk)
    if not np.isfinite(pixels).any():
        raise ReadError(f"{path}: no valid pixel on the solar disk")
    real = field_map(pixels, square, size)
    real[np.isnan(simulated)] = np.nan
    offset2 = (((np.arange(size) - (size - 1) / 2) / size) ** 2)[:, None]
    return Comparison(real, simulated, offset2 + offset2.T < (_INSIDE * radius) ** 2, rotation, when)


def draw(comparison: Comparison, path: str | os.PathLike[str], source: str) -> None:
    """Draw both frames, north up, and their histograms as one picture; ``source`` says what drove the simulation."""
    from fasthash import plots

    quarters = -round(comparison.rotation / 90)
    pictures, samples = [], []
    report = comparison.to_dict()
    for name, image in (("real", comparison.real), ("simulated", comparison.simulated)):
        about = report[name]
        median, most = about["quantiles"][1], about["quantiles"][-2]
        text = f"mean |B| {about['mean']:.1f} G, median {median:.1f} G, 99 % below {most:.0f} G"
        pictures.append(plots.Picture(np.rot90(image, quarters), label=f"{name}\n{text}"))
        samples.append(image[comparison.compared])
    size = len(comparison.real)
    title = f"{format_time(np.datetime64(comparison.time, 'm'))[:16].replace('T', ' ')} UTC, {size} x {size} pixels"
    note = f"histograms differ by {report['distance']:.3f} · {source}"
    plots.field_comparison(pictures, samples, path, title=title, note=note)


def _table(report: dict[str, Any]) -> str:
    """For people: distance, means and quantiles."""
    lines = [f"{report['time']}, {report['size']} px: histograms differ by {report['distance']:.3f} of their pixels"]
    lines.append("|B| (G)       mean" + "".join(f"{f'{100 * q:g} %':>9}" for q in report["quantiles"]))
    for name in ("real", "simulated"):
        about = report[name]
        lines.append(f"{name:<10}{about['mean']:>8.2f}" + "".join(f"{value:>9.2f}" for value in about["quantiles"]))
    return "\n".join(lines)


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m fasthash.solar.compare",
        description="Draw a real magnetogram beside the simulated one of its date, and say how far they differ.",
        epilog="example: python -m fasthash.solar.compare hmi.fits -o compare.png --active-regions g2011.txt",
    )
    parser.add_argument("real", metavar="REAL.fits", help="full-disk magnetogram with the cards of its disk and time")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.png", help="picture to write")
    parser.add_argument("--active-regions", metavar="FILE", help="table of real active regions (default: at random)")
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="pixels a side of both (default: 256)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random field (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    try:
        found = compare(args.real, args.active_regions, args.size, args.seed)
        table = os.path.basename(args.active_regions or "")
        draw(found, args.output, f"regions of {table}" if table else "regions at random")
    except FastHashError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(found.to_dict()) if args.json else _table(found.to_dict()))


if __name__ == "__main__":
    main()
