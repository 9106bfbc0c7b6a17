"""The stage shift_release: whether the sources of all fields together are like the model's reference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, cast

from survey_ml.errors import InputError
from survey_ml.stage import Inputs, Options, Stage
from survey_ml.stages.morphology.stage import require_libraries
from survey_ml.stages.shift.stage import (
    ShiftOptions,
    describe_reference,
    find_reference,
    judge,
    read_objects,
    report,
)


class ReleaseShift(Stage):
    """Judge a release as a whole, by what the stage shift keeps of each field.

    Many fields show what few sources of one cannot, and fields that are too small to be judged count
    here. Where fields overlap a source counts once.
    """

    options_type: ClassVar[type[Options]] = ShiftOptions

    def setup(self) -> None:
        """Make ready what is known before the work."""
        require_libraries("shift_release")
        self._find = cache(find_reference)

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Judge the sources of all fields.

        Parameters
        ----------
        inputs : Inputs
            ``shift_objects`` and ``shift_verdict`` of all fields.

        Returns
        -------
        mapping
            ``shift_release_verdict``, as ``shift_verdict`` of a field.

        Raises
        ------
        ConfigError
            When there is no reference for the model.
        InputError
            When the fields were classified by different models, or the reference is damaged or another's.
        """
        options = cast(ShiftOptions, self.options)
        verdicts = inputs.summaries["shift_verdict"]
        models = {str(one["model"]["hash"]): one for one in verdicts.values()}
        if len(models) != 1:
            names = " and ".join(sorted(str(one["model"]["name"]) for one in models.values()))
            raise InputError(
                f"the fields of the release are classified by {names or 'nothing'}", "run it again",
                stage="shift_release",
            )  # fmt: skip
        base = next(iter(models.values()))
        model = base["model"]
        classes = tuple(map(str, model["classes"]))
        reference = self._find(options, str(model["name"]), str(model["hash"]), classes, str(model["path"]))
        sample = read_objects(inputs.tables["shift_objects"], classes, float(base["reach"]))
        known = {
            "model": dict(model),
            "reference": describe_reference(reference),
            "fields": len(verdicts),
            "n": len(sample),
            "n_left_out": sum(int(one["n"]) + int(one["n_left_out"]) for one in verdicts.values())
            - len(sample),
            "permutations": options.permutations,
            "alpha": options.alpha,
            "seed": options.seed,
        }
        found = judge(reference, sample, options)
        reason = "" if found is not None else f"all fields together have {len(sample)} sources to judge by"
        return {"shift_release_verdict": report(found, reason, known, classes)["shift_verdict"]}
