"""Bad input is named, with its cause and a remedy, and the fields beside it are processed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits

from survey_ml import Release
from survey_ml.engine.run import RunResult, run_release
from survey_ml.errors import ConfigError, SurveyMLError
from survey_ml.loader import load_config

SHAPE = (160, 160)
BEAM = {"BMAJ": 6 / 3600, "BMIN": 6 / 3600, "BPA": 0.0}
WCS = {
    "CTYPE1": "RA---SIN",
    "CTYPE2": "DEC--SIN",
    "CRVAL1": 150.0,
    "CRVAL2": 2.0,
    "CRPIX1": 80.5,
    "CRPIX2": 80.5,
    "CDELT1": -2 / 3600,
    "CDELT2": 2 / 3600,
    "CUNIT1": "deg",
    "CUNIT2": "deg",
}


def make_pixels(seed: int = 0) -> np.ndarray:
    """Noise of 1 mJy/beam, smooth enough to look like a map, and three point sources."""
    rng = np.random.default_rng(seed)
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal(SHAPE), 0.9)
    image = 1e-3 * noise / noise.std()
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for peak, y0, x0 in ((0.05, 40.3, 50.7), (0.03, 100.1, 90.2), (0.02, 120.0, 30.0)):
        image += peak * np.exp(-0.5 * ((y - y0) ** 2 + (x - x0) ** 2) / (3 / 2.3548) ** 2)
    return image.astype(np.float32)


def write(path: Path, pixels: np.ndarray, drop: tuple[str, ...] = (), **cards: object) -> None:
    header = fits.Header()
    for name, value in ({"BUNIT": "Jy/beam", **BEAM, **WCS} | cards).items():
        if name not in drop:
            header[name] = value
    fits.PrimaryHDU(pixels, header).writeto(path)


def truncate(path: Path) -> None:
    write(path, make_pixels())
    os.truncate(path, path.stat().st_size // 2)


def replace_pixels(path: Path, value: float) -> None:
    pixels = make_pixels()
    pixels[70:75, 70:75] = value
    write(path, pixels)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "truncated|shorter"),
    "not_fits": (lambda p: p.write_text("a letter, not an image\n" * 400), "not a FITS"),
    "no_wcs": (lambda p: write(p, make_pixels(), drop=tuple(WCS)), "WCS"),
    "no_beam": (lambda p: write(p, make_pixels(), drop=tuple(BEAM)), "beam"),
    "kelvin": (lambda p: write(p, make_pixels(), BUNIT="K"), "unit"),
    "all_nan": (lambda p: write(p, np.full(SHAPE, np.nan, np.float32)), "blank"),
    "tiny": (lambda p: write(p, make_pixels()[:3, :3]), "3"),
    "constant": (lambda p: write(p, np.full(SHAPE, 1.5, np.float32)), "all pixels are 1.5"),
    "infinite": (lambda p: replace_pixels(p, np.inf), "infinit"),
    "cube": (
        lambda p: write(
            p, np.stack([make_pixels(i) for i in range(5)]), CTYPE3="FREQ", CRVAL3=1.4e9, CDELT3=1e6
        ),
        "5",
    ),
    "empty_file": (lambda p: p.write_bytes(b""), "FITS|empty"),
}


def make_release(folder: Path, **options: object) -> Path:
    folder.mkdir(exist_ok=True)
    document = {
        "name": "bad",
        "fields": ["*.fits"],
        "tiling": {"core_px": 128, "halo_px": 16},
        "engine": {"kind": "local"},
        "export": {"formats": ["parquet"]},
        "out": "out",
    } | options
    path = folder / "release.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def run(path: Path) -> RunResult:
    return run_release(load_config(path))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    """One release of a good field and one of every bad kind."""
    folder = tmp_path_factory.mktemp("mixed")
    write(folder / "good.fits", make_pixels())
    for name, (make, _) in BAD.items():
        make(folder / f"{name}.fits")
    for sub in ("a", "b"):
        (folder / sub).mkdir()
        write(folder / sub / "twin.fits", make_pixels())
    path = make_release(folder, fields=["*.fits", "a/*.fits", "b/*.fits"])
    return run(path), folder


@pytest.mark.parametrize("name", BAD)
def test_bad_field_is_named_with_cause_and_remedy(mixed: tuple[RunResult, Path], name: str) -> None:
    import re

    entries = [entry for entry in mixed[0].set_aside if entry.field == name]
    assert len(entries) == 1, mixed[0].set_aside
    assert re.search(BAD[name][1], entries[0].cause, re.IGNORECASE), entries[0]
    assert len(entries[0].hint) > 10


def test_fields_of_one_name_are_both_set_aside(mixed: tuple[RunResult, Path]) -> None:
    twins = [entry for entry in mixed[0].set_aside if entry.field == "twin"]
    assert twins
    text = " ".join(entry.cause for entry in twins)
    assert "a/twin.fits" in text
    assert "b/twin.fits" in text


def test_good_field_beside_bad_ones_is_processed(mixed: tuple[RunResult, Path]) -> None:
    result, folder = mixed
    assert result.exit_code == 1
    release = Release.open(str(folder / "out"))
    catalogue = release.catalogue()
    assert set(catalogue["field"]) == {"good"}
    assert len(catalogue) == 3


def test_nothing_usable_is_exit_code_2(tmp_path: Path) -> None:
    truncate(tmp_path / "only.fits")
    result = run(make_release(tmp_path))
    assert result.exit_code == 2
    assert [entry.field for entry in result.set_aside] == ["only"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tilling": {"core_px": 64}}, "tiling"),
        ({"stages": {"extraction": {"seed_snrr": 5.0}}}, "seed_snr"),
        ({"tiling": {"core_px": "wide"}}, "core_px"),
        ({"stages": {"extraction": {"seed_snr": "high"}}}, "seed_snr"),
        ({"defaults": {"beam_arcsec": [5.4, -1.0, 0.0]}}, "beam_arcsec"),
    ],
)
def test_wrong_configuration_is_an_error_before_any_work(tmp_path: Path, change: dict, words: str) -> None:
    write(tmp_path / "good.fits", make_pixels())
    path = make_release(tmp_path, **change)
    with pytest.raises(SurveyMLError) as caught:
        run(path)
    assert words in str(caught.value)
    assert not (tmp_path / "out" / "store.zarr").exists()


def test_unknown_key_is_reported_by_the_command(tmp_path: Path) -> None:
    write(tmp_path / "good.fits", make_pixels())
    path = make_release(tmp_path, tilling={"core_px": 64})
    done = subprocess.run(
        [sys.executable, "-m", "survey_ml.cli", "run", str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "tiling" in done.stderr
    assert "Traceback" not in done.stderr


def find_shard(out: Path, product: str) -> Path:
    return max((out / "store.zarr" / "good" / product).rglob("c/*/*"), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("damage", ["flip", "delete", "cut"])
def test_damaged_chunk_is_named_and_made_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A stage that has to read the image again meets the damage; the run mends it and says so."""
    write(tmp_path / "good.fits", make_pixels())
    path = make_release(tmp_path)
    assert run(path).exit_code == 0
    before = Release.open(str(tmp_path / "out")).catalogue()
    shard = find_shard(tmp_path / "out", "image")
    if damage == "flip":
        content = bytearray(shard.read_bytes())
        content[len(content) // 3] ^= 0x10
        shard.write_bytes(content)
    elif damage == "delete":
        shard.unlink()
    else:
        os.truncate(shard, shard.stat().st_size - 100)
    with pytest.raises(SurveyMLError) as caught:
        np.asarray(Release.open(str(tmp_path / "out")).field("good").image)
    assert caught.value.field == "good"
    assert caught.value.hint
    # Another option makes extraction read the image once more.
    changed = make_release(tmp_path, stages={"extraction": {"seed_snr": 5.01}})
    result = run(changed)
    assert result.exit_code == 0
    assert "field good" in caplog.text
    assert "damaged" in caplog.text
    after = Release.open(str(tmp_path / "out")).catalogue()
    assert list(after["source_id"]) == list(before["source_id"])
    assert np.isfinite(np.asarray(Release.open(str(tmp_path / "out")).field("good").image)).all()


def test_unwritable_output_is_an_error_with_its_path(tmp_path: Path) -> None:
    write(tmp_path / "good.fits", make_pixels())
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(SurveyMLError) as caught:
        run(make_release(tmp_path))
    assert str(tmp_path / "out") in str(caught.value)
    assert caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="a small disk needs root to mount")
def test_full_disk_stops_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this system does not let tests mount a small disk")
    try:
        write(tmp_path / "good.fits", make_pixels())
        path = make_release(tmp_path, out=str(disk / "out"))
        try:
            result = run(path)
            text = json.dumps([vars(entry) for entry in result.set_aside], default=str)
            assert result.exit_code != 0
        except SurveyMLError as error:
            text = str(error)
        assert "space" in text.lower()
        assert "disk" in text
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        assert run(path).exit_code == 0
        assert len(Release.open(str(disk / "out")).catalogue()) == 3
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_configuration_error_is_what_it_says(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_config(tmp_path / "absent.yaml")
