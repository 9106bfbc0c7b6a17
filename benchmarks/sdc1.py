"""The SKA data challenge 1 training tile against its truth, beside the published PyBDSF lists.

Run: ``python -m benchmarks.sdc1 [--radius 0.75]``.

The image is not corrected for the primary beam, so the true fluxes are multiplied by the beam at
their place. A true source's signal to noise is its peak after convolution over the median island
rms of the published list, one value for everybody. Detections are paired one to one, nearest first,
with true sources above 2 sigma; completeness is that of true sources above 5 sigma, reliability that
of detections above 5 sigma. With sources this dense some pairs are chance: the same match after a
shift of the catalogue says how many.

"survey_ml" is the default. The challenge put its sources, all of them a little wider than a point, on
pixels: nothing in the image is as narrow as the beam. "shaped" is told so by ``point_arcsec``, with
the size found in the image itself; all else is the default.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.realdata import find_data, read_field
from benchmarks.reporting import Report, make_parser
from survey_ml.config import Defaults
from survey_ml.field import Field
from survey_ml.measure import measure_image
from survey_ml.stages.extraction.options import ExtractionOptions
from survey_ml.stages.extraction.settings import BLENDED, EDGE, MOMENTS, TRUNCATED
from survey_ml.validation.completeness import measure_share
from survey_ml.validation.match import match_sky
from survey_ml.validation.pulls import measure_spread

NAME = "B1_1000h_0.3tr"
SNR_EDGES = (5.0, 7.0, 10.0, 20.0, 50.0, np.inf)
LEAST_TRUE_SNR = 2.0
MARGIN = 5.0
"""Pixels; true sources this far outside still explain what is found at the edge."""
SHIFT = 15.0 / 3600.0
"""Degrees that a catalogue is moved by to count chance pairs."""

Table = dict[str, NDArray[np.float64]]


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--radius", type=float, default=0.75, help="arcsec; half the beam by default")
    options = parser.parse_args()
    folder = find_data("radio_tiles", "sdc1")
    field, image = read_field(folder / f"{NAME}.fits", NAME, Defaults(beam_arcsec=(1.5, 1.5, 0.0)))
    lists = {
        kind: read_list(folder / f"{NAME}.pybdsm.{suffix}")
        for kind, suffix in (("gaul", "gaul"), ("srl", "srl"))
    }
    rms = float(np.median(lists["gaul"]["local_rms"]))
    truth = read_truth(folder, field.beam.major, rms, field.wcs, field.shape)
    measured = measure_image(image, field)
    size = find_point_size(image, field)
    shaped = measure_image(image, field, ExtractionOptions(point_arcsec=(size, size, 0.0)))
    finders = {
        "survey_ml components": measured["components"],
        "survey_ml sources": measured["sources"],
        "shaped components": shaped["components"],
        "shaped sources": shaped["sources"],
        "PyBDSF gaul": lists["gaul"],
        "PyBDSF srl": lists["srl"],
    }
    report = Report(
        "SDC1 B1 1000 h training tile",
        {
            "radius": options.radius,
            "rms": rms,
            "point_arcsec of shaped": round(size, 3),
            "true above 5 sigma": int(((truth["snr"] > 5) & (truth["inside"] > 0)).sum()),
        },
    )
    scores = {name: score(table, truth, rms, options.radius) for name, table in finders.items()}
    report.add_table("all", [{"list": name, **s["all"]} for name, s in scores.items()])
    report.add_table(
        "completeness by true signal to noise", [{"list": n, **s["bins"]} for n, s in scores.items()]
    )
    for kind in (f"{how} {what}" for how in ("survey_ml", "shaped") for what in ("components", "sources")):
        ours, theirs = kind, "PyBDSF gaul" if kind.endswith("components") else "PyBDSF srl"
        both = scores[ours]["found"] & scores[theirs]["found"]
        rows = [{"list": n, **compare(finders[n], truth, scores[n], both)} for n in (ours, theirs)]
        report.add_table(f"true sources above 7 sigma that both find: {kind}", rows)
        mine, peer = scores[ours]["all"], scores[theirs]["all"]
        for key in ("completeness", "reliability"):
            report.add_bar(
                f"{kind}: {key}",
                mine[key],
                f">= PyBDSF's {peer[key].value:.4f}",
                mine[key].value >= peer[key].value,
            )
        for key in ("scatter x", "scatter y"):
            report.add_bar(
                f"{kind}: position {key}, arcsec", rows[0][key], f"<= PyBDSF's {rows[1][key].width:.4f}",
                rows[0][key].width <= rows[1][key].width,
            )  # fmt: skip
        off = [abs(row["total ratio"] - 1.0) for row in rows]
        report.add_bar(
            f"{kind}: flux bias",
            rows[0]["total ratio"],
            f"within PyBDSF's {off[1]:.4f} of 1",
            off[0] <= off[1],
        )
    return report.finish(options.json)


def find_point_size(image: NDArray[np.float32], field: Field) -> float:
    """Return the typical FWHM in arcsec of what is compact in the image, which is not quite the beam.

    Median of the geometric mean axis of unblended components above 10 sigma, each with a shape of
    its own. The truth has no part in it.
    """
    free = measure_image(image, field, ExtractionOptions(free_shape_sigma=0.01))["components"]
    size = np.sqrt(np.asarray(free["major"]) * np.asarray(free["minor"]))
    alone = (np.asarray(free["flags"]) & (BLENDED | EDGE | TRUNCATED | MOMENTS)) == 0
    return float(np.median(size[alone & (np.asarray(free["snr"]) > 10.0) & (size < 2.0 * field.beam.major)]))


def read_list(path: Path) -> Table:
    """Read a PyBDSF text list."""
    lines = path.read_text().splitlines()
    names = next(line for line in lines if "E_RA" in line).lstrip("# ").split()
    rows = [line.split()[:-1] for line in lines if line.strip() and not line.startswith("#")]
    values = dict(zip(names[:-1], np.array(rows, dtype=np.float64).T, strict=True))
    return {
        "ra": values["RA"],
        "dec": values["DEC"],
        "peak_flux": values["Peak_flux"],
        "total_flux": values["Total_flux"],
        "local_rms": values["Isl_rms"],
        "snr": values["Peak_flux"] / values["Isl_rms"],
    }


def read_truth(folder: Path, beam: float, rms: float, wcs: Any, shape: tuple[int, int]) -> Table:
    """Read the truth: apparent fluxes, and peaks after convolution with the beam."""
    from astropy.io import fits
    from astropy.wcs import WCS

    rows = np.loadtxt(folder / "truth_B1_0.3tr.cat")
    ra, dec, flux = rows[:, 3] % 360.0, rows[:, 4], rows[:, 5]
    major, minor = rows[:, 7], rows[:, 8]
    with fits.open(folder / "PrimaryBeam_B1.fits") as opened:
        plane = np.squeeze(opened[0].data).astype(np.float64)
        grid = WCS(opened[0].header).celestial
    x, y = grid.all_world2pix(ra, dec, 0)
    apparent = flux * ndimage.map_coordinates(plane, [y, x], order=3, mode="nearest")
    peak = apparent * beam**2 / np.sqrt((beam**2 + major**2) * (beam**2 + minor**2))
    px, py = wcs.all_world2pix(ra, dec, 0)
    near = (px > -MARGIN) & (py > -MARGIN) & (px < shape[1] - 1 + MARGIN) & (py < shape[0] - 1 + MARGIN)
    inside = (px > 0) & (py > 0) & (px < shape[1] - 1) & (py < shape[0] - 1)
    table = {
        "ra": ra, "dec": dec, "total_flux": apparent, "peak_flux": peak, "snr": peak / rms,
        "major": major, "gaussian": (rows[:, 10] == 2).astype(np.float64),
        "inside": inside.astype(np.float64),
    }  # fmt: skip
    return {name: values[near] for name, values in table.items()}


def cut(table: Table, n: int) -> Table:
    """Return the n rows with the largest peaks."""
    order = np.argsort(-np.asarray(table["peak_flux"]), kind="stable")[:n]
    return {name: np.asarray(values)[order] for name, values in table.items()}


def score(table: Table, truth: Table, rms: float, radius: float) -> dict[str, Any]:
    """Match one list and measure completeness and reliability above 5 sigma."""
    listed = np.flatnonzero(np.asarray(table["peak_flux"]) / rms >= 5.0)
    usable = np.flatnonzero(truth["snr"] > LEAST_TRUE_SNR)
    ra, dec = np.asarray(table["ra"])[listed], np.asarray(table["dec"])[listed]
    pairs = match_sky(ra, dec, truth["ra"][usable], truth["dec"][usable], radius)
    chance = match_sky(ra, dec + SHIFT, truth["ra"][usable], truth["dec"][usable], radius)
    row = np.full(len(truth["ra"]), -1)
    row[usable[pairs.second]] = listed[pairs.first]
    real = np.zeros(listed.size, dtype=bool)
    real[pairs.first] = True
    found = row >= 0
    inside = truth["inside"] > 0
    bins = {
        f"{low:g}-{high:g}": measure_share(found[inside & (truth["snr"] >= low) & (truth["snr"] < high)])
        for low, high in pairwise(SNR_EDGES)
    }
    summary = {
        "n": listed.size,
        "completeness": measure_share(found[inside & (truth["snr"] >= 5.0)]),
        "reliability": measure_share(real),
        "chance pairs": chance.first.size / max(1, listed.size),
    }
    return {"row": row, "found": found, "bins": bins, "all": summary}


def compare(table: Table, truth: Table, result: dict[str, Any], both: NDArray[np.bool_]) -> dict[str, Any]:
    """Measure position scatter and flux ratios of the true sources that both lists have."""
    chosen = both & (truth["snr"] >= 7.0) & (truth["gaussian"] > 0) & (truth["major"] < 3.0)
    row = result["row"][chosen]
    east = (np.asarray(table["ra"])[row] - truth["ra"][chosen] + 180.0) % 360.0 - 180.0
    east *= np.cos(np.radians(truth["dec"][chosen])) * 3600.0
    north = (np.asarray(table["dec"])[row] - truth["dec"][chosen]) * 3600.0
    total = np.asarray(table["total_flux"])[row] / truth["total_flux"][chosen]
    peak = np.asarray(table["peak_flux"])[row] / truth["peak_flux"][chosen]
    return {
        "n": row.size,
        "scatter x": measure_spread(east),
        "scatter y": measure_spread(north),
        "total ratio": float(np.median(total)),
        "total half 16-84 %": measure_spread(total),
        "peak ratio": float(np.median(peak)),
    }


if __name__ == "__main__":
    sys.exit(main())
