"""Which images a release is made of: found by name, checked by header, remembered by checksum."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path

from survey_ml.config import Defaults, FieldOverride, LoadedConfig
from survey_ml.data.bucket import open_files
from survey_ml.data.failures import describe_failure
from survey_ml.data.header import ADD_BEAM, ADD_UNIT
from survey_ml.data.ingest import make_reader
from survey_ml.data.packing import require_regular
from survey_ml.data.source import Source
from survey_ml.data.stamps import stamp_file
from survey_ml.errors import InputError, SetAside, SurveyMLError
from survey_ml.hookspecs import ReaderSpec

__all__ = ["Source", "find_sources", "name_field"]

SUFFIXES = (".fits", ".fit", ".fits.fz", ".fit.fz", ".fits.gz", ".fit.gz", ".fz")
RESERVED = ("zarr.json",)
"""What the store itself has beside the folders of the fields."""
_NAME_IT = "Name it in the YAML: fields: [{path: ..., name: ...}]"
_NAME_EACH = "Give each a name of its own: fields: [{path: ..., name: ...}]"
_CORRECT = "Correct the path, or `fields` in the YAML."
_WITHOUT_YAML = {
    ADD_BEAM: "Add --set defaults.beam_arcsec='[5.4,5.4,0]' with your survey's beam instead of these "
    "(FIRST's): major and minor axis in arcsec, position angle in deg.",
    ADD_UNIT: "Add --set defaults.unit=Jy/beam (or mJy/beam ...).",
    _NAME_IT: "Give the file another name, or write a release YAML: `survey-ml init`.",
    _NAME_EACH: "Rename one, or write a release YAML and name each there: `survey-ml init`.",
    _CORRECT: "Correct the path.",
}
"""What hints about the YAML become when the images were named on the command line."""
_ESCAPED = re.compile(r"\[([*?[])\]")
"""A magic character that `glob.escape` has made a plain one."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]")


@dataclass(frozen=True)
class Candidate:
    """A path that the configuration named, with what it says of it."""

    path: str
    name: str
    defaults: Defaults


@dataclass(frozen=True)
class Listing:
    """What the entries of `fields` find.

    Attributes
    ----------
    candidates : list of Candidate
        Images by their names, sorted by path.
    absent : list of SetAside
        Entries that find nothing, which may yet come.
    unlisted : list of SetAside
        Entries whose place did not answer: what is there is not known.
    unfit : list of SetAside
        What is there and can be no image.
    """

    candidates: list[Candidate]
    absent: list[SetAside]
    unlisted: list[SetAside]
    unfit: list[SetAside]


def name_field(path: str, suffixes: Sequence[str] = SUFFIXES) -> str:
    """Return a field's name from a file name, safe in paths and URLs.

    Raises
    ------
    InputError
        When nothing is left of it.
    """
    base = path.rstrip("/").rpartition("/")[2]
    for suffix in sorted(suffixes, key=len, reverse=True):
        if base.lower().endswith(suffix.lower()):
            base = base[: -len(suffix)]
            break
    # A leading dot hides a folder and a leading underscore is kept for the release itself.
    name = _UNSAFE.sub("_", base).lstrip("._")
    if not name or name in RESERVED:
        cause = f"{name} is no name for a field" if name else f"no field name can be made of {path}"
        raise InputError(cause, _NAME_IT)
    return name


def find_sources(
    config: LoadedConfig, readers: Sequence[ReaderSpec] = ()
) -> tuple[list[Source], list[SetAside]]:
    """Find the release's images and check their headers; no pixel is read.

    Parameters
    ----------
    config : LoadedConfig
        The configuration.
    readers : sequence of ReaderSpec
        Further input formats; the one whose suffix matches the longest end of a name opens it.

    Returns
    -------
    sources : list of Source
        By field name.
    aside : list of SetAside
        What cannot be used, and why.
    """
    listing = list_candidates(config, readers)
    aside = [*listing.absent, *listing.unlisted, *listing.unfit]
    sources: list[Source] = []
    for candidate in listing.candidates:
        try:
            sources.append(_describe(candidate, readers))
        except SurveyMLError as error:
            aside.append(SetAside.from_error(error, field=candidate.name))
        except Exception as error:
            aside.append(
                SetAside(
                    candidate.name,
                    f"the reader failed on {candidate.path}: {type(error).__name__}: {error}",
                    "Report this, or write the image again.",
                )
            )
    sources, aside = _refuse_duplicates(sources, aside)
    if config.source:
        return sources, aside
    return sources, [replace(item, hint=_WITHOUT_YAML.get(item.hint, item.hint)) for item in aside]


def list_candidates(config: LoadedConfig, readers: Sequence[ReaderSpec]) -> Listing:
    """Expand globs; an entry of its own wins over a glob that finds the same file."""
    suffixes = [*SUFFIXES, *(suffix for reader in readers for suffix in reader.suffixes)]
    named: dict[str, Candidate] = {}
    seen: set[str] = set()
    absent: list[SetAside] = []
    unlisted: list[SetAside] = []
    unfit: list[SetAside] = []
    entries = sorted(config.release.fields, key=lambda entry: isinstance(entry, str))
    for entry in entries:
        override = FieldOverride(path=entry) if isinstance(entry, str) else entry
        defaults = _merge(config.release.defaults, override)
        try:
            paths = _expand(override.path, config.base)
        except Exception as error:
            unlisted.append(SetAside(override.path, f"{override.path} cannot be listed: {error}"))
            continue
        if not paths:
            folder = _find_folder(override.path, config.base)
            if folder:
                unfit.append(_tell_folder(folder))
            else:
                absent.append(_tell_missing(override.path))
        if override.name is not None and len(paths) > 1:
            cause = f"{override.path} names {len(paths)} files, but one field"
            unfit.append(SetAside(override.name, cause, "Give the name with the path of one file."))
            continue
        for path in paths:
            # The same file under several names is one field, named after the first.
            real = path if "://" in path else os.path.realpath(path)
            if real in seen:
                continue
            seen.add(real)
            name = path
            try:
                name = name_field(override.name or path, () if override.name else suffixes)
                require_regular(path)
            except InputError as error:
                unfit.append(SetAside.from_error(error, field=name))
                continue
            named[path] = Candidate(path, name, defaults)
    return Listing([named[path] for path in sorted(named)], absent, unlisted, unfit)


def _find_folder(pattern: str, base: Path) -> str:
    """Return the folder that a path names instead of images; empty when it names none."""
    plain = _ESCAPED.sub(r"\1", pattern)
    return plain if "://" not in pattern and (base / Path(plain).expanduser()).is_dir() else ""


def _tell_folder(folder: str) -> SetAside:
    return SetAside(folder, f"{folder} is a folder", f"Name its images: {folder.rstrip('/')}/*.fits")


def _tell_missing(pattern: str) -> SetAside:
    """Say why a pattern or path names no image."""
    plain = _ESCAPED.sub(r"\1", pattern)
    if has_magic(_ESCAPED.sub("", pattern)):
        return SetAside(plain, f"no file matches {plain}", _CORRECT)
    # A pattern that came quoted to the command line was taken as a name.
    hint = "Leave out the quotes, so that the shell finds the files." if has_magic(plain) else _CORRECT
    return SetAside(plain, f"there is no file {plain}", hint)


def _merge(defaults: Defaults, override: FieldOverride) -> Defaults:
    """Return the defaults with what an entry gives for its own field."""
    own = {
        name: getattr(override, name)
        for name in ("beam_arcsec", "frequency_hz", "unit", "hdu")
        if getattr(override, name) is not None
    }
    return defaults.model_copy(update=own)


def _expand(pattern: str, base: Path) -> list[str]:
    """Return the absolute paths or URLs that a pattern matches, sorted."""
    if "://" in pattern:
        if not has_magic(pattern):
            return [pattern]
        files, path = open_files(pattern)
        return sorted(files.unstrip_protocol(found) for found in files.glob(path))
    full = str(base / Path(pattern).expanduser())
    # A file whose name holds brackets is that file before it is a pattern.
    is_file = Path(full).exists() and not Path(full).is_dir()
    found = [full] if is_file else glob(full, recursive=True)  # noqa: PTH207
    # A link keeps its name: that is what the user chose.
    return sorted({os.path.abspath(path) for path in found if not Path(path).is_dir()})  # noqa: PTH100


def _describe(candidate: Candidate, readers: Sequence[ReaderSpec]) -> Source:
    """Check one header."""
    kind = _choose_reader(candidate.path, readers)
    hdu = candidate.defaults.hdu
    try:
        stamp = stamp_file(candidate.path)
    except OSError as error:
        failure = describe_failure(error, candidate.path, "read")
        raise InputError(failure.message, "Put the file back.", field=candidate.name) from error
    reader = make_reader(kind, candidate.path, hdu)
    try:
        field, scale = reader.describe(candidate.defaults, candidate.name)
        notes = tuple(getattr(reader, "notes", ()))
    finally:
        reader.close()
    return Source(replace(field, name=candidate.name), candidate.path, kind, hdu, scale, notes, stamp)


def _choose_reader(path: str, readers: Sequence[ReaderSpec]) -> str:
    """Return the factory of the reader with the longest matching suffix; FITS when none matches."""
    built_in = [(suffix, "fits") for suffix in SUFFIXES]
    others = [(suffix, reader.factory) for reader in readers for suffix in reader.suffixes]
    matching = [(len(suffix), factory) for suffix, factory in [*built_in, *others] if path.endswith(suffix)]
    return max(matching, default=(0, "fits"), key=lambda item: item[0])[1]


def _refuse_duplicates(sources: list[Source], aside: list[SetAside]) -> tuple[list[Source], list[SetAside]]:
    """Set all fields aside that share a name: neither is the right one."""
    by_name: dict[str, list[Source]] = {}
    for source in sources:
        by_name.setdefault(source.field.name, []).append(source)
    kept = []
    for name, same in sorted(by_name.items()):
        if len(same) == 1:
            kept.append(same[0])
            continue
        paths = ", ".join(source.path for source in same)
        cause = f"{len(same)} images share this name: {paths}"
        aside.extend(SetAside(name, cause, _NAME_EACH) for _ in same)
    return kept, aside
