"""Radio survey releases to science-ready catalogues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Release", "__version__", "open_image"]

if TYPE_CHECKING:
    from survey_ml.data.images import open_image
    from survey_ml.data.release import Release


def __getattr__(name: str) -> Any:
    """Import `Release` and `open_image` on first use, so that ``import survey_ml`` stays fast."""
    if name == "Release":
        from survey_ml.data.release import Release

        return Release
    if name == "open_image":
        from survey_ml.data.images import open_image

        return open_image
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
