"""What an exporter is given beside the release and the folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

_ABOUT = {
    "sources": "Sources: components grouped into objects",
    "components": "Gaussian components",
    "islands": "Islands of pixels above the flood threshold",
    "inverted": "Components found in the sign-inverted image",
    "peaks": "Local maxima above the threshold",
    "forced": "Fluxes measured at given positions",
    "morphology": "Classes of morphology of sources",
    "uncertainty": "Uncertainties of the classes of sources",
    "shift": "How far the sources of each field are from what the classifier of morphology was made for",
    "morphology_features": "What the classifier of morphology saw of each source",
    "shift_objects": "Sources by which a field was held against what the model was made for",
}


@dataclass(frozen=True)
class ExportOptions:
    """Handed to every exporter.

    Attributes
    ----------
    release : str
        Name of the release.
    tables : mapping
        Table name to Arrow table, under the names of the column table.
    written : mapping
        The same tables under the column names that are to be written.
    maps : tuple of str
        Array products wanted as FITS images.
    version : str
        Of survey_ml, for headers.
    """

    release: str
    tables: Mapping[str, pa.Table]
    written: Mapping[str, pa.Table]
    maps: tuple[str, ...] = ()
    version: str = ""
    about: Mapping[str, str] = field(default_factory=lambda: _ABOUT)

    def describe(self, table: str) -> str:
        """Return one line about a table for its header."""
        return f"{self.about.get(table, table)}, release {self.release}"
