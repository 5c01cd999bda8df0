"""Commands of catalogs as tables for other programs: export, import."""

import argparse
from typing import Any

from fasthash.cli._common import verb

_TABLE = "a .parquet file, or a VOTable (.xml, .vot)"


def add_export(verbs: Any) -> None:
    parser = verb(
        verbs,
        "export",
        _export,
        "Write a catalog as a table for other programs: paths, times, labels, hashes and codes, one row an image.",
        "export sun.catalog sun.parquet",
    )
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument("table", metavar="FILE", help=_TABLE)


def _export(args: argparse.Namespace) -> None:
    from fasthash.catalog import Catalog
    from fasthash.exchange import export_table

    with Catalog.open(args.catalog) as catalog:
        count = export_table(catalog, args.table)
    print(f"{args.table}: {count} images")


def add_import(verbs: Any) -> None:
    parser = verb(
        verbs,
        "import",
        _import,
        "Add the rows of a table that `fasthash export` wrote to a catalog, which is made where there is none.",
        "import sun.parquet copy.catalog",
    )
    parser.add_argument("table", metavar="FILE", help=_TABLE)
    parser.add_argument("catalog", metavar="CATALOG")
    parser.add_argument(
        "--encoder", metavar="NAME_OR_FILE", help="for a new catalog (default: the shipped one that made the hashes)"
    )


def _import(args: argparse.Namespace) -> None:
    from fasthash.exchange import import_table

    report = import_table(args.table, args.catalog, args.encoder)
    print(f"{args.catalog}: {len(report.added)} images added, {len(report.known)} were there already")
