"""Releases of synthetic fields for tests, processed with the stages of `trial`."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import trial
from astropy.io import fits

from survey_ml.builtin import STAGES
from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.data.commit import check_commit, list_commits
from survey_ml.data.store import ReleaseStore
from survey_ml.plugins import Origin, Registry

CORE, HALO = 32, 4


def write_field(path: Path, shape: tuple[int, int] = (70, 90), seed: int = 0, values=None) -> Path:
    """Write noise of rms 1 Jy/beam with a proper header."""
    data = np.random.default_rng(seed).standard_normal(shape).astype(np.float32) if values is None else values
    header = fits.Header()
    axes = ((1, "RA---SIN", 150.0 + seed / 100, 45, -2), (2, "DEC--SIN", 2.0, 35, 2))
    for axis, kind, value, pixel, step in axes:
        header[f"CTYPE{axis}"], header[f"CRVAL{axis}"], header[f"CRPIX{axis}"] = kind, value, pixel
        header[f"CDELT{axis}"], header[f"CUNIT{axis}"] = step / 3600, "deg"
    header["BMAJ"], header["BMIN"], header["BPA"] = 6 / 3600, 6 / 3600, 0.0
    header["BUNIT"], header["RESTFRQ"] = "Jy/beam", 1.4e9
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.writeto(path, data, header, overwrite=True)
    return path


def make_config(base: Path, *, out: str = "out", engine: str = "local", stages=None, **more) -> LoadedConfig:
    """Return the configuration of a release in a folder with ``fields/*.fits``."""
    wanted = stages if stages is not None else {"census": {}}
    engine_options = {"kind": engine, "workers": 2, "batch_seconds": 0.5, **more.pop("engine_options", {})}
    release = ReleaseConfig(
        name="trial",
        fields=["fields/*.fits"],
        tiling={"core_px": CORE, "halo_px": HALO},
        stages=wanted,
        engine=engine_options,
        out=out,
        **more,
    )
    return LoadedConfig(release=release, base=base, out=str(base / out), source="")


def make_registry() -> Registry:
    """Return the stages of `trial` beside the built-in ones."""
    built_in = Origin("survey-ml", "0", "builtin", builtin=True)
    other = Origin("trial", "1.0", "trial")
    offers = [(spec, built_in) for spec in STAGES] + [(spec, other) for spec in trial.SPECS]
    return Registry(offers=list(offers), origins=[built_in, other])


def write_fields(base: Path, names=("north", "south"), shape=(70, 90)) -> Path:
    """Write fields of 3 x 3 tiles into a release's folder."""
    for seed, name in enumerate(names):
        write_field(base / "fields" / f"{name}.fits", shape, seed)
    return base


def read_bytes_of(out: Path) -> dict[str, str]:
    """Return the checksum of every committed file, as read from disk now."""
    store = ReleaseStore.open(str(out))
    found = {}
    for commit in list_commits(store).values():
        assert check_commit(store, commit, deep=True) == ""
        for path, sealed in commit.files.items():
            # The key is in the path of table parts; what is compared here is what they hold.
            found[path.replace(commit.key, "KEY")] = sealed["sha256"]
        for name, value in commit.summaries.items():
            found["/".join((*astuple(commit.unit), name))] = json.dumps(value, sort_keys=True)
    return found
