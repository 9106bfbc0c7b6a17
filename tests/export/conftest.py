from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.wcs import WCS

from survey_ml.columns import columns_of, part_columns
from survey_ml.export.catalogue import Part, add_columns, gather_rows
from survey_ml.export.schema import make_table
from survey_ml.field import Beam, Field


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
def catalogue() -> dict[str, pa.Table]:
    """A catalogue of two fields made of parts, with components that belong to sources."""
    fields = {name: make_field(name) for name in ("north", "south")}
    tables = {}
    shared = {name: make_rows("sources", 40, seed) for seed, name in enumerate(fields)}
    for table in ("sources", "components", "islands"):
        parts = []
        for seed, name in enumerate(fields):
            data = make_rows(table, 40, 10 + seed)
            sources = shared[name]
            if table == "sources":
                data = sources | {"n_components": np.ones(40, np.int32)}
                data["n_components"][0] = 2
            elif table == "components":
                data["component_id"] = sources["source_id"].copy()
                data["source_id"] = sources["source_id"].copy()
                data["island_id"] = sources["island_id"].copy()
            else:
                data["island_id"] = np.arange(40)
            parts.append(Part(name, "0_0", data))
        columns = columns_of(table)
        tables[table] = make_table(add_columns(gather_rows(parts, columns), columns, fields), columns)
    return tables
