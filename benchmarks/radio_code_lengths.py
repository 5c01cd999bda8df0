"""Radio encoders of several lengths and seeds, under thresholds of their own and one an image: a table of mAP.

    python benchmarks/radio_code_lengths.py DATASET [ENCODER ...]        (default: radio-8 radio)

DATASET is a folder or zip of radio galaxies with train and valid (data.zip). Queries are the images of valid, all of
them, and those that do not stand in train; each ranks all of train. Thresholds are the encoder's own, the median of
each image's values, as the paper has it, and the best of the percentiles 0, 5 … 100: chosen on the very queries that it
is judged by, it is no result, and tells how much lies in the choice.
"""

import sys

import fasthash as fh
from fasthash.errors import FastHashError
from fasthash.radio.dataset import RadioSet, read_dataset, without
from fasthash.radio.retrieval import Retrieval

MEDIAN = 50
ABOUT = ["encoder", "bits", "seed", "epochs", "kept"]
THRESHOLDS = ["own", "median", "best"]


def scores(encoder: fh.Encoder, query: RadioSet, reference: RadioSet) -> tuple[float, float, float, int]:
    """mAP under the encoder's own thresholds, at the median, and at the best percentile; the last, that percentile."""
    run = Retrieval(encoder, query, reference)
    at = {percentile: report.map for percentile, report in zip(*run.sweep(), strict=True)}
    best = max(at, key=lambda percentile: at[percentile])
    return run.report().map, at[MEDIAN], at[best], best


def row(encoder: fh.Encoder, found: list[tuple[float, float, float, int]]) -> list[str]:
    about = encoder.metadata["training"]
    kept = about.get("kept_epoch", about["epochs"])
    cells = [encoder.name, *(str(value) for value in (encoder.n_bits, about["seed"], about["epochs"], kept))]
    for own, median, best, percentile in found:
        cells += [f"{own:.3f}", f"{median:.3f}", f"{best:.3f} ({percentile})"]
    return cells


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/radio_code_lengths.py DATASET [ENCODER ...]")
    train, valid = (read_dataset(sys.argv[1], split) for split in ("train", "valid"))
    honest = without(valid, train)
    head = [*ABOUT, *(f"{queries}: {each}" for queries in ("valid", "not in train") for each in THRESHOLDS)]
    for line in (head, ["---"] * len(head)):
        print("| " + " | ".join(line) + " |")
    for name in sys.argv[2:] or ("radio-8", "radio"):
        encoder = fh.load_encoder(name)
        found = [scores(encoder, queries, train) for queries in (valid, honest)]
        print("| " + " | ".join(row(encoder, found)) + " |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except FastHashError as error:
        sys.exit(f"error: {error}")
