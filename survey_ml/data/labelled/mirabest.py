"""MiraBest (Porter & Scaife 2023): 1,256 FIRST images of radio galaxies after Miraghaei & Best (2017)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from survey_ml.data.labelled.batches import Batches, read_batches
from survey_ml.errors import ConfigError, InputError
from survey_ml.labelled import LabelledImages

ARCHIVE = "radio_galaxies/MiraBest_full_batches.tar.gz"
"""Below the data folder."""

CODES = (100, 102, 104, 110, 112, 200, 201, 210, 300, 310)
"""Hundreds: FRI, FRII, hybrid. Tens: 0 confident, 1 uncertain. Ones: 0 standard, 1 double-double,
2 wide-angle tail, 4 head-tail."""

CLASSES = ("FRI", "FRII", "hybrid")

SUBSETS = ("confident", "uncertain", "no-hybrid", "hybrid", "all")

PIXEL = 1.8
"""arcsec."""

_NAME = re.compile(r"(\d{3})_(\d{3}\.\d{3})([+-]\d{3}\.\d{3})_(\d\.\d{4})_(\d{4}\.\d{2})")


@dataclass(frozen=True)
class MiraBest:
    """All that the batches hold.

    Attributes
    ----------
    images : (n, 150, 150) array of uint8
        1.8 arcsec a pixel; below 3 sigma of the noise they are zero.
    code : (n,) array of int64
        One of `CODES`.
    ra, dec : (n,) array of float64
        deg.
    redshift : (n,) array of float64
    size : (n,) array of float64
        Largest angular size in arcsec.
    names : (n,) array of str
        File names without folder and ending.
    split : (n,) array of str
        ``train`` or ``test``.
    """

    images: NDArray[np.uint8]
    code: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    redshift: NDArray[np.float64]
    size: NDArray[np.float64]
    names: NDArray[np.str_]
    split: NDArray[np.str_]


def read_mirabest_table(path: str | Path) -> MiraBest:
    """Read the batches, a ``.tar.gz`` or the folder that it unpacks to, with what the file names say.

    Raises
    ------
    InputError
        When they are not what was published.
    """
    return parse_batches(read_batches(Path(path)), str(path))


def is_mirabest(batches: Batches) -> bool:
    """Tell whether the classes of batches are MiraBest's."""
    return batches.classes == tuple(str(code) for code in CODES)


def parse_batches(batches: Batches, place: str) -> MiraBest:
    """Take apart the file names, and check the class in them against the label.

    Raises
    ------
    InputError
        When a name has another form, or contradicts its label.
    """
    if not is_mirabest(batches):
        raise InputError(
            f"{place} has the classes {', '.join(batches.classes)}, not MiraBest's",
            "Give MiraBest_full_batches.tar.gz or MiraBest_F_batches.tar.gz.",
        )
    names = np.array([Path(name).stem for name in batches.names.tolist()], np.str_)
    rows = []
    for name, label in zip(names.tolist(), batches.labels.tolist(), strict=True):
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) != CODES[label]:
            raise InputError(
                f"{place}: the name {name[:80]!r} is not class {CODES[label]}, position, redshift and size",
                "Copy or download the file again.",
            )
        rows.append([float(part) for part in match.groups()])
    code, ra, dec, redshift, size = np.array(rows).T
    return MiraBest(batches.images, code.astype(np.int64), ra, dec, redshift, size, names, batches.split)


def select_mirabest(table: MiraBest, subset: str = "confident") -> LabelledImages:
    """Choose by how sure the classification is.

    Parameters
    ----------
    table : MiraBest
    subset : str
        ``confident`` or ``uncertain`` FRI and FRII, ``no-hybrid`` for both, ``hybrid``, or ``all``.

    Returns
    -------
    LabelledImages
        Of the classes FRI and FRII, and hybrid where the subset has them.

    Raises
    ------
    ConfigError
        When the subset is unknown.
    """
    kind, sure = table.code // 100 - 1, table.code // 10 % 10 == 0
    masks = {
        "confident": (kind < 2) & sure,
        "uncertain": (kind < 2) & ~sure,
        "no-hybrid": kind < 2,
        "hybrid": kind == 2,
        "all": np.ones(len(kind), bool),
    }
    if subset not in masks:
        raise ConfigError(f"MiraBest has no subset {subset!r}", f"Choose from {', '.join(SUBSETS)}.")
    chosen = masks[subset]
    return LabelledImages(
        table.images[chosen],
        kind[chosen],
        CLASSES if subset in ("hybrid", "all") else CLASSES[:2],
        table.names[chosen],
        table.ra[chosen],
        table.dec[chosen],
        table.split[chosen],
    )
