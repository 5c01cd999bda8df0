"""Commands of an archive: encode, build, add, search, relabel, delete, compact, verify."""

import argparse
import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fasthash._progress import Progress
from fasthash.cli._common import (
    INPUT,
    READING,
    THREADS,
    add_encoder,
    add_metric,
    add_threads,
    check_writable,
    find,
    limits,
    print_json,
    printable,
    report_skipped,
    say,
    verb,
    warn,
)
from fasthash.errors import FastHashError
from fasthash.times import format_time, parse_span, parse_time

_WHICH = "a path as the catalog has it (search shows it), or id:N, a number of the catalog (search --json shows it)"


def add_encode(verbs: Any) -> None:
    parser = verb(
        verbs,
        "encode",
        _encode,
        "Hash images into an .npz of hashes, codes, paths, times and labels. "
        "Interrupted and started again, it goes on from FILE.npz.partial.",
        "encode frames --encoder solar -o hashes.npz --processes 2",
        READING,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUT)
    add_encoder(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE.npz", help="file to write")
    share = parser.add_mutually_exclusive_group()
    add_threads(share)
    share.add_argument("--processes", type=int, metavar="N", help="worker processes instead of threads; -1: one a core")
    share.add_argument(
        "--dask", metavar="ADDRESS", help="workers of a Dask cluster, tcp://HOST:PORT, or of one on this host, local"
    )


def _encode(args: argparse.Namespace) -> None:
    from fasthash._storage import atomic_write
    from fasthash.bulk import Checkpoint
    from fasthash.catalog import remarks_on
    from fasthash.encoder import Encoded, Failure, load_encoder

    check_writable("-o", args.output, ".npz")
    encoder = load_encoder(args.encoder)
    paths, problems = find(args)
    checkpoint = Checkpoint(args.output, encoder, limits(args))
    warn(f"{line}; its images are encoded again" for line in checkpoint.problems)
    if checkpoint.done:
        say(f"{checkpoint.folder}: {len(checkpoint.done)} images are encoded already")
    encoded: list[Encoded] = []
    seen: dict[str, str] = {}
    progress = Progress("encoded")
    with contextlib.closing(checkpoint.resume(paths, _encode_files(encoder, args))) as items:
        for done, item in enumerate(items, start=1):
            progress(done, len(paths))
            if isinstance(item, Failure):
                problems.append(item.message)
                continue
            encoded.append(item)
            warn(f"{item.image.path}: {text}" for text in remarks_on(item, encoder))
            twin = seen.setdefault(item.image.digest, item.image.path)
            if twin != item.image.path:
                warn([f"{item.image.path}: the same content as {twin}"])
    report_skipped(problems, done=len(encoded))
    hashes = np.stack([item.hash for item in encoded])
    arrays: dict[str, Any] = {
        "hashes": hashes,
        "codes": encoder.binarize(hashes),
        "paths": np.array([item.image.path for item in encoded], np.str_),
        "times": np.array([format_time(item.image.time) for item in encoded], np.str_),
        "labels": np.array([item.label for item in encoded], np.str_),
    }
    with atomic_write(args.output) as file:
        np.savez(file, **arrays)
    checkpoint.remove()
    print(f"{args.output}: {len(encoded)} images, hashes {hashes.shape[1]} floats, codes {encoder.n_bits} bits")


def _encode_files(encoder: Any, args: argparse.Namespace) -> Callable[[Iterable[str]], Iterator[Any]]:
    """How the work is shared out, as the user wants it."""
    from fasthash import bulk

    if args.dask is not None:
        return lambda paths: bulk.encode_on_dask(encoder, paths, args.dask, limits(args))
    if args.processes is not None:
        return lambda paths: bulk.encode_in_processes(encoder, paths, args.processes, limits(args))
    return lambda paths: encoder.encode_files(paths, args.threads, limits(args))


def add_build(verbs: Any) -> None:
    parser = verb(
        verbs,
        "build",
        _build,
        "Make a catalog of images.",
        "build frames --encoder solar -o sun.catalog",
        THREADS,
        READING,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUT)
    add_encoder(parser)
    parser.add_argument("-o", "--output", required=True, metavar="CATALOG", help="folder to make")


def _build(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog

    was_there = Path(args.output).is_dir()
    catalog = Catalog.create(args.output, args.encoder)
    try:
        _add_to(catalog, args)
    except BaseException:
        with catalog:
            empty = len(catalog) == 0
        if empty:  # nothing was indexed: leave all as it was
            shutil.rmtree(args.output, ignore_errors=True)
            if was_there:
                Path(args.output).mkdir()
        raise
    catalog.close()


def add_add(verbs: Any) -> None:
    parser = verb(verbs, "add", _add, "Add images to a catalog.", "add sun.catalog new-frames", THREADS, READING)
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=INPUT)


def _add(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog

    with Catalog.open(args.catalog) as catalog:
        _add_to(catalog, args)


def _add_to(catalog: Any, args: argparse.Namespace) -> None:
    report = catalog.add(args.inputs, args.threads, limits(args), Progress("encoded"))
    warn(report.remarks)
    warn(f"{path}: its content is in the catalog already" for path in report.known)
    report_skipped(report.failures, done=len(report.added) + len(report.known))
    print(f"{catalog.path}: {len(report.added)} images added, {len(catalog)} in all, encoder {catalog.encoder.name}")
    if catalog.is_folding:
        say("what keeps searches fast is being renewed; all images are on the disk already")


def add_search(verbs: Any) -> None:
    parser = verb(
        verbs,
        "search",
        _search,
        "Find the images of a catalog that are most like one image.",
        "search sun.catalog frame.fits -k 10 --exclude-within 12h --gallery hits.png",
        READING,
    )
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("image", metavar="IMAGE", help="a file, or id:N, number N of the catalog (--json shows them)")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="results wanted (default: 10)")
    add_metric(parser)
    parser.add_argument("--exclude-within", metavar="12h", help="leave out what was taken this close to the query")
    parser.add_argument("--between", nargs=2, metavar=("T0", "T1"), help="only what was taken in this span, UTC")
    parser.add_argument("--label", metavar="L", help="only images of this label")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CARD=VALUE",
        help="only images with this header card, or one from LOW to HIGH: TELESCOP=SOHO, CROTA2=-1..1; text that looks "
        "like a number in quotes: \"OBJECT='11158'\"; may be repeated",
    )
    parser.add_argument("--distinct", metavar="6h", help="of images taken closer than this, only the most similar one")
    parser.add_argument(
        "--region",
        metavar="PART",
        help="compare only north, south, east, west, or a box x0,y0,x1,y1 in a square around the disk, from its "
        "south-eastern corner (0,0) to 1,1",
    )
    parser.add_argument("--exact", action="store_true", help="look at every image, however many there are")
    parser.add_argument("--gallery", metavar="FILE.png", help="draw the query and its hits")
    parser.add_argument("--json", action="store_true", help="print one JSON object; null is a distance beyond float32")


def _search(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog
    from fasthash.io import open_image

    if args.gallery:
        from fasthash.plots import SUFFIXES

        check_writable("--gallery", args.gallery, *SUFFIXES)
    exclude = parse_span("--exclude-within", args.exclude_within) if args.exclude_within else None
    between = None
    if args.between:
        between = parse_time("--between", args.between[0]), parse_time("--between", args.between[1])
    distinct = parse_span("--distinct", args.distinct) if args.distinct else None
    where = dict(_card(text) for text in args.where)
    named = _id_or_path(args.image)
    query = named if isinstance(named, int) else open_image(named, limits(args))
    with Catalog.open(args.catalog) as catalog:
        hits = catalog.search(
            query, args.k, args.metric, exclude, between, args.label, where, distinct, args.region, args.exact
        )
        time = catalog.get(query).time if isinstance(query, int) else format_time(query.time)
        if args.gallery:
            image = open_image(catalog.get(query).path, limits(args)) if isinstance(query, int) else query
            _draw_gallery(args.gallery, image, hits, catalog.encoder, args.metric)
    if args.json:
        results = [hit.to_dict() for hit in hits]
        print_json({"query": args.image, "time": time, "metric": args.metric, "results": results})
        return
    if not hits and args.label is not None:
        say(f"{args.catalog}: no such image has the label {args.label!r}")
    print(f"{'rank':>4}  {'distance':>10}  {'time (UTC)':<23}  {'label':<8}  path")
    for hit in hits:
        print(f"{hit.rank:>4}  {hit.distance:>10.5g}  {hit.time:<23}  {printable(hit.label):<8}  {printable(hit.path)}")


def _id_or_path(text: str) -> int | str:
    number = text.removeprefix("id:")
    return int(number) if text.startswith("id:") and number.isdecimal() else text


def _card(text: str) -> tuple[str, Any]:
    """A header card and its value, or the two between which it lies, of CARD=VALUE or CARD=LOW..HIGH."""
    card, equals, value = text.partition("=")
    if not equals:
        raise FastHashError(f"--where {text}: expected CARD=VALUE or CARD=LOW..HIGH")
    if len(value) > 1 and value[0] == value[-1] == "'":
        return card, value[1:-1]
    low, dots, high = value.partition("..")
    try:
        return card, (float(low), float(high)) if dots else float(value)
    except ValueError:
        return card, value


def add_relabel(verbs: Any) -> None:
    parser = verb(
        verbs,
        "relabel",
        _relabel,
        "Give images of a catalog another label.",
        "relabel radio.catalog FRII cut-outs/a.png cut-outs/b.png",
    )
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("label", metavar="LABEL", help="the new label; '' for none")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=_WHICH)


def _relabel(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog

    with Catalog.open(args.catalog) as catalog:
        count = catalog.relabel([_id_or_path(text) for text in args.images], args.label)
    print(f"{args.catalog}: {count} images relabelled")


def add_delete(verbs: Any) -> None:
    parser = verb(
        verbs,
        "delete",
        _delete,
        "Take images out of a catalog. Their files are left alone.",
        "delete sun.catalog frames/eclipse.fits id:812",
    )
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help=_WHICH)


def _delete(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog

    with Catalog.open(args.catalog) as catalog:
        count = catalog.delete([_id_or_path(text) for text in args.images])
        print(f"{args.catalog}: {count} images deleted, {len(catalog)} left")


def add_compact(verbs: Any) -> None:
    parser = verb(
        verbs,
        "compact",
        _compact,
        "Check a catalog, drop what was deleted, and make what searches of large catalogs are fast by.",
        "compact sun.catalog",
    )
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("--metric", choices=("l2", "cosine"), default="l2", help="of the graph (default: l2)")


def _compact(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog

    with Catalog.open(args.catalog) as catalog:
        catalog.compact(args.metric)
        print(f"{args.catalog}: {len(catalog)} images")


def add_verify(verbs: Any) -> None:
    parser = verb(verbs, "verify", _verify, "Check every entry of a catalog.", "verify sun.catalog")
    parser.add_argument("catalog", metavar="CATALOG")


def _verify(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog

    with Catalog.open(args.catalog) as catalog:
        print(f"{args.catalog}: all {catalog.verify()} images are as they were added")


def _draw_gallery(path: str, query: Any, hits: Iterable[Any], encoder: Any, metric: str) -> None:
    from fasthash import plots
    from fasthash.io import read_image
    from fasthash.solar.magnetogram import orient

    view = getattr(encoder.front_end, "picture", orient)
    pictures = []
    for hit in hits:
        try:
            pixels = view(read_image(hit.path))
        except FastHashError as error:
            warn([str(error)])
            pixels = None
        pictures.append(plots.Picture(pixels, hit.time, hit.label, hit.distance))
    title = f"Nearest by {metric} distance of {encoder.name} hashes"
    plots.gallery(plots.Picture(view(query), format_time(query.time)), pictures, path, title=title)
