"""Bad input, through the command line: one line that names the file, the right exit status, and the good rows there."""

import json
import os
import subprocess
import sys

import bad_files
import numpy as np
import pytest

import fasthash as fh
from fasthash.cli import main

BAD = bad_files.all_bad()
BOMBS = ("bomb.fits.gz", "fits-bomb.fits.gz", "many-members.fits.gz", "gzip-tile-bomb.fits", "bomb-member.zip")


def run(capsys, *arguments):
    """Exit status, stdout, and the lines of stderr."""
    status = main([os.fspath(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err.splitlines()


def assert_fails(capsys, *arguments, named):
    status, out, err = run(capsys, *arguments)
    assert (status, out, len(err)) == (1, "", 1), err
    assert err[0].startswith("error: ")
    assert os.fspath(named) in err[0]
    return err[0]


@pytest.fixture(scope="session")
def shipped(tmp_path_factory, encoder_path, frames):
    """A catalog of three frames, for searches and additions that must fail."""
    path = tmp_path_factory.mktemp("catalog") / "sun"
    with fh.Catalog.create(path, encoder_path) as catalog:
        catalog.add(frames[:3])
    return path


@pytest.fixture
def good(frames):
    return [str(frame) for frame in frames[:3]]


# ---- what is in the file -------------------------------------------------------------------------------------------


def test_there_are_enough_kinds():
    assert len(BAD) >= 100


@pytest.mark.parametrize("name", BAD)
def test_alone(name, tmp_path, capsys, encoder_path, shipped):
    path = tmp_path / name
    path.write_bytes(BAD[name])
    assert_fails(capsys, "encode", path, "--encoder", encoder_path, "-o", tmp_path / "out.npz", named=path)
    assert_fails(capsys, "search", shipped, path, "--json", named=path)
    if name not in BOMBS:  # two seconds each; the folder below has them too
        assert_fails(capsys, "build", path, "--encoder", encoder_path, "-o", tmp_path / "new", named=path)
        assert_fails(capsys, "add", shipped, path, named=path)
    assert os.listdir(tmp_path) == [name]


@pytest.fixture(scope="session")
def mixed(tmp_path_factory, frames):
    """A folder with every bad file, the zips beside it, and good frames in the middle."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "images").mkdir()
    for name, data in BAD.items():
        (folder / (name if name.endswith(".zip") else f"images/{name}")).write_bytes(data)
    for number in range(3):
        (folder / "images" / f"m{number}.fits").write_bytes(frames[number].read_bytes())
    return folder


@pytest.mark.parametrize("verb", ["encode", "build", "add"])
def test_among_good_ones(verb, mixed, tmp_path, capsys, encoder_path):
    inputs = [mixed / "images", str(mixed / "*.zip")]
    if verb == "encode":
        status, _, err = run(capsys, verb, *inputs, "--encoder", encoder_path, "-o", tmp_path / "out.npz")
        with np.load(tmp_path / "out.npz") as arrays:
            paths = list(arrays["paths"])
    else:
        target = tmp_path / "sun"
        if verb == "add":
            fh.Catalog.create(target, encoder_path).close()
            status, _, err = run(capsys, verb, target, *inputs)
        else:
            status, _, err = run(capsys, verb, *inputs, "--encoder", encoder_path, "-o", target)
        with fh.Catalog.open(target) as catalog:
            paths = catalog.rows().paths
    assert status == 0
    assert paths == [str(mixed / "images" / f"m{number}.fits") for number in range(3)]
    skipped = [line for line in err if line.startswith("skipped: ")]
    assert len(skipped) == len(BAD)
    for name in BAD:
        assert sum(f"/{name}:" in line or f"/{name}/" in line for line in skipped) == 1, name
    assert not [line for line in err if line.startswith("error: ")]


def test_no_crash_and_no_great_allocation(mixed, tmp_path, encoder_path):
    """In a process of its own, all kinds at once: what a crash or the kernel's killer would end."""
    command = [sys.executable, "-m", "fasthash", "encode", str(mixed / "images"), str(mixed / "*.zip")]
    command += ["--encoder", str(encoder_path), "-o", str(tmp_path / "out.npz"), "--threads", "2"]
    with (tmp_path / "err").open("w+") as err, subprocess.Popen(command, stdout=err, stderr=err) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        err.seek(0)
        text = err.read()
    assert child.returncode == 0, text
    assert text.count("skipped: ") == len(BAD)
    assert usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) < 2 * 2**30


# ---- where the file is ---------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path):
    """Inputs that are no readable file, by name."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    (tmp_path / "dangling.fits").symlink_to(tmp_path / "gone.fits")
    (tmp_path / "loop.fits").symlink_to(tmp_path / "loop.fits")
    os.mkfifo(tmp_path / "pipe.fits")
    os.mkfifo(tmp_path / "pipe.zip")
    return {
        "missing": tmp_path / "missing.fits",
        "missing zip member": tmp_path / "missing.zip" / "a.fits",
        "folder without images": tmp_path / "folder",
        "folder of a file": tmp_path / "folder" / "notes.txt" / "a.fits",
        "dangling link": tmp_path / "dangling.fits",
        "link to itself": tmp_path / "loop.fits",
        "pipe": tmp_path / "pipe.fits",
        "pipe as a zip": tmp_path / "pipe.zip",
        "device": "/dev/zero",
        "process memory": "/proc/self/mem",
        "long name": tmp_path / ("x" * 300 + ".fits"),
        "glob": str(tmp_path / "*.jp2"),
        "bad glob": str(tmp_path / "[z-a"),
        "no text": str(tmp_path / "a\udcff.fits"),
        "empty": "",
    }


@pytest.mark.parametrize(
    "kind",
    ["missing", "missing zip member", "folder without images", "folder of a file", "dangling link", "link to itself",
     "pipe", "pipe as a zip", "device", "process memory", "long name", "glob", "bad glob", "no text", "empty"],
)  # fmt: skip
def test_places(kind, places, capsys, tmp_path, encoder_path, shipped, good):
    path = places[kind]
    if kind in ("device", "process memory") and not os.path.exists(path):
        pytest.skip(f"this system has no {path}")
    named = os.fspath(path).replace("\udcff", "\\udcff")
    out = tmp_path / "out.npz"
    assert_fails(capsys, "encode", path, "--encoder", encoder_path, "-o", out, named=named)
    assert_fails(capsys, "search", shipped, path, named=named)
    status, _, err = run(capsys, "encode", good[0], path, *good[1:], "--encoder", encoder_path, "-o", out)
    assert status == 0
    assert len(err) == 1
    assert err[0].startswith(f"skipped: {named}")
    with np.load(out) as arrays:
        assert list(arrays["paths"]) == good


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_unreadable(tmp_path, capsys, encoder_path):
    folder, file = tmp_path / "closed", tmp_path / "secret.fits"
    folder.mkdir(mode=0)
    file.write_bytes(b"x")
    file.chmod(0)
    for path in (folder, file):
        line = assert_fails(capsys, "encode", path, "--encoder", encoder_path, "-o", tmp_path / "o.npz", named=path)
        assert "Permission denied" in line
    folder.chmod(0o700)


def test_an_unreadable_folder_within_a_folder(tmp_path, capsys, encoder_path, good, monkeypatch):
    """The superuser reads everything, so the refusal is played."""
    (tmp_path / "in" / "closed").mkdir(parents=True)
    os.link(good[0], tmp_path / "in" / "a.fits")
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    status, _, err = run(capsys, "encode", tmp_path / "in", "--encoder", encoder_path, "-o", tmp_path / "o.npz")
    assert status == 0
    assert err == [f"skipped: {tmp_path / 'in' / 'closed'}: Permission denied"]


def test_search_wants_one_image(shipped, tmp_path, capsys):
    assert "a folder" in assert_fails(capsys, "search", shipped, tmp_path, named=tmp_path)
    assert_fails(capsys, "search", shipped, str(tmp_path / "*.fits"), named="*.fits")


STRANGE = ["two\nlines.fits", "tab\t.fits", "sunny\N{SUN WITH FACE}.fits", "byte\udcff.fits", "\x1b[31m.fits", " .fits",
           "-o.fits", "a'b\"c.fits", "x" * 250 + ".fits"]  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_are_names(name, tmp_path, capsys, encoder_path, good):
    """Any name a file system allows goes in, comes back as it was, and takes one line of a message."""
    folder = tmp_path / "in"
    folder.mkdir()
    path = str(folder / name)
    try:
        os.link(good[0], path)
    except OSError as error:
        pytest.skip(f"this file system does not take the name: {error}")
    run(capsys, "encode", folder, "--encoder", encoder_path, "-o", tmp_path / "o.npz")
    with np.load(tmp_path / "o.npz") as arrays:
        assert list(arrays["paths"]) == [path]
    assert run(capsys, "build", path, "--encoder", encoder_path, "-o", tmp_path / "sun")[0] == 0
    status, out, _ = run(capsys, "search", tmp_path / "sun", path, "--json")
    assert status == 0
    answer = json.loads(out)
    assert [hit["path"] for hit in answer["results"]] == [path]
    assert answer["query"] == path
    assert len(run(capsys, "search", tmp_path / "sun", path)[1].splitlines()) == 2
    os.unlink(path)
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(b"not an image")
    assert_fails(capsys, "add", tmp_path / "sun", folder, named=str(folder))


# ---- the same file again -------------------------------------------------------------------------------------------


def test_given_twice(tmp_path, capsys, encoder_path, good):
    (tmp_path / "link.fits").symlink_to(good[0])
    status, _, err = run(
        capsys, "encode", good[0], good[0], tmp_path / "link.fits", "--encoder", encoder_path, "-o", tmp_path / "o.npz"
    )
    assert status == 0
    twice = "given twice, used once"
    assert err == [f"skipped: {good[0]}: {twice}", f"skipped: {tmp_path / 'link.fits'}: {twice}"]
    with np.load(tmp_path / "o.npz") as arrays:
        assert list(arrays["paths"]) == good[:1]


def test_the_same_content_under_two_names(tmp_path, capsys, encoder_path, good):
    copy = tmp_path / "copy.fits"
    os.link(good[0], copy)
    status, out, err = run(capsys, "build", good[0], copy, "--encoder", encoder_path, "-o", tmp_path / "sun")
    assert status == 0
    assert "1 images added" in out
    assert err == [f"warning: {copy}: its content is in the catalog already"]
    status, _, err = run(capsys, "encode", good[0], copy, "--encoder", encoder_path, "-o", tmp_path / "o.npz")
    assert status == 0
    assert err == [f"warning: {copy}: the same content as {good[0]}"]


def test_no_date_is_a_remark(tmp_path, capsys, encoder_path):
    path = tmp_path / "sun.fits"
    path.write_bytes(bad_files.pixels(bad_files.field()))
    status, _, err = run(capsys, "encode", path, "--encoder", encoder_path, "-o", tmp_path / "o.npz")
    assert status == 0
    assert err == [f"warning: {path}: no time in its header or name"]
    with np.load(tmp_path / "o.npz") as arrays:
        assert list(arrays["times"]) == [""]


@pytest.mark.parametrize(
    "cards",
    [{"CDELT1": "1E-300"}, {"CDELT1": 0, "R_SUN": "1E308"}, {"CROTA2": "1E300"}, {"CRPIX1": "-1E200"},
     {"CRVAL1": "1E308"}, {"RSUN_OBS": -5}, {"RSUN_OBS": "'wide'"}, {"CDELT1": "NaN"}, {"CDELT2": 0, "CRVAL2": 5}],
)  # fmt: skip
def test_a_disk_that_cannot_be_is_no_disk(cards, tmp_path, capsys, encoder_path):
    path = tmp_path / "sun_20140131.fits"
    usual = {"CRPIX1": 16, "CRPIX2": 16, "CDELT1": 60, "RSUN_OBS": 960, "CROTA2": 180}
    path.write_bytes(bad_files.plain(**(usual | cards)))
    status, _, err = run(capsys, "encode", path, "--encoder", encoder_path, "-o", tmp_path / "o.npz")
    assert (status, err) == (0, [])


# ---- everything else on the command line ---------------------------------------------------------------------------


def test_bad_outputs(tmp_path, capsys, encoder_path, good):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").write_text("x")
    for out in ("x.npy", "x", "nowhere/x.npz", "folder.npz", "file/x.npz"):
        path = tmp_path / out
        assert_fails(capsys, "encode", good[0], "--encoder", encoder_path, "-o", path, named=path)
    for out in ("file", "file/sun"):
        path = tmp_path / out
        assert_fails(capsys, "build", good[0], "--encoder", encoder_path, "-o", path, named=path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.npz"]


def test_bad_encoders(tmp_path, capsys, encoder_path, good):
    onnx = pytest.importorskip("onnx", reason="needs the extra [train]")
    real = onnx.TensorProto.FLOAT
    x, y = (onnx.helper.make_tensor_value_info(name, real, [1]) for name in "xy")
    other = onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]))
    data = encoder_path.read_bytes()
    kinds = {
        "empty.onnx": b"",
        "text.onnx": b"not ONNX",
        "cut.onnx": data[: len(data) // 2],
        "altered.onnx": bad_files.flipped(data, len(data) // 2),
        "other.onnx": other.SerializeToString(),
    }
    for name, content in kinds.items():
        (tmp_path / name).write_bytes(content)
    for name in (*kinds, "missing.onnx", "."):
        path = tmp_path / name
        assert_fails(capsys, "encode", good[0], "--encoder", path, "-o", tmp_path / "o.npz", named=path)
        assert_fails(capsys, "build", good[0], "--encoder", path, "-o", tmp_path / "sun", named=path)
    assert sorted(os.listdir(tmp_path)) == sorted(kinds)


def test_bad_catalogs(tmp_path, capsys, encoder_path, good):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for name in ("missing", "file", "folder"):
        path = tmp_path / name
        assert_fails(capsys, "search", path, good[0], named=path)
        assert_fails(capsys, "add", path, good[0], named=path)
        assert_fails(capsys, "evaluate", "solar", path, named=path)
    path = tmp_path / "sun"
    assert run(capsys, "build", *good, "--encoder", encoder_path, "-o", path)[0] == 0
    assert_fails(capsys, "build", *good, "--encoder", encoder_path, "-o", path, named=path)
    database, encoder = path / "catalog.sqlite", path / "encoder.onnx"
    whole = database.read_bytes()
    row = whole.rindex(b"_TAI.fits")
    for damaged in (b"", b"not a database", whole[: len(whole) // 2], bad_files.flipped(whole, row)):
        database.write_bytes(damaged)
        assert_fails(capsys, "search", path, good[0], named=path)
    database.write_bytes(whole)
    sealed = encoder.read_bytes()
    encoder.write_bytes(bad_files.flipped(sealed, len(sealed) // 2))
    assert_fails(capsys, "search", path, good[0], named=path)
    encoder.unlink()
    assert_fails(capsys, "search", path, good[0], named=path)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-k", "0"], "k"),
        (["-k", "-3"], "k"),
        (["--between", "yesterday", "2014-05-02"], "--between"),
        (["--between", "2014-05-01", "2014-02-30"], "--between"),
        (["--exclude-within", "soon"], "--exclude-within"),
        (["--exclude-within", "9" * 400 + "h"], "--exclude-within"),
        (["--max-pixels", "100"], "_TAI.fits"),
    ],
)
def test_bad_arguments(arguments, named, capsys, shipped, good):
    assert_fails(capsys, "search", shipped, good[0], *arguments, named=named)


def test_bad_numbers(tmp_path, capsys, encoder_path, good):
    encode = ["encode", good[0], "--encoder", encoder_path, "-o", tmp_path / "o.npz"]
    assert_fails(capsys, *encode, "--threads", "0", named="--threads: expected an integer at least 1, got 0")
    assert "--max-pixels" in assert_fails(capsys, *encode, "--max-pixels", "4095", named=good[0])
    assert run(capsys, *encode, "--max-pixels", "4096")[0] == 0
