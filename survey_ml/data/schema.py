"""Attributes of stored arrays, after the image schema of xradio.

A quantity is ``{"data": ..., "dims": [], "attrs": {"type": "quantity", "units": ...}}``. The schema
names axes ``l`` and ``m``; here they are ``y`` and ``x``, as everywhere in survey_ml, and the WCS is
also kept as FITS cards, which lose nothing.
"""

from __future__ import annotations

from math import isnan
from typing import Any

from survey_ml.field import Field
from survey_ml.products import Product

_FRAMES = {"ICRS": "icrs", "FK5": "fk5", "FK4": "fk4"}


def make_quantity(value: float, unit: str) -> dict[str, Any]:
    """Return a number with its unit."""
    return {"data": value, "dims": [], "attrs": {"type": "quantity", "units": unit}}


def split_cards(header: str) -> list[str]:
    """Split a header of 80-character cards."""
    return [header[start : start + 80].rstrip() for start in range(0, len(header), 80)]


def describe_field(field: Field) -> dict[str, Any]:
    """Return the attributes of a field's group: WCS, beam, frequency and unit."""
    wcs = field.wcs.wcs
    frame = _FRAMES.get(str(wcs.radesys).strip(), "icrs")
    direction = {"data": [float(value) for value in wcs.crval], "dims": ["l", "m"]}
    matrix = wcs.cd if wcs.has_cd() else wcs.get_pc()
    attributes: dict[str, Any] = {
        "type": "image",
        "units": field.unit,
        "coordinate_system_info": {
            "reference_direction": {
                **direction,
                "attrs": {"type": "sky_coord", "frame": frame, "units": "deg"},
            },
            "reference_pixel": [float(value) - 1.0 for value in wcs.crpix],
            "pixel_coordinate_transformation_matrix": [[float(value) for value in row] for row in matrix],
            "projection": str(wcs.ctype[0])[5:].split("-")[0],
            "projection_parameters": [list(map(float, row)) for row in wcs.get_pv()],
        },
        "beam": {
            "bmaj": make_quantity(field.beam.major, "arcsec"),
            "bmin": make_quantity(field.beam.minor, "arcsec"),
            "bpa": make_quantity(field.beam.pa, "deg"),
        },
        "fits_wcs": split_cards(field.header),
    }
    if not isnan(field.frequency):
        attributes["frequency"] = make_quantity(field.frequency, "Hz")
    return attributes


def describe_array(product: Product, field: Field) -> dict[str, Any]:
    """Return the attributes of one array: what it is and its unit."""
    types = {"image": "sky", "island_mask": "flag"}
    return {
        "type": types.get(product.name, product.name),
        "units": field.unit if product.unit == "image" else product.unit,
    }
