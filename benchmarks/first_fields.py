"""Real FIRST fields against the published FIRST catalogue, beside PyBDSF.

Run: ``python -m benchmarks.first_fields [--n 100] [--seed 1] [--through finder|run]
[--whole] [--no-peer]``.

Entries: peak above 3 mJy, p_sidelobe below 0.1, 6 px from the edge; 0.25 mJy of CLEAN bias is taken
off the catalogue's peaks. An entry is found within a radius when any component lies within it. The
catalogue lists sizes without the beam; entries count as compact by that size, and "fitted" are those
whose size with the beam is as small.
PyBDSF sees the same pixels, with the beam and the frequency in the header, thresholds 5 and 3, rms
box 80 and 20. With ``--through run`` our side is ``survey-ml run --engine local``, store and all;
``--n 600`` takes every field. With ``--whole`` our side fits poorly described islands as a whole, as the
makers of the catalogue did (``whole_chi2`` of 2).
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from benchmarks.processes import run_child
from benchmarks.pybdsf import find_gaussians
from benchmarks.realdata import find_data, read_field
from benchmarks.reporting import Report, make_parser
from survey_ml.config import Defaults
from survey_ml.measure import measure_image
from survey_ml.stages.extraction.options import ExtractionOptions
from survey_ml.validation.completeness import measure_share
from survey_ml.validation.match import find_nearest
from survey_ml.validation.pulls import measure_width

BEAM = (5.4, 5.4, 0.0)
CLEAN_BIAS = 0.25e-3
EDGE = 6
WHOLE = {"whole_chi2": 2.0}
COMPACT = 6.5
BINS = ((3.0, 5.0), (5.0, 10.0), (10.0, 30.0), (30.0, np.inf))

Table = dict[str, NDArray]


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--n", type=int, default=100, help="fields, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--through", choices=["finder", "run"], default="finder")
    parser.add_argument("--whole", action="store_true", help="our side with whole_chi2 of 2")
    parser.add_argument("--no-peer", action="store_true", help="leave PyBDSF out")
    options = parser.parse_args()
    folder = find_data("first_fields")
    paths = choose_fields(folder, options.n, options.seed)
    entries = read_entries(folder / "first_catalogue.csv", {p.name.removesuffix(".fz") for p in paths})
    report = Report(
        "FIRST fields",
        {
            "fields": len(paths),
            "seed": options.seed,
            "entries": len(entries["ra"]),
            "through": options.through,
            "whole": options.whole,
        },
    )
    finders: dict[str, dict[str, Table]] = {}
    run_all = run_release if options.through == "run" else run_finder
    finders["survey_ml"], ours = run_all(paths, WHOLE if options.whole else {})
    costs = [{"finder": "survey_ml", "CPU s a field": ours / len(paths), "CPU s": ours}]
    if not options.no_peer:
        finders["PyBDSF"], theirs = run_pybdsf(paths)
        costs.append({"finder": "PyBDSF", "CPU s a field": theirs / len(paths), "CPU s": theirs})
    scores = {name: score(tables, entries) for name, tables in finders.items()}
    for name, result in scores.items():
        report.add_table(f"{name} against the FIRST catalogue", result["rows"])
    report.add_table("cost, start-up included", costs)
    own = scores["survey_ml"]
    report.add_bar(
        "fields finished", len(finders["survey_ml"]), f"{len(paths)}", len(finders["survey_ml"]) == len(paths)
    )
    report.add_bar("compact within 2 arcsec", own["compact"], ">= 0.99", own["compact"].value >= 0.99)
    report.add_bar(
        "fitted axis below 6.5 arcsec, within 2 arcsec", own["fitted"], ">= 0.99", own["fitted"].value >= 0.99
    )
    report.add_bar("compact median peak ratio", own["ratio"], "0.99-1.01", 0.99 <= own["ratio"] <= 1.01)
    if "PyBDSF" in scores:
        peer = scores["PyBDSF"]
        for key, what in (("near", "all within 2 arcsec"), ("wide", "all within 5 arcsec")):
            report.add_bar(what, own[key], f">= PyBDSF's {peer[key].value:.4f}", own[key].k >= peer[key].k)
        report.add_bar(
            "CPU s a field", ours / len(paths), f"<= PyBDSF's {theirs / len(paths):.3g}", ours <= theirs
        )
    return report.finish(options.json)


def choose_fields(folder: Path, n: int, seed: int) -> list[Path]:
    """Return n of the fields, drawn by the seed, in order of name."""
    paths = sorted(folder.glob("*.fits.fz"))
    order = np.random.default_rng(seed).permutation(len(paths))[:n]
    return [paths[k] for k in sorted(order)]


def read_entries(path: Path, names: set[str]) -> Table:
    """Read the catalogue entries that are compared."""
    rows = []
    with path.open() as file:
        for row in csv.DictReader(file):
            x, y = float(row["x_pix"]), float(row["y_pix"])
            inside = all(EDGE <= v <= 299 - EDGE for v in (x, y))
            good = float(row["peak_mjy"]) > 3.0 and float(row["p_sidelobe"]) < 0.1
            if row["fits_file"] in names and inside and good:
                rows.append(row)
    table = {
        name: np.array([float(row[key]) for row in rows])
        for name, key in (
            ("ra", "ra"),
            ("dec", "dec"),
            ("peak", "peak_mjy"),
            ("total", "int_mjy"),
            ("major", "maj_arcsec"),
        )
    }
    return {**table, "field": np.array([row["fits_file"] for row in rows])}


def run_finder(paths: list[Path], extraction: dict[str, float]) -> tuple[dict[str, Table], float]:
    """Measure each field with our stages in this process."""
    defaults = Defaults(beam_arcsec=BEAM, frequency_hz=1.4e9)
    start = time.process_time()
    found = {}
    for path in paths:
        name = path.name.removesuffix(".fz")
        field, image = read_field(path, name, defaults)
        found[name] = measure_image(image, field, ExtractionOptions(**extraction))["components"]
    return found, time.process_time() - start


def run_release(paths: list[Path], extraction: dict[str, float]) -> tuple[dict[str, Table], float]:
    """Process the fields as a release with the local engine."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "fields").mkdir()
        for path in paths:
            (base / "fields" / path.name).symlink_to(path.resolve())
        (base / "release.yaml").write_text(
            'name: first-fields\nfields: ["fields/*.fits.fz"]\n'
            "defaults: {beam_arcsec: [5.4, 5.4, 0.0], frequency_hz: 1.4e9, unit: Jy/beam}\nout: out\n"
            f"stages: {json.dumps({'extraction': extraction})}\n"
        )
        cost = run_child(["-m", "survey_ml.cli", "run", str(base / "release.yaml"), "--engine", "local"])
        rows = pq.read_table(base / "out" / "catalogue" / "components.parquet").to_pydict()
    table = {name: np.array(rows[name]) for name in ("ra", "dec", "peak_flux", "total_flux", "field")}
    found = {}
    for path in paths:
        name = path.name.removesuffix(".fz")
        mine = table["field"] == name.removesuffix(".fits")
        found[name] = {key: values[mine] for key, values in table.items()}
    return found, cost.cpu


def run_pybdsf(paths: list[Path]) -> tuple[dict[str, Table], float]:
    """Run PyBDSF on copies with beam and frequency in the header."""
    with tempfile.TemporaryDirectory() as folder:
        copies = []
        for path in paths:
            with fits.open(path) as opened:
                image = next(hdu for hdu in opened if hdu.header.get("NAXIS", 0) == 2)
                header = image.header.copy()
                for key, value in zip(
                    ("BMAJ", "BMIN", "BPA"), (BEAM[0] / 3600, BEAM[1] / 3600, BEAM[2]), strict=True
                ):
                    header[key] = value
                header["RESTFRQ"] = 1.4e9
                copy = Path(folder) / path.name.removesuffix(".fz")
                for card in ("COMMENT", "HISTORY"):
                    header.remove(card, ignore_missing=True, remove_all=True)
                fits.PrimaryHDU(image.data.astype(np.float32), header).writeto(copy)
                copies.append(copy)
        tables, _, cost = find_gaussians(
            copies, thresh="hard", thresh_pix=5.0, thresh_isl=3.0, rms_box=[80, 20], frequency=1.4e9,
            beam=[BEAM[0] / 3600, BEAM[1] / 3600, BEAM[2]],
        )  # fmt: skip
    return {copy.name: table for copy, table in zip(copies, tables, strict=True)}, cost.cpu


def score(found: dict[str, Table], entries: Table) -> dict[str, Any]:
    """Compare one finder's components with the catalogue entries."""
    n = len(entries["ra"])
    distance = np.full(n, np.inf)
    peak, total = np.full(n, np.nan), np.full(n, np.nan)
    for name in np.unique(entries["field"]):
        mine = np.flatnonzero(entries["field"] == name)
        table = found.get(name)
        if table is None or not len(table["ra"]):
            continue
        row, away = find_nearest(entries["ra"][mine], entries["dec"][mine], table["ra"], table["dec"])
        distance[mine] = away
        peak[mine], total[mine] = table["peak_flux"][row], table["total_flux"][row]
    compact = entries["major"] < COMPACT
    fitted = np.hypot(entries["major"], BEAM[0]) < COMPACT
    true_peak = entries["peak"] * 1e-3 - CLEAN_BIAS
    groups = [
        (f"{low:g}-{high:g} mJy", (entries["peak"] >= low) & (entries["peak"] < high)) for low, high in BINS
    ]
    rows = []
    for label, chosen in [
        *groups,
        ("all", np.ones(n, bool)),
        ("compact", compact),
        ("fitted", fitted),
        ("extended", ~compact),
    ]:
        near = chosen & (distance <= 5.0)
        ratio = peak[near] / true_peak[near]
        point = near & compact & (distance <= 2.0)
        rows.append(
            {
                "entries": label,
                "n": int(chosen.sum()),
                "within 2": measure_share(distance[chosen] <= 2.0),
                "within 5": measure_share(distance[chosen] <= 5.0),
                "peak ratio": float(np.median(ratio)) if ratio.size else np.nan,
                "half 16-84 %": float(measure_width(ratio)) if ratio.size else np.nan,
                "compact peak ratio": float(np.median(peak[point] / true_peak[point]))
                if point.any()
                else np.nan,
                "total ratio": float(np.median(total[near] / entries["total"][near] * 1e3))
                if ratio.size
                else np.nan,
            }
        )
    point = compact & (distance <= 2.0)
    return {
        "rows": rows,
        "near": measure_share(distance <= 2.0),
        "wide": measure_share(distance <= 5.0),
        "compact": measure_share(distance[compact] <= 2.0),
        "fitted": measure_share(distance[fitted] <= 2.0),
        "ratio": float(np.median(peak[point] / true_peak[point])),
    }


if __name__ == "__main__":
    sys.exit(main())
