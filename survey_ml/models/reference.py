"""What a model was made for, in few numbers: the summary that lies beside its file.

A shift can only be told from what is known of the images before it. The summary holds what the model made
of labelled images that it was not trained on, wherever there are such: images of the training look different
to a network. It is data of unknown origin like a model's file, and checked like it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from survey_ml.errors import ConfigError, InputError
from survey_ml.explain import first_problem
from survey_ml.learning.permutations import thin
from survey_ml.learning.shift_features import Scale, make_scale
from survey_ml.learning.shift_sources import Sources
from survey_ml.models.card import Base, Number, Part
from survey_ml.models.format import import_safetensors, write_whole
from survey_ml.models.registry import list_models

SUFFIX = ".reference"
"""Of the file, which has the name of the model's otherwise."""
LARGEST_FILE = 16 << 20
"""Bytes; those that are shipped take less than 400 kB."""
MOST_KEPT = 2000
"""Sources of the subsample."""
COVARIATES = ("beam", "rms", "signal_to_noise", "size")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_HINT = "make it again, or get it with the model"


class Summary(Part):
    """The head of a reference summary."""

    format: Literal["survey_ml.reference.1"] = "survey_ml.reference.1"
    model: Base
    """The model whose embeddings these are."""
    classes: tuple[str, ...] = Field(min_length=2, max_length=1000)
    data: str = ""
    """Images, and how they were held out."""
    held_out: bool
    """Whether the model was trained on none of them."""
    n: int = Field(ge=2, le=100_000_000)
    """Images that mean, covariance, counts and quantiles are of."""
    kept: int = Field(ge=1, le=MOST_KEPT)
    """Images of the subsample."""
    width: int = Field(ge=1, le=4096)
    """Numbers of an embedding."""
    counts: tuple[int, ...]
    """Images of each class."""
    beam: Number = Field(gt=0.0)
    """FWHM of the beam in pixels, as the model's card says."""
    quantiles: dict[str, tuple[Number, ...] | None]
    """Of the quantities of `survey_ml.learning.covariates`, at `QUANTILES`."""

    @model_validator(mode="after")
    def _check_counts(self) -> Summary:
        if len(self.counts) != len(self.classes) or min(self.counts) < 0 or sum(self.counts) != self.n:
            raise ValueError("the counts of the classes do not add up to n")
        if self.kept > self.n:
            raise ValueError("more images are kept than there are")
        return self


class Reference:
    """A reference summary, ready to compare with.

    Parameters
    ----------
    summary : Summary
    arrays : dict
        ``mean`` (d,), ``covariance`` (d, d); of the subsample ``embedding`` (k, d), ``probabilities``
        (k, n_classes), ``labels`` (k,) and ``covariates`` (k, 4).
    """

    def __init__(self, summary: Summary, arrays: dict[str, NDArray[Any]]) -> None:
        self.summary, self.arrays = summary, arrays

    @property
    def scale(self) -> Scale:
        """Scale of the embedding, of all images."""
        return make_scale(self.arrays["mean"], np.diag(self.arrays["covariance"]))

    @property
    def sources(self) -> Sources:
        """The subsample."""
        covariates = self.arrays["covariates"].astype(np.float64)
        return Sources(
            self.arrays["embedding"],
            self.arrays["probabilities"],
            self.arrays["labels"].astype(np.int64),
            {name: covariates[:, k] for k, name in enumerate(COVARIATES)},
        )


def make_reference(
    model: Base,
    sources: Sources,
    classes: tuple[str, ...],
    *,
    beam: float,
    data: str = "",
    held_out: bool = True,
    most: int = MOST_KEPT,
    seed: int = 0,
) -> Reference:
    """Summarise labelled images as a model sees them.

    Parameters
    ----------
    model : Base
        Name and hash of the model.
    sources : Sources
        With labels.
    classes : tuple of str
    beam : float
        FWHM in pixels.
    data : str
        What the images are.
    held_out : bool
        Whether the model was trained on none of them.
    most : int
        Images of the subsample, chosen at random.
    seed : int

    Raises
    ------
    ConfigError
        When there are no labels or too few images.
    """
    n = len(sources)
    if sources.labels is None or n < 2:
        raise ConfigError(f"{n} images, with labels or without", "give two labelled images at least")
    embedding = np.asarray(sources.embedding, np.float64)
    chosen = thin(np.arange(n), min(most, MOST_KEPT), seed)
    covariates = np.stack(
        [np.asarray(sources.covariates.get(name, np.full(n, np.nan)), np.float64) for name in COVARIATES], 1
    )
    known = {name: column[np.isfinite(column)] for name, column in zip(COVARIATES, covariates.T, strict=True)}
    summary = Summary(
        model=model,
        classes=classes,
        data=data,
        held_out=held_out,
        n=n,
        kept=len(chosen),
        width=embedding.shape[1],
        counts=tuple(np.bincount(sources.labels, minlength=len(classes)).tolist()),
        beam=beam,
        quantiles={
            name: tuple(np.quantile(values, QUANTILES).round(4).tolist()) if len(values) else None
            for name, values in known.items()
        },
    )
    return Reference(
        summary,
        {
            "mean": embedding.mean(axis=0),
            "covariance": np.atleast_2d(np.cov(embedding.T)).astype(np.float32),
            "embedding": embedding[chosen].astype(np.float32),
            "probabilities": np.asarray(sources.probabilities, np.float32)[chosen],
            "labels": np.asarray(sources.labels, np.int32)[chosen],
            "covariates": covariates[chosen].astype(np.float32),
        },
    )


def save_reference(reference: Reference, path: str | Path) -> None:
    """Write a summary, whole or not at all."""
    arrays = {name: np.ascontiguousarray(array) for name, array in sorted(reference.arrays.items())}
    data = import_safetensors().save(arrays, metadata={"summary": reference.summary.model_dump_json()})
    write_whole(Path(path), data)


def find_reference(model_path: Path, digest: str) -> Reference | None:
    """Return the summary that lies beside a model's file; None when there is none.

    Raises
    ------
    InputError
        When it is damaged, or another model's.
    """
    path = model_path.with_suffix(SUFFIX)
    return read_reference(path, digest) if path.is_file() else None


def list_references() -> dict[str, Path]:
    """Return the summaries that lie beside registered models: file name to path."""
    found = {one.name: one.path.with_suffix(SUFFIX) for one in list_models() if not one.fault}
    return {f"{name}{SUFFIX}": path for name, path in found.items() if path.is_file()}


def choose_reference(
    name: str, digest: str, given: Path | None = None, *, model: Path | None = None
) -> Reference:
    """Return the summary of a model.

    Parameters
    ----------
    name, digest : str
        Of the model, and the SHA-256 of its file.
    given : Path, optional
        File of the summary; that beside the model otherwise.
    model : Path, optional
        File of the model; the registered one of this name unless given.

    Raises
    ------
    ConfigError
        When there is none.
    InputError
        When it is damaged, or another model's.
    """
    if given is not None:
        return read_reference(given, digest)
    path = model or next((one.path for one in list_models() if one.name == name and not one.fault), None)
    found = find_reference(path, digest) if path is not None else None
    if found is None:
        raise ConfigError(
            f"nothing is known of the images that model {name} ({digest[:12]}) was made for",
            "name the file of its reference summary with `reference`, or take another model",
        )
    return found


def read_reference(path: str | Path, digest: str = "") -> Reference:
    """Read a summary.

    Parameters
    ----------
    path : str or Path
    digest : str
        SHA-256 that the model's file must have; empty for any.

    Raises
    ------
    InputError
        When it cannot be read, is damaged, or is another model's.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", _HINT) from None
    if len(data) > LARGEST_FILE:
        raise InputError(f"{path} has more than {LARGEST_FILE} bytes", _HINT)
    summary = _parse(data, path)
    try:
        arrays = import_safetensors().load(data)
    except Exception as error:  # its own exception type is not part of what it promises
        raise InputError(f"{path} is damaged: {error}", _HINT) from None
    wanted = _list_arrays(summary)
    if "covariance" in arrays and arrays["covariance"].dtype == np.float64:  # as it was written at first
        with np.errstate(over="ignore"):
            arrays["covariance"] = arrays["covariance"].astype(np.float32)
    found = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    if wrong := sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name)):
        name = wrong[0]
        raise InputError(
            f"{path}: {name} is {found.get(name, 'missing')}, not {wanted.get(name, 'known')}", _HINT
        )
    if any(not np.isfinite(arrays[name]).all() for name in wanted if name not in ("covariates", "labels")):
        raise InputError(f"{path} has values that are not finite", _HINT)
    if arrays["probabilities"].min() < 0.0 or arrays["probabilities"].max() > 1.0 + 1e-5:
        raise InputError(f"{path} has probabilities that are not from 0 to 1", _HINT)
    if np.diag(arrays["covariance"]).min() < 0.0:
        raise InputError(f"{path} has a negative variance", _HINT)
    if not 0 <= arrays["labels"].min() <= arrays["labels"].max() < len(summary.classes):
        raise InputError(f"{path} has labels of no class", _HINT)
    if digest and summary.model.hash != digest:
        raise InputError(
            f"{path} is the reference of {summary.model.name} ({summary.model.hash[:12]}), not of the model "
            f"({digest[:12]})",
            "take the one that came with the model",
        )
    return Reference(summary, arrays)


def _parse(data: bytes, path: Path) -> Summary:
    length = int.from_bytes(data[:8], "little")
    try:
        text = json.loads(data[8 : 8 + length])["__metadata__"]["summary"]
        return Summary.model_validate_json(text)
    except ValidationError as error:
        key, problem = first_problem(error)
        raise InputError(f"{path}: the summary's {key or 'content'} is wrong: {problem}", _HINT) from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(f"{path} is no reference summary", _HINT) from None


def _list_arrays(summary: Summary) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype and shape of all arrays."""
    k, d, n_classes = summary.kept, summary.width, len(summary.classes)
    return {
        "mean": ("float64", (d,)),
        "covariance": ("float32", (d, d)),
        "embedding": ("float32", (k, d)),
        "probabilities": ("float32", (k, n_classes)),
        "labels": ("int32", (k,)),
        "covariates": ("float32", (k, len(COVARIATES))),
    }
