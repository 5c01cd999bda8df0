"""Commands of classification by the nearest hashes: classify, evaluate classes."""

import argparse
import os
from typing import Any

import numpy as np

from fasthash.cli._common import (
    INPUT,
    READING,
    THREADS,
    add_metric,
    find,
    limits,
    print_json,
    printable,
    report_skipped,
    verb,
)
from fasthash.errors import FastHashError
from fasthash.times import format_time, parse_span


def add_classify(verbs: Any) -> None:
    parser = verb(
        verbs,
        "classify",
        _classify,
        "Tell the class of images from the labels of the most similar ones in a catalog.",
        "classify sun.catalog new-frames --labels labels.csv -k 10",
        THREADS,
        READING,
    )
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("inputs", nargs="+", metavar="IMAGE", help=INPUT)
    _add_classifier(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _classify(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog
    from fasthash.classification import KNNClassifier
    from fasthash.encoder import Encoded, Failure

    paths, problems = find(args)
    with Catalog.open(args.catalog) as catalog:
        rows, encoder = catalog.rows(), catalog.encoder
    labels = _labels(rows, args)
    known = np.flatnonzero(labels != "")
    classifier = KNNClassifier(args.k, args.metric).fit(rows.vectors(args.metric)[known], labels[known])
    images: list[Encoded] = []
    for item in encoder.encode_files(paths, args.threads, limits(args)):
        if isinstance(item, Failure):
            problems.append(item.message)
        else:
            images.append(item)
    report_skipped(problems, done=len(images))
    hashes = np.stack([item.hash for item in images])
    queries = encoder.binarize(hashes) if args.metric == "hamming" else hashes
    predicted, votes = classifier.predict(queries, args.threads), classifier.votes(queries, args.threads)
    results: list[dict[str, Any]] = [
        {
            "path": item.image.path,
            "time": format_time(item.image.time),
            "label": str(label),
            "votes": dict(zip(classifier.classes.tolist(), counts.tolist(), strict=True)),
        }
        for item, label, counts in zip(images, predicted, votes, strict=True)
    ]
    if args.json:
        print_json({"catalog": args.catalog, "metric": args.metric, "k": args.k, "results": results})
        return
    print(f"{'label':<12} {'votes':>9}  path")
    for result in results:
        counts = result["votes"]
        share = f"{counts[result['label']]} of {sum(counts.values())}"
        print(f"{printable(result['label']):<12} {share:>9}  {printable(result['path'])}")


def add_evaluation(verbs: Any) -> None:
    parser = verb(
        verbs,
        "classes",
        _evaluate_classes,
        "Accuracy of classification by the nearest hashes, on blocks of time that were not learnt from. "
        "Each block is tested in turn against the images of all others, but for those too close to it in time.",
        "evaluate classes sun.catalog --labels labels.csv -k 10 --gap 14d",
        THREADS,
    )
    parser.add_argument("catalog", metavar="CATALOG")
    _add_classifier(parser)
    parser.add_argument("--block", default="28d", metavar="28d", help="length of a block (default: %(default)s)")
    parser.add_argument("--gap", default="14d", metavar="14d", help="learn from what is so far away or more (default)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _evaluate_classes(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog
    from fasthash.classification import evaluate_classes

    block, gap = parse_span("--block", args.block), parse_span("--gap", args.gap)
    with Catalog.open(args.catalog) as catalog:
        rows = catalog.rows()
        name = catalog.encoder.name
    protocol = {"block": block, "gap": gap, "num_threads": args.threads}
    vectors = rows.vectors(args.metric)
    report = evaluate_classes(vectors, _labels(rows, args), rows.times, args.k, args.metric, **protocol)
    if args.json:
        print_json({"encoder": name, "catalog": args.catalog, **report.to_dict()})
        return
    low, high = report.ci95
    constant = 1 / np.count_nonzero(report.confusion.sum(axis=1))
    print(
        f"{name}, {report.metric}, k = {report.k}: {report.n_tested} of {report.n_images} images in {report.n_blocks} "
        f"blocks of {args.block}, learnt from those {args.gap} away or more\n"
        f"accuracy    {report.accuracy:.3f}   (95 % interval {low:.3f} to {high:.3f}; chance {report.chance:.3f}, "
        f"by the calendar alone {report.calendar:.3f})\n"
        f"balanced    {report.balanced_accuracy:.3f}   (mean over the classes; chance {constant:.3f})\n"
    )
    labels = [printable(label) for label in report.classes.tolist()]
    width = max(12, *map(len, labels))
    print(f"{'is / taken for':<{width + 4}}" + "".join(f" {label:>{width}}" for label in labels))
    for label, counts in zip(labels, report.confusion, strict=True):
        print(f"{label:<{width + 4}}" + "".join(f" {count:>{width}}" for count in counts))


def _add_classifier(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--labels", metavar="FILE.csv", help="table of path and label (default: the catalog's labels)")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="neighbours that vote (default: 10)")
    add_metric(parser)


def _labels(rows: Any, args: argparse.Namespace) -> Any:
    """The label of every row of a catalog: its own, or that of the table --labels."""
    from fasthash.classification import read_labels

    if not args.labels:
        if not (rows.labels != "").any():
            raise FastHashError(f"{args.catalog}: no image in it has a label; give them by --labels")
        return rows.labels
    table = read_labels(args.labels)
    labels = np.array([table.get(os.path.abspath(path), "") for path in rows.paths], np.str_)
    if not (labels != "").any():
        raise FastHashError(f"{args.labels}: labels none of the {len(labels)} images of {args.catalog}")
    return labels
