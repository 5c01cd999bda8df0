"""mAP of radio encoders of several lengths and seeds, under thresholds of their own and under one for each image.

    python -m benchmarks.radio_code_lengths DATASET [ENCODER ...]        (default: radio-8 radio)

DATASET is a folder or zip of radio galaxies with train and valid (data.zip). Queries are all images of valid, and those
of them that do not stand in train; each ranks all of train. Thresholds are the encoder's own; the median of each
image's values, as in the paper; and the best of their percentiles 0, 5 … 100. The last is chosen on the very queries
that it is judged by: no result, but it tells how much lies in the choice.
"""

import sys
from functools import partial

import numpy as np

import fasthash as fh
from fasthash.errors import FastHashError
from fasthash.radio.dataset import RadioSet, read_dataset, without
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


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python -m benchmarks.radio_code_lengths DATASET [ENCODER ...]")
    train, valid = (read_dataset(sys.argv[1], split) for split in ("train", "valid"))
    queries = {f"all {len(valid)} of valid": valid}
    honest = without(valid, train)
    queries[f"{len(honest)} not in train"] = honest
    print(f"{'mAP':<41}" + "".join(f"  {name:<30}" for name in queries).rstrip())
    thresholds = f"  {'own':>7} {'median':>7} {'best':>7} at %  "
    print(f"{'encoder':<16} bits  seed  epochs  kept" + (thresholds * len(queries)).rstrip())
    by_bits: dict[int, list[list[Scores]]] = {}
    for name in sys.argv[2:] or ("radio-8", "radio"):
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
