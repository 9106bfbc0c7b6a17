"""What can be chosen of the estimator of uncertainties."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field as Setting
from pydantic import field_validator

from survey_ml.learning.conformal import Guarantee
from survey_ml.stage import Options
from survey_ml.stages.morphology.stage import SUFFIX, require_libraries

Share = Annotated[float, Setting(ge=0.0, le=1.0)]
Method = Literal["bayes-by-backprop", "mc-dropout", "laplace"]


class UncertaintyOptions(Options):
    """How far classes can be trusted, and who says so."""

    method: Method = "bayes-by-backprop"
    """Kind of posterior over the last layer: variational inference (Blundell et al. 2015), dropout kept on
    (Gal & Ghahramani 2016), or a Gaussian about the trained weights (MacKay 1992)."""
    samples: int = Setting(100, ge=2, le=10_000)
    """Weight samples of the posterior; one set for all sources of a release."""
    margin: float = Setting(0.2, ge=0.0, le=1.0)
    """Sources whose two largest mean probabilities differ by less are flagged as doubtful."""
    coverage: float = Setting(0.9, gt=0.0, lt=1.0)
    """Share of sources whose prediction set should hold the true class."""
    guarantee: Guarantee = "class-conditional"
    """That share of each class, of all sources together (marginal), or of all sources of a survey whose
    classes have other shares than the training's (weighted)."""
    shares: dict[str, Share] = Setting({})
    """Shares of the classes in the survey, for `guarantee: weighted`: class to share."""
    model: Path | str | None = None
    """The posterior, by name or path; the one that comes with the morphology model when not given."""
    seed: int = Setting(0, ge=0)
    """Of the weight samples."""

    @field_validator("model", mode="before")
    @classmethod
    def _tell_path_from_name(cls, model: object) -> object:
        if isinstance(model, str) and ("/" in model or model.endswith(SUFFIX)):
            return Path(model).expanduser()
        return model

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
