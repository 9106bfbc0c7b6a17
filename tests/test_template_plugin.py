"""The plugin to copy, installed as a user would: through pip and its entry point."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "plugins" / "template"
BROKEN = "import no_such_module_anywhere\n"
RELEASE = """\
name: small
fields: ['*.fits']
stages:
  compactness: {outer_beams: 1.5}
tiling: {core_px: 128}
out: out
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the template with pip into a folder of its own, and a broken plugin beside it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--target", str(folder), str(TEMPLATE)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (folder / "survey_ml_broken.py").write_text(BROKEN)
    info = folder / "survey_ml_broken-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: survey-ml-broken\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[survey_ml.v1]\nbroken = survey_ml_broken\n")
    return folder


def call(site: Path, *args: object, code: int = 0, **environment: str) -> str:
    """Call ``survey-ml`` in a process of its own that finds the folder; return standard output."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("SURVEY_ML_")}
    done = subprocess.run(
        [sys.executable, "-m", "survey_ml.cli", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=500,
        env=known | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])} | environment,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def write_release(folder: Path) -> Path:
    """Write an image with one wide and two point sources, and a YAML that names the stage."""
    import numpy as np
    from astropy.io import fits

    random = np.random.default_rng(3)
    rows, columns = np.mgrid[:192, :192]
    image = random.normal(0, 1e-4, rows.shape)
    for y, x, width in ((60, 60, 4.0), (140, 70, 4.0), (120, 130, 9.0)):
        image += 8e-3 * np.exp(-4 * np.log(2) * ((columns - x) ** 2 + (rows - y) ** 2) / width**2)
    header = fits.Header()
    header["BUNIT"] = "Jy/beam"
    header["CTYPE1"], header["CTYPE2"] = "RA---SIN", "DEC--SIN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 2.0
    header["CRPIX1"] = header["CRPIX2"] = 96.0
    header["CDELT1"], header["CDELT2"] = -2 / 3600, 2 / 3600
    header["CUNIT1"] = header["CUNIT2"] = "deg"
    header["BMAJ"] = header["BMIN"] = 8 / 3600
    header["BPA"] = 0.0
    header["RESTFRQ"] = 1.4e9
    fits.writeto(folder / "field.fits", image.astype(np.float32), header)
    path = folder / "release.yaml"
    path.write_text(RELEASE)
    return path


def check_catalogue(out: Path) -> None:
    """The stage's columns are in the catalogue, and tell the wide source from the others."""
    from survey_ml import Release

    sources = Release.open(str(out)).catalogue()
    assert len(sources) == 3
    sources.sort("total_to_peak")
    points, wide = sources[:2], sources[2]
    assert all(abs(points["total_to_peak"] - 1.0) < 0.1)
    assert wide["total_to_peak"] == pytest.approx((9.0 / 4.0) ** 2, rel=0.1)
    assert wide["concentration"] < min(points["concentration"]) - 0.2


def test_plugins_lists_the_template_and_the_broken_one(site):
    found = json.loads(call(site, "plugins", "--json"))
    (stage,) = [stage for stage in found["stages"] if stage["name"] == "compactness"]
    assert stage["distribution"] == "survey-ml-template"
    assert [product["name"] for product in stage["reads"]] == ["image", "background", "sources"]
    (broken,) = found["broken"]
    assert (broken["name"], broken["distribution"], broken["version"]) == (
        "broken",
        "survey-ml-broken",
        "3.1",
    )
    assert "no_such_module_anywhere" in broken["cause"]
    text = call(site, "plugins")
    assert "survey-ml-template 0.1.0" in text
    assert "broken (survey-ml-broken 3.1): ModuleNotFoundError" in text
    assert "line 1" in call(site, "plugins", "--verbose")


def test_strict_refuses_the_broken_one_and_a_list_can_leave_it_out(site):
    call(site, "plugins", code=2, SURVEY_ML_STRICT="1")
    call(site, "plugins", SURVEY_ML_STRICT="1", SURVEY_ML_PLUGINS="template")
    names = [
        stage["name"] for stage in json.loads(call(site, "plugins", "--json", SURVEY_ML_PLUGINS=""))["stages"]
    ]
    assert "compactness" not in names
    assert "extraction" in names


def test_a_run_that_names_the_stage_executes_it_in_this_process(site, tmp_path):
    release = write_release(tmp_path)
    result = json.loads(call(site, "run", release, "--engine", "local", "--json"))
    done = {row["name"]: row["done"] for row in result["stages"]}
    assert done["compactness"] == 4
    check_catalogue(tmp_path / "out")


@pytest.mark.slow
def test_a_run_that_names_the_stage_executes_it_on_ray(site, tmp_path):
    release = write_release(tmp_path)
    result = json.loads(call(site, "run", release, "--engine", "ray", "--workers", "1", "--json"))
    done = {row["name"]: row["done"] for row in result["stages"]}
    assert done["compactness"] == 4
    check_catalogue(tmp_path / "out")


@pytest.mark.slow
def test_its_own_test_passes(site):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TEMPLATE)],
        capture_output=True,
        text=True,
        timeout=900,  # the check of the contract may be the first to compile the built-in stages
        cwd=TEMPLATE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr


def read_guide() -> tuple[list[str], dict[str, str]]:
    """Return the commands of plugins/README.md, and the files that it shows whole, by name."""
    text = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", text, flags=re.DOTALL)
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [line[4:] for line in outside.splitlines() if line.startswith("    ")], dict(blocks)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Follow plugins/README.md word for word up to the installation; return the plugin and its site."""
    clone, site = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("guided")
    shutil.copytree(TEMPLATE, clone / "plugins" / "template")
    commands, files = read_guide()
    start = commands.index("pip install -e .")
    made = "\n".join(commands[:start])
    subprocess.run(["bash", "-e", "-c", made], cwd=clone, check=True, timeout=60)
    folder = clone / "my-stage"
    for name, content in files.items():
        (folder / name).write_text(content)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*install, "--disable-pip-version-check", "--target", str(site), str(folder)], check=True, timeout=120
    )
    return folder, site


def test_the_guide_is_true_word_for_word(followed, tmp_path):
    folder, site = followed
    left = [path for path in folder.rglob("*.*") if "template" in path.read_text(errors="replace").lower()]
    assert [path.name for path in left] == []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(call(site, "plugins", "--verbose", "--json"))
    assert found["broken"] == []
    (stage,) = [stage for stage in found["stages"] if stage["name"] == "brightness"]
    assert (stage["distribution"], stage["plugin"]) == ("my-stage", "mine")
    release = write_release(tmp_path)
    release.write_text(release.read_text().replace("stages:\n  compactness: {outer_beams: 1.5}", "stages: "))
    named = release.read_text().replace("stages: ", "stages:\n  brightness: {zero_point: 8.90}")
    release.write_text(named)
    checked = json.loads(call(site, "check", release, "--json"))
    assert checked["stages"] == ["ingest", "noise", "extraction", "brightness"]
