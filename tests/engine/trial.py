"""Small stages of every scope, for tests of the engine; a module that workers can import."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings

import numpy as np

from survey_ml.errors import InputError, WindowTooSmallError
from survey_ml.hookspecs import hookimpl
from survey_ml.products import Column, array, summary, table
from survey_ml.stage import Options, Resources, Scope, Stage, StageSpec

PEAKS = (
    Column("row", "int64"),
    Column("column", "int64"),
    Column("value", "float32"),
    Column("word", "string"),
)
ROWS = (Column("source_id", "int64"), Column("ratio", "float64"))
LIGHT = Resources(cpus=1, memory=100 << 20)


class SmoothOptions(Options):
    threshold: float = 3.0
    """Least value of a peak."""
    poison: str = ""
    """Tile that kills its worker."""
    fail: str = ""
    """Tile that raises."""
    leave: str = ""
    """Tile that wants the process to end."""
    refuse: str = ""
    """Tile whose data are refused."""
    wide: int = 0
    """Halo without which the stage asks for more."""
    wrong: str = ""
    """How to break the contract."""
    seconds: float = 0.0
    """Time a tile takes."""


class Smooth(Stage):
    """Mean of 3 x 3 pixels, the pixels above a threshold, and what the tile looked like."""

    options_type = SmoothOptions
    options: SmoothOptions

    def halo(self, field):
        return 2

    def setup(self):
        self.calls = 0

    def run(self, inputs):
        self.calls += 1
        options, tile, image = self.options, inputs.tile, inputs.arrays["image"]
        time.sleep(options.seconds)
        if tile.name == options.poison:
            os._exit(9)
        if tile.name == options.fail:
            raise ZeroDivisionError("on request")
        if tile.name == options.leave:
            raise SystemExit(3)
        if tile.name == options.refuse:
            raise InputError("refused on request", "nothing to be done")
        if options.wide and tile.window != tile.core.grow(options.wide, inputs.field.shape):
            raise WindowTooSmallError(options.wide)
        assert not image.flags.writeable
        padded = np.pad(image.astype(np.float64), 1, mode="edge")
        total = sum(
            padded[dy : dy + image.shape[0], dx : dx + image.shape[1]] for dy in range(3) for dx in range(3)
        )
        smooth = (total / 9).astype(np.float32)
        core = tile.core.inside(tile.window)
        rows, columns = np.nonzero(image[core] > options.threshold)
        outputs = {
            "smooth": smooth[core],
            "bright": {
                "row": rows + tile.core.y0,
                "column": columns + tile.core.x0,
                "value": image[core][rows, columns],
                "word": np.array([f"{tile.name}/{i}" for i in range(len(rows))], dtype=object),
            },
            "looks": {
                "mean": float(np.nanmean(image[core])),
                "n": int(image[core].size),
                "seed": inputs.seed,
            },
        }
        return _break(outputs, options.wrong)


def _break(outputs, how):
    if how == "missing":
        del outputs["looks"]
    elif how == "extra":
        outputs["more"] = {}
    elif how == "shape":
        outputs["smooth"] = outputs["smooth"][1:]
    elif how == "dtype":
        outputs["smooth"] = outputs["smooth"].astype(np.float64)
    elif how == "column":
        outputs["bright"]["other"] = outputs["bright"].pop("value")
    elif how == "length":
        outputs["bright"]["row"] = np.append(outputs["bright"]["row"], 1)
    elif how == "kind":
        outputs["bright"]["row"] = outputs["bright"]["row"] + 0.5
    elif how == "json":
        outputs["looks"] = {"a": object()}
    elif how == "none":
        return None
    return outputs


class TotalOptions(Options):
    weight: float = 1.0
    """Factor."""


class Total(Stage):
    """One number a field, from what its tiles looked like and from the whole image."""

    options_type = TotalOptions
    options: TotalOptions

    def run(self, inputs):
        looks = inputs.summaries["looks"]
        n = sum(look["n"] for look in looks.values())
        image = inputs.arrays["image"]
        assert image.shape == inputs.field.shape
        return {
            "total": {
                "mean": self.options.weight * sum(k["mean"] * k["n"] for k in looks.values()) / n,
                "tiles": sorted(looks),
                "corner": float(image[0:1, 0:1][0, 0]),
                "rows": len(inputs.tables["bright"]["row"]),
            }
        }


class Ratio(Stage):
    """Bright pixels over the mean of the field."""

    def run(self, inputs):
        bright, mean = inputs.tables["bright"], inputs.summaries["total"]["mean"]
        width = inputs.field.shape[1]
        return {
            "ratios": {
                "source_id": bright["row"] * width + bright["column"],
                "ratio": bright["value"].astype(np.float64) / (1 + abs(mean)),
            }
        }


class Census(Stage):
    """Counts over the release."""

    def run(self, inputs):
        table_ = inputs.tables["ratios"]
        return {
            "census": {
                "fields": sorted(inputs.fields),
                "rows": {name: int(np.sum(table_["field"] == name)) for name in inputs.fields},
                "means": {name: inputs.summaries["total"][name]["mean"] for name in inputs.fields},
                "shapes": {name: list(inputs.arrays["smooth"][name].shape) for name in inputs.fields},
            }
        }


class OddOptions(Options):
    how: str = ""
    """What to do: print, log, warn, flood, hang, exit, leak or swell."""
    tile: str = "1_1"
    """In which tile; all when empty."""
    megabytes: int = 0
    """How much to keep."""
    seconds: float = 0.0
    """How long every tile takes."""


class Odd(Stage):
    """Does what stages should not do, in one tile."""

    options_type = OddOptions
    options: OddOptions

    def setup(self):
        self.kept = []

    def run(self, inputs):
        options = self.options
        time.sleep(options.seconds)
        if options.tile in ("", inputs.tile.name):
            getattr(self, f"do_{options.how}")()
        return {"odd": {"pid": os.getpid()}}

    def do_(self):
        pass

    def do_print(self):
        print("printed", "by the stage")
        sys.stderr.write("complained\n")
        print("no end of line", end="")

    def do_log(self):
        logger = logging.getLogger("trial.odd")
        logger.debug("too small a thing")
        logger.info("for your information")
        logger.warning("beware of %s", os.environ.get("TRIAL_SECRET", "nothing"))
        try:
            raise ValueError("inside")
        except ValueError:
            logger.exception("went wrong")

    def do_warn(self):
        warnings.warn("deprecated, perhaps", UserWarning, stacklevel=1)

    def do_flood(self):
        for number in range(1000):
            print(f"line {number}")

    def do_hang(self):
        time.sleep(3600)

    def do_exit(self):
        print("last words")
        os._exit(9)

    def do_leak(self):
        self.kept.append(np.ones(self.options.megabytes << 17))

    def do_swell(self):
        self.do_leak()
        time.sleep(10)


SMOOTH = StageSpec(
    "smooth",
    "trial:Smooth",
    reads=(array("image"),),
    writes=(array("smooth"), table("bright", columns=PEAKS), summary("looks")),
    resources=LIGHT,
)
TOTAL = StageSpec(
    "total",
    "trial:Total",
    reads=(array("image"), summary("looks"), table("bright")),
    writes=(summary("total"),),
    scope=Scope.FIELD,
    resources=LIGHT,
)
RATIO = StageSpec(
    "ratio",
    "trial:Ratio",
    reads=(table("bright"), summary("total"), array("smooth"), summary("absent", optional=True)),
    writes=(table("ratios", "source", columns=ROWS),),
    scope=Scope.SOURCE,
    resources=LIGHT,
)
CENSUS = StageSpec(
    "census",
    "trial:Census",
    reads=(table("ratios", "source"), summary("total"), array("smooth")),
    writes=(summary("census"),),
    scope=Scope.RELEASE,
    resources=LIGHT,
)
ODD = StageSpec("odd", "trial:Odd", reads=(array("image"),), writes=(summary("odd"),), resources=LIGHT)
SPECS = (SMOOTH, TOTAL, RATIO, CENSUS, ODD)


@hookimpl
def survey_ml_stages():
    return list(SPECS)
