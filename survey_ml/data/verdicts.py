"""What the stage shift said of the fields of a release."""

from __future__ import annotations

from pathlib import Path

from survey_ml.data.release import Release


def find_red(out: str | Path) -> dict[str, str]:
    """Return the fields whose sources are unlike those that the model was made for, with the likely cause.

    Parameters
    ----------
    out : str or Path
        Folder or URL of the release.

    Returns
    -------
    dict
        In the order of names; empty where no field is red, or no stage looked.
    """
    commits = Release.open(out).commits(stage="shift")
    verdicts = {unit.field: commit.summaries["shift_verdict"] for unit, commit in commits.items()}
    return {name: one["cause"] for name, one in sorted(verdicts.items()) if one["level"] == "red"}
