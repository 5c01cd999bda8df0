"""Tables and listings of the documentation, drawn from the stored runs.

    python -m benchmarks.tables            # after a run with --store, or of benchmarks.store

A page holds a table between ``<!-- table: NAME -->`` and ``<!-- end -->``; NAME is a function here. Between
``<!-- output: NAME -->`` and ``<!-- end -->`` it holds what the stored run of that name printed: Markdown as it is,
anything else as a listing below its command. Each is followed by its run, day and machine; figures of benchmarks that
no table draws are listed in full by `others`.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.store import RESULTS, stored

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- (table|output): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Rows = list[list[str]]


def pages() -> list[Path]:
    folders = [ROOT / "docs", ROOT / "benchmarks", ROOT / "fasthash" / "encoders"]
    return [ROOT / "README.md", *(page for folder in folders for page in sorted(folder.rglob("*.md")))]


def render(page: Path) -> str:
    """A page with all its tables and listings as the stored runs have them."""
    results = os.path.relpath(RESULTS, page.parent)
    text = page.read_text(encoding="utf-8")
    draw = {"table": table, "output": output}
    return BLOCK.sub(lambda found: found[1] + draw[found[2]](found[3], results) + found[4], text)


def table(name: str, results: str) -> str:
    """The table of that name, for a page that has the stored runs at ``results``."""
    rows, runs = TABLES[name]()
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body, "", origin(runs, results), ""])


def output(name: str, results: str) -> str:
    """What the stored run of that name printed, for a page that has the stored runs at ``results``."""
    run = stored(name)
    lines = run["output"]
    if not lines[0].startswith("|"):
        lines = ["```", *(f"$ {line}" for line in run["command"].splitlines()), *lines, "```"]
        return "\n".join([*lines, "", origin([name], results, command=False), ""])
    return "\n".join([*lines, "", origin([name], results), ""])


def origin(names: list[str], results: str, command: bool = True) -> str:
    """Where the figures of some runs come from: of each its file, its command, and its machine and load."""
    return "<sub>" + "; ".join(_origin(name, results, command) for name in names) + "</sub>"


def _origin(name: str, results: str, command: bool) -> str:
    run = stored(name)
    machine = run["environment"]
    ran = f"`{'; '.join(run['command'].splitlines())}`, " if command else ""
    load = max(machine["load_before"], machine["load_after"])
    where = f"{machine['processor']}, {machine['simd_level']}, {machine['cores']} cores, load up to {load}"
    return f"[{name}]({results}/{name}.json): {ran}{run['date']}, {where}"


def number(value: float) -> str:
    """To three digits."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def cells(figures: dict[str, Any], *names: str, scale: float = 1) -> list[str]:
    return [number(figures[name] * scale) if name in figures else "" for name in names]


# ---------------------------------------------------------------- one function a table


def descriptor() -> tuple[Rows, list[str]]:
    one = stored("descriptor")["figures"]["test_one_thread"]
    names = {
        "ours": "fasthash, one thread",
        "fast_histogram": "fast-histogram, 25 calls",
        "boost_histogram": "boost-histogram, 25 fills",
        "numpy_max": "`numpy.max`, one pass over the pixels",
    }
    rows = [["", "milliseconds", "by fasthash's"]]
    for name, words in names.items():
        rows.append([words, number(one[f"{name}_ms"]), number(one[f"{name}_ms"] / one["ours_ms"])])
    return rows, ["descriptor"]


def file() -> tuple[Rows, list[str]]:
    """From the bytes of a file to a descriptor, or to pixels."""
    run = stored("file")["figures"]
    names = {
        "test_rice[solar]": "Rice-compressed HMI file to field map (`solar`)",
        "test_rice[solar-paper]": "the same to histogram grid (`solar-paper`)",
        "test_rice_to_array": "the same to an array of all pixels",
        "test_plain[solar]": "plain float32 file to field map",
        "test_plain[solar-paper]": "the same to histogram grid",
    }
    rows = [["milliseconds", "one thread", "two threads", "`astropy.io.fits.getdata`", "reading", "reading, one pass"]]
    for test, words in names.items():
        figures = run[test]
        times = f"{number(figures['getdata_ms'])} ({number(figures['getdata_ms'] / figures['one_thread_ms'])} x" + (
            f", {number(figures['getdata_ms'] / figures['two_threads_ms'])} x)" if "two_threads_ms" in figures else ")"
        )
        ours = cells(figures, "one_thread_ms", "two_threads_ms")
        rows.append([words, *ours, times, *cells(figures, "read_ms", "read_and_one_pass_ms")])
    return rows, ["file"]


def file_steps() -> tuple[Rows, list[str]]:
    figures = stored("file")["figures"]["test_steps_of_rice"]
    steps = {
        "open": "read the file, parse its header, check sizes and DATASUM",
        "decode": "decode Rice, scale, look for infinite pixels",
        "solar-paper": "histogram grid (`solar-paper`)",
        "solar": "or field map (`solar`)",
        "digest": "BLAKE2b of the file, for catalogs",
    }
    rows = [["step, one thread", "milliseconds"]]
    return rows + [[words, number(figures[f"{step}_ms"])] for step, words in steps.items()], ["file"]


LEVELS = ("avx512vpopcntdq", "avx512", "avx2", "neon")


def hamming() -> tuple[Rows, list[str]]:
    run = stored("hamming")["figures"]
    levels = [level for level in LEVELS if f"{level}_ms" in next(iter(run.values()))]
    rows = [["codes", "bits", "queries", *levels, "faiss", "reading"]]
    for test, figures in run.items():
        queries, codes, bits = map(int, re.findall(r"\d+", test))
        times = [
            f"{number(figures[f'{level}_ms'])} ({number(figures[f'{level}_times_faster_than_faiss'])} x)"
            for level in levels
        ]
        rows.append(
            [f"{codes // 10**6} M", str(bits), str(queries), *times, *cells(figures, "faiss_ms", "read_floor_ms")]
        )
    return rows, ["hamming"]


def hamming_each() -> tuple[Rows, list[str]]:
    """Of a million codes, a query."""
    run = stored("hamming")["figures"]
    shapes = [(queries, bits) for bits in (64, 256) for queries in (1, 64)]
    rows = [["", *(f"{bits} bits, {'one' if queries == 1 else '64 together'}" for queries, bits in shapes)]]
    for name in (*LEVELS, "faiss", "read_floor"):
        row = [name if name != "read_floor" else "reading the codes once"]
        for queries, bits in shapes:
            figures = run[f"test_knn[{queries}-1000000-{bits}]"]
            row += cells(figures, f"{name}_ms", scale=1 / queries) if queries == 1 or name != "read_floor" else [""]
        if any(row[1:]):
            rows.append(row)
    return rows, ["hamming"]


def hamming_index() -> tuple[Rows, list[str]]:
    rows = [["codes", "HammingIndex", "p99", "mean", "faiss flat", "faster", "scan", "bytes a byte", "build, s"]]
    names = {
        "test_ten_million_clustered": "10 M x 64 bit, clustered",
        "test_a_hundred_million_clustered": "100 M x 64 bit, clustered",
        "test_ten_million_uniform": "10 M x 64 bit, uniform",
        "test_buckets[10000000]": "10 M x 8 bit, k = 100",
        "test_buckets[100000000]": "100 M x 8 bit, k = 100",
    }
    runs = [name for name in ("hamming_index", "hamming_index_large") if stored(name)["figures"]]
    figures = {test: values for name in runs for test, values in stored(name)["figures"].items()}
    for test in (test for test in names if test in figures):
        each = figures[test]
        faster = number(each["faiss_flat_us"] / each["p50_us"]) + " x"
        times = cells(each, "p50_us", "p99_us", "mean_us", "faiss_flat_us")
        rest = cells(each, "scan_us", "bytes_per_byte_of_code", "build_seconds")
        rows.append([names[test], *times, faster, *rest])
    return rows, runs


def encoder() -> tuple[Rows, list[str]]:
    run = stored("encoder")["figures"]
    one, many = run["test_one_descriptor"], run["test_many_descriptors"]
    names = {
        "fasthash": "fasthash",
        "onnxruntime": "onnxruntime",
        "numpy_network": "numpy, the whole network",
        "numpy_products": "numpy, its three matrix products alone",
    }
    rows = [["one thread, microseconds a descriptor", "alone", "p99 by p50", "256 together"]]
    for name, words in names.items():
        if f"{name}_us" not in one:  # a run from before there were two
            continue
        rows.append([words, *cells(one, f"{name}_us", f"{name}_p99_by_p50"), *cells(many, f"{name}_us_a_row")])
    return rows, ["encoder"]


def cold_start() -> tuple[Rows, list[str]]:
    run = stored("cold_start")["figures"]
    imports, first = run["test_import"], [run[f"test_first_hash[{name}]"] for name in ("solar", "solar-paper")]
    names = {
        "first_hash": "to the first hash of the file",
        "compiling": "the same, where the kernel has to be compiled",
        "astropy_getdata": "`astropy.io.fits.getdata` of the file",
    }
    rows = [["a new process, seconds", "`solar`", "`solar-paper`"]]
    rows += [[f"`{what}`", *cells(imports, f"{name}_s"), ""] for name, what in IMPORTS.items()]
    rows += [[words, *(number(figures[f"{name}_s"]) for figures in first)] for name, words in names.items()]
    return rows, ["cold_start"]


IMPORTS = {"python": "pass", "numpy": "import numpy", "fasthash": "import fasthash"}


def codes() -> tuple[Rows, list[str]]:
    figures = stored("codes")["figures"]["test_codes"]
    rows = [["nanoseconds an image", "fasthash", "numpy", "fasthash by numpy"]]
    for words, ours, theirs in (
        ("a threshold for each bit", "thresholds", "numpy"),
        ("the median of each image", "percentile", "numpy_median"),
    ):
        rows.append([words, *cells(figures, f"{ours}_ns_each", f"{theirs}_ns_each", f"{ours}_by_numpy")])
    return rows, ["codes"]


def flat() -> tuple[Rows, list[str]]:
    rows = [["queries at a time", "FlatIndex", "faiss", "times faster than faiss"]]
    for test, figures in stored("index")["figures"].items():
        queries = re.findall(r"\d+", test)
        rows.append([*queries, *cells(figures, "us_per_query", "faiss_us_per_query", "times_faster_than_faiss")])
    return rows, ["index"]


LIBRARIES = ("fasthash", "hnswlib", "faiss", "usearch")


def hnsw() -> tuple[Rows, list[str]]:
    rows = [["vectors", "", *LIBRARIES]]
    what = {
        "queries_a_second": "queries a second, 1000 together",
        "us_one_alone": "microseconds, one alone",
        "ef": "ef",
        "recall_at_10": "recall@10",
        "build_s": "build, two threads, s",
    }
    for test, figures in stored("hnsw")["figures"].items():
        kind, n = test.removeprefix("test_hnsw[").removesuffix("]").split("-")
        for i, (name, words) in enumerate(what.items()):
            vectors = f"{int(n):,} {kind}" if i == 0 else ""
            rows.append([vectors, words, *cells(figures, *(f"{each}_{name}" for each in LIBRARIES))])
    return rows, ["hnsw"]


GROWTH = {
    "test_scan": "scan, 64 bit (`knn_hamming`)",
    "test_multi_index[clustered]": "`HammingIndex`, 64 bit, clustered",
    "test_multi_index[clustered, compact]": "the same, compact",
    "test_multi_index[uniform]": "the same, uniform codes",
    "test_buckets": "`HammingIndex`, 8 bit, k = 100",
    "test_flat": "scan, 50 floats (`FlatIndex`)",
    "test_hnsw": "`HNSWIndex`, 50 floats",
}
FITTED_FROM = 10**5  # rows: what fits in a cache tells nothing of what does not


def grown() -> tuple[dict[str, dict[str, list[float]]], list[str]]:
    """By row of GROWTH its columns, the large runs' behind the others; and the runs."""
    runs = [name for name in ("growth", "growth_large") if stored(name)["figures"]]
    found: dict[str, dict[str, list[float]]] = {}
    for test, figures in (item for name in runs for item in stored(name)["figures"].items()):
        columns = found.setdefault("test_hnsw" if test.startswith("test_hnsw[") else test, {})
        for name, values in figures.items():
            columns.setdefault(name, []).extend(values)
    return found, runs


def exponent(columns: dict[str, list[float]]) -> float:
    """The slope of time against rows, in logarithms."""
    large = [(n, us) for n, us in zip(columns["n"], columns["us"], strict=True) if n >= FITTED_FROM]
    return round(float(np.polyfit(*np.log10(large).T, 1)[0]), 2) + 0.0


def growth() -> tuple[Rows, list[str]]:
    found, runs = grown()
    sizes = sorted({n for columns in found.values() for n in columns["n"]})
    rows = [["microseconds a query", *(f"{n:,}" for n in sizes), "exponent"]]
    for test, words in GROWTH.items():
        at = dict(zip(found[test]["n"], found[test]["us"], strict=True))
        rows.append([words, *(number(at[n]) if n in at else "" for n in sizes), f"{exponent(found[test])}"])
    return rows, runs


def growth_memory() -> tuple[Rows, list[str]]:
    found, runs = grown()
    rows = [["at the largest n measured", "n", "bytes a row", "build, s", "build, us a row"]]
    for test, words in GROWTH.items():
        figures = {name: values[-1] for name, values in found[test].items()}
        if "build_s" in figures:
            each = number(1e6 * figures["build_s"] / figures["n"])
            rows.append([words, f"{figures['n']:,}", *cells(figures, "bytes_a_row", "build_s"), each])
    return rows, runs


def growth_graph() -> tuple[Rows, list[str]]:
    """What the graph alone has: the neighbours it finds, and how long it takes to build."""
    found, runs = grown()
    columns = found["test_hnsw"]
    rows = [["`HNSWIndex`, 50 floats", *(f"{n:,}" for n in columns["n"])]]
    rows.append(["queries a second, one by one", *(number(1e6 / us) for us in columns["us"])])
    rows.append(["recall@10", *(f"{recall:.4f}" for recall in columns["recall_at_10"])])
    rows.append(["build, two threads, s", *(number(seconds) for seconds in columns["build_s"])])
    return rows, runs


def speed() -> tuple[Rows, list[str]]:
    """The README's: one line for each thing that is fast or slow."""
    grid = stored("descriptor")["figures"]["test_one_thread"]
    codes, index = stored("hamming")["figures"], stored("hamming_index")["figures"]["test_ten_million_clustered"]
    whole = stored("file")["figures"]["test_rice[solar]"]
    graph, scan = stored("hnsw")["figures"]["test_hnsw[clustered-200000]"], stored("index")["figures"]["test_flat[1]"]

    def ms(figures: dict[str, Any], name: str, by: float = 1) -> str:
        return f"{number(figures[name] / by)} ms"

    one, many = codes["test_knn[1-1000000-64]"], codes["test_knn[64-1000000-64]"]
    best = next(f"{level}_ms" for level in LEVELS if f"{level}_ms" in one)
    multi = f"{ms(index, 'faiss_multi_hash_us', 1e3)} (recall {index['faiss_multi_hash_recall']})"
    peers = [f"{name} {number(graph[f'{name}_queries_a_second'])}" for name in LIBRARIES[1:]]
    grids = [f"{name}-histogram {ms(grid, f'{name}_histogram_ms')}" for name in ("fast", "boost")]
    slower = "**slower**: " if scan["times_faster_than_faiss"] < 1 else ""
    return [
        ["work, one thread", "fasthash", "beside it, same run"],
        [
            "Rice-compressed file of 4096 x 4096 pixels to its field map",
            ms(whole, "one_thread_ms"),
            f"`astropy.io.fits.getdata` alone {ms(whole, 'getdata_ms')}",
        ],
        [
            "histogram grid of a 4096 x 4096 magnetogram",
            ms(grid, "ours_ms"),
            f"{', '.join(grids)}, `numpy.max` (one pass) {ms(grid, 'numpy_max_ms')}",
        ],
        [
            "nearest 10 of 1 M 64-bit codes, exact, one query",
            ms(one, best),
            f"faiss {ms(one, 'faiss_ms')}, reading the codes {ms(one, 'read_floor_ms')}",
        ],
        ["the same, 64 queries, a query", ms(many, best, 64), f"faiss {ms(many, 'faiss_ms', 64)}"],
        [
            "nearest 10 of 10 M clustered 64-bit codes, by index, exact, one query",
            ms(index, "p50_us", 1e3),
            f"faiss flat {ms(index, 'faiss_flat_us', 1e3)}, faiss MultiHash {multi}",
        ],
        [
            "nearest 10 of 200,000 50-d hashes by HNSW, recall .99, queries a second",
            number(graph["fasthash_queries_a_second"]),
            ", ".join(peers),
        ],
        [
            "nearest 10 of 20,000 50-d hashes, exact, one query",
            ms(scan, "us_per_query", 1e3),
            f"{slower}faiss {ms(scan, 'faiss_us_per_query', 1e3)}",
        ],
    ], ["descriptor", "file", "hamming", "hamming_index", "hnsw", "index"]


def catalog() -> tuple[Rows, list[str]]:
    """A line for each thing that a catalog does, a column for each number of images."""
    runs = [name for name in ("catalog", "catalog_large") if stored(name)["figures"]]
    lines = {
        "search_p50_us": "search by graph, us",
        "graph_alone_p50_us": "- of these the graph alone",
        "recall_at_10": "- recall@10",
        "many_at_once_us": "- each of 300 together",
        "exact_p50_us": "exact search, us",
        "hamming_p50_us": "search by code, exact, us",
        "within_48h_p50_us": "within 48 hours (481 images), exact, us",
        "numpy_on_these_rows_p50_us": "- NumPy on these rows, known already",
        "exclude_12h_p50_us": "without 12 hours either side, us",
        "distinct_6h_p50_us": "one each 6 hours, us",
        "label_of_a_tenth_p50_us": "with the label of a tenth, us",
        "header_card_p50_us": "with a header card in a range, us",
        "region_p50_us": "by the northern half, us",
        "insert_p50_us": "add one image, durable, us",
        "write_and_sync_p50_us": "- 4 KB written and synced",
        "search_for_it_p50_us": "- the search that finds it",
        "process_s": "new process, to the first answer, s",
        "read_and_hash_caches_s": "- the caches read and hashed",
        "process_s_without_caches": "- without caches",
        "journal_bytes_an_image": "bytes of journal an image",
    }
    figures: dict[int, dict[str, Any]] = {}
    for each in (values for name in runs for values in stored(name)["figures"].values()):
        figures.setdefault(each["images"], {}).update(each)
    rows = [["", *(f"{images:,} images" for images in figures)]]
    rows += [[words, *(cells(each, name)[0] for each in figures.values())] for name, words in lines.items()]
    return rows, runs


def catalog_precision() -> tuple[Rows, list[str]]:
    figures = next(v for test, v in stored("catalog")["figures"].items() if "precision_is_that_of_memory" in test)
    names = {"graph": "search by graph", "exact": "exact search", "in_memory": "NumPy, in memory"}
    precision = [f"{figures[f'precision_{name}']:.4f}" for name in names]
    return [["precision, 48-h window", *names.values()], [f"{figures['images']:,} images", *precision]], ["catalog"]


def others() -> tuple[Rows, list[str]]:
    """Every figure of the runs that have no table of their own."""
    drawn = {run for draw in TABLES.values() if draw is not others for run in draw()[1]}
    runs = sorted(path.stem for path in RESULTS.glob("*.json") if stored(path.stem)["figures"])
    runs = [run for run in runs if run not in drawn]
    rows = [["benchmark", "figures"]]
    for run in runs:
        for test, figures in stored(run)["figures"].items():
            shown = (f"{name} {number(x) if isinstance(x, (int, float)) else x}" for name, x in figures.items())
            rows.append([f"{run}: {test.removeprefix('test_')}", "; ".join(shown)])
    return rows, runs


TABLES: dict[str, Callable[[], tuple[Rows, list[str]]]] = {
    each.__name__: each
    for each in (
        descriptor,
        file,
        file_steps,
        encoder,
        cold_start,
        codes,
        hamming,
        hamming_each,
        hamming_index,
        flat,
        hnsw,
        catalog,
        catalog_precision,
        growth,
        growth_memory,
        growth_graph,
        speed,
        others,
    )
}


def changed() -> Iterator[tuple[Path, str]]:
    """The pages whose tables and listings are not those of the stored runs, and how they should read."""
    for page in pages():
        text = render(page)
        if text != page.read_text(encoding="utf-8"):
            yield page, text


if __name__ == "__main__":
    for page, text in changed():
        page.write_text(text, encoding="utf-8")
        print(page.relative_to(ROOT))
