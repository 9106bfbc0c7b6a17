"""Simulated skies as files: FITS images as imagers write them, and their truth as Parquet.

``python -m survey_ml.data.sky --size 4096 --seed 1 --out sim.fits --truth truth.parquet``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray

from survey_ml.field import Field
from survey_ml.simulation.sky import Recipe, SimulatedSky, simulate_sky


def make_header(field: Field, axes: int = 2) -> fits.Header:
    """Return the header of a field's image.

    Parameters
    ----------
    field : Field
    axes : int
        2, or 4 for degenerate frequency and Stokes axes as imagers write them.
    """
    header = fits.Header.fromstring(field.header)
    header["BUNIT"] = "Jy/beam"
    header["BMAJ"] = (field.beam.major / 3600.0, "deg")
    header["BMIN"] = (field.beam.minor / 3600.0, "deg")
    header["BPA"] = (field.beam.pa, "deg")
    if axes == 4:
        for key, values in {
            "CTYPE": ("FREQ", "STOKES"),
            "CRPIX": (1.0, 1.0),
            "CDELT": (1e6, 1.0),
            "CRVAL": (field.frequency, 1.0),
            "CUNIT": ("Hz", ""),
        }.items():
            header[f"{key}3"], header[f"{key}4"] = values
    elif np.isfinite(field.frequency):
        header["RESTFRQ"] = (field.frequency, "Hz")
    return header


def write_image(
    path: str | Path, image: NDArray[np.float32], field: Field, *, axes: int = 2, overwrite: bool = True
) -> Path:
    """Write an image in Jy/beam as FITS.

    Parameters
    ----------
    path : str or Path
    image : (ny, nx) array
    field : Field
        Gives WCS, beam and frequency.
    axes : int
        2 or 4; see `make_header`.
    overwrite : bool

    Returns
    -------
    Path
    """
    data = image if axes == 2 else image[None, None]
    fits.PrimaryHDU(data, make_header(field, axes)).writeto(path, overwrite=overwrite)
    return Path(path)


def write_table(
    path: str | Path, table: Mapping[str, NDArray], units: Mapping[str, str] | None = None
) -> Path:
    """Write columns as Parquet, with their units as metadata of the fields, and for astropy.

    Parameters
    ----------
    path : str or Path
    table : mapping
    units : mapping, optional
        Column name to unit.

    Returns
    -------
    Path
    """
    arrays = {
        name: pa.array(values.tolist() if values.dtype == object else values)
        for name, values in table.items()
    }
    schema = pa.schema(
        [
            pa.field(name, column.type, metadata={"unit": units[name]} if units and name in units else None)
            for name, column in arrays.items()
        ]
    )
    schema = schema.with_metadata(_describe_astropy(arrays, units or {}))
    pq.write_table(pa.Table.from_arrays(list(arrays.values()), schema=schema), path)
    return Path(path)


def _describe_astropy(arrays: Mapping[str, pa.Array], units: Mapping[str, str]) -> dict[str, str]:
    """Return what astropy's Parquet reader looks for: units, and the widths of strings."""
    from astropy.table import Table, meta

    empty = Table()
    widths = {}
    for name, column in arrays.items():
        is_text = pa.types.is_string(column.type)
        empty[name] = np.empty(0, "U1" if is_text else column.type.to_pandas_dtype())
        if units.get(name):
            empty[name].unit = units[name]
        if is_text:
            longest = max((len(value) for value in column.to_pylist()), default=0)
            widths[f"table::len::{name}"] = str(max(1, longest))
    return {"table_meta_yaml": "\n".join(meta.get_yaml_from_table(empty))} | widths


TRUTH_UNITS = {
    "x": "pix",
    "y": "pix",
    "ra": "deg",
    "dec": "deg",
    "total_flux": "Jy",
    "peak_flux": "Jy/beam",
    "major": "arcsec",
    "minor": "arcsec",
    "pa": "deg",
    "local_rms": "Jy/beam",
    "isolation": "pix",
    "extent": "arcsec",
}
"""Units of the truth tables."""


def write_sky(
    sky: SimulatedSky, image: str | Path, truth: str | Path | None = None, *, axes: int = 2
) -> None:
    """Write a simulated image and, if asked, its truth."""
    write_image(image, sky.image, sky.field, axes=axes)
    if truth is not None:
        write_table(truth, sky.truth, TRUTH_UNITS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate an image from the command line."""
    parser = argparse.ArgumentParser(prog="python -m survey_ml.data.sky", description=main.__doc__)
    parser.add_argument("--size", type=int, default=4096, help="side in pixels")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--content", choices=["sky", "grid", "noise"], default="sky")
    parser.add_argument("--correlation", choices=["beam", "psf"], default="beam", help="of the noise")
    parser.add_argument("--blank", action="store_true", help="NaN border, slit and hole")
    parser.add_argument("--inverted", action="store_true", help="change the sign")
    parser.add_argument("--artefacts", action="store_true", help="stripes around bright sources")
    parser.add_argument("--axes", type=int, choices=[2, 4], default=2, help="axes of the FITS image")
    parser.add_argument("--out", required=True, help="FITS file to write")
    parser.add_argument("--truth", help="Parquet file to write")
    options = parser.parse_args(arguments)
    recipe = Recipe(
        options.size,
        options.seed,
        options.content,
        options.correlation,
        blank=options.blank,
        inverted=options.inverted,
        artefacts=options.artefacts,
    )
    sky = simulate_sky(recipe, Path(options.out).stem)
    write_sky(sky, options.out, options.truth, axes=options.axes)
    print(f"{options.out}: {sky.image.shape[1]} x {sky.image.shape[0]} px, seed {options.seed}")
    if options.truth:
        bright = int((sky.truth["snr"] > 5).sum())
        print(f"{options.truth}: {len(sky.truth['x'])} components, {bright} above 5 sigma")
    return 0


if __name__ == "__main__":
    sys.exit(main())
