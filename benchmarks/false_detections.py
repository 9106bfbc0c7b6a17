"""Sources found where there is only noise.

Run: ``python -m benchmarks.false_detections [--images 5] [--size 4096] [--acf beam|psf] [--seed 101]``.

Pure noise of known autocorrelation, whose rms varies over the image. The expected number of maxima of
a continuous Gaussian field above u sigma is u exp(-u^2/2) (2 pi)^-1.5 |det C|^-0.5 an area, with C
the covariance of a Gaussian autocorrelation (Adler 1981, The Geometry of Random Fields); pixels
sample it, so fewer cross the threshold: the second figure counts 8-connected groups of pixels above
5 true rms in the same images. With ``--peer`` PyBDSF (5 and 3, rms box 120 and 30) sees them too.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage, stats

from benchmarks.pybdsf import find_gaussians
from benchmarks.reporting import Report, make_parser
from survey_ml.data.sky import write_image
from survey_ml.measure import measure_image
from survey_ml.simulation.geometry import measure_determinants
from survey_ml.simulation.sky import Recipe, SimulatedSky, simulate_sky

BAR = 2.0
"""False sources a million beams."""

THRESHOLD = 5.0


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--size", type=int, default=4096, help="side in pixels")
    parser.add_argument("--seed", type=int, default=101, help="of the first image")
    parser.add_argument("--acf", choices=["beam", "psf"], default="beam")
    parser.add_argument("--peer", action="store_true", help="PyBDSF on the same images")
    options = parser.parse_args()
    rows = []
    counts: dict[str, int] = {"survey_ml": 0, "pixel groups above 5 true rms": 0}
    beams = area = 0.0
    for seed in range(options.seed, options.seed + options.images):
        sky = simulate_sky(Recipe(options.size, seed, "noise", options.acf))
        measured = measure_image(sky.image, sky.field, {"seed_snr": THRESHOLD}, core=2048)
        found = {
            "survey_ml": len(measured["sources"]["x"]),
            "pixel groups above 5 true rms": ndimage.label(sky.image > THRESHOLD * sky.rms, np.ones((3, 3)))[
                1
            ],
        }
        if options.peer:
            found["PyBDSF"] = count_pybdsf(sky)
        for name, number in found.items():
            counts[name] = counts.get(name, 0) + number
        ratio = float(np.median(measured["rms"] / sky.rms))
        image_beams = sky.image.size / sky.field.beam_area
        rows.append({"seed": seed, "beams": image_beams, "rms / true": ratio, **found})
        beams += image_beams
        area += sky.image.size * (sky.recipe.pixel_scale / 3600.0) ** 2
    covariance = Recipe().beam_covariance * (1.0 if options.acf == "beam" else 2.0)
    maxima = (
        THRESHOLD
        * np.exp(-(THRESHOLD**2) / 2)
        * (2 * np.pi) ** -1.5
        / np.sqrt(measure_determinants(covariance))
    )
    expected = float(maxima) * Recipe().describe().beam_area * 1e6
    report = Report(
        "False detections in pure noise",
        {
            "images": options.images,
            "size": options.size,
            "first seed": options.seed,
            "autocorrelation": options.acf,
        },
    )
    report.add_table("images", rows)
    report.add_table("all", [rate(name, number, beams) for name, number in counts.items()])
    report.notes.append(
        f"{beams / 1e6:.2f} million beams, {area:.1f} deg^2; "
        f"maxima of a continuous field above {THRESHOLD:g} sigma: {expected:.2f} a million beams"
    )
    value = counts["survey_ml"] / beams * 1e6
    report.add_bar("false sources per million beams", value, f"< {BAR:g}", value < BAR)
    return report.finish(options.json)


def rate(name: str, number: int, beams: float) -> dict[str, Any]:
    """Return a count over a million beams with its 95 % Poisson interval (Garwood 1936)."""
    low = stats.chi2.ppf(0.025, 2 * number) / 2 if number else 0.0
    high = stats.chi2.ppf(0.975, 2 * number + 2) / 2
    return {
        "what": name,
        "n": number,
        "per million beams": number / beams * 1e6,
        "low": low / beams * 1e6,
        "high": high / beams * 1e6,
    }


def count_pybdsf(sky: SimulatedSky) -> int:
    """Return how many Gaussians PyBDSF finds."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_image(Path(folder) / "noise.fits", sky.image, sky.field)
        tables, _, _ = find_gaussians(
            [path], thresh="hard", thresh_pix=5.0, thresh_isl=3.0, rms_box=[120, 30], frequency=1.4e9
        )
    return len(tables[0]["ra"])


if __name__ == "__main__":
    sys.exit(main())
