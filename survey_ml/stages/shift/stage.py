"""The shift stage: whether the sources of a field are like those that the model was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Setting
from pydantic import field_validator, model_validator

from survey_ml.errors import InputError
from survey_ml.learning.covariates import NAMES as COVARIATES
from survey_ml.learning.covariates import measure_covariates
from survey_ml.learning.permutations import thin
from survey_ml.learning.preprocessing import Preprocessing
from survey_ml.learning.shift import LEAST_SOURCES, MOST_SOURCES, Shift, judge_shift, name_classes
from survey_ml.learning.shift_objects import choose_objects, leave_spoilt
from survey_ml.learning.shift_sources import Sources
from survey_ml.learning.shift_squares import split_squares
from survey_ml.learning.shift_witness import measure_strangeness
from survey_ml.stage import Inputs, Options, Stage, Table
from survey_ml.stages.morphology.stage import MorphologyOptions, require_libraries, show_sources

if TYPE_CHECKING:
    from survey_ml.models.reference import Reference

MOST_LOOKED_AT = 500
"""Cutouts that are looked at to tell how images look; of more sources, as many are chosen at random."""
UNKNOWN = "unknown"
"""Level of a field that nothing can be said of."""
REFUSED, DOUBTFUL, NOT_JUDGED = 1, 2, 4
FLAGS = {"green": 0, "amber": DOUBTFUL, "red": REFUSED, UNKNOWN: NOT_JUDGED}
"""Bits of ``shift_flags`` by the level of the field: a class of a red field is no label."""


class ShiftOptions(Options):
    """What the sources of a field are compared with, and what counts as a difference."""

    reference: Literal["auto"] | Path = "auto"
    """File with the summary of what the model was made for; `auto` is the one that lies with the model."""
    permutations: int = Setting(200, ge=2, le=10_000)
    """Random deals of both sets that chance is judged by; 1 / alpha at least."""
    alpha: float = Setting(0.01, gt=0.0, lt=1.0)
    """Level of significance of each test: of how images look, of the mix of classes, and of what sources look
    like in the same mix."""
    seed: int = Setting(0, ge=0)
    """Of the deals, and of the choice of sources in a field of many."""

    @field_validator("reference", mode="before")
    @classmethod
    def _tell_path(cls, reference: object) -> object:
        if isinstance(reference, str) and reference != "auto":
            return Path(reference).expanduser()
        return reference

    @model_validator(mode="after")
    def _check_alpha(self) -> ShiftOptions:
        if self.alpha * (self.permutations + 1) < 1.0:
            raise ValueError(
                f"an alpha of {self.alpha:g} cannot be told with {self.permutations} permutations; "
                f"give {int(np.ceil(1.0 / self.alpha))} of them at least"
            )
        return self

    def files(self) -> Mapping[str, Path]:
        """Return the files that results depend on: the reference, or all that come with models.

        Raises
        ------
        ConfigError
            When what reads one is not installed.
        """
        require_libraries("shift")
        from survey_ml.models.reference import list_references

        if isinstance(self.reference, Path):
            return {"reference": self.reference}
        # Which of them it is follows from the morphology model, whose own file is in its outputs' keys.
        return list_references()


class ShiftMonitor(Stage):
    """Judge whether the sources that the stage morphology classified are like the model's reference.

    A field is judged as a whole, so that the tiling cannot matter. Sources that are faint, cut off or
    without data are left out: their classes are flagged already, and no reference has any. Of the pieces of
    one galaxy the brightest is judged: all are shown the same picture.
    """

    options_type: ClassVar[type[Options]] = ShiftOptions

    def setup(self) -> None:
        """Make ready what is known before the first field."""
        require_libraries("shift")
        self._find = cache(find_reference)

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Judge the sources of a field.

        Parameters
        ----------
        inputs : Inputs
            ``morphology``, ``morphology_features`` and ``morphology_model`` of all tiles of the field, and
            what morphology read.

        Returns
        -------
        mapping
            The table ``shift`` of one row; ``shift_verdict``, all that the row is made from, with the
            squares of the field; the table ``shift_objects`` of sources that were judged; and
            ``shift_sources``, which flags all sources of a field whose classes are not to be trusted.

        Raises
        ------
        ConfigError
            When there is no reference for the morphology model.
        InputError
            When the reference is damaged, or was made for another model.
        """
        options = cast(ShiftOptions, self.options)
        base = _find_model(inputs.summaries["morphology_model"])
        classes = tuple(map(str, base["classes"]))
        path = str(base.get("path", ""))
        reference = self._find(options, str(base["name"]), str(base["hash"]), classes, path)
        wanted = Preprocessing(**base["preprocessing"])
        reach = 0.5 * wanted.side * wanted.pixel_arcsec
        found = _read_sources(inputs, classes, reach)
        known = {
            "model": {"name": base["name"], "hash": base["hash"], "classes": list(classes), "path": path},
            "reference": describe_reference(reference),
            "n": len(found.rows),
            "n_left_out": found.total - len(found.rows),
            "n_pieces": found.pieces,
            "reach": reach,
            "permutations": options.permutations,
            "alpha": options.alpha,
            "seed": options.seed,
        }
        covariates = _look(inputs, found, wanted, MorphologyOptions(**base["cutouts"]), options.seed)
        sample = Sources(found.embedding, found.probabilities, None, covariates)
        objects = _list_objects(found, sample, reference, classes, options.seed)
        shift = judge(reference, sample, options)
        reason, squares = "", []
        if shift is None:
            reason = (
                f"{len(found.rows)} of {found.total} sources are bright, whole and resolved well enough to "
                f"be judged, and not pieces of another; {LEAST_SOURCES} are needed"
            )
        else:
            squares = self._judge_squares(inputs, found, sample, reference)
        told = report(shift, reason, {**known, "squares": squares}, classes)
        number = np.asarray(found.sources["source_id"], np.int64)
        flag = FLAGS[told["shift_verdict"]["level"]]
        flagged = {"source_id": number, "shift_flags": np.full(len(number), flag, np.int32)}
        return {**told, "shift_objects": objects, "shift_sources": flagged}

    def _judge_squares(
        self, inputs: Inputs, found: _Found, sample: Sources, reference: Reference
    ) -> list[dict[str, Any]]:
        """Return what is said of parts of a field; nothing of one that has too few sources for two."""
        options, field = cast(ShiftOptions, self.options), inputs.field
        if field is None:
            raise ValueError("shift works on one field")
        x, y = (np.asarray(found.sources[name], np.float64)[found.rows] for name in ("x", "y"))
        told = []
        for square in split_squares(x, y, field.shape, LEAST_SOURCES):
            known: dict[str, Any] = {
                "x": square.x, "y": square.y, "n": len(square.rows), "level": UNKNOWN, "score": None,
                "cause": "", "p_value": None,
            }  # fmt: skip
            one = judge(reference, sample.take(square.rows), options)
            if one is not None:
                known |= {
                    "level": one.level,
                    "score": one.score,
                    "cause": one.cause,
                    "p_value": one.conditional.p_value,
                }
            told.append(known)
        return make_plain(told)


def find_reference(
    options: ShiftOptions, name: str, digest: str, classes: tuple[str, ...], path: str
) -> Reference:
    """Return the reference of a morphology model.

    Parameters
    ----------
    options : ShiftOptions
    name, digest : str
        Of the model, and the SHA-256 of its file.
    classes : tuple of str
    path : str
        Of the model, where it is not known by its name; empty otherwise.

    Raises
    ------
    ConfigError
        When there is none.
    InputError
        When it is damaged, another model's, or of other classes.
    """
    from survey_ml.models.reference import choose_reference

    given = options.reference if isinstance(options.reference, Path) else None
    reference = choose_reference(name, digest, given, model=Path(path) if path else None)
    if reference.summary.classes != classes:
        raise InputError(
            f"the reference has the classes {', '.join(reference.summary.classes)}, the model "
            f"{', '.join(classes)}",
            "take the reference that came with the model",
        )
    return reference


@dataclass(frozen=True, eq=False)
class _Found:
    """Sources of a field that can be judged.

    Attributes
    ----------
    sources : Table
        All sources, in the order of their numbers.
    rows : (n,) array of int64
        Those that can be judged.
    embedding : (n, d) array
    probabilities : (n, n_classes) array
    pieces : int
        Sources that could be judged but for a brighter one that has the same picture.
    total : int
        All sources of the field.
    """

    sources: Table
    rows: NDArray[np.int64]
    embedding: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    pieces: int

    @property
    def total(self) -> int:
        return len(self.sources["source_id"])


def _find_model(summaries: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what the tiles of a field say of the model, which must be one."""
    known = {str(one["hash"]): one for one in summaries.values()}
    if len(known) != 1:
        names = " and ".join(sorted(f"{one['name']} ({digest[:12]})" for digest, one in known.items()))
        raise InputError(f"the field is classified by {names or 'nothing'}", "run it again", stage="shift")
    return next(iter(known.values()))


def _read_sources(inputs: Inputs, classes: tuple[str, ...], reach: float) -> _Found:
    """Return the sources of a field in the order of their numbers, which no tiling changes.

    Of those within ``reach`` arcsec of each other, the brightest stands for all.
    """
    sources, morphology, features = (
        _sort(inputs.tables[name]) for name in ("sources", "morphology", "morphology_features")
    )
    n = len(sources["source_id"])
    if not n:
        nothing = np.empty((0, len(classes)), np.float32)
        none = np.asarray(features["morph_embedding"], np.float32)
        return _Found(sources, np.empty(0, np.int64), none, nothing, 0)
    p = np.stack([np.asarray(morphology[f"morph_p_{name.lower()}"]) for name in classes], axis=1)
    embedding = np.asarray(features["morph_embedding"])
    good = np.isfinite(embedding).all(axis=1) & np.isfinite(p).all(axis=1)
    whole = leave_spoilt(good, morphology["morph_flags"])
    ra, dec, flux = (np.asarray(sources[name])[whole] for name in ("ra", "dec", "peak_flux"))
    rows = whole[choose_objects(ra, dec, flux, reach)]
    return _Found(sources, rows, embedding[rows], p[rows], len(whole) - len(rows))


def _sort(rows: Table) -> Table:
    order = np.argsort(np.asarray(rows["source_id"]), kind="stable")
    return {name: np.asarray(values)[order] for name, values in rows.items()}


def _look(
    inputs: Inputs, found: _Found, wanted: Preprocessing, options: MorphologyOptions, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Return how the images of sources look (n,), NaN for those that were not looked at."""
    field = inputs.field
    if field is None:
        raise ValueError("shift works on one field")
    place = {int(row): number for number, row in enumerate(found.rows)}
    n = len(found.rows)
    measured = {name: np.full(n, np.nan) for name in ("signal_to_noise", "size")}
    tables = (found.sources, inputs.tables["islands"])
    chosen = thin(found.rows, MOST_LOOKED_AT, seed)
    for views in show_sources(wanted, options, inputs.arrays["image"], field, tables, chosen):
        own = [place[int(row)] for row in views.rows]
        told = measure_covariates(views.images, wanted.clip_sigma, subtracted=wanted.subtract_clip)
        for name, values in measured.items():
            values[own] = told[name]
    beam = max(float(np.sqrt(field.beam.major * field.beam.minor)), wanted.beam_arcsec)
    measured["beam"] = np.full(n, beam / wanted.pixel_arcsec)
    measured["rms"] = np.asarray(found.sources["local_rms"], np.float64)[found.rows]
    return measured


def judge(reference: Reference, sample: Sources, options: ShiftOptions) -> Shift | None:
    """Judge sources of fields against a model's reference; None where they are too few.

    The beam of a field is known. That of the reference images is the one the model wants, which finer
    images are smoothed to.
    """
    if len(sample) < LEAST_SOURCES:
        return None
    told = reference.sources
    own = np.full(len(told), reference.summary.beam)
    return judge_shift(
        replace(told, covariates={**told.covariates, "beam": own}),
        sample,
        scale=reference.scale,
        permutations=options.permutations,
        alpha=options.alpha,
        seed=options.seed,
    )


def read_objects(rows: Table, classes: tuple[str, ...], reach: float) -> Sources:
    """Return the sources of the table ``shift_objects`` of a release, each once where fields overlap."""
    order = np.lexsort((np.asarray(rows["source_id"]), np.asarray(rows["field"], np.str_)))
    ra, dec, flux = (np.asarray(rows[name])[order] for name in ("ra", "dec", "peak_flux"))
    kept = order[choose_objects(ra, dec, flux, reach)]
    return Sources(
        np.asarray(rows["shift_embedding"])[kept],
        np.stack([np.asarray(rows[f"shift_p_{name.lower()}"])[kept] for name in classes], axis=1),
        None,
        {name: np.asarray(rows[f"shift_{name}"], np.float64)[kept] for name in COVARIATES},
    )


def _list_objects(
    found: _Found, sample: Sources, reference: Reference, classes: tuple[str, ...], seed: int
) -> dict[str, NDArray[Any]]:
    """Return some of the judged sources, each with all that a release is judged by."""
    kept = thin(np.arange(len(found.rows)), MOST_LOOKED_AT, seed)
    rows = found.rows[kept]
    strange = np.full(len(kept), np.nan)
    if len(kept) > 1:
        own = thin(reference.sources.embedding, MOST_SOURCES, seed)
        strange = measure_strangeness(
            reference.scale.apply(own), reference.scale.apply(sample.embedding[kept])
        )
    return {
        **{name: np.asarray(found.sources[name])[rows] for name in ("source_id", "ra", "dec", "peak_flux")},
        "shift_strangeness": strange.astype(np.float32),
        **{f"shift_{name}": sample.covariates[name][kept].astype(np.float32) for name in COVARIATES},
        **{f"shift_p_{name.lower()}": sample.probabilities[kept, k] for k, name in enumerate(classes)},
        "shift_embedding": np.asarray(sample.embedding[kept], np.float32),
    }


def describe_reference(reference: Reference) -> dict[str, Any]:
    """Return what a verdict says of the reference."""
    told = reference.summary
    return {"data": told.data, "n": told.n, "kept": told.kept, "held_out": told.held_out}


def report(
    shift: Shift | None, reason: str, known: dict[str, Any], classes: tuple[str, ...]
) -> dict[str, Any]:
    """Return the products ``shift`` and ``shift_verdict``; of sources that cannot be judged, why."""
    from survey_ml.models.shift import describe_shift

    told: dict[str, Any] = {
        "level": UNKNOWN,
        "score": float("nan"),
        "cause": "",
        "statistics": {},
        "prior": {"refused": True, "classes": {}},
        "conditional": None,
        "covariates": {},
    }
    if shift is not None:
        told = describe_shift(shift, classes)
        told["prior"] |= {"reason": shift.prior.refused, "p_value": shift.prior.p_value}
    conditional = told["conditional"] or {"p_value": float("nan"), "effect": float("nan")}
    shares = name_classes(shift.prior, classes) if shift is not None else {}
    row = {
        "shift_level": np.array([told["level"]]),
        "shift_score": np.array([told["score"]], np.float32),
        "shift_cause": np.array([told["cause"]], np.str_),
        "shift_p_value": np.array([conditional["p_value"]], np.float32),
        "shift_effect": np.array([conditional["effect"]], np.float32),
        "shift_n": np.array([known["n"]], np.int32),
        "shift_n_left_out": np.array([known["n_left_out"]], np.int32),
        "shift_reason": np.array([reason or told["prior"]["reason"]], np.str_),
    }
    for name in classes:
        for column, key in (("share", "estimate"), ("low", "low"), ("high", "high")):
            value = shares.get(name, {}).get(key, np.nan)
            row[f"shift_{column}_{name.lower()}"] = np.array([value], np.float32)
    return {"shift": row, "shift_verdict": make_plain({**told, "reason": reason, **known})}


def make_plain(value: Any) -> Any:
    """Return a value as JSON can hold it: NaN is not JSON."""
    if isinstance(value, Mapping):
        return {name: make_plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [make_plain(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
