"""How the published sets of radio galaxies repeat themselves and each other. Prints a table as Markdown.

    python -m benchmarks.radio_sets data.zip data-balanced.zip griese.zip

Every split of every set, beside the train of the first: how many images, how many are left without those that are equal
to the pixel, and how many stand in that train, to the pixel or as the same source of the sky.
"""

import sys

from fasthash.radio.dataset import RadioSet, originals, read_dataset, without


def lines(paths: list[str]) -> None:
    reference = read_dataset(paths[0], "train")
    print("| | images | different to the pixel | in train, to the pixel | in train, as the same source |")
    print("|---|---|---|---|---|")
    for path in paths:
        whole = read_dataset(path)
        for split in sorted(set(whole.splits.tolist())):
            part = whole.split(split) if split else whole
            name = f"`{path}`" + (f", {split}" if split else "")
            found = ["", ""] if (path, split) == (paths[0], "train") else shared(part, reference)
            print(f"| {name} | {len(part)} | {len(originals(part))} | {found[0]} | {found[1]} |")


def shared(part: RadioSet, reference: RadioSet) -> tuple[int, int]:
    """How many images of ``part`` are in ``reference`` to the pixel, and how many to the pixel or on the sky."""
    to_the_pixel = sum(digest in set(reference.digests) for digest in part.digests)
    return to_the_pixel, len(part) - len(without(part, reference))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    lines(sys.argv[1:])
