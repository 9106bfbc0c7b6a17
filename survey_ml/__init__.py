"""Radio survey releases to science-ready catalogues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Release", "__version__"]

if TYPE_CHECKING:
    from survey_ml.data.release import Release


def __getattr__(name: str) -> Any:
    """Import `Release` on first use, so that ``import survey_ml`` stays fast."""
    if name == "Release":
        from survey_ml.data.release import Release

        return Release
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
