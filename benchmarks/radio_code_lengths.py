"""mAP of radio encoders of several lengths and seeds, under thresholds of their own and under one for each image.

    python -m benchmarks.radio_code_lengths DATASET [--more SET] [ENCODER ...]        (default: radio-8 radio)

DATASET is a folder or zip of radio galaxies with train and valid (data.zip). Queries are all images of valid, those
of them that do not stand in train, and those of another set (griese.zip) that were kept out of training because their
source stands in valid, and not in train; each ranks all of train. Thresholds are the encoder's own; the median of each
image's values, as in the paper; and the best of their percentiles 0, 5 … 100. The last is chosen on the very queries
that it is judged by: no result, but it tells how much lies in the choice.
"""

import argparse
import sys
from functools import partial

import numpy as np

import fasthash as fh
from fasthash.errors import FastHashError
from fasthash.radio.dataset import RadioSet, originals, read_dataset, stands_in, without
from fasthash.radio.retrieval import Retrieval

MEDIAN = 50
SPREAD = {"mean": np.mean, "deviation": partial(np.std, ddof=1)}
Scores = tuple[float, float, float, int]


def scores(encoder: fh.Encoder, query: RadioSet, reference: RadioSet) -> Scores:
    """mAP under the encoder's own thresholds, at the median, and at the best percentile; then that percentile."""
    run = Retrieval(encoder, query, reference)
    at = {percentile: report.map for percentile, report in zip(*run.sweep(), strict=True)}
    best = max(at, key=lambda percentile: at[percentile])
    return run.report().map, at[MEDIAN], at[best], best


def line(encoder: fh.Encoder, found: list[Scores]) -> str:
    about = encoder.metadata["training"]
    kept = about.get("kept_epoch", about["epochs"])
    text = f"{encoder.name:<16} {encoder.n_bits:>4} {about['seed']:>5} {about['epochs']:>7} {kept:>5}"
    return text + "".join(f"  {own:>7.3f} {median:>7.3f} {best:>7.3f} at {at:<3}" for own, median, best, at in found)


def kept_out(more: RadioSet, dataset: RadioSet, train: RadioSet) -> RadioSet:
    """What `fasthash train radio` leaves out of a further set, but for sources of train."""
    more, beyond = originals(more), without(dataset, train)
    return more.take(stands_in(more, beyond) & ~stands_in(more, train))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.radio_code_lengths", allow_abbrev=False)
    parser.add_argument("dataset", metavar="DATASET")
    parser.add_argument("encoders", nargs="*", metavar="ENCODER", default=["radio-8", "radio"])
    parser.add_argument("--more", metavar="SET")
    args = parser.parse_intermixed_args()
    dataset = read_dataset(args.dataset)
    train, valid = dataset.split("train"), dataset.split("valid")
    honest = without(valid, train)
    queries = {f"all {len(valid)} of valid": valid, f"{len(honest)} not in train": honest}
    if args.more:
        others = kept_out(read_dataset(args.more), dataset, train)
        queries[f"{len(others)} of {args.more}"] = others
    print(f"{'mAP':<41}" + "".join(f"  {name:<30}" for name in queries).rstrip())
    thresholds = f"  {'own':>7} {'median':>7} {'best':>7} at %  "
    print(f"{'encoder':<16} bits  seed  epochs  kept" + (thresholds * len(queries)).rstrip())
    by_bits: dict[int, list[list[Scores]]] = {}
    for name in args.encoders:
        encoder = fh.load_encoder(name)
        by_bits.setdefault(encoder.n_bits, []).append([scores(encoder, each, train) for each in queries.values()])
        print(line(encoder, by_bits[encoder.n_bits][-1]).rstrip(), flush=True)
    for bits, found in sorted(by_bits.items()):
        for what, of in SPREAD.items() if len(found) > 1 else ():
            each = of(np.array(found)[..., :3], axis=0)
            text = f"{f'{what} of {len(found)}':<16} {bits:>4}{'':<20}"
            print(
                text
                + "".join(f"  {own:>7.3f} {median:>7.3f} {best:>7.3f}       " for own, median, best in each).rstrip()
            )


if __name__ == "__main__":
    try:
        main()
    except FastHashError as error:
        sys.exit(f"error: {error}")
