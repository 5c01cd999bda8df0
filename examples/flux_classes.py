"""Label full-disk magnetograms by their unsigned magnetic flux, for classification by the nearest hashes.

    fasthash simulate frames --start 2013-01-01 --days 1095 --cadence 720 --size 96 --seed 7
    fasthash build frames --encoder solar -o sun.catalog
    python examples/flux_classes.py frames labels.csv --classes 3
    fasthash evaluate classes sun.catalog --labels labels.csv

The flux is that of the mean field in each cell of a 64 x 64 grid over the disk: noise, and opposite polarities within
one cell (22 Mm at the centre), cancel, and the image's size does not matter. Classes hold equally many frames: two are
called quiet and active, three have moderate between them.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from fasthash.io import find_images, read_image
from fasthash.solar.ephemeris import SOLAR_RADIUS
from fasthash.solar.field_map import FieldMap

CELLS = 64
CELL_CM2 = (2 * SOLAR_RADIUS * 100 / CELLS) ** 2
NAMES = {2: ("quiet", "active"), 3: ("quiet", "moderate", "active")}


def unsigned_flux(path):
    """Total unsigned line-of-sight flux of the disk, in maxwell."""
    return float(np.abs(FieldMap(CELLS).describe(read_image(path))).sum(dtype=np.float64)) * CELL_CM2


def main():
    """Write the table and tell where the classes part."""
    parser = argparse.ArgumentParser(description="Label magnetograms by their unsigned magnetic flux.")
    parser.add_argument("frames", nargs="+", help="files, folders, globs and zips")
    parser.add_argument("table", help="CSV file to write: path, flux in Mx, label")
    parser.add_argument("--classes", type=int, choices=sorted(NAMES), default=3)
    args = parser.parse_args()
    paths, problems = find_images(args.frames)
    if problems or not paths:
        parser.error("; ".join(problems) or "no images")
    flux = np.array([unsigned_flux(path) for path in paths])
    names = NAMES[args.classes]
    edges = np.quantile(flux, np.arange(1, len(names)) / len(names))
    with Path(args.table).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "flux", "label"])
        writer.writerows(zip(paths, flux, (names[i] for i in np.searchsorted(edges, flux)), strict=True))
    print(f"{len(paths)} frames, {' < '.join(names)}, parted at {', '.join(f'{edge:.3g}' for edge in edges)} Mx")


if __name__ == "__main__":
    main()
