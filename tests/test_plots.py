import subprocess
import sys

import numpy as np
import pytest

from fasthash.errors import ArgumentError, FastHashError
from fasthash.evaluation import distances_in_time, evaluate_windows
from fasthash.plots import (
    Picture,
    code_length_study,
    comparison,
    distance_against_time,
    evaluation_sheet,
    field_comparison,
    galleries,
    gallery,
    magnetic_regions,
    percentile_sweep,
    precision_by_window,
    precision_curve,
    training_curves,
)

MAGIC = {".png": b"\x89PNG\r\n\x1a\n", ".pdf": b"%PDF-", ".svg": b"<?xml"}


def disk(size=64, scale=300.0):
    y, x = np.mgrid[:size, :size] / (size / 2) - 1
    field = scale * np.sin(5 * x) * np.cos(7 * y)
    return np.where(np.hypot(x, y) < 0.95, field, np.nan).astype(np.float32)


def draw_gallery(path):
    hits = [
        Picture(disk(), np.datetime64("2014-01-02T06:00"), "X", 0.25),
        Picture(None, "2014-03-01T06:00:00.000Z", distance=3),
        Picture(np.abs(disk(20)), distance=1.5),
        Picture(np.full((10, 12), np.nan, np.float32)),
        Picture(np.zeros((3000, 2))),
    ]
    gallery(Picture(disk(900), "2014-01-01T00:00:00.000"), hits, path, title="Found", columns=4)


def draw_curve(path):
    curve = np.linspace(1, 0.3, 40)
    precision_curve(curve, 0.02, path, interval=[curve - 0.1, curve + 0.1], ceiling=np.ones(40), si_mean=24)


def draw_distances(path):
    hours = np.arange(-200.0, 200.0)
    distance_against_time(hours, np.abs(hours) ** 0.5, path)


def draw_fields(path):
    pictures = [Picture(disk(), label="real\nmean 1 G"), Picture(disk(20), label="simulated")]
    field_comparison(pictures, [np.linspace(-3000, 3000, 50), np.zeros(0)], path, title="Two", note="differ")


def draw_regions(path):
    labels = np.zeros((16, 17), np.int32)
    labels[0, 0], labels[7:9, 3:6] = 2, 1  # one in the corner too
    magnetic_regions(disk(64), labels, path, cell=4, disk=(31.5, 31.5, 30.4), rotation=180.0, title="Regions")


def draw_windows(path):
    hours, precision = np.array([6, 24, 96]), np.array([0.5, 0.8, 0.7])
    precision_by_window(hours, precision, hours / 1000, path, interval=[precision - 0.1, precision + 0.1])


def draw_sheet(path):
    hashes = np.arange(60, dtype=np.float32)[:, None]
    times = np.datetime64("2014-01-01T00:00:00.000") + np.arange(60) * np.timedelta64(2, "h")
    reports = evaluate_windows(hashes, times)
    evaluation_sheet(reports[4], reports, *distances_in_time(hashes, times), path, title="Steadily changing")


def draw_galleries(path):
    wrong = Picture(disk(30), label="FRI", distance=2, wrong=True)
    galleries([[Picture(np.abs(disk())), Picture(disk()), wrong], [Picture(None, label="Bent")]], path, title="Two")


def draw_sweep(path):
    percentile_sweep([0, 50, 100], {"full": [0.3, 0.9, 0.5], "first 100": [0.1, 0.8, 0.2]}, 0.25, path, own=0.7)


def draw_lengths(path):
    code_length_study([64, 8, 8], {"full": [0.9, 0.7, 0.8]}, 0.25, path)


def draw_comparison(path):
    comparison(["a", "b"], {"full": [0.9, 0.7], "part": [0.5, 0.4]}, path, chance=0.1, interval=[[0.8, 1], [0.6, 0.8]],
               published=[None, 0.75])  # fmt: skip


TRAINING = {
    "losses": [2.0, 1.5, 1.2], "kept_epoch": 3, "held_out": {"chance": 0.3},
    "judgements": {"epoch": [2, 3], "map": [0.5, 0.6], "accuracy": [0.7, 0.8]},
}  # fmt: skip


def draw_training(path):
    training_curves(TRAINING, path)


DRAW = [draw_gallery, draw_curve, draw_distances, draw_fields, draw_regions, draw_windows, draw_sheet, draw_galleries,
        draw_sweep, draw_lengths, draw_comparison, draw_training]  # fmt: skip


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ".PNG"])
def test_the_suffix_says_which_file_is_written(draw, suffix, tmp_path):
    draw(tmp_path / f"picture{suffix}")
    assert (tmp_path / f"picture{suffix}").read_bytes().startswith(MAGIC[suffix.lower()])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("name", ["picture.jpg", "picture", "picture.png.txt"])
def test_another_suffix_is_refused(draw, name, tmp_path):
    with pytest.raises(ArgumentError, match=name):
        draw(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_drawing_fails(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    def fail(_figure, file, **_):
        file.write(b"half a pict")
        raise RuntimeError("lost power")

    (tmp_path / "curve.png").write_bytes(b"an older picture")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(RuntimeError, match="lost power"):
        draw_curve(tmp_path / "curve.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an older picture"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FastHashError, match=r"nowhere.*curve\.png"):
        draw_curve(tmp_path / "nowhere" / "curve.png")


def test_matplotlib_is_imported_late_and_pyplot_never(tmp_path):
    script = f"""
import sys
from fasthash.plots import precision_curve
assert "matplotlib" not in sys.modules
precision_curve([1, 0.5], 0.1, {str(tmp_path / "curve.svg")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_settings_are_left_alone(tmp_path):
    import matplotlib

    settings = matplotlib.rcParams.copy()
    for draw in DRAW:
        draw(tmp_path / "picture.png")
    assert matplotlib.rcParams.copy() == settings


def test_wrong_pictures_are_framed_red(tmp_path):
    for wrong in (False, True):
        galleries([[Picture(disk()), Picture(disk(), wrong=wrong)]], tmp_path / "g.png")
        red = np.abs(pixels(tmp_path / "g.png")[..., :3] - np.array([0xC8, 0x10, 0x2E]) / 255).max(axis=2) < 0.02
        assert red.any() == wrong


def test_a_small_source_on_nothing_is_seen(tmp_path):
    source = np.zeros((40, 40), np.float32)
    source[19:21, 19:21] = 9  # four of 1,600 pixels: the 99.5th percentile is 0
    for name, image in (("source", source), ("nothing", 0 * source)):
        galleries([[Picture(image)]], tmp_path / f"{name}.png")
    differ = pixels(tmp_path / "source.png") != pixels(tmp_path / "nothing.png")
    assert 0 < differ.any(axis=2).mean() < 0.05


@pytest.mark.parametrize(
    ("draw", "named"),
    [(lambda path: galleries([], path), "rows"), (lambda path: galleries([[]], path), "rows"),
     (lambda path: percentile_sweep([], {}, 0.1, path), "percentiles"),
     (lambda path: percentile_sweep([1, 2], {"full": [1]}, 0.1, path), "curves.*full"),
     (lambda path: code_length_study(8, {"full": [1]}, 0.1, path), "bits"),
     (lambda path: training_curves({}, path), "losses"),
     (lambda path: training_curves({**TRAINING, "judgements": {"epoch": [2], "map": [], "accuracy": [1]}}, path),
      "curves.*mAP"),
     (lambda path: comparison([], {"full": []}, path, chance=0.1), "names, scores"),
     (lambda path: comparison(["a"], {"full": [1, 2]}, path, chance=0.1), "scores.*full"),
     (lambda path: comparison(["a"], {"full": [1]}, path, chance=0.1, interval=[0, 1]), "interval"),
     (lambda path: comparison(["a"], {"full": [1]}, path, chance=0.1, published=[]), "published")],
)  # fmt: skip
def test_scores_that_do_not_fit_are_named(draw, named, tmp_path):
    with pytest.raises(ArgumentError, match=named):
        draw(tmp_path / "picture.png")


def test_the_smallest_inputs_make_pictures(tmp_path):
    gallery(Picture(), [], tmp_path / "gallery.png")
    precision_curve([0.5], 0.1, tmp_path / "curve.png")
    distance_against_time([0.0], [0.0], tmp_path / "distances.png", window_hours=None)
    precision_by_window([48], [0.9], [0.1], tmp_path / "windows.png")
    assert len(list(tmp_path.iterdir())) == 4


def test_a_training_without_judgements_is_one_chart(tmp_path):
    training_curves(TRAINING, tmp_path / "two.png")
    training_curves({"losses": TRAINING["losses"], "held_out": None}, tmp_path / "one.png")
    training_curves({**TRAINING, "held_out": None}, tmp_path / "without chance.png")
    assert pixels(tmp_path / "without chance.png").shape == pixels(tmp_path / "two.png").shape
    two, one = pixels(tmp_path / "two.png"), pixels(tmp_path / "one.png")
    assert one.shape[0] == two.shape[0]
    assert one.shape[1] < two.shape[1]


def test_a_sheet_is_three_charts_wide(tmp_path):
    draw_sheet(tmp_path / "sheet.png")
    draw_curve(tmp_path / "curve.png")
    sheet, curve = pixels(tmp_path / "sheet.png"), pixels(tmp_path / "curve.png")
    assert sheet.shape[0] == curve.shape[0]
    blue = np.abs(sheet - np.array([0x00, 0x72, 0xB2]) / 255).max(axis=2) < 0.02
    assert all(third.any() for third in np.array_split(blue, 3, axis=1))


def pixels(path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


def test_the_query_alone_is_framed_in_orange(tmp_path):
    gallery(Picture(disk()), [Picture(disk()), Picture(disk())], tmp_path / "gallery.png")
    picture = pixels(tmp_path / "gallery.png")
    orange = np.abs(picture - np.array([0xD5, 0x5E, 0x00]) / 255).max(axis=2) < 0.02
    columns = np.flatnonzero(orange.any(axis=0))
    assert len(columns) > 0
    assert columns.max() < picture.shape[1] / 3 + 2


def test_a_magnetogram_is_grey_about_zero_and_stands_as_in_fits(tmp_path):
    field = np.full((50, 50), 0.0, np.float32)
    field[:10] = 250  # the first rows: the bottom
    field[-10:] = -250
    gallery(Picture(field), [], tmp_path / "gallery.png")
    picture = pixels(tmp_path / "gallery.png").mean(axis=2)
    side = picture.shape[1]
    column = picture[: int(0.9 * side), side // 2]
    assert column[int(0.15 * side)] == pytest.approx(0, abs=0.02)
    assert column[int(0.5 * side)] == pytest.approx(0.5, abs=0.02)
    assert column[int(0.88 * side)] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda path: gallery(Picture(np.zeros((4, 4, 3))), [], path),
            r"image: expected shape \(H, W\), got \(4, 4, 3\)",
        ),
        (lambda path: gallery(Picture(), [Picture(time="noon")], path), "time: expected a time such as"),
        (lambda path: gallery(Picture(), [], path, columns=1), "columns: expected at least 2, got 1"),
        (lambda path: precision_curve([], 0.1, path), r"curve: expected shape \(depth,\), got \(0,\)"),
        (lambda path: precision_curve([1], 0.1, path, interval=[1]), r"interval: expected shape \(2, 1\), got \(1,\)"),
        (lambda path: precision_curve([1], 0.1, path, ceiling=[1, 1]), r"ceiling: expected shape \(1,\), got \(2,\)"),
        (
            lambda path: magnetic_regions(np.zeros((4, 4)), np.zeros((4, 4)), path, cell=1, disk=(2, 2, 2)),
            r"field, labels: expected shapes \(H, W\) and integers \(h, w\), got \(4, 4\) and float64 \(4, 4\)",
        ),
        (lambda path: precision_by_window([], [], [], path), r"window_hours: expected shape \(n,\), got \(0,\)"),
        (lambda path: precision_by_window([6, 12], [1, 1], [1], path), r"chance: expected shape \(2,\), got \(1,\)"),
        (lambda path: distance_against_time([1, 2], [1], path), "hours, distances: expected the same shape"),
    ],
)
def test_a_wrong_argument_is_named(draw, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        draw(tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())
