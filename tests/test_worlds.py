"""Simulated worlds: reproducible, varied, written whole, and kept when they are there."""

import numpy as np
import pytest

import fasthash as fh
from fasthash.solar import worlds


def test_a_world_depends_on_its_number_and_seed_alone():
    maps, times = worlds.make_world(3, 1, days=1)
    assert maps.shape == (24 // worlds.CADENCE_HOURS, 64, 64)
    assert maps.dtype == np.float16
    assert np.isfinite(maps).all()
    assert list(np.diff(times)) == [np.timedelta64(worlds.CADENCE_HOURS, "h")] * (len(maps) - 1)
    again, _ = worlds.make_world(3, 1, days=1)
    np.testing.assert_array_equal(again, maps)
    for number, seed in ((4, 1), (3, 2)):
        assert not np.array_equal(worlds.make_world(number, seed, days=1)[0], maps)


def test_both_models_show_a_disk_and_its_regions():
    regions = worlds.statistical_regions("2014-04-01", 2, seed=1)
    when = worlds.datetime(2014, 4, 1)
    smooth = worlds.SmoothModel(0.93, 1.0, 1.0, 1, 1000.0, 0.5, 0.0, 1.0, projected=True, noise=1.0)
    image = smooth.render(regions, when, 96, 0)
    assert np.isnan(image[0, 0])
    assert np.nanmax(np.abs(image)) > 5 * smooth.noise
    # The two models place the same region at the same place.
    other = worlds.render(regions, when, 96, noise=0)
    smoothed = [np.abs(np.nan_to_num(picture)).reshape(12, 8, 12, 8).mean((1, 3)).ravel() for picture in (image, other)]
    assert np.corrcoef(smoothed)[0, 1] > 0.5


def test_worlds_are_written_in_parallel_and_kept(tmp_path):
    done = []
    paths = worlds.write_worlds(tmp_path / "w", 2, 7, days=1, processes=2, progress=lambda *now: done.append(now))
    assert done == [(1, 2), (2, 2)]
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == [path.name for path in paths]
    before = paths[0].stat().st_mtime_ns
    paths[1].unlink()
    worlds.write_worlds(tmp_path / "w", 2, 7, days=1)
    assert paths[0].stat().st_mtime_ns == before
    assert worlds.find_worlds([str(tmp_path / "w"), "frames"]) == (paths, ["frames"])
    maps, times = worlds.read_world(paths[1])
    assert maps.shape == (len(times), 64, 64)


def test_what_is_no_world_is_named(tmp_path):
    for name, content in (("a.npz", b"noise"), ("b.npz", b"PK\x03\x04"), ("c.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(fh.FastHashError, match=name):
            worlds.read_world(tmp_path / name)
    np.savez(tmp_path / "d.npz", maps=np.zeros(3), times=np.zeros(3))
    with pytest.raises(fh.FastHashError, match=r"d\.npz"):
        worlds.read_world(tmp_path / "d.npz")
    with pytest.raises(fh.ArgumentError, match="count"):
        worlds.write_worlds(tmp_path, 0)
