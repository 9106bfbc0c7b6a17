from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.wcs import WCS

from survey_ml.columns import columns_of, part_columns
from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.data.commit import Unit, write_commit
from survey_ml.data.source import Source
from survey_ml.data.store import ReleaseStore
from survey_ml.export.catalogue import put_together
from survey_ml.export.gathering import Gathered, Labels, Part
from survey_ml.field import Beam, Field, split_tiles
from survey_ml.products import array, table


def make_field(name: str, ra: float = 150.0, dec: float = -30.0, shape: Any = (200, 300)) -> Field:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [shape[1] / 2, shape[0] / 2]
    wcs.wcs.cdelt = [-2.0 / 3600, 2.0 / 3600]
    header = wcs.to_header()
    text = "".join(card.image for card in header.cards)
    return Field(name, shape, text, Beam(8.0, 6.0, 30.0), 1.4e9)


def make_rows(table: str, n: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of a built-in table with plausible values."""
    rng = np.random.default_rng(seed)
    rows: dict[str, np.ndarray] = {}
    for column in part_columns(table):
        if column.dtype == "bool":
            rows[column.name] = rng.random(n) < 0.5
        elif column.dtype.startswith("int"):
            rows[column.name] = rng.integers(0, 4, n).astype(column.dtype)
        else:
            rows[column.name] = rng.uniform(1e-3, 5.0, n).astype(column.dtype)
    rows["ra"] = 150.0 + rng.uniform(-0.08, 0.08, n)
    rows["dec"] = -30.0 + rng.uniform(-0.05, 0.05, n)
    number = {"components": "component_id", "sources": "source_id", "islands": "island_id"}[table]
    rows[number] = rng.choice(60_000, n, replace=False).astype(np.int64)
    if "major" in rows:
        rows["minor"] = rng.uniform(6.0, 8.0, n)
        rows["major"] = rows["minor"] * rng.uniform(1.0, 2.0, n)
        rows["pa"] = rng.uniform(0.0, 180.0, n)
    if "flags" in rows:
        rows["flags"] = np.zeros(n, np.int32)
    return rows


@pytest.fixture
def field() -> Callable[..., Field]:
    return make_field


@pytest.fixture
def rows() -> Callable[..., dict[str, np.ndarray]]:
    return make_rows


@pytest.fixture
def gather(tmp_path) -> Callable[..., Gathered]:
    """Gather parts; tables that are joined share their labels."""
    labels = Labels()

    def gather(name: str, parts: list[Part], columns: Any) -> Gathered:
        return Gathered(name, columns, parts, Path(tempfile.mkdtemp(dir=tmp_path)) / name, labels)

    return gather


@pytest.fixture
def catalogue(gather) -> dict[str, pa.Table]:
    """A catalogue of two fields made of parts, with components that belong to sources."""
    fields = {name: make_field(name) for name in ("north", "south")}
    tables = {}
    shared = {name: make_rows("sources", 40, seed) for seed, name in enumerate(fields)}
    for kind in ("sources", "components", "islands"):
        parts = []
        for seed, name in enumerate(fields):
            data = make_rows(kind, 40, 10 + seed)
            sources = shared[name]
            if kind == "sources":
                data = sources | {"n_components": np.ones(40, np.int32)}
                data["n_components"][0] = 2
            elif kind == "components":
                data["component_id"] = sources["source_id"].copy()
                data["source_id"] = sources["source_id"].copy()
                data["island_id"] = sources["island_id"].copy()
            else:
                data["island_id"] = np.arange(40)
            parts.append(Part(name, "0_0", data))
        columns = columns_of(kind)
        tables[kind] = put_together(gather(kind, parts, columns), fields)
    return tables


CORE = 128


def make_config(out: str, **release: Any) -> LoadedConfig:
    given = {"name": "tiny", "fields": ["*.fits"], "tiling": {"core_px": CORE}, "out": out} | release
    return LoadedConfig(release=ReleaseConfig(**given), base=Path.cwd(), out=out, source="")


def commit_release(out: str, *, without: tuple[str, str] = ("", "")) -> ReleaseStore:
    """Commit a release of two fields that lie on each other, tile by tile.

    ``without`` names the field and tile that was set aside.
    """
    store = ReleaseStore.create(out, make_config(out))
    for seed, name in enumerate(("north", "south")):
        field = make_field(name)
        store.register(field, Source(field, f"/nowhere/{name}.fits"), CORE)
        rng = np.random.default_rng(seed)
        image = rng.normal(0, 1e-4, field.shape).astype(np.float32)
        rows = {t: make_rows(t, 30, seed + 5) for t in ("sources", "components", "islands")}
        for t in ("sources", "components"):
            # The same objects in both fields, a hundredth of an arcsec apart.
            rows[t] |= {c: make_rows(t, 30, 5)[c] for c in ("ra", "dec")}
            rows[t]["dec"] = rows[t]["dec"] + seed * 1e-6
            rows[t]["local_rms"] = np.full(30, 1e-4 * (seed + 1))
        for product in (array("image"), array("rms")):
            store.declare(name, product)
        for number, tile in enumerate(split_tiles(field.shape, CORE, 0)):
            if (name, tile.name) == without:
                continue
            part = {t: {c: v[number::6] for c, v in data.items()} for t, data in rows.items()}
            pixels = image[tile.core.slices]
            write_commit(
                store,
                Unit(name, "ingest", tile.name),
                "a" * 64,
                made_by={},
                tile=tile,
                arrays={"image": pixels},
            )
            write_commit(
                store,
                Unit(name, "extraction", tile.name),
                "b" * 64,
                made_by={"options": {"seed_snr": 5.0}},
                tile=tile,
                arrays={"rms": np.full_like(pixels, 1e-4)},
                tables={t: (part[t], table(t)) for t in part},
                info={"seconds": 0.5, "worker": "here"},
            )
    return store


@pytest.fixture(scope="session")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed release to copy."""
    out = tmp_path_factory.mktemp("release") / "out"
    commit_release(str(out))
    return out


@pytest.fixture
def commit() -> Callable[..., ReleaseStore]:
    return commit_release


@pytest.fixture
def config() -> Callable[..., LoadedConfig]:
    return make_config
