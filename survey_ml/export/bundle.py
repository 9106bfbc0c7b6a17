"""The catalogue folder of a release: written aside and put in place whole, only when something changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from survey_ml import __version__
from survey_ml.errors import ConfigError, PluginError, SurveyMLError
from survey_ml.export.options import ExportOptions

if TYPE_CHECKING:
    from survey_ml.config import LoadedConfig
    from survey_ml.data.release import Release
    from survey_ml.data.store import ReleaseStore
    from survey_ml.hookspecs import ExporterSpec

FOLDER = "catalogue"
MARKER = "_COMMIT.json"
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
    made_by = list_causes(release, config, exporters)
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
    marker = read_marker(store)
    if marker is None or marker["digest"] != digest or not is_whole(store, marker):
        with open_aside(out) as aside:
            _write_all(release, config, exporters, aside)
            marker = {"digest": digest, "made_by": made_by["options"], "files": _seal(aside)}
            _write_marker(aside, marker)
            put_in_place(store, aside)
    from survey_ml.export.checksums import write_checksums

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


def list_causes(release: Release, config: LoadedConfig, exporters: list[ExporterSpec]) -> dict[str, Any]:
    """Return all that the exported bytes depend on, as JSON."""
    from survey_ml.plugins import get_manager

    registry = get_manager()
    origins = {spec.name: asdict(registry.origin_of(spec)) for spec in exporters}
    return {
        "options": config.release.export.model_dump(mode="json") | {"release": config.release.name},
        "exporters": {name: [o["distribution"], o["version"]] for name, o in origins.items()},
        "version": __version__,
        "commits": [[*asdict(unit).values(), commit.key] for unit, commit in release.commits().items()],
    }


def read_marker(store: ReleaseStore) -> dict[str, Any] | None:
    """Return what the catalogue in place was made of; None when there is none or it cannot be read."""
    data = store.medium.read(f"{FOLDER}/{MARKER}")
    try:
        marker = json.loads(data) if data else None
    except ValueError:
        return None
    return marker if isinstance(marker, dict) and {"digest", "files"} <= marker.keys() else None


def is_whole(store: ReleaseStore, marker: dict[str, Any]) -> bool:
    """Tell whether all files of the catalogue are there, with the sizes they were written with."""
    sizes = store.medium.measure([f"{FOLDER}/{name}" for name in marker["files"]])
    return list(sizes.values()) == [known["size"] for known in marker["files"].values()]


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
        except SurveyMLError:
            raise
        except OSError as error:
            from survey_ml.data.failures import describe_failure

            raise describe_failure(error, f"{FOLDER} ({spec.name})") from error
        except Exception as error:
            raise PluginError(
                f"exporter {spec.name} of {whose} failed: {type(error).__name__}: {error}",
                f"leave {spec.name} out of export.formats to get the other formats",
                stage="export",
            ) from error


@contextlib.contextmanager
def open_aside(out: str) -> Iterator[Path]:
    """Give an empty folder on the release's own disk, or a temporary one where that is a URL."""
    if "://" in out.removeprefix("file://"):
        with tempfile.TemporaryDirectory(prefix="survey-ml-") as folder:
            yield Path(folder)
        return
    from survey_ml.data.disk import ASIDE

    folder_ = Path(out.removeprefix("file://")) / f"{ASIDE}{FOLDER}-{uuid.uuid4().hex}"
    try:
        folder_.mkdir()
    except OSError as error:
        from survey_ml.data.failures import describe_failure

        raise describe_failure(error, folder_) from error
    try:
        yield folder_
    finally:
        # After a success it has been renamed.
        shutil.rmtree(folder_, ignore_errors=True)


def put_in_place(store: ReleaseStore, aside: Path) -> None:
    """Replace the catalogue by a folder written aside; its marker goes last."""
    from survey_ml.data.disk import Disk

    medium = store.medium
    medium.remove(FOLDER)
    if isinstance(medium, Disk):
        aside.rename(medium.locate(FOLDER))
        _sync(Path(medium.root))
        return
    names = sorted(_list_files(aside), key=lambda name: (name == MARKER, name))
    for name in names:
        medium.replace(f"{FOLDER}/{name}", (aside / name).read_bytes())


def _list_files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _seal(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file, and make them durable."""
    sealed = {}
    for name in _list_files(folder):
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            sealed[name] = {"sha256": digest, "size": os.fstat(file.fileno()).st_size}
    return sealed


def _write_marker(folder: Path, marker: dict[str, Any]) -> None:
    with (folder / MARKER).open("w") as file:
        json.dump(marker, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    _sync(folder)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
