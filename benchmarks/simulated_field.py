"""Simulated fields with a known truth: pulls, completeness, reliability, flux ratios.

Run: ``python -m benchmarks.simulated_field [--size 4096] [--seeds 11 12] [--acf beam|psf] [--peer]``.

Each seed gives two images of the recipe in `survey_ml.simulation`: isolated points on a grid, which
the pulls are taken from, and a realistic sky. Detections are paired one to one, nearest first,
within 4 px (6 on the grid), with true components above 2 sigma. Widths are half of the 16-84 %
range, intervals are 95 %; position scatter is in units of sigma of the beam over S/N, the least there
can be for noise correlated like the beam. With ``--peer`` PyBDSF (5 and 3, rms box 120 and 30) sees the first
realistic sky too.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.pybdsf import find_gaussians
from benchmarks.reporting import Report, make_parser
from survey_ml.data.sky import write_image
from survey_ml.measure import measure_image
from survey_ml.simulation.sky import Recipe, SimulatedSky, simulate_sky
from survey_ml.validation.completeness import measure_share
from survey_ml.validation.match import match_pixels
from survey_ml.validation.pulls import measure_spread
from survey_ml.validation.residual import measure_madfm

EDGES = (5.0, 7.0, 10.0, 20.0, 60.0, np.inf)
FINE = (4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0)
LEAST_TRUE_SNR = 2.0
ISOLATED = 10.0
CORE = 2048

Table = Mapping[str, NDArray]


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--size", type=int, default=4096, help="side in pixels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12])
    parser.add_argument("--acf", choices=["beam", "psf"], default="beam", help="noise autocorrelation")
    parser.add_argument("--peer", action="store_true", help="PyBDSF on the first realistic sky")
    options = parser.parse_args()
    report = Report(
        "Simulated fields",
        {"size": options.size, "seeds": options.seeds, "noise autocorrelation": options.acf},
    )
    grids = [observe(Recipe(options.size, seed, "grid", options.acf), 6.0) for seed in options.seeds]
    pulls, ratios = measure_points(grids)
    report.add_table("pulls of isolated points (grid): robust widths", pulls)
    report.add_table("flux and position of isolated points (grid)", ratios)
    for row in pulls:
        if row["low"] >= 7.0:
            for name in ("x", "y", "peak", "total"):
                width = row[name].width
                report.add_bar(
                    f"pull of {name}, S/N {row['low']:g}-{row['high']:g} (n {row['n']})",
                    row[name],
                    "0.8-1.25",
                    0.8 <= width <= 1.25,
                )
    skies = [observe(Recipe(options.size, seed, "sky", options.acf), 4.0) for seed in options.seeds]
    lists = {"survey_ml": (skies, list(range(len(skies))))}
    if options.peer:
        lists["PyBDSF"] = ([observe_pybdsf(Recipe(options.size, options.seeds[0], "sky", options.acf))], [0])
    for name, (results, _) in lists.items():
        report.add_table(f"{name}, realistic sky", [summarise(results)])
        report.add_table(f"{name}, completeness of isolated points", [detail(results)])
    isolated, more = measure_points(skies)
    report.add_table("pulls of isolated points (realistic sky)", isolated)
    report.add_table("flux and position of isolated points (realistic sky)", more)
    report.add_table("maps", [grade_maps(sky) for sky in skies])
    return report.finish(options.json)


def observe(recipe: Recipe, radius: float) -> dict[str, Any]:
    """Simulate, measure and match one image."""
    sky = simulate_sky(recipe)
    measured = measure_image(sky.image, sky.field, core=CORE)
    inside = np.isfinite(sky.image)
    return {
        "seed": recipe.seed,
        "madfm": measure_madfm((measured["residual"] / sky.rms)[inside]),
        "rms ratio": measure_spread((measured["rms"] / sky.rms)[inside][::101]),
        **pair(measured["components"], sky, radius),
    }


def observe_pybdsf(recipe: Recipe) -> dict[str, Any]:
    """Simulate one image and match what PyBDSF finds in it."""
    sky = simulate_sky(recipe)
    with tempfile.TemporaryDirectory() as folder:
        path = write_image(Path(folder) / "sky.fits", sky.image, sky.field)
        tables, _, _ = find_gaussians(
            [path], thresh="hard", thresh_pix=5.0, thresh_isl=3.0, rms_box=[120, 30], frequency=1.4e9
        )
    return {"seed": recipe.seed, **pair(tables[0], sky, 4.0)}


def pair(table: Table, sky: SimulatedSky, radius: float) -> dict[str, Any]:
    """Match components to the truth; keep what the figures need."""
    usable = sky.truth["snr"] > LEAST_TRUE_SNR
    truth = {name: values[usable] for name, values in sky.truth.items()}
    places = (np.stack([np.asarray(t["x"]), np.asarray(t["y"])], axis=1) for t in (table, truth))
    match = match_pixels(*places, radius)
    found = np.zeros(len(truth["x"]), dtype=bool)
    found[match.second] = True
    return {
        "table": table, "truth": truth, "first": match.first, "second": match.second, "found": found,
        "scale": sky.recipe.pixel_scale, "beam": sky.recipe.beam_covariance,
    }  # fmt: skip


def measure_points(results: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return pulls, and flux ratios with position scatter, of isolated points."""
    columns: dict[str, list[NDArray]] = {}
    for result in results:
        table, truth = result["table"], result["truth"]
        chosen = (truth["isolation"][result["second"]] > ISOLATED) & (
            truth["kind"][result["second"]] == "point"
        )
        i, j = result["first"][chosen], result["second"][chosen]
        dx, dy = table["x"][i] - truth["x"][j], table["y"][i] - truth["y"][j]
        bound = np.sqrt(np.array([result["beam"][0], result["beam"][2]])) / truth["snr"][j][:, None]
        for name, values in {
            "snr": truth["snr"][j],
            "x": dx * result["scale"] / (table["ra_err"][i] * 3600.0),
            "y": dy * result["scale"] / (table["dec_err"][i] * 3600.0),
            "peak": (table["peak_flux"][i] - truth["peak_flux"][j]) / table["peak_flux_err"][i],
            "total": (table["total_flux"][i] - truth["total_flux"][j]) / table["total_flux_err"][i],
            "peak ratio": table["peak_flux"][i] / truth["peak_flux"][j],
            "total ratio": table["total_flux"][i] / truth["total_flux"][j],
            "total scatter": (table["total_flux"][i] - truth["total_flux"][j]) / truth["local_rms"][j],
            "x bound": dx / bound[:, 0],
            "y bound": dy / bound[:, 1],
        }.items():
            columns.setdefault(name, []).append(values)
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    pulls, ratios = [], []
    for low, high in pairwise(EDGES):
        chosen = (joined["snr"] >= low) & (joined["snr"] < high)
        place = {"low": low, "high": high, "n": int(chosen.sum())}
        pulls.append({**place, **{k: measure_spread(joined[k][chosen]) for k in ("x", "y", "peak", "total")}})
        some = chosen.any()
        ratios.append(
            {
                **place,
                **{
                    k: float(np.median(joined[k][chosen])) if some else np.nan
                    for k in ("peak ratio", "total ratio")
                },
                "total scatter / rms": measure_spread(joined["total scatter"][chosen]).width,
                "x scatter S/N / sigma": measure_spread(joined["x bound"][chosen]).width,
                "y scatter S/N / sigma": measure_spread(joined["y bound"][chosen]).width,
            }
        )
    return pulls, ratios


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return completeness by kind and reliability over several images."""
    truth = {k: np.concatenate([r["truth"][k] for r in results]) for k in ("snr", "kind")}
    found = np.concatenate([r["found"] for r in results])
    n = sum(len(r["table"]["x"]) for r in results)
    matched = sum(r["first"].size for r in results)
    row: dict[str, Any] = {"components": n}
    for least in (5.0, 7.0, 10.0):
        row[f"complete > {least:g}"] = measure_share(found[truth["snr"] > least])
    for kind in ("point", "resolved", "lobe"):
        row[f"{kind} > 7"] = measure_share(found[(truth["snr"] > 7.0) & (truth["kind"] == kind)])
    row["reliability"] = measure_share(np.arange(n) < matched)
    row["unmatched"] = n - matched
    return row


def detail(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the completeness of isolated points near the threshold."""
    truth = {k: np.concatenate([r["truth"][k] for r in results]) for k in ("snr", "kind", "isolation")}
    found = np.concatenate([r["found"] for r in results])
    point = (truth["kind"] == "point") & (truth["isolation"] > ISOLATED)
    return {
        f"{low:g}-{high:g}": measure_share(found[point & (truth["snr"] >= low) & (truth["snr"] < high)])
        for low, high in pairwise(FINE)
    }


def grade_maps(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the rms map compares with the true one, and what the model leaves."""
    spread = result["rms ratio"]
    return {
        "seed": result["seed"],
        "rms map / true, median": spread.median,
        "half 16-84 %": spread.width,
        "residual MADFM / true rms": result["madfm"],
    }


if __name__ == "__main__":
    sys.exit(main())
