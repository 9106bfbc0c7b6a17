"""What a check of a plugin found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from survey_ml.errors import PluginError


@dataclass(frozen=True)
class Check:
    """One promise of the contract, and whether it is kept.

    Attributes
    ----------
    about : str
        What it was checked of, such as ``stage brightness``.
    name : str
        Of the check; `docs/plugins.md` lists them.
    passed : bool or None
        None where it could not be judged, because of something else that failed.
    detail, hint : str
        What was found, and what to do about it.
    """

    about: str
    name: str
    passed: bool | None
    detail: str = ""
    hint: str = ""


@dataclass
class Report:
    """All checks of one distribution.

    Attributes
    ----------
    target : str
        As it was asked for.
    distribution, version : str
        What was checked.
    checks : list of Check
        In the order in which they were made.
    seconds : float
        Wall time.
    """

    target: str
    distribution: str
    version: str
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> list[Check]:
        """The checks that did not pass."""
        return [check for check in self.checks if check.passed is False]

    @property
    def passed(self) -> bool:
        """Whether there were checks and none failed."""
        return bool(self.checks) and not self.failed

    def add(self, about: str, name: str, passed: bool | None, detail: str = "", hint: str = "") -> None:
        """Note a check; the hint is kept only where it is needed."""
        self.checks.append(Check(about, name, passed, detail, "" if passed else hint))

    def has(self, about: str, name: str) -> bool:
        """Tell whether a check has been made."""
        return any((check.about, check.name) == (about, name) for check in self.checks)

    def failed_of(self, about: str) -> bool:
        """Tell whether a check of something failed."""
        return any(check.about == about for check in self.failed)

    def raise_if_failed(self) -> None:
        """Raise an error that names every check that failed.

        Raises
        ------
        PluginError
            When one did.
        """
        if self.passed:
            return
        lines = [f"{c.about}: {c.name}: {c.detail}" + (f" ({c.hint})" if c.hint else "") for c in self.failed]
        raise PluginError(
            f"{self.distribution} {self.version} breaks the contract:\n  " + "\n  ".join(lines),
            f"survey-ml plugins check {self.target}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "target": self.target,
            "distribution": self.distribution,
            "version": self.version,
            "passed": self.passed,
            "seconds": round(self.seconds, 3),
            "checks": [asdict(check) for check in self.checks],
        }
