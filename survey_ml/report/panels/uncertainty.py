"""How far classes can be trusted: reliability, entropy by signal to noise, prediction sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from survey_ml import uncertainty_flags as flags
from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, make_table, render
from survey_ml.report.panels.morphology import match_truth
from survey_ml.report.style import BLUE, GREY, INK, ORANGE, RED, label_plainly, make_figure
from survey_ml.validation.completeness import Share, measure_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 8
_INTRO = """<p>Uncertainties by <b>{{ name }}</b> ({{ method }}, {{ samples }} weight samples), calibrated on
{{ n }} held-out images: {{ data }}. Sets are made to hold the true class of {{ coverage }} % of sources
({{ guarantee }}), if the survey's are like these images. A set is empty where no class is as probable as
that share of held-out images found its own: such a source lies between classes or is unlike these images,
and wants a look. Doubtful are sources whose set is not one class, or whose two likeliest classes are nearly
as probable; too far from training those whose features are farther out than 99 % of held-out images.
Duplicates in overlapping fields are left out.</p>"""
_WARNING = """<p><b>The promise does not hold here.</b> Of sources whose class the truth gives, sets hold that
of significantly fewer than {{ coverage }} % for {{ names }}: they are not like the held-out images, and
calibrated probabilities are not to be taken at their word.</p>"""


@dataclass(frozen=True)
class _Known:
    """Sources whose kind a truth gives: calibrated probabilities, sets, and numbers of the classes."""

    probabilities: NDArray[np.float64]
    inside: NDArray[np.bool_]
    labels: NDArray[np.int64]


def read_estimator(context: Context) -> dict[str, Any] | None:
    """Return what the stage says of its estimator; None where it has not run."""
    for unit, commit in context.commits.items():
        if unit.stage == "uncertainty":
            return dict(commit.summaries["uncertainty_model"])
    return None


def show_uncertainty(context: Context) -> Panel | None:
    """Return reliability, entropies and prediction sets; None where the stage has not run."""
    model = read_estimator(context)
    if model is None or not len(context.column("sources", "unc_flags")):
        return None
    best = context.is_best
    flag = context.column("sources", "unc_flags")[best].astype(np.int64)
    held = model["held_out"]
    intro = render(
        _INTRO,
        name=model["name"],
        method=model["method"],
        samples=model["samples"],
        n=held["n"],
        data=held["data"],
        coverage=f"{100 * model['coverage']:g}",
        guarantee=model["guarantee"],
    )
    known = _match_known(context, model["classes"])
    return Panel(
        "Uncertainty",
        join(
            [
                intro,
                _count_sets(context, model["classes"], flag),
                _draw_figures(context, model, known),
                _list_coverage(model, known),
                _warn(model, known),
            ]
        ),
    )


def _count_sets(context: Context, classes: Sequence[str], flag: NDArray[np.int64]) -> Markup:
    """Return how many sets hold none, one or more classes, by the class that was given."""
    best = context.is_best
    given = context.column("sources", "morph_class")[best]
    size = count_members(context.column("sources", "unc_set")[best])
    entropy = context.column("sources", "unc_entropy")[best].astype(np.float64)
    rows = []
    for name in classes:
        own = (given == name) & ((flag & flags.NO_DATA) == 0)
        rows.append(
            (
                name,
                int(own.sum()),
                *(int((own & chosen).sum()) for chosen in (size == 1, size > 1, size == 0)),
                *(int((own & ((flag & bit) != 0)).sum()) for bit in (flags.DOUBTFUL, flags.TOO_FAR)),
                f"{np.median(entropy[own]):.2f}" if own.any() else "–",
            )
        )
    header = (
        "Class given", "Sources", "Set of one class", "of several", "empty", "Doubtful",
        "Too far from training", "Median entropy (nats)",
    )  # fmt: skip
    return make_table(header, rows, numeric=range(1, 8))


def count_members(sets: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many classes each set of names joined by ``|`` holds."""
    text = np.asarray(sets, np.str_)
    return np.where(np.char.str_len(text) > 0, np.char.count(text, "|") + 1, 0).astype(np.int64)


def _match_known(context: Context, classes: Sequence[str]) -> _Known | None:
    """Return the sources whose kind the truth gives, and is a class of the model."""
    matched = match_truth(context)
    if matched is None:
        return None
    rows, kinds = matched
    names = [name.casefold() for name in classes]
    label = np.array([names.index(k.casefold()) if k.casefold() in names else -1 for k in kinds], np.int64)
    columns = [context.column("sources", f"unc_p_{name.lower()}") for name in classes]
    p = np.stack(columns, axis=1)[context.is_best][rows].astype(np.float64)
    sets = context.column("sources", "unc_set")[context.is_best][rows]
    inside = np.array([[name in text.split("|") for name in classes] for text in sets.tolist()], bool)
    good = (label >= 0) & np.isfinite(p).all(axis=1)
    if not good.any():
        return None
    return _Known(p[good], inside.reshape(-1, len(classes))[good], label[good])


def _draw_figures(context: Context, model: dict[str, Any], known: _Known | None) -> Markup:
    figure, (left, right) = make_figure(1, 2, height=3.4)
    held = model["held_out"]
    _draw_reliability(left, held["reliability"], BLUE, f"held-out images, ECE {_say(held['ece'])}", -0.004)
    if known is not None:
        bins, ece = measure_reliability(known.probabilities, known.labels)
        _draw_reliability(left, bins, ORANGE, f"this release, ECE {ece:.3f} of {len(known.labels)}", 0.004)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    start = 1.0 / len(model["classes"]) - 0.04
    left.set(xlim=(start, 1.01), ylim=(0.0, 1.03), xlabel="Calibrated probability", ylabel="Share right")
    left.legend(loc="upper left")
    _draw_entropy(right, context, len(model["classes"]))
    caption = (
        "Left: of sources given a probability, the share that is right, with 95 % intervals. Right: entropy "
        "of the class by signal to noise; the line is the largest entropy that there is."
    )
    return draw(figure, "Reliability diagram, and entropy against signal to noise", caption)


def measure_reliability(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[list[dict[str, float]], float]:
    """Return bins as an estimator's summary has them, and the expected calibration error (8 bins)."""
    top, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((top * _BINS).astype(np.int64), _BINS - 1)
    bins, error = [], 0.0
    for number in range(_BINS):
        own = place == number
        share, mean = measure_share(right[own]), float(top[own].mean()) if own.any() else 0.0
        error += own.mean() * abs(share.value - mean) if own.any() else 0.0
        bins.append(
            {"confidence": mean, "accuracy": share.value, "low": share.low, "high": share.high, "n": share.n}
        )
    return bins, float(error)


def _draw_reliability(
    axis: Axes, bins: Sequence[dict[str, float]], colour: str, label: str, shift: float
) -> None:
    full = [one for one in bins if one["n"]]
    x = np.array([one["confidence"] for one in full]) + shift
    y, low, high = (np.array([one[key] for one in full]) for key in ("accuracy", "low", "high"))
    reach = np.clip(np.stack([y - low, high - y]), 0.0, None)
    axis.errorbar(x, y, reach, fmt="o-", color=colour, markersize=4, linewidth=1.0, capsize=2, label=label)


def _draw_entropy(axis: Axes, context: Context, n_classes: int) -> None:
    best = context.is_best
    snr = context.column("sources", "snr")[best].astype(np.float64)
    entropy = context.column("sources", "unc_entropy")[best].astype(np.float64)
    flag = context.column("sources", "unc_flags")[best].astype(np.int64)
    good = np.isfinite(entropy) & (snr > 0)
    far = good & ((flag & flags.TOO_FAR) != 0)
    size = 8.0 if good.sum() < 2000 else 2.0
    axis.scatter(snr[good & ~far], entropy[good & ~far], s=size, color=BLUE, alpha=0.5, linewidths=0)
    if far.any():
        axis.scatter(
            snr[far], entropy[far], s=size, color=RED, alpha=0.7, linewidths=0, label="too far from training"
        )
        axis.legend(loc="upper right")
    axis.axhline(np.log(n_classes), color=INK, linewidth=0.7)
    axis.set_xscale("log")
    axis.set(xlabel="Signal to noise", ylabel="Entropy (nats)", ylim=(-0.02, 1.12 * np.log(n_classes)))
    label_plainly(axis.xaxis)


def _list_coverage(model: dict[str, Any], known: _Known | None) -> Markup:
    """Return how often sets held the true class, for each class."""
    rows = []
    for number, (name, one) in enumerate(zip(model["classes"], model["held_out"]["coverage"], strict=True)):
        held = f"{100 * one['value']:.0f} % ({100 * one['low']:.0f} – {100 * one['high']:.0f}) of {one['n']}"
        here = "–"
        if known is not None:
            own = known.labels == number
            here = _write_share(measure_share(known.inside[own, number]))
        rows.append((name, held, here))
    caption = "Prediction sets that hold the true class"
    header = ("True class", "Held-out images, each by the others", "Sources of this release")
    return make_table(header, rows, numeric=(1, 2), caption=caption)


def _warn(model: dict[str, Any], known: _Known | None) -> Markup:
    """Return a warning when sets of this release hold fewer true classes than promised; else nothing."""
    if known is None:
        return Markup("")
    missed = []
    for number, name in enumerate(model["classes"]):
        own = known.labels == number
        share = measure_share(known.inside[own, number])
        if share.n and share.high < model["coverage"]:
            missed.append(name)
    if not missed:
        return Markup("")
    return render(_WARNING, coverage=f"{100 * model['coverage']:g}", names=", ".join(missed))


def _write_share(share: Share) -> str:
    if not share.n:
        return "–"
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f} – {100 * share.high:.0f}) of {share.n}"


def _say(score: dict[str, float]) -> str:
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
