"""How many tiles each stage did, and how long they took."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, make_table
from survey_ml.report.style import BLUE, ORANGE, format_seconds, format_value, make_figure


def show_timings(context: Context) -> Panel | None:
    """Return units, time and memory by stage."""
    if not context.commits:
        return None
    seconds: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, float] = defaultdict(float)
    memory: dict[str, int] = defaultdict(int)
    workers: dict[str, set[str]] = defaultdict(set)
    first: dict[str, str] = {}
    for unit, commit in context.commits.items():
        seconds[unit.stage].append(float(commit.info.get("seconds", np.nan)))
        cpu[unit.stage] += float(commit.info.get("cpu_seconds", 0.0))
        memory[unit.stage] = max(memory[unit.stage], int(commit.info.get("peak_memory_bytes", 0)))
        workers[unit.stage].add(str(commit.info.get("worker", "")))
        finished = str(commit.info.get("finished", ""))
        first[unit.stage] = min(first.get(unit.stage, finished), finished)
    order = sorted(seconds, key=lambda stage: (first[stage], stage))
    rows = []
    for stage in order:
        times = np.array(seconds[stage])
        rows.append(
            (
                stage,
                format_value(len(times)),
                format_seconds(float(np.nansum(times))),
                format_seconds(cpu[stage]) if cpu[stage] else "–",
                f"{np.nanmedian(times):.3g}" if np.isfinite(times).any() else "–",
                f"{np.nanmax(times):.3g}" if np.isfinite(times).any() else "–",
                f"{memory[stage] / 2**20:,.0f}" if memory[stage] else "–",
                format_value(len(workers[stage])),
            )
        )
    header = (
        "Stage",
        "Units",
        "Worker time",
        "CPU time",
        "Median (s)",
        "Longest (s)",
        "Peak memory (MiB)",
        "Workers",
    )
    table = make_table(header, rows, numeric=range(1, 8))
    figure, (left, right) = make_figure(1, 2, height=0.9 + 0.42 * max(3, len(order)))
    totals = [float(np.nansum(seconds[stage])) for stage in order]
    left.barh(order, totals, color=BLUE, height=0.6)
    left.invert_yaxis()
    left.set(xlabel="Worker time (s)")
    left.set_title("Time by stage")
    left.grid(visible=False, axis="y")
    values = [np.array(seconds[stage])[np.isfinite(seconds[stage])] for stage in order]
    values = [v if len(v) else np.array([np.nan]) for v in values]
    boxes = right.boxplot(values, orientation="horizontal", whis=(0, 100), patch_artist=True, widths=0.5)
    for box in boxes["boxes"]:
        box.set(facecolor=BLUE, alpha=0.35, edgecolor=BLUE)
    for line in boxes["medians"]:
        line.set(color=ORANGE, linewidth=2)
    right.set_yticklabels(order)
    right.invert_yaxis()
    right.set(xscale="log", xlabel="Time of one unit (s)")
    right.set_title("Time by unit of work")
    right.grid(visible=False, axis="y")
    caption = (
        "A unit of work is one tile, or one field, of a stage. Boxes hold the central half of the units, "
        "whiskers reach the shortest and the longest. The first unit of a worker may include the compilation "
        "of the code, once an installation. Times are of the runs that made what is in the release now."
    )
    return Panel("Tiles and timings", join([table, draw(figure, "Time by stage and by unit", caption)]))
