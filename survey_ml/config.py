"""The release YAML: what it may hold, frozen and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class Section(BaseModel):
    """Base of all configuration sections: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True)


class Defaults(Section):
    """What to assume where a header lacks it; a header that has it always wins."""

    beam_arcsec: tuple[PositiveFloat, PositiveFloat, float] | None = None
    """Beam FWHM major and minor axis in arcsec and position angle in deg."""
    frequency_hz: PositiveFloat | None = None
    """Observing frequency in Hz."""
    unit: str | None = None
    """Unit of the pixels where there is no BUNIT; Jy/beam, mJy/beam and uJy/beam are known."""
    hdu: str | int | None = None
    """HDU to read, by name or number; the first image when not given."""


class FieldOverride(Section):
    """One field named by path, where a glob does not say enough."""

    path: str
    """The image: a path or glob relative to the YAML, or a URL."""
    name: str | None = None
    """Name of the field; from the file name when not given."""
    beam_arcsec: tuple[PositiveFloat, PositiveFloat, float] | None = None
    """As in `defaults`, for this field only; so are the following."""
    frequency_hz: PositiveFloat | None = None
    """Observing frequency in Hz."""
    unit: str | None = None
    """Unit of the pixels where there is no BUNIT."""
    hdu: str | int | None = None
    """HDU to read, by name or number."""


class Tiling(Section):
    """How fields are cut into tiles; the catalogue does not depend on it."""

    core_px: PositiveInt = 1024
    """Side of a tile's core in pixels: also the shard of the store."""
    halo_px: int = Field(128, ge=0)
    """Least halo in pixels; stages that need more get more."""


class Engine(Section):
    """Where the work runs."""

    kind: Literal["ray", "local"] = "ray"
    """`ray`: a Prefect flow on Ray workers; `local`: this one process."""
    workers: PositiveInt | None = None
    """Workers a stage; from the CPUs and memory of the cluster when not given."""
    memory_gb: PositiveFloat | None = None
    """Memory that tiles in flight may use together; half of the machine's when not given."""
    tiles_per_call: PositiveInt = 8
    """Tiles one call of a worker takes at most."""
    batch_seconds: PositiveFloat = 5.0
    """Work that one Prefect task should hold, in seconds."""
    unit_seconds: PositiveFloat | None = None
    """Longest that a stage may work on one tile, field or release, in seconds; what takes longer is set
    aside and named. No limit when not given."""
    retries: int = Field(3, ge=0)
    """Further attempts after a lost worker or failed read or write; bad data is never retried."""
    lease_seconds: float = Field(60.0, gt=0, le=86_400)
    """A run that does not renew its lease for so long may be taken over by another."""
    recycle_mb: PositiveInt | None = None
    """Growth in MB since its first tile after which a Ray worker is replaced, between calls."""
    spill_dir: str | None = None
    """Folder for what does not fit into Ray's object store (100 MB); in its session when not given."""
    metrics_file: str | None = None
    """File to write metrics to for Prometheus, relative to this one; see docs/monitoring.md."""
    metrics_port: int | None = Field(None, ge=0, le=65535)
    """Port of 127.0.0.1 to serve them on, at `/metrics`."""


class Plugins(Section):
    """Which of the installed plugins this release may use."""

    allow: tuple[str, ...] | None = None
    """Plugins or distributions by name; no other is imported. `null`: all that are installed; `[]`:
    none but what survey_ml brings. `SURVEY_ML_PLUGINS` can only narrow it further."""


class Export(Section):
    """What is written beside the catalogue."""

    formats: tuple[str, ...] = ("fits", "votable", "parquet", "regions", "moc")
    """Exporters by name; see `survey-ml plugins`."""
    columns: Literal["survey_ml", "pybdsf"] = "survey_ml"
    """Column names of the exported tables."""
    maps: tuple[str, ...] = ()
    """Array products also written as FITS, such as rms and residual."""
    prefix: str = Field("SML", pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    """Acronym of the survey in source names: `SML` gives `SML Jhhmmss.ss+ddmmss.s`."""


class ReleaseConfig(Section):
    """One release: its fields, what is done to them, and where the result goes."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the release."""
    fields: tuple[str | FieldOverride, ...] = Field(min_length=1)
    """Images: globs relative to this file, URLs, or entries with a path and what its header lacks."""
    defaults: Defaults = Defaults()
    tiling: Tiling = Tiling()
    stages: dict[str, dict[str, Any]] = {"extraction": {}}
    """Stages to run with their options; those whose products they read are added by themselves."""
    providers: dict[str, str] = {}
    """Stage name to distribution, where two distributions provide a stage of one name."""
    plugins: Plugins = Plugins()
    engine: Engine = Engine()
    export: Export = Export()
    reference_catalogue: str | None = None
    """A local catalogue to compare with: FITS, VOTable, Parquet or CSV with `ra` and `dec` in deg and
    `peak_flux`, in Jy/beam unless the column says its unit; upper and lower case are the same."""
    truth: str | None = None
    """A local catalogue of what was injected, for completeness and reliability: `ra` and `dec`, and
    `snr` or `peak_flux`, as above. `local_rms` (Jy/beam) and `extent` (arcsec) are used if there."""
    seed: int = 0
    """Seed of every random step."""
    out: str = Field(pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")
    """Folder or URL of the release, relative to this file."""


class LoadedConfig(BaseModel):
    """A checked configuration with its paths made absolute.

    ``out`` is an absolute path or a URL; ``base`` is the folder that relative paths start from;
    ``settings`` came from the command line and are in ``release`` already.
    """

    model_config = ConfigDict(frozen=True)

    release: ReleaseConfig
    base: Path
    out: str
    source: str
    settings: tuple[str, ...] = ()
