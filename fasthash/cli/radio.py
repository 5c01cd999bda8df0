"""Commands that only radio galaxies need: simulate-radio, fetch radio, train radio, evaluate radio."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fasthash._progress import Progress
from fasthash.cli._common import (
    READING,
    THREADS,
    add_encoder,
    check_writable,
    limits,
    print_json,
    printable,
    say,
    verb,
)
from fasthash.errors import ArgumentError

DATASET = "folder or zip whose last folders are Compact, FRI, FRII, Bent (data-balanced/train/FRI/…, FR1 is FRI)"

# ---- simulate-radio, fetch radio -----------------------------------------------------------------------------------


def add_simulate(verbs: Any) -> None:
    parser = verb(
        verbs,
        "simulate-radio",
        _simulate,
        "Simulate radio galaxies of four classes as pictures in OUT/train/FRI and so on, beside them valid and test. "
        "They look like the published cut-outs of FIRST: 1.8 arcseconds a pixel, noise cut, the peak white.",
        "simulate-radio galaxies --count 1000 --seed 1",
    )
    parser.add_argument("out", metavar="OUT", help="folder for the files")
    parser.add_argument("--count", required=True, type=int, metavar="N", help="images, the four classes in turn")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of everything random (default: %(default)s)")
    parser.add_argument("--size", type=int, default=150, metavar="PX", help="pixels a side (default: %(default)s)")


def _simulate(args: argparse.Namespace) -> None:
    from fasthash._validation import check_int
    from fasthash.radio.simulator import SIZES, write_galaxies

    check_int("--count", args.count, 1)
    check_int("--seed", args.seed, 0)
    check_int("--size", args.size, *SIZES)
    before = set(Path(args.out).glob("*/*/*.png"))
    files = write_galaxies(args.out, args.count, args.seed, args.size, Progress("simulated"))
    print(f"{len(files)} simulated radio galaxies in {args.out}")
    others = len(before - {Path(each) for each in files})
    if others:
        say(f"{args.out}: {others} pictures of another run are there too")


def add_fetch(verbs: Any) -> None:
    parser = verb(
        verbs,
        "radio",
        _fetch,
        "Get the published set of radio galaxies of Samudre et al. 2022 (FRI, FRII, Bent, Compact; a zip of a few MB). "
        "Its content is checked against what is pinned in fasthash. Run it again after an interruption: it goes on.",
        "fetch radio sets",
    )
    parser.add_argument("out", metavar="OUT", help="folder for the zip")
    parser.add_argument(
        "--set",
        choices=("data", "data-balanced"),
        default="data",
        help="the images as they are (default), or filled up with copies until the classes are equal",
    )
    parser.add_argument("--url", metavar="URL", help="a mirror, or file:///... ; the content must be the same")


def _fetch(args: argparse.Namespace) -> None:
    from fasthash.radio.fetch import fetch

    fetched = fetch(args.out, args.set, args.url, Progress("fetched bytes"))
    if fetched.present:
        say(f"{fetched.path} was there already")
    print(f"{fetched.path}: {', '.join(f'{count} {split}' for split, count in fetched.counts.items())} images")


# ---- train radio ---------------------------------------------------------------------------------------------------


def add_train(verbs: Any) -> None:
    parser = verb(
        verbs,
        "radio",
        _train_radio,
        "Train an encoder on labelled radio galaxies and write it as ONNX. "
        "Preset best: a small network towards one code for each class, forty minutes on one core; of its weights those "
        "are kept that find the images of valid best. "
        "Preset paper: DenseNet-161 from ImageNet with 8 sigmoid neurons, triplets, one frozen epoch and 200 with "
        "everything learning: hours on a GPU, days without. Its weights are torchvision's, see --weights. Both learn "
        "on a GPU where there is one. An interrupted training goes on from FILE.onnx.checkpoint.",
        "train radio data.zip -o my-radio.onnx --preset best --bits 32 --seed 1",
        THREADS,
        READING,
    )
    parser.add_argument(
        "datasets",
        nargs="+",
        metavar="DATASET",
        help=f"{DATASET}; train of the first is learnt from, its valid tells how well; others are more to learn from",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE.onnx", help="the encoder to write")
    parser.add_argument("--preset", default="best", metavar="NAME", help="recipe: best (default), or paper")
    parser.add_argument("--bits", type=int, metavar="N", help="length of the code, 4 to 256 (best: 64; paper: 8)")
    parser.add_argument(
        "--weights", metavar="FILE", help="paper: torchvision's DenseNet-161 (default: what its cache holds)"
    )
    parser.add_argument("--epochs", type=int, metavar="N", help="passes over the images (default: the preset's)")
    parser.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="best: end after N epochs without a better mAP of valid, by all 64 numbers learnt (default: half of "
        "--epochs, at least 20)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of weights and order (default: 0)")
    parser.add_argument("--curves", metavar="FILE.png", help="draw loss and mAP of valid against the epoch")
    parser.add_argument("--data", metavar="TEXT", help="what the images are, for the metadata (default: their name)")


def _train_radio(args: argparse.Namespace) -> None:
    from fasthash._training import check_installed
    from fasthash._validation import check_choice, check_int
    from fasthash.plots import SUFFIXES

    check_choice("--preset", args.preset, tuple(PRESETS))
    for name, low, high in (("bits", 4, 256), ("epochs", 1, None), ("patience", 1, None), ("seed", 0, 2**32 - 1)):
        if getattr(args, name) is not None:
            check_int(f"--{name}", getattr(args, name), low, high)
    check_installed()
    check_writable("-o", args.output, ".onnx")
    if args.curves:
        check_writable("--curves", args.curves, *SUFFIXES)
    PRESETS[args.preset](args)


def _train_paper(args: argparse.Namespace) -> None:
    from fasthash.radio import densenet
    from fasthash.radio.cutout import Cutout
    from fasthash.radio.dataset import balanced, originals

    if args.patience is not None:
        raise ArgumentError("--patience: preset paper learns to the end, as the paper did; it is for preset best")
    if len(args.datasets) > 1:
        raise ArgumentError(f"DATASET: preset paper learns from one, got {len(args.datasets)}")
    weights, front_end = densenet.find_weights(args.weights), Cutout(densenet.SIZE, crop=None)
    learnt, held_out, _ = _learnt_and_held_out(args)
    _check_classes([learnt], 2, args)
    if held_out is not None:  # now rather than after days
        _describe(held_out, front_end, args)
    inputs, kept = _describe(balanced(learnt, args.seed), front_end, args)
    checkpoint, show = Path(f"{args.output}.checkpoint"), Progress("trained")
    training = densenet.train(
        inputs,
        kept.labels,
        densenet.N_BITS if args.bits is None else args.bits,
        weights,
        densenet.EPOCHS if args.epochs is None else args.epochs,
        args.seed,
        lambda epoch, n, loss: show(epoch, n, f"loss {loss:.4f}"),
        checkpoint,
        args.threads,
    )
    encoder = densenet.export(args.output, training, front_end, Path(args.output).stem, _data(args))
    if held_out is not None:
        report = _rank(encoder, held_out, originals(learnt), args)
        about = {"n_query": report.n_query, "map": report.map, "chance": report.chance}
        encoder = densenet.export(args.output, training, front_end, encoder.name, _data(args), held_out=about)
    _draw_curves(encoder, args)
    checkpoint.unlink(missing_ok=True)
    print(
        f"{args.output}: preset paper, {encoder.n_bits} bits, {len(kept)} images, {len(training.losses)} epochs, "
        f"learning rate {training.rate:.2g}, loss {training.losses[-1]:.4f}"
    )
    if held_out is not None:
        print(_held_out_line(report))


def _train_best(args: argparse.Namespace) -> None:
    from fasthash.radio import hashing
    from fasthash.radio.dataset import originals

    if args.weights:
        raise ArgumentError("--weights: preset best starts from none; they are for preset paper")
    learnt, held_out, beyond = _learnt_and_held_out(args)
    if held_out is None and args.patience is not None:
        raise ArgumentError(f"--patience: {args.datasets[0]} has no images of valid, beyond those of train, to stop by")
    known, more = originals(learnt), _more(beyond, args)
    _check_classes([known, *more], 4, args)
    parts = [_inputs(each, hashing.field_front_end(), args) for each in (known, *more)]
    fields, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    checkpoint = Path(f"{args.output}.checkpoint")
    training = hashing.train(
        fields,
        labels,
        hashing.EPOCHS if args.epochs is None else args.epochs,
        args.seed,
        _show_judged(Progress("trained")),
        checkpoint,
        args.threads,
        n_reference=len(parts[0][1]),
        held_out=None if held_out is None else _to_judge(held_out, known, args),
        patience=args.patience,
    )
    n_bits = hashing.N_BITS if args.bits is None else args.bits
    encoder = hashing.export(args.output, training, Path(args.output).stem, _data(args), n_bits)
    print(
        f"{args.output}: preset best, {encoder.n_bits} bits, {len(fields)} images, {training.epochs} epochs, "
        f"those of epoch {training.kept} kept, loss {training.losses[-1]:.4f}"
    )
    if held_out is not None:
        report = _rank(encoder, held_out, known, args)
        about = {"n_query": report.n_query, "map": report.map, "chance": report.chance}
        encoder = hashing.export(args.output, training, encoder.name, _data(args), n_bits, about)
        print(_held_out_line(report))
    _draw_curves(encoder, args)
    checkpoint.unlink(missing_ok=True)


def _inputs(images: Any, front_end: Any, args: argparse.Namespace) -> tuple[Any, Any]:
    """What a network is given of a set, and the positions of the labels in CLASSES."""
    from fasthash.radio.dataset import CLASSES

    inputs, kept = _describe(images, front_end, args)
    return inputs, np.array([CLASSES.index(label) for label in kept.labels])


def _to_judge(held_out: Any, known: Any, args: argparse.Namespace) -> Any:
    from fasthash.radio import hashing
    from fasthash.radio.early_stopping import HeldOut

    return HeldOut(*_inputs(held_out, hashing.front_end(), args), *_inputs(known, hashing.front_end(), args))


def _show_judged(show: Progress) -> Callable[[int, int, float, Any], None]:
    def tell(epoch: int, epochs: int, loss: float, judgement: Any) -> None:
        valid = f", mAP of valid {judgement.map:.3f} after {judgement.epoch}" if judgement else ""
        show(epoch, epochs, f"loss {loss:.4f}{valid}")

    return tell


def _draw_curves(encoder: Any, args: argparse.Namespace) -> None:
    """Draw what the metadata say of the training, where that is asked for."""
    from fasthash.plots import training_curves

    if args.curves:
        title = f"{encoder.name}, {encoder.n_bits} bits, seed {args.seed}"
        training_curves(encoder.metadata["training"], args.curves, title=title)


# Recipes by name; each takes the command's arguments.
PRESETS: dict[str, Callable[[argparse.Namespace], None]] = {"best": _train_best, "paper": _train_paper}


def _learnt_and_held_out(args: argparse.Namespace) -> tuple[Any, Any | None, Any]:
    """What the first set has to learn from; what its valid holds beyond that, if anything; all that it holds beyond."""
    from fasthash.radio.dataset import originals, without

    images = _read(args.datasets[0], None, args)
    learnt = _to_learn(images, args.datasets[0])
    beyond = originals(without(images, learnt))
    held_out = beyond.split("valid")
    known = np.isin(held_out.labels, learnt.labels)
    if not known.all():
        say(f"{args.datasets[0]}: {(~known).sum()} images of valid left out, of a class that train lacks")
    held_out = held_out.take(known)
    return learnt, held_out if len(held_out) else None, beyond


def _check_classes(sets: Sequence[Any], least: int, args: argparse.Namespace) -> None:
    from fasthash.radio.dataset import CLASSES

    there = [label for label in CLASSES if any(label in each.labels for each in sets)]
    if len(there) < least:
        name = ", ".join(args.datasets)
        raise ArgumentError(f"DATASET {name}: {least} classes are needed to learn from, got {', '.join(there)}")


def _to_learn(images: Any, path: str) -> Any:
    """Those of train; of a set without splits, all."""
    there = sorted(set(images.splits.tolist()) - {""})
    if not there:
        return images
    if "train" not in there:
        raise ArgumentError(f"DATASET {path}: holds {', '.join(there)}, and no train to learn from")
    return images.split("train")


def _more(beyond: Any, args: argparse.Namespace) -> list[Any]:
    """The originals that the other sets have to learn from, less those on which the first one is to be tested."""
    from fasthash.radio.dataset import originals, without

    sets = []
    for path in args.datasets[1:]:
        images = originals(_to_learn(_read(path, None, args), path))
        sets.append(without(images, beyond))
        if len(sets[-1]) < len(images):
            left = len(images) - len(sets[-1])
            say(f"{path}: {left} images left out, whose source stands in valid or test of {args.datasets[0]}")
    return sets


def _data(args: argparse.Namespace) -> str:
    return args.data or ", ".join(Path(each).name for each in args.datasets)


def _held_out_line(report: Any) -> str:
    return f"{report.n_query} images of valid that are not in train: mAP {report.map:.3f}, chance {report.chance:.3f}"


# ---- evaluate radio ------------------------------------------------------------------------------------------------


def add_evaluation(verbs: Any) -> None:
    parser = verb(
        verbs,
        "radio",
        _evaluate_radio,
        "Mean average precision of labelled radio galaxies by the Hamming distance of their codes. "
        "Each query ranks all of the reference; relevant is what has its class. Equally near images count as the mean "
        "over all orders. Where a set holds several splits, the reference is train, the queries test or else valid.",
        "evaluate radio --reference data.zip --query data.zip --encoder radio --drop-duplicates --sweep sweep.png",
        THREADS,
        READING,
    )
    for name in ("reference", "query"):
        parser.add_argument(f"--{name}", required=True, metavar="DIR_OR_ZIP", help=DATASET)
        parser.add_argument(f"--{name}-split", choices=("train", "valid", "test"), help=f"take this split of --{name}")
    add_encoder(parser)
    parser.add_argument(
        "--percentile",
        type=float,
        metavar="P",
        help="one threshold per image, at this percentile of its own values (the paper's; default: the encoder's bits)",
    )
    parser.add_argument(
        "--drop-duplicates",
        action="store_true",
        help="also without the queries that stand in the reference, to the pixel or as the same source of the sky",
    )
    parser.add_argument(
        "--reference-codes",
        choices=("encoder", "labels"),
        default="encoder",
        help="labels: every reference image gets the code of its class, the majority in every bit. Only for archives "
        "that are labelled, and not the paper's protocol (default: encoder)",
    )
    parser.add_argument("--compare", nargs="+", default=[], metavar="NAME_OR_FILE", help="other encoders beside it")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="neighbours that vote on a class (default: 10)")
    for name, text in (
        ("sweep", "draw mAP against the percentile"),
        ("gallery", "draw a query of each class and its eight nearest, wrong classes framed red"),
        ("code-lengths", "draw mAP against the bits of the encoder and those of --compare"),
    ):
        parser.add_argument(f"--{name}", metavar="FILE.png", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _evaluate_radio(args: argparse.Namespace) -> None:
    from fasthash import plots
    from fasthash._validation import check_int
    from fasthash.encoder import load_encoder
    from fasthash.radio.retrieval import radio_encoder

    check_int("-k", args.k, 1, 2**31 - 1)
    if args.percentile is not None and not 0 <= args.percentile <= 100:
        raise ArgumentError(f"--percentile: expected a number in [0, 100], got {args.percentile:g}")
    for name in ("sweep", "gallery", "code_lengths"):
        if getattr(args, name):
            check_writable(f"--{name.replace('_', '-')}", getattr(args, name), *plots.SUFFIXES)
    encoders = [radio_encoder(load_encoder(name)) for name in (args.encoder, *args.compare)]
    query, reference = (chosen(name, args) for name in ("query", "reference"))
    if not np.isin(query.labels, reference.labels).any():
        classes = ", ".join(np.unique(query.labels))
        raise ArgumentError(f"--query {args.query}: of its classes ({classes}), --reference {args.reference} has none")
    runs = [_retrieve(encoder, query, reference, args) for encoder in encoders]
    main, report = runs[0], runs[0].report()
    answer: dict[str, Any] = {"encoder": main.encoder.name, "percentile": main.percentile}
    answer |= {"reference_codes": args.reference_codes, **report.to_dict()}
    lines = [_ranking_table(main, report)]
    if args.drop_duplicates:
        rest = main.without_duplicates()
        answer["without_duplicates"] = rest.to_dict() if rest is not None else None
        lines.append(_duplicates_line(report, rest))
    if args.sweep:
        percentiles, reports = main.sweep()
        rests: Sequence[Any] = [None] * len(reports)
        if args.drop_duplicates and answer["without_duplicates"] is not None:
            _, rests = main.sweep(main.unknown())
        answer["percentiles"] = [
            {"percentile": p, **_scores(each), **_rest(rest)}
            for p, each, rest in zip(percentiles, reports, rests, strict=True)
        ]
        own = None if main.percentile is not None else report.map
        plots.percentile_sweep(
            percentiles,
            _curves(reports),
            report.chance,
            args.sweep,
            own=own,
            title=f"{main.encoder.name}, {main.encoder.n_bits} bits",
        )
    if args.gallery:
        plots.galleries(
            main.gallery(report), args.gallery, title=f"Nearest by {_title(main)}; framed: of another class"
        )
    if args.compare or args.code_lengths:
        reports = [report, *(run.report() for run in runs[1:])]
        rests = [run.without_duplicates() if args.drop_duplicates else None for run in runs]
        answer["compared"] = [_compared(*each) for each in zip(runs, reports, rests, strict=True)]
        lines.append(_comparison_table(runs, reports, rests))
        if args.code_lengths:
            bits = [each.n_bits for each in reports]
            plots.code_length_study(bits, _curves(reports), report.chance, args.code_lengths)
    if args.json:
        print_json(answer)
    else:
        print(*lines, sep="\n\n")


def _retrieve(encoder: Any, query: Any, reference: Any, args: argparse.Namespace) -> Any:
    from fasthash.radio.retrieval import Retrieval

    by_label, show = args.reference_codes == "labels", Progress(f"{encoder.name}: encoded")
    retrieval = Retrieval(encoder, query, reference, args.percentile, by_label, args.k, args.threads, show)
    _say_skipped(retrieval.problems)
    return retrieval


def _rank(encoder: Any, query: Any, reference: Any, args: argparse.Namespace) -> Any:
    """A plain report of an encoder by its own bits."""
    from fasthash.radio.retrieval import Retrieval

    show = Progress(f"{encoder.name}: encoded, held out")
    return Retrieval(encoder, query, reference, num_threads=args.threads, progress=show).report()


def _describe(images: Any, front_end: Any, args: argparse.Namespace) -> tuple[Any, Any]:
    from fasthash.radio.dataset import describe_set

    inputs, kept, problems = describe_set(images, front_end, args.threads)
    _say_skipped(problems)
    return inputs, kept


def _say_skipped(problems: Sequence[str]) -> None:
    for line in problems:
        say(f"skipped: {line}")


def _read(path: str, split: str | None, args: argparse.Namespace) -> Any:
    from fasthash.radio.dataset import read_dataset

    images = read_dataset(path, split, limits(args), args.threads, Progress(f"{printable(path)}: read"))
    _say_skipped(images.problems)
    return images


def chosen(name: str, args: argparse.Namespace) -> Any:
    """The images of --reference or --query; of several splits, the one that is meant by it."""
    from fasthash.radio.dataset import SPLITS

    path, split = getattr(args, name), getattr(args, f"{name}_split", None)
    images = _read(path, split, args)
    there = [each for each in SPLITS if (images.splits == each).any()]
    if split is not None or len(there) < 2:
        return images
    preferred = ("train", "valid", "test") if name == "reference" else ("test", "valid", "train")
    split = next(each for each in preferred if each in there)
    option = f" (--{name}-split)" if hasattr(args, f"{name}_split") else ""
    say(f"--{name} {path}: holds {', '.join(there)}; {split} is taken{option}")
    return images.split(split)


# ---- what is shown -------------------------------------------------------------------------------------------------


def _title(run: Any) -> str:
    how = "thresholds of its own" if run.percentile is None else f"percentile {run.percentile:g} of each image"
    labels = ", reference codes from labels" if run.codes_from_labels else ""
    return f"{run.encoder.name}, {run.encoder.n_bits} bits, {how}{labels}"


def _compared(run: Any, report: Any, rest: Any) -> dict[str, Any]:
    about = {"encoder": run.encoder.name, "n_bits": report.n_bits, **_scores(report), "ci95": list(report.ci95)}
    return about | _rest(rest)


def _rest(report: Any) -> dict[str, Any]:
    return {"without_duplicates": _scores(report)} if report else {}


def _scores(report: Any) -> dict[str, float]:
    from fasthash.ranking import VARIANTS

    numbers = report.to_dict()
    return {name: numbers[name] for name in VARIANTS}


def _curves(reports: Sequence[Any]) -> dict[str, list[float]]:
    scores = [_scores(each) for each in reports]
    names = {"map": "full ranking", "map_top100": "first 100", "map_top100_retrieved": "first 100, of the retrieved"}
    return {text: [each[name] for each in scores] for name, text in names.items()}


def _ranking_table(run: Any, report: Any) -> str:
    numbers, (low, high) = report.to_dict(), report.ci95
    lines = [f"{_title(run)}: {report.n_query} queries, {report.n_reference} reference images"]
    if run.codes_from_labels:
        lines.append("the reference has the codes of its classes: NOT the paper's protocol, compare with nothing else")
    if report.n_unmatched:
        lines.append(f"{report.n_unmatched} queries left out: the reference has none of their class")
    oracle = report.oracle
    lines += [
        f"mAP                    {report.map:.3f}   (chance {report.chance:.3f}; "
        f"95 % interval {low:.3f} to {high:.3f})",
        f"mAP of the first 100   {numbers['map_top100']:.3f}   (chance {numbers['chance_top100']:.3f})",
        f"  of those retrieved   {numbers['map_top100_retrieved']:.3f}   "
        f"(chance {numbers['chance_top100_retrieved']:.3f})",
        f"class by {report.k} nearest    {report.knn_accuracy:.3f}   (share of the queries)",
        f"mAP if codes knew the labels: of the queries {oracle['query']:.3f}, of the reference "
        f"{oracle['reference']:.3f}, of both {oracle['both']:.3f}",
        "",
        _class_table(report),
    ]
    return "\n".join(lines)


def _class_table(report: Any) -> str:
    names = report.classes.tolist()
    head = f"{'class':<9} {'queries':>7} {'reference':>9} {'mAP':>6} {'first 100':>9} {'chance':>6}   taken for"
    lines = [head + "".join(f" {name:>8}" for name in names)]
    for name, part in report.per_class().items():
        counts = "".join(f" {count:>8}" for count in report.confusion[names.index(name)])
        lines.append(
            f"{name:<9} {part['n_query']:>7} {part['n_reference']:>9} {part['map']:>6.3f} "
            f"{part['map_top100']:>9.3f} {part['chance']:>6.3f}            {counts}"
        )
    return "\n".join(lines)


def _duplicates_line(report: Any, rest: Any | None) -> str:
    if rest is None:
        return "without duplicates: no query is left whose class is in the reference"
    dropped = report.n_query - rest.n_query
    return f"without the {dropped} queries that stand in the reference: mAP {rest.map:.3f}, chance {rest.chance:.3f}"


def _comparison_table(runs: Sequence[Any], reports: Sequence[Any], rests: Sequence[Any]) -> str:
    lines = [f"{'encoder':<20} {'bits':>5} {'mAP':>6}   95 % interval" + "   without duplicates" * any(rests)]
    for run, report, rest in zip(runs, reports, rests, strict=True):
        low, high = report.ci95
        line = f"{run.encoder.name:<20} {report.n_bits:>5} {report.map:>6.3f}   {low:.3f} to {high:.3f}"
        lines.append(line + (f"   {rest.map:>18.3f}" if rest else ""))
    for bits in sorted({report.n_bits for report in reports}):
        alike = [i for i, report in enumerate(reports) if report.n_bits == bits]
        if len(alike) > 1:
            spread = _spread([reports[i] for i in alike])
            if all(rests[i] for i in alike):
                spread += "; without duplicates " + _spread([rests[i] for i in alike])
            lines.append(f"{len(alike)} of {bits} bits: {spread}")
    return "\n".join(lines)


def _spread(reports: Sequence[Any]) -> str:
    found = [report.map for report in reports]
    return f"mean {np.mean(found):.3f}, standard deviation {np.std(found, ddof=1):.3f}"
