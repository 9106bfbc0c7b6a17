"""PNG images, of any depth and colours, as one plane of brightness."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from survey_ml.errors import InputError

LARGEST = 1 << 24
"""Pixels: 4096 x 4096. What is larger is no cutout, and a small file can claim any size."""


def read_png(path: Path) -> NDArray[Any]:
    """Read one plane of a PNG.

    Parameters
    ----------
    path : Path

    Returns
    -------
    (y, x) array of uint8 or float32
        First row on top. uint8 from 8 bits or less a channel, float32 from 16. Of colours the mean is taken;
        what is transparent is dark.

    Raises
    ------
    InputError
        When it is no PNG, is damaged, or has more than `LARGEST` pixels.
    """
    from PIL import Image

    try:
        # Pillow warns of sizes that are refused here anyway.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=["PNG"]) as picture:
                if picture.width * picture.height > LARGEST:
                    raise InputError(
                        f"{path} has {picture.width} x {picture.height} pixels, more than {LARGEST}",
                        "Cut out the source.",
                    )
                return _flatten(picture)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", "Check the path.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has more than {LARGEST} pixels", "Cut out the source.") from error
    except Exception as error:
        # A broken PNG raises OSError, SyntaxError, ValueError, struct.error or zlib.error.
        text = str(error) or type(error).__name__
        raise InputError(
            f"{path} cannot be read as a PNG: {text}", "Write or copy the file again."
        ) from error


def _flatten(picture: Any) -> NDArray[Any]:
    if picture.mode.startswith("I"):
        return np.asarray(picture).astype(np.float32)
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        channels = np.asarray(picture.convert("RGBA"), np.float32)
        return np.rint(channels[..., :3].mean(axis=2) * (channels[..., 3] / 255.0)).astype(np.uint8)
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L")).copy()
    return np.rint(np.asarray(picture.convert("RGB"), np.float32).mean(axis=2)).astype(np.uint8)
