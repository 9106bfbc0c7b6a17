"""FITS files of every kind, to read."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from astropy.io import fits
from small_release import make_wcs

BEAM = {"BMAJ": 6 / 3600, "BMIN": 5 / 3600, "BPA": 30.0}


def make_image(shape=(150, 100), seed=4) -> np.ndarray:
    """Noise with a blank corner."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    values[..., :20, :30] = np.nan
    return values


def make_header(shape, **cards) -> fits.Header:
    header = make_wcs(shape[-2:]).to_header()
    header.update({"BUNIT": "Jy/beam", **BEAM})
    for key, value in cards.items():
        if value is None:
            header.remove(key, ignore_missing=True)
        else:
            header[key] = value
    return header


def write_image(path: Path, values: np.ndarray | None = None, kind: str = "plain", **cards) -> Path:
    """Write an image: plain, gzipped, or tile-compressed row by row or in squares, all lossless."""
    values = make_image() if values is None else values
    header = make_header(values.shape, **cards)
    primary = fits.PrimaryHDU(values, header)
    if kind in ("rows", "squares"):
        tile = (
            (*[1] * (values.ndim - 1), values.shape[-1])
            if kind == "rows"
            else (*[1] * (values.ndim - 2), 40, 40)
        )
        image = fits.CompImageHDU(
            values, header, compression_type="GZIP_2", tile_shape=tile, quantize_level=0.0
        )
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    elif kind == "gzip":
        raw = path.with_name("raw-" + path.name.removesuffix(".gz"))
        primary.writeto(raw)
        path.write_bytes(gzip.compress(raw.read_bytes(), 1))
        raw.unlink()
    else:
        primary.writeto(path)
    return path
