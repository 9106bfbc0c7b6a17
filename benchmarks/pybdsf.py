"""PyBDSF in a process of its own: its Gaussians of a list of FITS images, as JSON.

``python -m benchmarks.pybdsf JOB.json`` reads ``{"images": [...], "options": {...}, "out": ...}``.
PyBDSF is called as its users call it, and never imported by the package.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import Cost, run_child

COLUMNS = ("ra", "dec", "x", "y", "peak_flux", "total_flux", "peak_flux_err", "total_flux_err", "snr")


def find_gaussians(
    images: Sequence[str | Path], **options: Any
) -> tuple[list[dict[str, NDArray]], list[float], Cost]:
    """Run PyBDSF on images one after the other.

    Parameters
    ----------
    images : sequence of path
        FITS with beam and frequency in the header.
    **options
        Of ``process_image``.

    Returns
    -------
    list of dict
        For each image its Gaussians: `COLUMNS` in deg, zero-based pixels, Jy/beam and Jy.
    list of float
        CPU seconds of each image, without start-up.
    Cost
        Of the process, start-up included.
    """
    with tempfile.TemporaryDirectory() as folder:
        job, out = Path(folder) / "job.json", Path(folder) / "out.json"
        content = {"images": [str(Path(p).resolve()) for p in images], "options": options, "out": str(out)}
        job.write_text(json.dumps(content))
        cost = run_child(["-m", "benchmarks.pybdsf", str(job)])
        results = json.loads(out.read_text())
    tables = [{name: np.array(table[name]) for name in COLUMNS} for table in results["tables"]]
    return tables, results["cpu"], cost


def _main(path: str) -> None:
    import bdsf

    job: Mapping[str, Any] = json.loads(Path(path).read_text())
    tables, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # it writes logs beside the image it is given
        for number, image in enumerate(job["images"]):
            link = Path(folder) / f"{number}.fits"
            link.symlink_to(image)
            start = time.process_time()
            result = bdsf.process_image(str(link), quiet=True, ncores=1, **job["options"])
            rows = [
                (
                    g.centre_sky[0] % 360.0,
                    g.centre_sky[1],
                    g.centre_pix[0],
                    g.centre_pix[1],
                    g.peak_flux,
                    g.total_flux,
                    g.peak_fluxE,
                    g.total_fluxE,
                    g.peak_flux / g.rms,
                )
                for g in result.gaussians
            ]
            columns = [[float(v) for v in column] for column in zip(*rows, strict=True)]
            tables.append(dict(zip(COLUMNS, columns or [[] for _ in COLUMNS], strict=True)))
            cpu.append(time.process_time() - start)
    Path(job["out"]).write_text(json.dumps({"tables": tables, "cpu": cpu}))


if __name__ == "__main__":
    _main(sys.argv[1])
