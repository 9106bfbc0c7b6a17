"""A small field and a release to write it into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.wcs import WCS

from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.data.commit import Commit, Unit, write_commit
from survey_ml.data.source import Source
from survey_ml.data.store import ReleaseStore
from survey_ml.field import Beam, Field, Tile, split_tiles
from survey_ml.products import array

CORE = 64


def make_config(base: Path, out: str | None = None, **options) -> LoadedConfig:
    """Return a configuration as the loader gives it."""
    options = {"name": "small", "fields": ["*.fits"], "tiling": {"core_px": CORE, "halo_px": 8}} | options
    release = ReleaseConfig(**options, out=out or "out")
    return LoadedConfig(release=release, base=base, out=out or str(base / "out"), source="")


def make_wcs(shape: tuple[int, int]) -> WCS:
    """Return a SIN projection of 2 arcsec pixels centred on the field."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [shape[1] / 2 + 0.5, shape[0] / 2 + 0.5]
    wcs.wcs.cdelt = [-2 / 3600, 2 / 3600]
    wcs.wcs.radesys = "ICRS"
    return wcs


def make_field(shape: tuple[int, int] = (150, 100), name: str = "north") -> Field:
    """Return a field; (150, 100) with a core of 64 makes three by two tiles, edges included."""
    return Field(name, shape, make_wcs(shape).to_header_string(), Beam(6.0, 5.0, 30.0), 1.4e9)


def list_tiles(field: Field) -> dict[str, Tile]:
    return {tile.name: tile for tile in split_tiles(field.shape, CORE, 8)}


def make_store(folder: Path | str, field: Field | None = None, core: int = CORE) -> ReleaseStore:
    """Return a release with one registered field and a declared image."""
    field = field or make_field()
    store = ReleaseStore.create(str(folder), make_config(Path.cwd(), out=str(folder)))
    store.register(field, Source(field, "/nowhere/north.fits"), core)
    store.declare(field.name, array("image"))
    return store


def commit_image(store: ReleaseStore, pixels: np.ndarray, name: str = "north") -> dict[str, Commit]:
    """Commit an image tile by tile, as ingest does."""
    field = store.field(name)
    return {
        tile.name: write_commit(
            store,
            Unit(name, "ingest", tile.name),
            "a" * 64,
            made_by={"stage": "ingest"},
            tile=tile,
            arrays={"image": pixels[tile.core.slices]},
        )
        for tile in list_tiles(field).values()
    }
