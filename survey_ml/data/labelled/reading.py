"""One entry to all formats of labelled images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from survey_ml.data.labelled import firstgalaxy, folder, frdeep, mirabest, product
from survey_ml.data.labelled.batches import META, read_batches
from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import SPLITS, LabelledImages

VARIABLE = "SURVEY_ML_DATA"
"""Environment variable: where the data sets that are known by name lie."""

DEFAULT = Path("../shared/data")
"""Looked for from here, and from the checkout that this file may be part of."""


def read_labelled(
    source: str | Path,
    subset: str | None = None,
    split: str | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> LabelledImages:
    """Read labelled images by the name of a data set, or by path.

    Parameters
    ----------
    source : str or Path
        ``mirabest``, ``frdeep-first``, ``frdeep-nvss``, ``firstgalaxy``; or the path of an archive or a
        folder of MiraBest's or FR-DEEP's batches, of an archive of firstgalaxydata (``.zip``), of a file of
        cutouts (``.npz``), of a table (``.csv``), or of a folder with a ``labels.csv``.
    subset : str, optional
        Of MiraBest: ``confident`` (when not given), ``uncertain``, ``no-hybrid``, ``hybrid`` or ``all``.
        Of firstgalaxy: ``literature`` (when not given), or ``fold0`` to ``fold4``.
    split : str, optional
        ``train``, ``valid`` or ``test``; all when not given.
    classes : sequence of str, optional
        The classes to expect of a table or a file of cutouts, in their order, such as those of a model.

    Returns
    -------
    LabelledImages

    Raises
    ------
    ConfigError
        When the source, the subset or the split is unknown.
    InputError
        When the data are not what they should be.
    """
    if split is not None and split not in SPLITS:
        raise ConfigError(f"there is no split {split!r}", f"Choose from {', '.join(SPLITS)}.")
    data = _dispatch(source, subset, split, classes)
    if split is None:
        return data
    chosen = data.split == split
    if not chosen.any():
        found = sorted(set(data.split.tolist()) - {""})
        raise ConfigError(
            f"{source} has no images of the split {split}",
            f"Its splits are {', '.join(found)}." if found else "It has none: divide it by sky position.",
        )
    return data if chosen.all() else data.take(chosen)


def find_data(relative: str) -> Path:
    """Return where a file of the data folder is.

    Parameters
    ----------
    relative : str
        Path below the folder that `VARIABLE` names, or `DEFAULT`.

    Raises
    ------
    ConfigError
        When it is not there.
    """
    if named := os.environ.get(VARIABLE):
        bases = [Path(named).expanduser()]
    else:
        bases = [DEFAULT, Path(__file__).parents[3] / DEFAULT]
    for base in bases:
        if (path := base / relative).exists():
            return path
    raise ConfigError(
        f"{relative} is not in {bases[0]}",
        f"Set the environment variable {VARIABLE} to the folder in which it lies.",
    )


_NAMED: dict[str, Callable[[str | None, str | None], LabelledImages]] = {
    "mirabest": lambda subset, _: _read_mirabest(find_data(mirabest.ARCHIVE), subset),
    "frdeep-first": lambda *_: frdeep.read_frdeep(find_data(frdeep.ARCHIVES["first"])),
    "frdeep-nvss": lambda *_: frdeep.read_frdeep(find_data(frdeep.ARCHIVES["nvss"])),
    "firstgalaxy": lambda subset, split: firstgalaxy.read_firstgalaxy(subset or "literature", split),
}
NAMES = tuple(_NAMED)
"""Data sets that are known by name."""


def is_labelled(source: str | Path) -> bool:
    """Tell whether a source has the name of labelled images: a data set, archive, table or folder."""
    return str(source) in NAMES or _find_kind(Path(source).expanduser()) in ("batches", "archive", "table")


def _find_kind(path: Path) -> str:
    """Tell what is in a file or folder by its name, and of a folder by what it lists; empty if unknown."""
    endings = {".tar.gz": "batches", ".tgz": "batches", ".zip": "archive", ".npz": "cutouts", ".csv": "table"}
    if (path / META).is_file():
        return "batches"
    if (path / folder.TABLE).is_file():
        return "table"
    return next((kind for ending, kind in endings.items() if path.name.endswith(ending)), "")


_WITH_SUBSETS = ("mirabest", "firstgalaxy")


def _dispatch(
    source: str | Path, subset: str | None, split: str | None, classes: Sequence[str] | None
) -> LabelledImages:
    """Find out what the source is, and read it; a split is only left out where that saves reading."""
    if (name := str(source)) in _NAMED:
        if subset is not None and name not in _WITH_SUBSETS:
            raise ConfigError(f"{name} has no subsets", "Leave the subset out.")
        return _NAMED[name](subset, split)
    path = Path(source).expanduser()
    if not path.exists():
        raise ConfigError(
            f"{source} is neither a file nor a data set known by name", f"The names are {', '.join(NAMES)}."
        )
    kind = _find_kind(path)
    if kind == "batches":
        batches = read_batches(path)
        if mirabest.is_mirabest(batches):
            return mirabest.select_mirabest(mirabest.parse_batches(batches, name), subset or "confident")
        return frdeep.label_batches(batches, name)
    if subset is not None:
        raise ConfigError(f"{source} has no subsets", "Leave the subset out.")
    if kind == "archive":
        return firstgalaxy.read_archive(path, split)
    if kind == "cutouts":
        return product.label_cutouts(product.read_cutout_file(path), classes, str(path))
    if kind == "table" or path.is_dir():
        return folder.read_labelled_folder(path, classes)
    raise InputError(
        f"{path} has an unknown format", "Give a folder, or a file that ends in .csv, .npz, .tar.gz or .zip."
    )


def _read_mirabest(path: Path, subset: str | None) -> LabelledImages:
    return mirabest.select_mirabest(mirabest.read_mirabest_table(path), subset or "confident")
