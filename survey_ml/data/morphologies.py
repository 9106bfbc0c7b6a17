"""What a release, or its catalogue alone, keeps of the sources that its stage morphology classified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.data.catalogues import read_catalogue
from survey_ml.data.release import Release
from survey_ml.errors import InputError, StoreError


@dataclass(frozen=True, eq=False)
class Morphologies:
    """Sources that a model classified.

    Attributes
    ----------
    model : str
        Name, version and first digits of the hash.
    embedding : (n, d) array of float32
        Empty, d of 0, where a catalogue is all there is.
    probabilities : (n, n_classes) array of float32
    flags : (n,) array of int64
        ``morph_flags``; 0 where a catalogue does not have them.
    beam, rms, snr, size : (n,) array of float64
        FWHM of the field's beam in arcsec, local rms in Jy/beam, peak over it, fitted major axis in arcsec.
        The beam is NaN where a catalogue is all there is.
    ra, dec, flux : (n,) array of float64
        Position in deg, and peak in Jy/beam.
    """

    model: str
    embedding: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    flags: NDArray[np.int64]
    beam: NDArray[np.float64]
    rms: NDArray[np.float64]
    snr: NDArray[np.float64]
    size: NDArray[np.float64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    flux: NDArray[np.float64]


_MEASURED = ("local_rms", "snr", "major", "ra", "dec", "peak_flux")
LARGEST_MISS = 1e-3
"""Of the sum of the probabilities of a source from one; more is no rounding."""


def is_release(path: str | Path) -> bool:
    """Tell whether a folder or URL is a release."""
    return "://" in str(path) or (Path(path).expanduser() / "release.json").is_file()


def read_morphologies(out: str | Path, classes: tuple[str, ...]) -> Morphologies:
    """Read the sources of a release that have a class.

    Parameters
    ----------
    out : str or Path
        Folder or URL of the release.
    classes : tuple of str
        Of the model, in the order of the probabilities.

    Raises
    ------
    InputError
        When no stage classified its sources, or with other classes or several models.
    """
    release = Release.open(out)
    try:
        features = release.catalogue("morphology_features")
    except StoreError:
        raise InputError(
            f"no sources of {release.out} are classified", "run it with the stage morphology"
        ) from None
    sources = release.catalogue("sources")
    columns = [f"morph_p_{name.lower()}" for name in classes]
    if missing := [name for name in columns if name not in sources.colnames]:
        raise InputError(
            f"the sources of {release.out} have no {missing[0]}: another model classified them",
            "name it with --model",
        )
    place = {key: row for row, key in enumerate(zip(features["field"], features["source_id"], strict=True))}
    kept = np.array(
        [
            row
            for row, key in enumerate(zip(sources["field"], sources["source_id"], strict=True))
            if key in place
        ],
        np.int64,
    )
    found = sources[kept]
    order = [place[key] for key in zip(found["field"], found["source_id"], strict=True)]
    embedding = np.asarray(features["morph_embedding"])[order]
    known = np.isfinite(embedding).all(axis=1)
    models = sorted({str(name) for name in found["morph_model"][known]})
    if len(models) > 1:
        raise InputError(f"{release.out} is classified by {' and by '.join(models)}", "run it again")
    beams = {
        name: float(np.sqrt(release.field(name).info.beam.major * release.field(name).info.beam.minor))
        for name in set(found["field"])
    }
    return Morphologies(
        models[0] if models else "",
        embedding[known],
        np.stack([np.asarray(found[name], np.float32)[known] for name in columns], axis=1),
        np.asarray(found["morph_flags"], np.int64)[known],
        np.array([beams[name] for name in found["field"][known]], np.float64),
        *(np.asarray(found[name], np.float64)[known] for name in _MEASURED),
    )


def read_morphology_catalogue(path: str | Path, classes: tuple[str, ...]) -> Morphologies:
    """Read the sources of a catalogue that have a class.

    Parameters
    ----------
    path : str or Path
        FITS, VOTable, Parquet or CSV with the columns of ``catalogue/sources.*`` of a release, or some of its
        rows.
    classes : tuple of str
        Of the model, in the order of the probabilities.

    Raises
    ------
    InputError
        When it cannot be read, lacks a column, or several models classified its sources.
    """
    wanted = (*(f"morph_p_{name.lower()}" for name in classes), *_MEASURED)
    columns = read_catalogue(str(path), Path(), wanted)
    probabilities = np.stack([columns[name] for name in wanted[: len(classes)]], axis=1).astype(np.float32)
    known = np.isfinite(probabilities).all(axis=1)
    named = np.asarray(columns.get("morph_model", known))
    # An empty column of a CSV is read as numbers.
    models = sorted(set(named[known].tolist()) - {""}) if named.dtype.kind == "U" else []
    sums = probabilities[known].astype(np.float64).sum(axis=1)
    if (probabilities[known] < 0.0).any() or (np.abs(sums - 1.0) > LARGEST_MISS).any():
        raise InputError(
            f"{path}: {', '.join(wanted[: len(classes)])} are no probabilities, from 0 to 1 with a sum of 1",
            # A model of more classes has these among its own.
            f"It is classified by {', '.join(models)}: name that model with --model."
            if models
            else "Give the columns as a release has them, and the model that made them with --model.",
        )
    flags = _read_flags(path, columns.get("morph_flags", np.zeros(len(probabilities))))
    if len(models) > 1:
        raise InputError(
            f"{path} is classified by {' and by '.join(models)}",
            "Give the sources that one model classified.",
        )
    return Morphologies(
        models[0] if models else "",
        np.zeros((int(known.sum()), 0), np.float32),
        probabilities[known],
        flags[known],
        np.full(int(known.sum()), np.nan),
        *(np.asarray(columns[name], np.float64)[known] for name in _MEASURED),
    )


def _read_flags(path: str | Path, column: NDArray[Any]) -> NDArray[np.int64]:
    """Return ``morph_flags``; 0 where there is none."""
    wrong = InputError(f"{path}: column morph_flags holds no whole numbers", "Give it as a release has it.")
    if column.dtype.kind not in "fiu" or column.ndim != 1:
        raise wrong
    values = np.where(np.isnan(column), 0.0, column)
    if not (np.isfinite(values) & (values == np.rint(values)) & (np.abs(values) < 2**31)).all():
        raise wrong
    return values.astype(np.int64)
