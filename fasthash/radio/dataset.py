"""Labelled sets of radio galaxies: folders and zips as they are published, copies and twins found and taken out.

A set is a tree whose last folders are classes: ``data-balanced/train/FRI/….jpg``, ``griese/Bent/….png``. The published
ones repeat themselves. The balanced set is filled up with "(copy)" files; of the 398 images of valid 184 stand in train
too, to the pixel; and the same source may be there twice as two different JPEG files, or in another set at another
size. The first two are found by pixels, the last by the position on the sky, which the files' names tell.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._validation import check_choice, check_int, check_threads
from fasthash.encoder import FrontEnd
from fasthash.errors import ArgumentError, FastHashError, ReadError
from fasthash.io import DEFAULT_LIMITS, Image, Limits, find_images, read_image
from fasthash.radio.sky import PIXEL, SAME_SOURCE, pixel_scale, position_from_name, sky_pairs

CLASSES = ("Compact", "FRI", "FRII", "Bent")
SPLITS = ("train", "valid", "test")

_SPELLINGS = {"compact": "Compact", "fri": "FRI", "fr1": "FRI", "frii": "FRII", "fr2": "FRII", "bent": "Bent"}
_SPLIT_SPELLINGS = {"train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid",
                    "test": "test", "testing": "test"}  # fmt: skip
_COPY = re.compile(r" ?\(copy( \d+)?\)|\(\d+(st|nd|rd|th) copy\)|\(another copy\)", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class RadioSet:
    """Images of radio galaxies and their classes.

    images : list of float32 arrays (H, W), grey as in the file (0 to 255, or physical units); rows run down, pixels of
        1.8", missing ones are NaN.
    labels : (n,) str, of CLASSES.
    names : (n,) str, the paths; a member of a zip is ``archive.zip/member``.
    digests : (n,) str, equal where the pixels are equal, whatever kind of file they came from.
    splits : (n,) str, of SPLITS; "" where no folder tells.
    problems : one line for each image that could not be used.
    """

    images: list[NDArray[np.float32]]
    labels: NDArray[np.str_]
    names: NDArray[np.str_]
    digests: NDArray[np.str_]
    splits: NDArray[np.str_]
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"<RadioSet: {len(self)} images, {', '.join(f'{k} {n}' for k, n in self.counts().items())}>"

    @property
    def positions(self) -> NDArray[np.float64]:
        """(n, 2) right ascension and declination, degrees, as the names tell; NaN where they tell none."""
        return np.array([position_from_name(name) for name in self.names], np.float64).reshape(-1, 2)

    def counts(self) -> dict[str, int]:
        """Images of each class."""
        found = Counter(self.labels.tolist())
        return {label: found[label] for label in CLASSES}

    def take(self, which: Any) -> "RadioSet":
        """The images at these indices, or where a mask is true."""
        rows = np.arange(len(self))[which]
        images = [self.images[row] for row in rows]
        return RadioSet(images, self.labels[rows], self.names[rows], self.digests[rows], self.splits[rows])

    def split(self, name: str) -> "RadioSet":
        """The images of one of SPLITS."""
        check_choice("split", name, SPLITS)
        return self.take(self.splits == name)


# ---- what names tell -----------------------------------------------------------------------------------------------


def class_of(folder: str) -> str:
    """The class that a folder is named after, in CLASSES' spelling (``FR1`` is FRI); "" where it is none."""
    return _SPELLINGS.get(re.sub(r"[\s_-]", "", folder).lower(), "")


def label_of(path: str) -> str:
    """The class of an image by the folder it lies in; "" where that is named after none."""
    return class_of(os.path.basename(os.path.dirname(os.path.abspath(path))))


# ---- reading -------------------------------------------------------------------------------------------------------


def read_dataset(
    path: str | os.PathLike[str],
    split: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    num_threads: int = -1,
    progress: Callable[[int, int], None] | None = None,
) -> RadioSet:
    """Read a labelled set of radio galaxies from a folder or a zip.

    Parameters
    ----------
    path : str or path
        A tree whose last folders are named after CLASSES, in any of their spellings; above them there may be folders
        named after SPLITS.
    split : {"train", "valid", "test"}, optional
        Only what lies in such a folder.
    progress : callable(done, total), optional

    Returns
    -------
    RadioSet
        Sorted by path. An image that is damaged, all of one grey, or FITS with other pixels than of 1.8", is left out
        and named in ``problems``.

    Raises
    ------
    ReadError
        Where there is no such tree, a folder of images is named after no class, or no image can be used.
    """
    if split is not None:
        check_choice("split", split, SPLITS)
    paths, problems = find_images([path])
    root = os.fsdecode(path)
    paths = _of_split(_labelled(paths, problems, root), root, split)
    images: list[Image] = []
    with ThreadPoolExecutor(check_threads(num_threads)) as pool:
        for done, item in enumerate(pool.map(lambda each: _read(each, limits), paths), start=1):
            if isinstance(item, Image):
                images.append(item)
            else:
                problems.append(item)
            if progress is not None:
                progress(done, len(paths))
    if not images:
        raise ReadError(f"{root}: none of its {len(paths)} images can be used, the first being {problems[0]}")
    return _as_set(images, root, tuple(problems))


def _labelled(paths: list[str], problems: list[str], root: str) -> list[str]:
    if not paths:
        raise ReadError(problems[0] if problems else f"{root}: no images in it")
    for each in paths:
        if not label_of(each):
            names = ", ".join(CLASSES)
            raise ReadError(
                f"{os.path.dirname(each) or root}: a folder of images named after no class; expected {names}"
            )
    return paths


def _of_split(paths: list[str], root: str, split: str | None) -> list[str]:
    if split is None:
        return paths
    splits = [_split_of(each, root) for each in paths]
    if split not in splits:
        there = ", ".join(sorted(set(splits) - {""})) or "no split at all"
        raise ReadError(f"{root}: no folder named {split} in it (found: {there})")
    return [each for each, its in zip(paths, splits, strict=True) if its == split]


def _split_of(path: str, root: str) -> str:
    """By the folders below ``root``, by ``root`` itself, or where that is a class, by the one above it."""
    root = os.path.abspath(root)
    inside = os.path.relpath(os.path.abspath(path), root).split(os.sep)[:-1]
    above, itself = os.path.split(root)
    folders = [*inside, itself, *([os.path.basename(above)] if class_of(itself) else [])]
    return next((_SPLIT_SPELLINGS[each.lower()] for each in folders if each.lower() in _SPLIT_SPELLINGS), "")


def _read(path: str, limits: Limits) -> Image | str:
    try:
        image = read_image(path, limits)
        known = image.pixels[np.isfinite(image.pixels)]
        if known.min() == known.max():
            raise ReadError(f"{path}: nothing in it: every pixel is {known[0]:g}")
        scale = pixel_scale(image.header)
        if not 0.98 < scale / PIXEL < 1.02:  # of a set's arrays nobody would know it
            raise ReadError(f"{path}: pixels of {scale:.3g} arcseconds; those of a set have {PIXEL}")
    except ReadError as error:
        return str(error)
    return image


def _as_set(images: Sequence[Image], root: str, problems: tuple[str, ...]) -> RadioSet:
    pixels = [image.pixels[::-1].copy() if image.header else image.pixels for image in images]
    names = [image.path for image in images]
    return make_set(pixels, [label_of(n) for n in names], names, [_split_of(n, root) for n in names], problems)


def make_set(
    images: Sequence[NDArray[np.float32]],
    labels: Sequence[str],
    names: Sequence[str],
    splits: Sequence[str] | None = None,
    problems: tuple[str, ...] = (),
) -> RadioSet:
    """A RadioSet of what is at hand; digests are computed. Raises ArgumentError for a label that is none of CLASSES."""
    if not len(images) == len(labels) == len(names):
        counts = f"{len(images)} images, {len(labels)} labels, {len(names)} names"
        raise ArgumentError(f"images, labels, names: expected as many of each, got {counts}")
    for i, label in enumerate(labels):
        check_choice(f"labels[{i}]", label, CLASSES)
    digests = [pixel_digest(image) for image in images]
    text = [np.array(values, np.str_) for values in (labels, names, digests, splits or [""] * len(images))]
    return RadioSet(list(images), text[0], text[1], text[2], text[3], problems)


def pixel_digest(pixels: NDArray[np.float32]) -> str:
    """BLAKE2b-128 of shape and pixels, hexadecimal."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels, "<f4").data)
    return digest.hexdigest()


def describe_set(
    images: RadioSet, front_end: FrontEnd, num_threads: int = -1
) -> tuple[NDArray[np.float32], RadioSet, list[str]]:
    """Network inputs of a set, float32 (m, ...), the m images they are of, and a line for each of the others.

    Raises ReadError where the front end can use none.
    """

    def describe(row: int) -> NDArray[np.float32] | str:
        try:
            return front_end.describe(Image(images.images[row], str(images.names[row])))
        except FastHashError as error:
            return str(error)
        except MemoryError:
            return f"{images.names[row]}: not enough memory to describe it"

    with ThreadPoolExecutor(check_threads(num_threads)) as pool:
        rows = list(pool.map(describe, range(len(images))))
    problems = [row for row in rows if isinstance(row, str)]
    good = [i for i, row in enumerate(rows) if not isinstance(row, str)]
    if not good:
        if len(problems) < 2:
            raise ReadError(problems[0] if problems else "an empty set")
        raise ReadError(f"none of {len(problems)} images can be used, the first being {problems[0]}")
    return np.stack([rows[i] for i in good]), images.take(good), problems


# ---- copies and twins ----------------------------------------------------------------------------------------------


def originals(images: RadioSet) -> RadioSet:
    """Without "(copy)" files, and of images that are equal to the pixel only the first."""
    kept = without_copies(images)
    return kept.take(np.sort(np.unique(kept.digests, return_index=True)[1]))


def without_copies(images: RadioSet) -> RadioSet:
    """Without the files that are called "(copy)": those by which the published set was balanced."""
    return images.take([not _COPY.search(os.path.basename(name)) for name in images.names])


def without(images: RadioSet, other: RadioSet, radius: float = SAME_SOURCE) -> RadioSet:
    """Without what another set holds as well: to the pixel, or as the same source of the sky.

    radius : arcseconds within which two positions are one source; 0: go by pixels alone. An image whose name tells no
        position is compared by pixels.
    """
    return images.take(~stands_in(images, other, radius))


def stands_in(images: RadioSet, other: RadioSet, radius: float = SAME_SOURCE) -> NDArray[np.bool_]:
    """Which images another set holds as well, bool (n,); see `without`."""
    twins: NDArray[np.bool_] = np.isin(images.digests, other.digests)
    pairs = sky_pairs(images.positions, other.positions, radius)
    twins[pairs[:, 0]] = True
    return twins


def balanced(images: RadioSet, seed: int = 0) -> RadioSet:
    """Every class as often as the largest: after the images themselves, random ones of the smaller classes once more.

    As in the radio paper, where train is balanced by up-sampling. None is repeated twice before all are once.
    """
    rng = np.random.default_rng(check_int("seed", seed, 0))
    rows = [np.flatnonzero(images.labels == label) for label in CLASSES]
    largest = max(map(len, rows))
    extra = [np.arange(0)]
    for own in rows:
        missing = largest - len(own) if len(own) else 0
        while missing > 0:
            extra.append(rng.permutation(own)[:missing])
            missing -= len(own)
    return images.take(np.concatenate([np.arange(len(images)), *extra]))


@dataclass(frozen=True)
class Twins:
    """Images of one group that show the same: their names, labels and splits, and whether to the pixel."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    to_the_pixel: bool

    @property
    def contradictory(self) -> bool:
        """Whether they have different labels."""
        return len(set(self.labels)) > 1

    @property
    def across(self) -> bool:
        """Whether they stand in different splits: what is learnt from one is no test on the other."""
        return len(set(self.splits)) > 1


def duplicates(images: RadioSet, radius: float = SAME_SOURCE) -> list[Twins]:
    """Groups of images that are equal to the pixel, or of one source of the sky, in the order of their first one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    _, same = np.unique(images.digests, return_inverse=True)
    _, first = np.unique(same, return_index=True)
    pairs = np.concatenate([
        np.stack([np.arange(len(images)), first[same]], axis=1), sky_pairs(images.positions, images.positions, radius)
    ])  # fmt: skip
    graph = coo_matrix((np.ones(len(pairs)), pairs.T), (len(images), len(images)))
    groups = connected_components(graph, directed=False)[1]
    order = np.argsort(groups, kind="stable")
    found = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(images) else []
    twins = [group for group in found if len(group) > 1]
    return [_twins(images.take(group)) for group in sorted(twins, key=lambda group: int(group[0]))]


def _twins(group: RadioSet) -> Twins:
    names, labels, splits = (tuple(values.tolist()) for values in (group.names, group.labels, group.splits))
    return Twins(names, labels, splits, to_the_pixel=len(set(group.digests.tolist())) == 1)


def duplicates_report(images: RadioSet) -> str:
    """A few lines on what `duplicates` found: how many, across which splits, and every contradiction by name."""
    twins = duplicates(images)
    lines = [f"{len(images)} images, {len(originals(images))} of them originals"]
    for what, pixel in (("equal to the pixel", True), ("of one source, not to the pixel", False)):
        some = [each for each in twins if each.to_the_pixel is pixel]
        across = sum(each.across for each in some)
        lines.append(f"{len(some)} groups {what}, {across} of them across splits")
    for each in (each for each in twins if each.contradictory):
        both = zip(each.names, each.labels, strict=True)
        lines += ["labels differ: " + ", ".join(f"{name} ({label})" for name, label in both)]
    return "\n".join(lines)
