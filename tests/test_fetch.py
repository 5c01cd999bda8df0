"""Fetching from JSOC, against a small JSOC of our own: what arrives, what is asked for, and what faults do."""

import errno
import io
import os
import signal
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from fake_jsoc import EMAIL, GOOD, FakeJsoc, magnetogram, point_drms_at

from fasthash import cli
from fasthash._fits import image_end
from fasthash.errors import FastHashError, MissingDependencyError
from fasthash.io import find_images, read_image
from fasthash.solar import fetch as fetching
from fasthash.solar.fetch import fetch, file_name, frame_slots

for package in ("sunpy.net", "drms", "parfive"):
    pytest.importorskip(package, reason="needs the extra [solar]", exc_type=ImportError)

SPAN = {"start": "2014-05-01", "end": "2014-05-01T02:00", "cadence": "12min", "email": EMAIL}
FIRST = np.datetime64("2014-05-01T00:00:00")
STEP = np.timedelta64(720, "s")


@pytest.fixture
def jsoc(monkeypatch):
    """A JSOC, and no patience: the waits between tries are what takes long."""
    monkeypatch.setattr(fetching, "_WAITS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(fetching, "_POLL", 0.01)
    with FakeJsoc() as server:
        undo = point_drms_at(server.url)
        yield server
        undo()


def run(capsys, folder, **changes):
    options = {**SPAN, **changes}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    status = cli.main(["fetch", "solar", str(folder), *words])
    return status, *capsys.readouterr()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def check_whole(folder, n):
    slots = FIRST + np.arange(n) * STEP
    found, problems = find_images(folder)
    assert [Path(path).name for path in found] == [file_name("hmi.M_720s", slot) for slot in slots]
    assert not problems
    assert all(Path(path).read_bytes() == magnetogram(slot) for path, slot in zip(found, slots, strict=True))


# ---- which frames --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("series", "step"), [("hmi.M_720s", 720), ("hmi.M_45s", 45)])
@pytest.mark.parametrize("times", [1, 7, 100])
def test_slots_are_on_the_grid_of_the_series_and_within_the_span(series, step, times):
    start, end = np.datetime64("2016-12-31T18:07:11"), np.datetime64("2017-01-02T05:00:00")  # a leap second within
    slots = frame_slots(start, end, timedelta(seconds=times * step), series)
    assert set(np.diff(slots)) <= {np.timedelta64(times * step, "s")}
    midnight = np.datetime64("1993-01-01T00:00:00")
    assert all((slot - midnight) % np.timedelta64(step, "s") == np.timedelta64(0) for slot in slots)
    assert abs((slots[0] - start) / np.timedelta64(1, "s") - 36) <= step / 2  # TAI - UTC was 36 s until that midnight
    assert len(slots) == np.ceil((end - start) / np.timedelta64(times * step, "s"))


def test_slots_of_times_in_any_form():
    as_text = frame_slots("2014-05-01T02:00+02:00", "2014-05-02", "1h", "hmi.M_720s")
    day = datetime(2014, 5, 1, tzinfo=timezone.utc)
    np.testing.assert_array_equal(as_text, frame_slots(day, datetime(2014, 5, 2), 1, "hmi.M_720s"))
    np.testing.assert_array_equal(as_text, FIRST + np.arange(24) * np.timedelta64(3600, "s"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": "2014-04-30"}, "end: expected a time after the start, 2014-05-01, got 2014-04-30"),
        ({"end": "2014-05-01"}, "end: expected a time after the start"),
        ({"start": "yesterday"}, "start: expected a time such as"),
        ({"end": "2014-02-30"}, "end: expected a time such as"),
        ({"cadence": "6min"}, "cadence: hmi.M_720s has a frame every 720 s; expected a multiple of that, got 6min"),
        ({"cadence": "30min"}, "expected a multiple of that, got 30min"),
        ({"cadence": "40s", "series": "hmi.M_45s"}, "cadence: hmi.M_45s has a frame every 45 s"),
        ({"cadence": "0h"}, "cadence: hmi.M_720s has a frame every 720 s"),
        ({"cadence": "often"}, "cadence: expected a length of time"),
        ({"series": "hmi.Ic_45s"}, "series: expected one of hmi.M_720s, hmi.M_45s, got 'hmi.Ic_45s'"),
        ({"email": "nobody"}, "email: expected an address registered at http://jsoc.stanford.edu/ajax/register_email"),
        ({"end": "2199-01-01"}, "end: 8094000 frames until then; expected at most 1000000"),
    ],
)
def test_bad_arguments_are_one_line_and_no_request(jsoc, tmp_path, capsys, changes, message):
    status, out, err = run(capsys, tmp_path / "sun", **changes)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not jsoc.asked
    assert not (tmp_path / "sun").exists()


# ---- what arrives --------------------------------------------------------------------------------------------------


def test_frames_arrive_whole_and_a_second_run_asks_for_nothing(jsoc, tmp_path, capsys):
    folder = tmp_path / "new" / "{odd} ~name"
    status, out, err = run(capsys, folder)
    assert (status, out) == (0, f"{folder}: 10 magnetograms of hmi.M_720s fetched\n")
    assert err == "JSOC prepares 10 frames from 2014.05.01_00:00:00_TAI: export JSOC_1\n"
    slots = FIRST + np.arange(10) * STEP
    assert names(folder) == [file_name("hmi.M_720s", slot) for slot in slots]
    for name, slot in zip(names(folder), slots, strict=True):
        assert (folder / name).read_bytes() == magnetogram(slot)
        assert read_image(folder / name).time == slot - np.timedelta64(35, "s")  # TAI - UTC
    umask = os.umask(0)
    os.umask(umask)
    assert (folder / name).stat().st_mode & 0o777 == 0o666 & ~umask
    jsoc.asked.clear()
    status, out, err = run(capsys, folder)
    assert (status, out) == (0, f"{folder}: 0 magnetograms of hmi.M_720s fetched, 10 were there already\n")
    assert err == ""
    assert not jsoc.asked


def test_only_what_is_missing_or_cut_short_is_asked_for_again(jsoc, tmp_path):
    first = fetch(tmp_path, **SPAN)
    first.fetched[2].unlink()
    first.fetched[7].write_bytes(first.fetched[7].read_bytes()[:-2880])
    first.fetched[8].write_bytes(b"")
    jsoc.asked.clear()
    again = fetch(tmp_path, **SPAN)
    assert sorted(again.fetched) == [first.fetched[i] for i in (2, 7, 8)]
    assert again.present == 7
    assert jsoc.count("download") == 3
    which = "2014.05.01_00:24:00_TAI,2014.05.01_01:24:00_TAI,2014.05.01_01:36:00_TAI"
    assert ("exp_request", f"hmi.M_720s[{which}]{{magnetogram}}") in jsoc.asked
    assert all(path.read_bytes() == magnetogram(FIRST + i * STEP) for i, path in enumerate(first.fetched))


def test_long_spans_are_asked_for_in_blocks(jsoc, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "BLOCK", 4)
    seen = []
    report = fetch(tmp_path, **SPAN, progress=lambda done, total: seen.append((done, total)))
    assert len(report.fetched) == 10
    assert jsoc.count("exp_request") == 3
    assert seen == sorted(seen)
    assert seen[-1] == (10, 10)


def test_a_block_listed_one_by_one_fits_into_a_url():
    slots = frame_slots("2014-05-01", "2014-06-01", "12min", "hmi.M_720s")[: fetching.BLOCK]
    assert len(",".join(fetching._t_rec(slot) for slot in slots).replace(":", "%3A").replace(",", "%2C")) < 4096


@pytest.mark.parametrize(("series", "step", "eclipse"), [("hmi.M_720s", 720, 0x200), ("hmi.M_45s", 45, 0x100)])
def test_frames_without_a_usable_image_are_left_out_and_named(jsoc, tmp_path, capsys, series, step, eclipse):
    slots = FIRST + np.arange(6) * np.timedelta64(step, "s")
    other = {0x200, 0x100} - {eclipse}
    jsoc.quality = {slots[0]: 0xC0000000, slots[2]: eclipse | GOOD, slots[3]: other.pop(), slots[4]: GOOD | 0x20}
    jsoc.absent = {slots[1]}
    start, end = (f"{time}_TAI" for time in (FIRST, FIRST + np.timedelta64(6 * step, "s")))
    status, out, err = run(capsys, tmp_path, series=series, cadence=f"{step}s", start=start, end=end)
    assert status == 0
    assert out.endswith(f": 3 magnetograms of {series} fetched\n")
    assert err.splitlines()[1:] == [
        "left out, no image was made: 2014.05.01_00:00:00_TAI",
        f"left out, JSOC has no record of it: {fetching._t_rec(slots[1])}",
        f"left out, taken during an eclipse: {fetching._t_rec(slots[2])}",
        f"fetched, but HMI calls the quality poor: {fetching._t_rec(slots[4])}",
    ]
    assert names(tmp_path) == [file_name(series, slots[i]) for i in (3, 4, 5)]
    assert jsoc.count("download") == 3


def test_many_left_out_are_counted(jsoc, tmp_path, capsys):
    jsoc.quality = dict.fromkeys(FIRST + np.arange(9) * STEP, 0x80000000)
    status, _, err = run(capsys, tmp_path)
    assert status == 0
    assert err.splitlines()[-1].endswith("2014.05.01_00:48:00_TAI and 4 more")


def test_of_two_cameras_the_one_with_an_image_counts(jsoc, tmp_path):
    jsoc.empty_twins = set(FIRST + np.arange(5) * STEP)
    report = fetch(tmp_path, **SPAN)
    assert len(report.fetched) == 10
    assert not report.unusable


def test_nothing_at_all_is_an_error(jsoc, tmp_path, capsys):
    jsoc.absent = set(FIRST + np.arange(10) * STEP)
    status, out, err = run(capsys, tmp_path)
    assert (status, out.split(": ")[1]) == (1, "0 magnetograms of hmi.M_720s fetched\n")
    assert err.splitlines()[-1] == "error: hmi.M_720s has no usable frame from 2014-05-01 to 2014-05-01T02:00"
    assert jsoc.count("exp_request") == 0


def test_quality_in_any_notation():
    texts = {"0x00010400": 0x10400, "66560": 0x10400, "-2147483648": 0x80000000, "0X80000200": 0x80000200, "0": 0}
    assert {text: fetching._parse_quality(text) for text in texts} == texts
    assert fetching._parse_quality("MISSING") == fetching._parse_quality(float("nan")) == 0x80000000


@pytest.mark.parametrize("compressed", [True, False])
def test_the_end_of_an_image_is_where_astropy_finds_it(frames, tmp_path, compressed):
    data = magnetogram(FIRST) if compressed else Path(frames[0]).read_bytes()
    with fits.open(io.BytesIO(data), disable_image_compression=True) as hdus:
        hdu = hdus[1 if compressed else 0]
        end = hdu.fileinfo()["datLoc"] + hdu.size
    assert image_end(data[:-2880]) == end
    path = tmp_path / "frame.fits"
    for size, whole in ((end, True), (end - 1, False), (len(data), True), (2880, False), (0, False)):
        path.write_bytes(data[:size])
        assert fetching._is_whole(path) is whole


def test_a_table_before_an_image_is_not_its_end():
    file = io.BytesIO()
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.arange(5.0))])
    fits.HDUList([fits.PrimaryHDU(), table, fits.ImageHDU(np.zeros((90, 80), np.float32))]).writeto(file)
    assert image_end(file.getvalue()) == 4 * 2880 + 90 * 80 * 4  # three headers and the table


# ---- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    ["500 jsoc_info", "html jsoc_info", "500 jsoc_fetch", "html jsoc_fetch", "500 checkAddress.sh", "busy",
     "500 download", "drop", "cut", "other", "forget one"],
)  # fmt: skip
def test_a_fault_that_passes_is_outlived(jsoc, tmp_path, fault):
    jsoc.faults[fault] = 2
    told = []
    report = fetch(tmp_path, **{**SPAN, "end": "2014-05-01T01:00"}, say=told.append)
    assert jsoc.faults[fault] == 0
    assert any("to be tried again in" in line for line in told)
    assert len(report.fetched) == 5
    assert not report.failed
    check_whole(tmp_path, 5)


def test_an_export_is_not_asked_for_twice_when_a_look_at_it_fails(jsoc, tmp_path):
    jsoc.faults["500 exp_status"] = 2
    assert len(fetch(tmp_path, **SPAN).fetched) == 10
    assert jsoc.count("exp_request") == 1


def test_downloads_that_failed_are_asked_for_without_another_export(jsoc, tmp_path):
    jsoc.faults["500 download"] = 3
    assert len(fetch(tmp_path, **SPAN).fetched) == 10
    assert jsoc.count("exp_request") == 1
    assert jsoc.count("download") == 13


def test_files_that_are_damaged_at_jsoc_are_exported_again_though_others_failed_to_come(jsoc, tmp_path):
    jsoc.faults |= {"500 download": 1, "cut": 1}
    assert len(fetch(tmp_path, **SPAN).fetched) == 10
    assert jsoc.count("exp_request") == 2


def test_a_fault_that_stays_is_named_and_the_next_run_goes_on(jsoc, tmp_path, capsys):
    assert run(capsys, tmp_path, end="2014-05-01T00:30")[0] == 0
    jsoc.faults["500 download"] = 10**6
    status, out, err = run(capsys, tmp_path)
    assert (status, out) == (1, f"{tmp_path}: 0 magnetograms of hmi.M_720s fetched, 3 were there already\n")
    assert err.splitlines()[-1] == (
        "error: 7 frames could not be had, the first 2014.05.01_00:36:00_TAI: HTTP 500 Internal Server Error; "
        "run it again to go on"
    )
    assert jsoc.count("download") == 3 + 4 * 7
    assert len(names(tmp_path)) == 3
    jsoc.faults.clear()
    assert run(capsys, tmp_path)[0] == 0
    assert len(names(tmp_path)) == 10


def test_a_fault_of_jsoc_itself_ends_the_run(jsoc, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "BLOCK", 4)
    jsoc.faults["500 jsoc_fetch"] = 10**6
    report = fetch(tmp_path, **SPAN)
    assert (
        list(report.failed.values())
        == ["HTTP 500 Internal Server Error"] * 4 + ["not tried, after the ones before it"] * 6
    )
    assert jsoc.count("exp_request") == 4


@pytest.mark.usefixtures("jsoc")
def test_no_network_is_one_line(tmp_path, capsys):
    point_drms_at("http://127.0.0.1:9/")  # the port of discard, where nobody listens
    status, _, err = run(capsys, tmp_path)
    assert status == 1
    why = "JSOC cannot be reached: Connection refused"
    assert err.splitlines()[-1].startswith(
        f"error: 10 frames could not be had, the first 2014.05.01_00:00:00_TAI: {why}"
    )
    assert names(tmp_path) == []


def test_an_export_that_never_ends_is_given_up(jsoc, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "_PATIENCE", 0.05)
    jsoc.pending = 10**6
    report = fetch(tmp_path, **SPAN)
    assert len(report.failed) == 10
    assert "has been in JSOC's queue" in report.failed["2014.05.01_00:00:00_TAI"]


def test_an_address_that_jsoc_does_not_know(jsoc, tmp_path, capsys):
    status, out, err = run(capsys, tmp_path, email="stranger@example.org")
    assert (status, out) == (1, "")
    assert err == (
        "error: email: JSOC does not know stranger@example.org; "
        "register it at http://jsoc.stanford.edu/ajax/register_email.html\n"
    )
    assert jsoc.count("exp_request") == 0


@pytest.mark.usefixtures("jsoc")
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path, capsys, monkeypatch):
    from parfive import Downloader

    async def write(self, queue, file_pb, filepath):  # noqa: ARG001
        _, chunk = await queue.get()
        Path(filepath).write_bytes(chunk[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Downloader, "_blocking_write_worker", write)
    status, _, err = run(capsys, tmp_path)
    assert status == 1
    assert err.splitlines()[1:] == [f"error: {tmp_path}: cannot write: No space left on device"]
    assert names(tmp_path) == []


@pytest.mark.usefixtures("jsoc")
def test_a_disk_that_fails_at_the_last_step(tmp_path, monkeypatch):
    def fail(folder):
        raise OSError(errno.EIO, "Input/output error", str(folder))

    monkeypatch.setattr(fetching, "sync_directory", fail)
    with pytest.raises(FastHashError, match="cannot write: Input/output error"):
        fetch(tmp_path, **SPAN)


@pytest.mark.usefixtures("jsoc")
def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out, reason in (("file/sun", "Not a directory"), ("file", "File exists")):
        status, _, err = run(capsys, tmp_path / out)
        assert (status, err) == (1, f"error: {tmp_path / out}: cannot make this folder: {reason}\n")


@pytest.mark.usefixtures("jsoc")
def test_one_run_at_a_time(tmp_path):
    inside = []

    def again(done, total):  # noqa: ARG001
        if not inside:
            inside.append(done)
            with pytest.raises(FastHashError, match="another fetch is at work in this folder"):
                fetch(tmp_path, **SPAN)

    assert len(fetch(tmp_path, **SPAN, progress=again).fetched) == 10
    assert inside


@pytest.mark.usefixtures("jsoc")
def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "drms", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fasthash\[solar\]'"):
        fetch(tmp_path / "sun", **SPAN)
    assert not (tmp_path / "sun").exists()


@pytest.mark.usefixtures("jsoc")
def test_ctrl_c_means_what_it_meant_before(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    fetch(tmp_path, **SPAN)
    assert signal.getsignal(signal.SIGINT) is before


# ---- a process that is stopped -------------------------------------------------------------------------------------

CHILD = textwrap.dedent(
    """
    import sys
    sys.path.insert(0, sys.argv[1])
    from fake_jsoc import point_drms_at
    from fasthash import cli
    from fasthash.solar import fetch
    point_drms_at(sys.argv[2])
    fetch._POLL = 0.01
    sys.exit(cli.main(sys.argv[3:]))
    """
)


def stopped(jsoc, folder, how):
    """Fetch in another process, and stop it in the middle of the fifth download."""
    jsoc.faults["stall after"] = 4
    words = [word for name, value in SPAN.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), jsoc.url, "fetch", "solar", str(folder), *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert jsoc.stalled.wait(30)
        child.send_signal(how)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    jsoc.faults.clear()
    jsoc.go_on.set()
    jsoc.asked.clear()
    return child.returncode, out, err


def test_killed_in_the_middle_of_a_file_it_goes_on(jsoc, tmp_path):
    status, _, _ = stopped(jsoc, tmp_path, signal.SIGKILL)
    assert status == -signal.SIGKILL
    check_whole(tmp_path, 4)
    report = fetch(tmp_path, **SPAN)
    assert (len(report.fetched), report.present, jsoc.count("download")) == (6, 4, 6)
    check_whole(tmp_path, 10)
    assert len(names(tmp_path)) == 10  # and nothing hidden


def test_ctrl_c_in_the_middle_of_a_file_leaves_a_clean_folder(jsoc, tmp_path):
    status, out, err = stopped(jsoc, tmp_path, signal.SIGINT)
    assert (status, out) == (130, "")
    assert err.splitlines()[1:] == ["error: interrupted"]
    assert len(names(tmp_path)) == 4
    check_whole(tmp_path, 4)
    assert len(fetch(tmp_path, **SPAN).fetched) == 6
