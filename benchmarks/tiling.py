"""One tile, four and sixty-four give the same catalogue.

Run: ``python -m benchmarks.tiling [--size 4096] [--seed 21]``.

A realistic sky with a NaN border, a slit and a hole, measured with cores of the whole image, of
half and of an eighth of its side. The rows must have the same numbers, positions to 1e-3 px and
fluxes to 1e-4 of themselves.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reporting import Report, make_parser
from survey_ml.measure import measure_image
from survey_ml.simulation.sky import Recipe, simulate_sky

TABLES = {"components": "component_id", "sources": "source_id", "islands": "island_id"}


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--size", type=int, default=4096, help="side in pixels")
    parser.add_argument("--seed", type=int, default=21)
    options = parser.parse_args()
    sky = simulate_sky(Recipe(options.size, options.seed, blank=True))
    report = Report("Tiling", {"size": options.size, "seed": options.seed})
    results, rows = {}, []
    for split in (1, 2, 8):
        start = time.process_time()
        results[split] = measure_image(sky.image, sky.field, core=-(-options.size // split))
        rows.append(
            {
                "tiles": split * split,
                "CPU s": time.process_time() - start,
                **{name: len(results[split][name]["island_id"]) for name in TABLES},
            }
        )
    report.add_table("runs (the first includes compilation)", rows)
    differences = []
    for split in (2, 8):
        for name, key in TABLES.items():
            result = compare(results[1][name], results[split][name], key)
            differences.append({"tiles": split * split, "table": name, **result})
            report.add_bar(
                f"{split * split} tiles, {name}: rows that differ", result["missing"] + result["extra"], "0",
                result["missing"] + result["extra"] == 0,
            )  # fmt: skip
            if name != "islands":
                report.add_bar(
                    f"{split * split} tiles, {name}: largest shift, px",
                    result["position"],
                    "<= 1e-3",
                    result["position"] <= 1e-3,
                )
            report.add_bar(
                f"{split * split} tiles, {name}: largest change of flux",
                result["flux"],
                "<= 1e-4",
                result["flux"] <= 1e-4,
            )
    report.add_table("against one tile", differences)
    return report.finish(options.json)


def compare(one: Mapping[str, NDArray], other: Mapping[str, NDArray], key: str) -> dict[str, Any]:
    """Compare two tables row by row, by number."""
    ids, rows, others = np.intersect1d(one[key], other[key], return_indices=True)
    shift = change = 0.0
    if ids.size:
        if "x" in one:
            shift = float(
                np.hypot(one["x"][rows] - other["x"][others], one["y"][rows] - other["y"][others]).max()
            )
        for name in ("peak_flux", "total_flux"):
            a, b = one[name][rows], other[name][others]
            change = max(change, float(np.nanmax(np.abs(a - b) / np.abs(a))))
    return {
        "same": ids.size,
        "missing": len(one[key]) - ids.size,
        "extra": len(other[key]) - ids.size,
        "position": shift,
        "flux": change,
    }


if __name__ == "__main__":
    sys.exit(main())
