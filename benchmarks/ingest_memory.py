"""Peak memory of ingest against the size of the field.

    python benchmarks/ingest_memory.py [--sizes 2048 20000] [--kind plain|rice] [--folder DIR]

For each size a FITS image of noise is written block by block, then ingested tile by tile in a
process of its own, whose peak resident memory and CPU time are printed. Needs about 3 GB of disk
for 20,000 x 20,000 px. Files compressed row by row (rice) also hold the rows of one row of tiles,
at most 96 MiB of pixels however large the field.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CORE = 1024

INGEST = """
import json, resource, sys
from pathlib import Path
from survey_ml.config import LoadedConfig, ReleaseConfig
from survey_ml.data.commit import Unit, write_commit
from survey_ml.data.ingest import check_field, ingest_tile
from survey_ml.data.inputs import find_sources
from survey_ml.data.store import ReleaseStore
from survey_ml.field import split_tiles
from survey_ml.products import array

def peak():
    # The maximum of this program: ru_maxrss would inherit that of the one that started it.
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) / 1024

path, out, core = sys.argv[1], sys.argv[2], int(sys.argv[3])
release = ReleaseConfig(name="memory", fields=(path,), out=out)
config = LoadedConfig(release=release, base=Path("/"), out=out, source="")
(source,), aside = find_sources(config)
store = ReleaseStore.create(out, config)
store.register(source.field, source, core)
store.declare(source.field.name, array("image"))
before, summaries = peak(), []
for tile in split_tiles(source.field.shape, core, 0):
    pixels, summary = ingest_tile(source, tile)
    unit = Unit(source.field.name, "ingest", tile.name)
    write_commit(store, unit, "0" * 64, made_by={}, tile=tile, arrays={"image": pixels})
    summaries.append(summary)
assert check_field(source.field.name, summaries) is None
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"before": before, "peak": peak(), "cpu": usage.ru_utime + usage.ru_stime,
                  "tiles": len(summaries), "finite": sum(item["n_finite"] for item in summaries)}))
"""


def write_field(path: Path, size: int, kind: str) -> None:
    """Write a FITS image of noise without holding it in memory (plain) or in one go (rice)."""
    import numpy as np
    from astropy.io import fits

    header = fits.Header()
    header.update({"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, "NAXIS1": size, "NAXIS2": size})
    for axis, kind_of_axis, value, step in ((1, "RA---SIN", 150.0, -5e-4), (2, "DEC--SIN", 2.0, 5e-4)):
        header.update({f"CTYPE{axis}": kind_of_axis, f"CRVAL{axis}": value, f"CRPIX{axis}": size / 2})
        header.update({f"CDELT{axis}": step, f"CUNIT{axis}": "deg"})
    header.update({"BUNIT": "Jy/beam", "BMAJ": 1.5e-3, "BMIN": 1.5e-3, "BPA": 0.0})
    random = np.random.default_rng(1)
    if kind == "rice":
        values = random.standard_normal((size, size), dtype=np.float32)
        image = fits.CompImageHDU(values, header, compression_type="RICE_1", quantize_level=16)
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
        return
    with path.open("wb") as file:
        file.write(header.tostring(padding=True).encode())
        for start in range(0, size, 500):
            rows = random.standard_normal((min(500, size - start), size), dtype=np.float32)
            file.write(rows.astype(">f4").tobytes())
        file.write(bytes(-file.tell() % 2880))


def measure(folder: Path, size: int, kind: str) -> dict[str, float]:
    """Write and ingest one field, each in a process of its own, and return what was measured."""
    path = folder / f"field{size}.fits{'.fz' if kind == 'rice' else ''}"
    writer = f"from ingest_memory import *; write_field(Path({str(path)!r}), {size}, {kind!r})"
    subprocess.run([sys.executable, "-c", writer], check=True, cwd=Path(__file__).parent)
    answer = subprocess.run(
        [sys.executable, "-c", INGEST, str(path), str(folder / f"out{size}"), str(CORE)],
        check=True,
        capture_output=True,
        text=True,
    )
    path.unlink()
    return json.loads(answer.stdout)


def main() -> None:
    """Print a table and the growth of peak memory from the smallest to the largest field."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 20000])
    parser.add_argument("--kind", choices=["plain", "rice"], default="plain")
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    peaks = {}
    print(f"{'field':>15} {'file':>9} {'tiles':>6} {'at start':>9} {'peak':>9} {'CPU':>8} {'Mpx/CPU s':>10}")
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found = measure(Path(folder), size, options.kind)
        peaks[size] = found["peak"]
        print(
            f"{size:>7} x {size:<5} {size * size * 4 / 1e6:>6.0f} MB {found['tiles']:>6.0f} "
            f"{found['before']:>6.0f} MB {found['peak']:>6.0f} MB {found['cpu']:>6.1f} s "
            f"{size * size / 1e6 / found['cpu']:>10.1f}"
        )
    first, last = min(peaks), max(peaks)
    print(f"{(last / first) ** 2:.0f} times the pixels, {peaks[last] / peaks[first]:.2f} times the memory")


if __name__ == "__main__":
    main()
