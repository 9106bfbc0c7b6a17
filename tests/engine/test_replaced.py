"""An input that is replaced while it is read never gives a release of old and new pixels."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from releases import make_config, write_field

from survey_ml.data.store import ReleaseStore
from survey_ml.engine import worker as worker_module
from survey_ml.engine.run import plan_release, run_release
from survey_ml.field import Window

WHOLE = Window(0, 70, 0, 90)


@pytest.fixture
def after_third(monkeypatch):
    """Return a function that has something done when three tiles of north are committed."""

    def arrange(act):
        real, done = worker_module.write_commit, []

        def commit(store, unit, *rest, **options):
            made = real(store, unit, *rest, **options)
            if unit.field == "north" and unit.stage == "ingest":
                done.append(unit)
                if len(done) == 3:
                    act()
            return made

        monkeypatch.setattr(worker_module, "write_commit", commit)

    return arrange


def run(config, registry):
    return run_release(config, registry=registry, assemble=False)


def read_pixels(path: Path) -> np.ndarray:
    from astropy.io import fits

    return np.asarray(fits.getdata(path), np.float32)


def test_another_file_of_the_same_size_and_time(release_folder, registry, after_third):
    config, path = make_config(release_folder), release_folder / "fields/north.fits"
    other = write_field(release_folder / "other.fits", seed=77)

    def replace() -> None:
        before = path.stat()
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert other.stat().st_size == before.st_size
        other.replace(path)

    after_third(replace)
    result = run(config, registry)
    assert result.exit_code == 1
    (aside,) = result.set_aside
    assert (aside.field, aside.stage, aside.tile) == ("north", "ingest", "")
    assert "north.fits was changed while it was read" in aside.cause
    plan = plan_release(config, registry=registry).by_stage()["ingest"]
    assert [u.unit.field for u in plan if u.state == "stale"] == ["north"] * 3
    again = run(config, registry)
    assert again.exit_code == 0
    stored = ReleaseStore.open(config.out).read("north", "image", WHOLE)
    np.testing.assert_array_equal(stored, read_pixels(path))


def test_a_link_or_another_owner_changes_no_pixel(release_folder, registry, after_third):
    config, path = make_config(release_folder), release_folder / "fields/north.fits"
    before = path.stat().st_ctime_ns
    after_third(lambda: os.link(path, release_folder / "backup"))
    assert run(config, registry).exit_code == 0
    assert path.stat().st_ctime_ns != before
    np.testing.assert_array_equal(
        ReleaseStore.open(config.out).read("north", "image", WHOLE), read_pixels(path)
    )


def test_a_file_that_is_gone_is_named(release_folder, registry, after_third):
    config, path = make_config(release_folder), release_folder / "fields/north.fits"
    after_third(path.unlink)
    result = run(config, registry)
    assert result.exit_code == 1
    assert {entry.field for entry in result.set_aside} == {"north"}
    assert any("north.fits" in entry.cause for entry in result.set_aside)
