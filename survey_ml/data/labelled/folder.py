"""A folder of FITS or PNG images, with a table of their classes."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from survey_ml.data.cutouts import Cutout, read_single
from survey_ml.data.labelled.naming import number_classes
from survey_ml.errors import InputError
from survey_ml.labelled import SPLITS, LabelledImages

TABLE = "labels.csv"
"""Looked for in a folder."""

LARGEST = 64 << 20
"""Bytes of a table; a million lines take about 40 MB."""


@dataclass(frozen=True)
class _Row:
    place: str
    file: Path
    name: str
    label: str
    ra: float
    dec: float
    split: str


def read_labelled_folder(path: str | Path, classes: Sequence[str] | None = None) -> LabelledImages:
    """Read the images that a table lists.

    Parameters
    ----------
    path : str or Path
        A CSV file, or a folder with a ``labels.csv``. Its first line names the columns: ``file``, relative
        to the table, and ``label``; and optionally ``ra`` and ``dec`` in deg and ``split``. Others do not
        matter.
    classes : sequence of str, optional
        Those to expect, in their order; when not given, those found, sorted.

    Returns
    -------
    LabelledImages
        In the order of the table; uint8 where all images are of 8 bits, otherwise float32.

    Raises
    ------
    InputError
        When the table or an image cannot be read, an image has another size or depth than the first, or a
        class is unknown, empty or has one image; it names the line.
    """
    table = Path(path).expanduser()
    table = table / TABLE if table.is_dir() else table
    rows = _read_table(table)
    labels, known = number_classes([row.label for row in rows], [row.place for row in rows], classes)
    cutouts = []
    for row in rows:
        cutouts.append(_read_image(row))
        _compare(cutouts[-1], cutouts[0], row, rows[0])
    return LabelledImages(
        np.stack([cutout.image for cutout in cutouts]),
        labels,
        known,
        np.array([row.name for row in rows], np.str_),
        np.array([row.ra for row in rows]),
        np.array([row.dec for row in rows]),
        np.array([row.split for row in rows], np.str_),
    )


def _read_table(table: Path) -> list[_Row]:
    try:
        if table.stat().st_size > LARGEST:
            raise InputError(f"{table} is larger than {LARGEST >> 20} MiB", "Divide it.")
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = [name.strip().lower() for name in next(reader, [])]
            if missing := [name for name in ("file", "label") if name not in columns]:
                raise InputError(
                    f"{table}, line 1 has no column {' and '.join(missing)}",
                    "Write the names of the columns there: file,label and, where known, ra,dec,split.",
                )
            if len(set(columns)) != len(columns):
                raise InputError(f"{table}, line 1 names a column twice", "Leave one out.")
            rows = []
            for values in reader:
                place = f"{table}, line {reader.line_num}"
                if not any(value.strip() for value in values):
                    continue
                if len(values) != len(columns):
                    raise InputError(
                        f"{place} has {len(values)} values for {len(columns)} columns",
                        "Quote values that have a comma.",
                    )
                cells = dict(zip(columns, (value.strip() for value in values), strict=True))
                rows.append(_parse(cells, place, table.parent))
    except FileNotFoundError as error:
        raise InputError(
            f"{table} does not exist", "Write one: file,label in the first line, an image in each other."
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} cannot be read: {error}", "Write it as CSV in UTF-8.") from error
    if len(rows) < 2:
        raise InputError(f"{table} lists {len(rows)} images", "List at least two of each of two classes.")
    return rows


def _parse(cells: dict[str, str], place: str, base: Path) -> _Row:
    name = cells["file"]
    if not name:
        raise InputError(f"{place} names no file", "Write one, or leave the line out.")
    file = base / Path(name).expanduser()
    if not file.is_file():
        raise InputError(
            f"{place}: {name} does not exist",
            f"The path is relative to {base}; correct it or leave the line out.",
        )
    split = cells.get("split", "")
    if split not in (*SPLITS, ""):
        raise InputError(
            f"{place} has the unknown split {split!r}", f"Write {', '.join(SPLITS)}, or nothing."
        )
    ra, dec = (_read_angle(cells.get(key, ""), key, place) for key in ("ra", "dec"))
    if math.isnan(ra) != math.isnan(dec) or abs(dec) > 90.0:
        raise InputError(f"{place} has no position on the sky", "Write ra and dec in degrees, or neither.")
    return _Row(place, file, name, cells["label"], ra, dec, split)


def _read_angle(text: str, column: str, place: str) -> float:
    if text.lower() in ("", "nan"):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise InputError(f"{place}: {column} is {text!r}, no number", "Write degrees, or nothing.")
    return value


def _read_image(row: _Row) -> Cutout:
    try:
        return read_single(row.file)
    except InputError as error:
        raise InputError(f"{row.place}: {error.message}", error.hint) from error


def _compare(cutout: Cutout, first: Cutout, row: _Row, first_row: _Row) -> None:
    if cutout.image.shape != first.image.shape:
        sizes = [" x ".join(map(str, item.image.shape)) for item in (cutout, first)]
        raise InputError(
            f"{row.place}: {row.name} has {sizes[0]} pixels, {first_row.name} has {sizes[1]}",
            "Cut all images to one size.",
        )
    if cutout.eight_bit != first.eight_bit:
        kinds = ["8-bit" if item.eight_bit else "not 8-bit" for item in (cutout, first)]
        raise InputError(
            f"{row.place}: {row.name} is {kinds[0]}, {first_row.name} is {kinds[1]}",
            "8-bit images count as clipped at their noise: write all in one way.",
        )
