"""A release of small images, and a plugin whose stage costs nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

LEVEL = '''
"""A plugin with one stage that costs nothing."""
import time
from pydantic import PositiveFloat
import numpy as np
from survey_ml.hookspecs import CommandSpec, hookimpl
from survey_ml.products import Column, array, table
from survey_ml.stage import Options, Resources, Scope, Stage, StageSpec

COLUMNS = (Column("row", "int64"), Column("mean", "float64", "Jy/beam"))
SPEC = StageSpec("level", "plugin_level:Level", (array("image"),), (table("levels", columns=COLUMNS),),
                 resources=Resources(memory=1 << 20))

class LevelOptions(Options):
    scale: PositiveFloat = 1.0
    """Factor."""
    fail: bool = False
    """Fail on purpose."""
    seconds: float = 0.0
    """Time that a tile takes."""

class Level(Stage):
    options_type = LevelOptions
    def run(self, inputs):
        if self.options.fail:
            raise ValueError("failed on purpose")
        time.sleep(self.options.seconds)
        mean = self.options.scale * float(np.nanmean(inputs.arrays["image"]))
        print("a stage that prints")
        return {"levels": {"row": np.arange(1), "mean": np.array([mean])}}

@hookimpl
def survey_ml_stages():
    return [SPEC]

@hookimpl
def survey_ml_commands():
    return [CommandSpec("level-it", "plugin_level_command:command", summary="Levels"),
            CommandSpec("level-lost", "plugin_level_nowhere:command", summary="Is not there")]
'''

COMMAND = """
import click
@click.command()
def command():
    "Level it."
    click.echo("levelled")
"""


def write_image(path: Path, *, beam: bool = True, seed: int = 1, size: int = 96) -> Path:
    """Write noise with a few point sources, 2 arcsec pixels and a beam of 8 arcsec."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    image = random.normal(0, 1e-4, (size, size))
    for y, x in random.uniform(15, size - 15, (4, 2)):
        image += 5e-3 * np.exp(-4 * np.log(2) * ((columns - x) ** 2 + (rows - y) ** 2) / 16)
    header = fits.Header()
    header["BUNIT"] = "Jy/beam"
    header["CTYPE1"], header["CTYPE2"] = "RA---SIN", "DEC--SIN"
    header["CRVAL1"], header["CRVAL2"] = 150.0 + seed, 2.0
    header["CRPIX1"] = header["CRPIX2"] = size / 2
    header["CDELT1"], header["CDELT2"] = -2 / 3600, 2 / 3600
    header["CUNIT1"] = header["CUNIT2"] = "deg"
    header["RESTFRQ"] = 1.4e9
    if beam:
        header["BMAJ"] = header["BMIN"] = 8 / 3600
        header["BPA"] = 0.0
    fits.writeto(path, image.astype(np.float32), header)
    return path
