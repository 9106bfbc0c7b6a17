"""The last stage of the trial release: honest work, and what a plugin may do wrong when it is asked to."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from survey_ml.stage import Inputs, Options, Stage

ODD = "odd.json"
"""File that asks for odd behaviour: ``how``, ``unit`` (FIELD/TILE, none for all), and how much of it."""


class TrialOptions(Options):
    """Options of the trial stage."""

    folder: str
    """Folder that all workers see, in which `odd.json` may ask for odd behaviour."""
    seconds: float = 0.05
    """Seconds that a tile takes at least, so that there is time for a fault."""


class Trial(Stage):
    """Signal to noise of the residual, how much of it each component left, and some numbers of it."""

    options_type = TrialOptions
    options: TrialOptions

    def setup(self) -> None:
        """Begin without anything held."""
        self._held: list[bytearray] = []

    def run(self, inputs: Inputs) -> Mapping[str, Any]:
        """Compute the three products; see `survey_ml.selftest.plugin`."""
        assert inputs.tile is not None and inputs.field is not None
        time.sleep(self.options.seconds)
        self._behave(f"{inputs.field.name}/{inputs.tile.name}")
        core = inputs.tile.core.inside(inputs.tile.window)
        image, residual = (np.asarray(inputs.arrays[name][core]) for name in ("image", "residual"))
        with np.errstate(invalid="ignore", divide="ignore"):
            signal = (residual / inputs.arrays["rms"][core]).astype(np.float32)
        good = np.isfinite(image) & np.isfinite(signal)
        components = inputs.tables["components"]
        return {
            "trial_signal": signal,
            "trial_shares": {
                "peak_flux": np.asarray(components["peak_flux"], np.float64),
                "share": np.asarray(components["peak_flux"] / max(image[good].sum(), 1e-9), np.float64),
            },
            "trial_numbers": {
                "n": int(good.sum()),
                "mean": float(signal[good].mean(dtype=np.float64)) if good.any() else 0.0,
                "seed": inputs.seed,
            },
        }

    def _behave(self, place: str) -> None:
        """Do what `ODD` asks for, if it does."""
        try:
            asked = json.loads((Path(self.options.folder) / ODD).read_text())
        except FileNotFoundError:
            return
        if asked["unit"] not in ("", place):
            return
        match asked["how"]:
            case "raise":
                raise ZeroDivisionError("on request")
            case "hang":
                time.sleep(3600)
            case "exit":
                os._exit(3)
            case "leak":
                self._held.append(bytearray(os.urandom(1 << 20)) * int(asked["megabytes"]))
            case "clock":
                move_clock(float(asked["hours"]))


def move_clock(hours: float) -> None:
    """Move the wall clock that Python code of this process reads; done once a process.

    The clock of the machine cannot be moved for one process alone without a library put in front of
    the system's, and must not be moved for all. What survey_ml reads is replaced instead.
    """
    if getattr(sys.modules[__name__], "_moved", False):
        return
    globals()["_moved"] = True
    seconds = hours * 3600.0
    true_time, true_ns, true_gm, true_local = time.time, time.time_ns, time.gmtime, time.localtime
    moved: dict[str, Any] = {
        "time": lambda: true_time() + seconds,
        "time_ns": lambda: true_ns() + int(seconds * 1e9),
        "gmtime": lambda at=None: true_gm(true_time() + seconds if at is None else at),
        "localtime": lambda at=None: true_local(true_time() + seconds if at is None else at),
    }
    for name, function in moved.items():
        setattr(time, name, function)
