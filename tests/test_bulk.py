"""Encoding over processes and clusters: the results of one process, whoever dies meanwhile, and after interruptions."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import fasthash as fh
from fasthash import bulk
from fasthash.cli import main
from fasthash.encoder import Encoded, Failure


@pytest.fixture(scope="module")
def encoder(encoder_path):
    return fh.load_encoder(encoder_path)


@pytest.fixture
def paths(frames, tmp_path):
    """Twelve good files and a bad one in their midst."""
    bad = tmp_path / "bad\nname.fits"
    bad.write_bytes(b"nothing")
    good = [str(path) for path in frames[:12]]
    return [*good[:5], str(bad), *good[5:]]


def assert_same(items, expected):
    """But for the header, which stays where the file was read."""
    assert len(items) == len(expected)
    for item, wanted in zip(items, expected, strict=True):
        assert type(item) is type(wanted)
        if isinstance(wanted, Failure):
            assert item == wanted
            continue
        np.testing.assert_array_equal(item.hash, wanted.hash)
        assert item.hash.dtype == np.float32
        for name in ("path", "time", "digest"):
            assert getattr(item.image, name) == getattr(wanted.image, name)
        assert item.label == wanted.label


# ---- processes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 3])
def test_processes_give_what_one_gives(encoder, paths, processes):
    assert_same(list(bulk.encode_in_processes(encoder, paths, processes)), list(encoder.encode_files(paths)))


def test_all_that_is_known_of_an_image_comes_back():
    image = fh.io.Image(
        np.empty((0, 0), "f4"), "a\udcff.fits", np.datetime64(-5, "ms"), digest="d", remarks=("one", "2")
    )
    untimed = fh.io.Image(np.empty((0, 0), "f4"), "b")
    vector = np.array([0.1, -np.finfo("f4").tiny, 3e38], "f4")
    items = [Encoded(image, vector, "FRI"), Encoded(untimed, vector[:0]), Failure("c", "c: é")]
    back = [bulk._from_json(json.loads(json.dumps(bulk._as_json(item)))) for item in items]
    assert_same(back[:1] + back[2:], items[:1] + items[2:])
    assert np.isnat(back[1].image.time)
    assert back[0].image.remarks == image.remarks


def test_a_killed_worker_is_replaced_and_nothing_lost_or_doubled(encoder, paths, monkeypatch):
    workers = []
    start = bulk._Worker.__init__
    monkeypatch.setattr(
        bulk._Worker, "__init__", lambda self, *arguments: (start(self, *arguments), workers.append(self))[0]
    )
    items = []
    for item in bulk.encode_in_processes(encoder, paths * 3, 2):
        if len(items) in (3, 11):
            os.kill(workers[-1].pid, signal.SIGKILL)
        items.append(item)
    assert_same(items, list(encoder.encode_files(paths * 3)))
    assert len(workers) > 2
    assert all(worker._process.returncode is not None for worker in workers)


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_kills_its_worker_is_tried_twice(encoder, paths, monkeypatch, times):
    """What kills is the test, not the file; two deaths are enough."""
    encode, killed = bulk._Worker.encode, []

    def deadly(self, path):
        if path == paths[7] and len(killed) < times:
            killed.append(path)
            self._process.kill()
            self._process.wait()
        return encode(self, path)

    monkeypatch.setattr(bulk._Worker, "encode", deadly)
    items = list(bulk.encode_in_processes(encoder, paths, 2))
    expected = list(encoder.encode_files(paths))
    if times == 1:
        assert items[7].image.remarks == ("the process that encoded it died of SIGKILL; the second try went well",)
        assert_same(items, expected)
    else:
        assert_same(items[:7] + items[8:], expected[:7] + expected[8:])
        died = "the process that encoded it died of SIGKILL, its replacement died of SIGKILL"
        assert items[7] == Failure(paths[7], f"{paths[7]}: {died}")


def test_workers_that_cannot_start_are_an_error(encoder, paths, monkeypatch, capfd):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(fh.FastHashError, match="a worker process ended with status 1 before it had any file"):
        list(bulk.encode_in_processes(encoder, paths, 2))
    assert "ModuleNotFoundError" in capfd.readouterr().err


@pytest.mark.parametrize("processes", [0, -2, 1.5])
def test_a_wrong_number_of_processes_is_named(encoder, paths, processes):
    with pytest.raises(fh.ArgumentError, match="processes"):
        list(bulk.encode_in_processes(encoder, paths, processes))


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def interrupted(encoder, paths, output, after):
    """A run that ends with its item number ``after``."""
    results = bulk.Checkpoint(output, encoder).resume(paths, encoder.encode_files)
    for _ in range(after):
        next(results)
    results.close()


def resumed(encoder, paths, output):
    """The results of the next run, and what it had to encode."""
    checkpoint, asked = bulk.Checkpoint(output, encoder), []

    def encode(wanted):
        return encoder.encode_files(asked.append(path) or path for path in wanted)

    return list(checkpoint.resume(paths, encode)), asked, checkpoint


def test_an_interrupted_run_goes_on(encoder, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "_EVERY", 0)
    output = tmp_path / "out.npz"
    interrupted(encoder, paths, output, 4)
    interrupted(encoder, paths, output, 9)
    items, asked, checkpoint = resumed(encoder, paths, output)
    assert_same(items, list(encoder.encode_files(paths)))
    assert asked == [paths[5], *paths[9:]]  # failures are tried again
    checkpoint.remove()
    assert not checkpoint.folder.exists()


def test_what_changed_is_encoded_again(encoder, frames, tmp_path):
    paths = []
    for i in range(4):
        paths.append(str(tmp_path / f"{i}.fits"))
        (tmp_path / f"{i}.fits").write_bytes(frames[i].read_bytes())
    interrupted(encoder, paths, tmp_path / "out.npz", 4)
    (tmp_path / "1.fits").write_bytes(frames[9].read_bytes())
    (tmp_path / "3.fits").unlink()
    items, asked, _ = resumed(encoder, paths, tmp_path / "out.npz")
    assert asked == [paths[1], paths[3]]
    assert_same(items, list(encoder.encode_files(paths)))
    other = fh.load_encoder("solar")
    assert resumed(other, paths, tmp_path / "out.npz")[1] == paths


def test_a_damaged_checkpoint_is_named_and_its_images_done_again(encoder, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "_EVERY", 0)
    interrupted(encoder, paths, tmp_path / "out.npz", 5)
    first, second, *_ = sorted((tmp_path / "out.npz.partial").iterdir())
    first.write_bytes(first.read_bytes()[:-9])
    data = bytearray(second.read_bytes())
    data[200] ^= 1
    second.write_bytes(data)
    items, asked, checkpoint = resumed(encoder, paths, tmp_path / "out.npz")
    assert asked == [*paths[:2], *paths[5:]]
    assert [str(part) in line for part, line in zip((first, second), checkpoint.problems, strict=True)] == [True, True]
    assert_same(items, list(encoder.encode_files(paths)))
    (checkpoint.folder / "notes.txt").write_text("of a user")
    checkpoint.remove()
    assert [path.name for path in checkpoint.folder.iterdir()] == ["notes.txt"]


# ---- the command ---------------------------------------------------------------------------------------------------


def encode(*arguments):
    return main(["encode", *map(str, arguments)])


def test_an_interrupted_command_goes_on_to_the_same_bytes(encoder_path, frames, tmp_path, capsys):
    common = [frames[0].parent, "--encoder", encoder_path, "-o"]
    assert encode(*common, tmp_path / "whole.npz", "--threads", 1) == 0
    code = (
        "import os, signal, sys\n"
        "from fasthash import bulk, cli\n"
        "bulk._EVERY = 0\n"
        "save = bulk.Checkpoint._save\n"
        "def dying(self):\n"
        "    save(self)\n"
        "    if len(self._parts) == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
        "bulk.Checkpoint._save = dying\n"
        "cli.main(sys.argv[1:])\n"
    )
    words = ["encode", *map(str, common), str(tmp_path / "again.npz"), "--processes", "2"]
    assert subprocess.run([sys.executable, "-c", code, *words]).returncode == -signal.SIGKILL
    assert not (tmp_path / "again.npz").exists()
    capsys.readouterr()
    assert encode(*common, tmp_path / "again.npz", "--processes", 2) == 0
    assert "7 images are encoded already" in capsys.readouterr().err
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.npz", "whole.npz"]


def test_ctrl_c_loses_nothing(encoder_path, frames, tmp_path, monkeypatch, capsys):
    common = [frames[0].parent, "--encoder", encoder_path, "-o", tmp_path / "out.npz"]

    def stop(_progress, done, _total):
        if done == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fasthash._progress.Progress.__call__", stop)
        assert encode(*common, "--processes", 1) == 130
    assert encode(*common) == 0
    assert "9 images are encoded already" in capsys.readouterr().err


def test_only_one_way_to_share_out(encoder_path, frames, tmp_path, capsys):
    with pytest.raises(SystemExit):
        encode(frames[0], "--encoder", encoder_path, "-o", tmp_path / "x.npz", "--threads", 1, "--processes", 2)
    assert "not allowed with argument" in capsys.readouterr().err


# ---- Dask ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and two workers, processes of their own that talk over the loopback interface."""
    distributed = pytest.importorskip("distributed", reason="needs the extra [dask]")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as made:
        yield made


def test_a_cluster_gives_what_one_process_gives(encoder, paths, cluster):
    assert_same(list(bulk.encode_on_dask(encoder, paths, cluster.scheduler_address)), list(encoder.encode_files(paths)))


def test_a_killed_worker_of_a_cluster_loses_and_doubles_nothing(encoder, paths, cluster):
    items, killed = [], []
    for item in bulk.encode_on_dask(encoder, paths * 3, cluster.scheduler_address):
        if len(items) in (2, 8):
            killed.append(cluster.workers[len(killed)].process.pid)
            os.kill(killed[-1], signal.SIGKILL)
        items.append(item)
    assert_same(items, list(encoder.encode_files(paths * 3)))
    assert len(killed) == 2


def test_a_cluster_of_another_version_is_refused(encoder, paths, cluster, monkeypatch):
    monkeypatch.setattr(bulk, "__version__", "0.0")
    with pytest.raises(fh.FastHashError, match=r"its workers run fasthash .*, this is 0\.0"):
        list(bulk.encode_on_dask(encoder, paths, cluster.scheduler_address))


def test_no_cluster_is_an_error_that_names_it(encoder_path, frames, tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    monkeypatch.setattr(bulk, "_PATIENCE", 1)
    common = [frames[0], "--encoder", encoder_path, "-o", tmp_path / "x.npz"]
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        assert encode(*common, "--dask", address) == 1
        assert f"error: Dask cluster {address}: " in capsys.readouterr().err


def test_the_command_on_a_cluster_of_this_host(encoder_path, frames, tmp_path):
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    common = [*frames[:6], "--encoder", encoder_path, "-o"]
    assert encode(*common, tmp_path / "one.npz") == 0
    assert encode(*common, tmp_path / "dask.npz", "--dask", "local") == 0
    assert (tmp_path / "dask.npz").read_bytes() == (tmp_path / "one.npz").read_bytes()


def test_a_file_that_kills_every_worker_of_a_cluster_is_given_up(encoder, paths, monkeypatch):
    pytest.importorskip("distributed", reason="needs the extra [dask]")
    real, fatal = bulk._encode_on_worker, paths[2]

    def deadly(data, source, path, limits):
        if path == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(data, source, path, limits)

    monkeypatch.setattr(bulk, "_encode_on_worker", deadly)
    items = list(bulk.encode_on_dask(encoder, paths[:5], "local"))
    assert_same(items[:2] + items[3:], list(encoder.encode_files(paths[:2] + paths[3:5])))
    assert items[2] == Failure(fatal, f"{fatal}: the workers that encoded it died, one after another")
