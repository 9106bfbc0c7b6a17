"""The uncertainty stage: how far the class of each source can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Setting
from pydantic import field_validator

from survey_ml import uncertainty_flags as flags
from survey_ml.errors import ConfigError
from survey_ml.learning.conformal import Guarantee
from survey_ml.learning.judgement import Judgement, Standard, name_sets
from survey_ml.stage import Inputs, Options, Stage, Table
from survey_ml.stages.morphology.stage import (
    MorphologyOptions,
    Views,
    require_libraries,
    show_sources,
    tell_path_from_name,
)

if TYPE_CHECKING:
    from survey_ml.models.estimator import Estimator

Share = Annotated[float, Setting(ge=0.0, le=1.0)]
Method = Literal["bayes-by-backprop", "mc-dropout", "laplace", "deep-ensemble"]


class UncertaintyOptions(Options):
    """How far classes can be trusted, and who says so."""

    method: Method = "bayes-by-backprop"
    """Kind of posterior over weights: variational inference (Blundell et al. 2015), dropout kept on (Gal &
    Ghahramani 2016), a Gaussian about the trained last layer (MacKay 1992), or several networks
    (Lakshminarayanan et al. 2017)."""
    samples: int = Setting(100, ge=2, le=10_000)
    """Weight samples of the posterior; one set for all sources of a release."""
    margin: float = Setting(0.2, ge=0.0, le=1.0)
    """Sources whose two largest mean probabilities differ by less are flagged as doubtful, as are those whose
    set is not one class."""
    coverage: float = Setting(0.9, gt=0.0, lt=1.0)
    """Share of sources whose prediction set should hold the true class."""
    guarantee: Guarantee = "class-conditional"
    """That share of each class, of all sources together (marginal), or of all sources of a survey whose
    classes have other shares than the training's (weighted)."""
    shares: dict[str, Share] = Setting({})
    """Shares of the classes in the survey, for `guarantee: weighted`: class to share."""
    model: Path | str | None = None
    """The posterior, by name or path; when not given what comes with a morphology model that has a name: its
    own over all its weights, or the one over its last layer. A network given by its path that has a posterior
    of its own is named here as well."""
    seed: int = Setting(0, ge=0)
    """Of the weight samples."""

    _tell_path = field_validator("model", mode="before")(tell_path_from_name)

    def files(self) -> Mapping[str, Path]:
        """Return the files that results depend on: the model, or all that come with models.

        Raises
        ------
        ConfigError
            When there is no such model, or what runs one is not installed.
        """
        require_libraries("uncertainty")
        from survey_ml.models.registry import find_model, list_models

        if self.model is not None:
            found = find_model(self.model)
            return {found.name: found.path}
        # Which of them it is follows from the morphology model; that one's own file is in its outputs' keys.
        end = f"-{self.method}"
        return {one.name: one.path for one in list_models() if one.name.endswith(end) and not one.fault}


class Uncertainties(Stage):
    """Judge the classes that the stage morphology gave.

    A posterior over the last layer of the model needs what morphology kept of each source, and no image: all
    samples of all sources cost less than one look at a cutout. One over all weights looks at the cutouts that
    morphology was shown.
    """

    options_type: ClassVar[type[Options]] = UncertaintyOptions

    def setup(self) -> None:
        """Make ready what is known before the first source.

        Raises
        ------
        ConfigError
            When the model that was named is not there, or has no posterior of the method asked for.
        InputError
            When its file is damaged.
        """
        require_libraries("uncertainty")
        options = cast(UncertaintyOptions, self.options)
        self._find = cache(self._load)
        if options.model is not None:
            from survey_ml.models.estimator import check_posterior

            check_posterior(options.model, options.method)

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Judge the tile's sources.

        Parameters
        ----------
        inputs : Inputs
            ``morphology``, ``morphology_features`` and ``morphology_model`` of the tile, and what
            morphology read.

        Returns
        -------
        mapping
            The table ``uncertainty``, in the order of the sources, and ``uncertainty_model``, what is to
            be known of the estimator.

        Raises
        ------
        ConfigError
            When there is no posterior for the morphology model, or it was made for another one.
        """
        base = inputs.summaries["morphology_model"]
        estimator = self._find(str(base["name"]), str(base["hash"]))
        table = inputs.tables["morphology"]
        number = np.asarray(table["source_id"], np.int64)
        probabilities = np.stack(
            [np.asarray(table[f"morph_p_{name.lower()}"]) for name in estimator.classes], axis=1
        )
        rows = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
        found = _Found(number, estimator.classes)
        embedding = np.asarray(inputs.tables["morphology_features"]["morph_embedding"])
        if estimator.needs_images:
            for views in self._show(estimator, inputs, base, rows):
                found.take(views.rows, estimator.judge(embedding[views.rows], views.images))
        else:
            found.take(rows, estimator.judge(embedding[rows]))
        return {"uncertainty": found.table(), "uncertainty_model": self._describe(estimator)}

    def _show(
        self, estimator: Estimator, inputs: Inputs, base: Mapping[str, Any], rows: NDArray[np.int64]
    ) -> Iterator[Views]:
        """Yield what morphology was shown of some sources."""
        if inputs.field is None:
            raise ValueError("uncertainty works on the sources of one tile")
        tables = (inputs.tables["sources"], inputs.tables["islands"])
        options = MorphologyOptions(**base["cutouts"])
        wanted = estimator.card.preprocessing
        return show_sources(wanted, options, inputs.arrays["image"], inputs.field, tables, rows)

    def _load(self, name: str, digest: str) -> Estimator:
        """Return the estimator for a morphology model."""
        from survey_ml.models.estimator import find_estimator

        options = cast(UncertaintyOptions, self.options)
        return find_estimator(
            name,
            digest,
            options.method,
            given=options.model,
            samples=options.samples,
            seed=options.seed,
            standard=self._standard,
            threads=1,
        )

    def _standard(self, classes: tuple[str, ...]) -> Standard:
        options = cast(UncertaintyOptions, self.options)
        shares: tuple[float, ...] = ()
        if options.guarantee == "weighted":
            known = {name.lower(): share for name, share in options.shares.items()}
            if sorted(known) != sorted(name.lower() for name in classes):
                raise ConfigError(
                    f"shares of {', '.join(options.shares) or 'nothing'} for classes {', '.join(classes)}",
                    "give one for each class",
                    stage="uncertainty",
                )
            shares = tuple(known[name.lower()] for name in classes)
        return Standard(options.coverage, options.margin, options.guarantee, shares)

    def _describe(self, estimator: Estimator) -> dict[str, Any]:
        options = cast(UncertaintyOptions, self.options)
        return estimator.describe() | {
            "samples": options.samples,
            "coverage": options.coverage,
            "margin": options.margin,
            "guarantee": options.guarantee,
        }


class _Found:
    """The columns of all sources of a tile, filled bit by bit."""

    _MEASURES = ("entropy", "expected_entropy", "mutual_information", "overlap", "margin")

    def __init__(self, number: NDArray[np.int64], classes: tuple[str, ...]) -> None:
        n = len(number)
        self.number, self.classes = number, classes
        self.measures = {name: np.full(n, np.nan, np.float32) for name in self._MEASURES}
        self.calibrated = np.full((n, len(classes)), np.nan, np.float32)
        self.sets = np.full(n, "", dtype=object)
        self.flags = np.full(n, flags.NO_DATA, np.int32)

    def take(self, rows: NDArray[np.int64], judged: Judgement) -> None:
        """Put in what was found of some sources."""
        for name, values in self.measures.items():
            values[rows] = getattr(judged.uncertainty, name)
        self.calibrated[rows] = judged.calibrated
        self.flags[rows] = judged.flags
        for row, names in zip(rows, name_sets(judged, self.classes), strict=True):
            self.sets[row] = "|".join(names)

    def table(self) -> Table:
        """Return the table."""
        return {
            "source_id": self.number,
            **{f"unc_{name}": values for name, values in self.measures.items()},
            **{
                f"unc_p_{name.lower()}": np.ascontiguousarray(self.calibrated[:, k])
                for k, name in enumerate(self.classes)
            },
            "unc_set": self.sets.astype(np.str_),
            "unc_flags": self.flags,
        }
