"""The catalogue folder of a release: written aside and put in place whole, only when something changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from survey_ml import __version__
from survey_ml.errors import ConfigError, InputError, PluginError, SurveyMLError
from survey_ml.export.checksums import (
    FOLDER,
    MARKER,
    is_sealed,
    is_whole,
    list_files,
    read_marker,
    seal_files,
    sync_folder,
    write_checksums,
    write_marker,
)
from survey_ml.export.options import ExportOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from survey_ml.config import LoadedConfig
    from survey_ml.data.release import Release
    from survey_ml.data.store import ReleaseStore
    from survey_ml.graph import Graph
    from survey_ml.hookspecs import ExporterSpec

_MAPS = "maps"


def export_release(out: str, config: LoadedConfig) -> list[Path]:
    """Write the catalogue of a release in all formats that the configuration names.

    The files are written aside and renamed together. Nothing is done when the commits, the options
    and the exporters are those of the files in place.

    Parameters
    ----------
    out : str
        Absolute path or URL of the release.
    config : LoadedConfig
        Its ``export`` section says what to write.

    Returns
    -------
    list of Path
        The files, sorted; relative to ``out`` where that is a URL.

    Raises
    ------
    ConfigError
        When a format has no exporter.
    PluginError, StoreError
        When an exporter fails or the files cannot be written; what was in place stays.
    """
    from survey_ml.data.release import Release

    release = Release.open(out)
    store = release.store
    exporters = pick_exporters(config)
    digest = digest_causes(release, config, exporters)
    marker = read_marker(store)
    if marker is None or marker["digest"] != digest or not is_whole(store, marker):
        with _telling_failures(store), open_aside(store) as aside:
            _write_all(release, config, exporters, aside)
            marker = {"digest": digest, "files": seal_files(aside)}
            write_marker(aside, marker)
            put_in_place(store, aside)
    write_checksums(store)
    base = Path(FOLDER) if "://" in out else Path(store.out) / FOLDER
    return [base / name for name in sorted(marker["files"])]


def pick_exporters(config: LoadedConfig) -> list[ExporterSpec]:
    """Return the exporters of the formats wanted, in the order of the configuration.

    Raises
    ------
    ConfigError
        When there is none of a name.
    """
    from survey_ml.explain import suggest
    from survey_ml.plugins import get_manager

    wanted = list(dict.fromkeys(config.release.export.formats))
    if config.release.export.maps and _MAPS not in wanted:
        wanted.append(_MAPS)
    known = {spec.name: spec for spec in get_manager().exporters()}
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"there is no exporter {name}{suggest(name, sorted(known))}",
                f"export.formats may name: {', '.join(sorted(known))}",
            )
    return [known[name] for name in wanted]


def check_export(config: LoadedConfig, graph: Graph) -> None:
    """Check what the configuration wants written, before any work is done for it.

    Parameters
    ----------
    config : LoadedConfig
        The release.
    graph : Graph
        Its stages, whose arrays can be written as maps.

    Raises
    ------
    ConfigError
        When a format has no exporter, no stage makes a map, or a catalogue to compare with is not
        there, cannot be read or lacks a column.
    """
    from survey_ml.explain import suggest
    from survey_ml.products import Kind

    pick_exporters(config)
    made = sorted({p.name for spec in graph.order for p in spec.writes if p.kind is Kind.ARRAY})
    for name in config.release.export.maps:
        if name not in made:
            raise ConfigError(
                f"export.maps: no stage makes an array {name}{suggest(name, made)}",
                f"export.maps may name: {', '.join(made)}",
            )
    for key in ("reference_catalogue", "truth"):
        path = getattr(config.release, key)
        if path is not None and not (config.base / Path(path).expanduser()).is_file():
            raise ConfigError(f"{key}: there is no file {path}", "correct the path, or leave it out")
        if path is not None:
            _check_catalogue(key, path, config.base)


def _check_catalogue(key: str, path: str, base: Path) -> None:
    """Read a catalogue to compare with, as the report will at the end of the run."""
    from survey_ml.data.catalogues import read_catalogue

    wanted = ("ra", "dec", "peak_flux")
    try:
        columns = read_catalogue(path, base, wanted[:2])
        if key == "reference_catalogue" or "snr" not in columns:
            read_catalogue(path, base, wanted)
    except InputError as error:
        raise ConfigError(
            f"{key}: {error.message}",
            f"{error.hint} ra and dec are in deg, peak_flux is in Jy/beam unless the column says its unit.",
        ) from error


def load_tables(release: Release, config: LoadedConfig) -> dict[str, pa.Table]:
    """Return the assembled tables: from the Parquet files in place if they are up to date, else anew."""
    from survey_ml.export.catalogue import assemble
    from survey_ml.export.spool import map_parquet

    export = config.release.export
    marker = read_marker(release.store)
    if marker and export.columns == "survey_ml" and "parquet" in export.formats:
        current = marker["digest"] == digest_causes(release, config, pick_exporters(config))
        names = [name for name in marker["files"] if name.endswith(".parquet") and "/" not in name]
        # A damaged file may decode to other numbers; what it was made of is checked when it is read.
        if current and names and all(is_sealed(release.store, marker, name) for name in names):
            return {Path(name).stem: map_parquet(release.store, f"{FOLDER}/{name}") for name in names}
    return assemble(release, prefix=export.prefix)


def digest_causes(release: Release, config: LoadedConfig, exporters: list[ExporterSpec]) -> str:
    """Return the SHA-256 of all that the exported bytes depend on."""
    from survey_ml.plugins import get_manager

    origins = {spec.name: get_manager().origin_of(spec) for spec in exporters}
    causes = {
        "options": config.release.export.model_dump(mode="json"),
        "release": config.release.name,
        "exporters": {name: [o.distribution, o.version] for name, o in origins.items()},
        "version": __version__,
        "commits": sorted([*astuple(commit.unit), commit.key] for commit in release.walk_commits()),
    }
    return hashlib.sha256(json.dumps(causes, sort_keys=True).encode()).hexdigest()


def _write_all(release: Release, config: LoadedConfig, exporters: list[ExporterSpec], folder: Path) -> None:
    from survey_ml.export.catalogue import assemble
    from survey_ml.export.pybdsf import rename_tables
    from survey_ml.plugins import get_manager, load_factory

    export = config.release.export
    tables = assemble(release, prefix=export.prefix)
    written = rename_tables(tables) if export.columns == "pybdsf" else tables
    options = ExportOptions(config.release.name, tables, written, export.maps, __version__)
    for spec in exporters:
        whose = get_manager().distribution_of(spec)
        try:
            load_factory(spec.factory, whose)(release, folder, options)
        except (SurveyMLError, OSError):
            raise
        except Exception as error:
            raise PluginError(
                f"exporter {spec.name} of {whose} failed: {type(error).__name__}: {error}",
                f"leave {spec.name} out of export.formats to get the other formats",
                stage="export",
            ) from error


@contextlib.contextmanager
def _telling_failures(store: ReleaseStore) -> Iterator[None]:
    """Turn a full disk and the like into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        from survey_ml.data.failures import describe_failure

        raise describe_failure(error, f"{store.out}/{FOLDER}") from error


@contextlib.contextmanager
def open_aside(store: ReleaseStore) -> Iterator[Path]:
    """Give an empty folder on the release's own disk, or a temporary one where that is a URL."""
    from survey_ml.data.disk import ASIDE, Disk

    if not isinstance(store.medium, Disk):
        with tempfile.TemporaryDirectory(prefix="survey-ml-") as name:
            yield Path(name)
        return
    folder = Path(store.medium.locate(f"{ASIDE}{FOLDER}-{uuid.uuid4().hex}"))
    folder.mkdir()
    try:
        yield folder
    finally:
        # After a success it has been renamed.
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(store: ReleaseStore, aside: Path) -> None:
    """Replace the catalogue by a folder written aside; its marker goes last."""
    from survey_ml.data.disk import Disk

    medium = store.medium
    medium.remove(FOLDER)
    if isinstance(medium, Disk):
        aside.rename(medium.locate(FOLDER))
        sync_folder(Path(medium.root))
        return
    names = sorted(list_files(aside), key=lambda name: (name == MARKER, name))
    for name in names:
        medium.replace(f"{FOLDER}/{name}", (aside / name).read_bytes())
