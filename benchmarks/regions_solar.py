"""Magnetic regions beside the sunspot groups of their day. Prints a table as Markdown.

    python -m benchmarks.regions_solar GROUPS.txt FRAME.fits [GROUPS.txt FRAME.fits ...]

FRAME is a full-disk magnetogram, GROUPS.txt the daily USAF/NOAA records of its year, carried from midnight to the hour
of the frame. A group is in a region where one has a cell within a degree of it.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from fasthash.io import Image, read_image
from fasthash.solar.heliographic import view_of
from fasthash.solar.regions import THRESHOLD, RegionTable, find_regions

DEGREES_A_DAY = 13.2  # the Sun turns past the Earth
OTHER_THRESHOLDS = (30.0, 60.0)


def groups_of(path: str, day: np.datetime64) -> list[tuple[float, float]]:
    """Stonyhurst latitude and longitude of the groups recorded at the beginning of a day."""
    year, month, of_month = map(int, str(day).split("-"))
    lines = [line for line in Path(path).read_text().splitlines() if line.strip()]
    records = [line for line in lines if (int(line[:4]), int(line[4:6]), float(line[6:12])) == (year, month, of_month)]
    return [(float(latitude), float(longitude)) for latitude, longitude in (line.split()[-2:] for line in records)]


def region_at(table: RegionTable, latitude: float, longitude: float) -> int:
    """The region that has most of the cells within a degree of a place, 0 where there is none."""
    disk, f = table.disk, table.factor
    in_cells = replace(disk, x=(disk.x - (f - 1) / 2) / f, y=(disk.y - (f - 1) / 2) / f, radius=disk.radius / f)
    view = replace(view_of(table.image), disk=in_cells)
    mu, place, _ = view.surface(table.labels.shape)
    theirs, along = (np.radians(angle) for angle in view.to_heliographic(place))
    ours, to = np.radians([latitude, longitude])
    cosine = np.sin(theirs) * np.sin(ours) + np.cos(theirs) * np.cos(ours) * np.cos(along - to)
    near = table.labels[(mu > 0) & (cosine >= np.cos(np.radians(1)))]
    return int(np.bincount(near[near > 0]).argmax()) if near.any() else 0


def line(groups: str, image: Image) -> str:
    table, hour = find_regions(image), (image.time + np.timedelta64(30, "m")).astype("M8[h]")
    day = hour.astype("M8[D]")
    turned = (hour - day) / np.timedelta64(1, "D") * DEGREES_A_DAY
    places = groups_of(groups, day)
    owners = [region_at(table, latitude, longitude + turned) for latitude, longitude in places]
    found = [owner for owner in owners if owner]
    others = [len(find_regions(image, threshold)) for threshold in OTHER_THRESHOLDS]
    cells = [f"{image.header['TELESCOP']}, {hour}:00", len(table), len(places), len(found), len(set(found)), *others]
    return f"| {' | '.join(map(str, cells))} |"


def main(arguments: list[str]) -> None:
    ours, *others = (f"regions at {threshold:g} G" for threshold in (THRESHOLD, *OTHER_THRESHOLDS))
    print(f"| magnetogram | {ours} | groups of that day | in a region | in one of their own | {' | '.join(others)} |")
    print("|" + "---|" * (5 + len(others)))
    for groups, frame in zip(arguments[::2], arguments[1::2], strict=True):
        print(line(groups, read_image(frame)))


if __name__ == "__main__":
    if len(sys.argv) < 3 or len(sys.argv) % 2 == 0:
        sys.exit(__doc__)
    main(sys.argv[1:])
