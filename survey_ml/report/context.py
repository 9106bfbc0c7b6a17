"""What the panels of a report are given: the release, its tables, and samples of its maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import DamagedError, SetAside
from survey_ml.export.duplicates import DUPLICATE
from survey_ml.export.pixels import read_made
from survey_ml.export.schema import read_column

if TYPE_CHECKING:
    import pyarrow as pa

    from survey_ml.config import ReleaseConfig
    from survey_ml.data.commit import Commit, Unit
    from survey_ml.data.release import Release

MOST_FIGURES = 12
"""Fields drawn at most; the others are listed."""
_SAMPLES = 2_000_000
_SAMPLE_PX = (32, 256)
"""Least and largest side to which rms maps are thinned to measure area by depth."""


@dataclass(frozen=True)
class NoiseSample:
    """The rms of a release, thinned: each value stands for an area of sky.

    Attributes
    ----------
    names : tuple of str
        Fields that have an rms.
    field : ndarray of int
        Shape (n,): number of each sample's field in ``names``.
    rms : ndarray
        Shape (n,), Jy/beam.
    area : ndarray
        Shape (n,), deg^2.
    """

    names: tuple[str, ...]
    field: NDArray[np.int64]
    rms: NDArray[np.float64]
    area: NDArray[np.float64]

    def medians(self) -> dict[str, float]:
        """Return the median rms of each field in Jy/beam; NaN for one without valid pixels."""
        starts = np.searchsorted(self.field, np.arange(len(self.names) + 1))
        parts = [self.rms[a:b] for a, b in pairwise(starts)]
        medians = [float(np.median(part)) if len(part) else float("nan") for part in parts]
        return dict(zip(self.names, medians, strict=True))


@dataclass(frozen=True)
class Context:
    """Handed to every panel; nothing in it may be changed.

    Attributes
    ----------
    release : Release
        The open release.
    config : ReleaseConfig
        As run.
    base : Path
        Folder that paths in the configuration start from.
    tables : mapping
        Catalogue tables by name, as `survey_ml.export.catalogue.assemble` returns them.
    set_aside : tuple of SetAside
        What was left out.
    commits : mapping
        All units of work that are done.
    """

    release: Release
    config: ReleaseConfig
    base: Path
    tables: Mapping[str, pa.Table]
    set_aside: tuple[SetAside, ...]
    commits: Mapping[Unit, Commit]

    def column(self, table: str, name: str) -> NDArray[Any]:
        """Return a column of a table; empty where there is no such table."""
        if (table, name) not in self._columns:
            have = table in self.tables and name in self.tables[table].column_names
            self._columns[table, name] = read_column(self.tables[table], name) if have else np.empty(0)
        return self._columns[table, name]

    @cached_property
    def _columns(self) -> dict[tuple[str, str], NDArray[Any]]:
        return {}

    @property
    def main_table(self) -> str:
        """The table that has the detections: sources, or the peaks of a simple finder."""
        return next((name for name in ("sources", "peaks", "forced") if name in self.tables), "")

    @cached_property
    def is_best(self) -> NDArray[np.bool_]:
        """Rows of the main table that are not duplicates of better ones, shape (n,)."""
        return self.best_of(self.main_table)

    def best_of(self, table: str) -> NDArray[np.bool_]:
        """Tell which rows of a table are not duplicates of better ones, shape (n,)."""
        flags = self.column(table, "flags")
        if not len(flags):
            return np.ones(len(self.column(table, "ra")), bool)
        return (flags.astype(np.int64) & DUPLICATE) == 0

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """Fields that are drawn: all, or some evenly spaced in the list."""
        fields = self.release.fields
        if len(fields) <= MOST_FIGURES:
            return tuple(fields)
        index = np.linspace(0, len(fields) - 1, MOST_FIGURES).round().astype(int)
        return tuple(fields[i] for i in index)

    @cached_property
    def beams(self) -> dict[str, float]:
        """Major axis of the beam of each field, arcsec."""
        return {name: self.release.field(name).info.beam.major for name in self.release.fields}

    @property
    def seed_snr(self) -> float:
        """The threshold in rms above which sources were looked for."""
        for commit in self.commits.values():
            options = commit.made_by.get("options", {})
            if isinstance(options, dict) and "seed_snr" in options:
                return float(options["seed_snr"])
        return float(self.config.stages.get("extraction", {}).get("seed_snr", 5.0))

    def has_product(self, field: str, product: str) -> bool:
        """Tell whether a field has an array product."""
        return product in self.release.field(field).products

    def thin(self, field: str, product: str, side: int) -> NDArray[Any]:
        """Return a product thinned to at most ``side`` pixels a side; NaN where a tile was not made."""
        view = self.release.field(field)
        try:
            return np.asarray(view.quicklook(product, side))
        except DamagedError:
            # Some tiles were set aside: show what there is, one pixel in so many.
            return _thin_rows(view, product, max(1, -(-max(view.info.shape) // side)))

    def read(self, field: str, product: str, window: tuple[slice, slice]) -> NDArray[Any]:
        """Return a window of a product; NaN where a tile was not made."""
        return read_made(self.release.field(field), product, window)

    @cached_property
    def noise(self) -> NoiseSample:
        """The rms of all fields that have one."""
        pieces = list(self._sample_noise())
        if not pieces:
            return NoiseSample((), np.empty(0, np.int64), np.empty(0), np.empty(0))
        names, rms, area = zip(*pieces, strict=True)
        field = np.repeat(np.arange(len(names)), [len(values) for values in rms])
        return NoiseSample(names, field, np.concatenate(rms), np.concatenate(area))

    def _sample_noise(self) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64]]]:
        fields = self.release.fields
        side = int(np.clip(np.sqrt(_SAMPLES / max(1, len(fields))), *_SAMPLE_PX))
        for name in fields:
            if not self.has_product(name, "rms"):
                continue
            rms = self.thin(name, "rms", side)
            field = self.release.field(name).info
            whole = field.shape[0] * field.shape[1] * (field.pixel_scale / 3600.0) ** 2
            valid = rms[np.isfinite(rms) & (rms > 0)].astype(np.float64)
            yield name, valid, np.full(len(valid), whole / max(1, rms.size))


def _thin_rows(view: Any, product: str, factor: int) -> NDArray[np.float32]:
    """Take every ``factor``-th pixel, reading a band of rows at a time."""
    ny, nx = view.info.shape
    band = max(factor, 1024 // factor * factor)
    rows = []
    for y0 in range(0, ny, band):
        window = (slice(y0, min(ny, y0 + band)), slice(0, nx))
        rows.append(read_made(view, product, window)[::factor, ::factor].astype(np.float32))
    return np.concatenate(rows)
