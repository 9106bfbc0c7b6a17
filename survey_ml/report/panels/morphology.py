"""Classes of sources: how many there are of each, and how they compare with labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from survey_ml.data.catalogues import read_catalogue
from survey_ml.report.context import Context
from survey_ml.report.panel import Panel, draw, join, make_table, render
from survey_ml.report.style import BLUE, INK, make_figure
from survey_ml.validation.completeness import Share, find_radii, measure_share
from survey_ml.validation.labels import Confusion, count_labels, find_doubtful, match_objects

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CERTAIN = 0.9
"""Probability from which a class is called certain."""

_EDGES = np.linspace(0.0, 1.0, 21)


def read_model(context: Context) -> dict[str, Any] | None:
    """Return what the stage says of its model; None where it has not run."""
    for unit, commit in context.commits.items():
        if unit.stage == "morphology":
            return dict(commit.summaries["morphology_model"])
    return None


def read_probabilities(context: Context, classes: list[str]) -> NDArray[np.float64]:
    """Return the probability of each class, (n_sources, n_classes); NaN without a class."""
    columns = [context.column("sources", f"morph_p_{name.lower()}") for name in classes]
    return np.stack([column.astype(np.float64) for column in columns], axis=1)


def show_morphology(context: Context) -> Panel | None:
    """Return counts of classes, how sure the model is, and a confusion matrix where there are labels."""
    model = read_model(context)
    if model is None or not len(context.column("sources", "morph_class")):
        return None
    best = context.is_best
    label = context.column("sources", "morph_class")[best]
    p = read_probabilities(context, model["classes"])[best]
    flagged = find_doubtful(context.column("sources", "morph_flags")[best], label)
    top = np.where(np.isfinite(p).all(axis=1), p.max(axis=1), np.nan)
    rows = []
    for name in (*model["classes"], ""):
        own = label == name
        clean = own & ~flagged
        rows.append(
            (
                name or "no class",
                int(own.sum()),
                int((own & flagged).sum()),
                int((clean & (top >= _CERTAIN)).sum()),
                f"{np.nanmedian(top[own]):.2f}" if name and own.any() else "–",
            )
        )
    header = ("Class", "Sources", "of them flagged", f"unflagged, p ≥ {_CERTAIN:g}", "Median probability")
    intro = render(
        "<p>Classified by <b>{{ name }}</b> {{ version }} (<code>{{ digest }}</code>). Flagged are cutouts "
        "that are cut off, blank, empty, too small for the source or too coarse for the model, and sources "
        "that are faint, unresolved (unless they are called compact) or outshone by another in their cutout. "
        "Duplicates in overlapping fields are left out.</p>",
        name=model["name"],
        version=model["version"],
        digest=model["hash"][:12],
    )
    pieces = [intro, make_table(header, rows, numeric=(1, 2, 3, 4)), _draw_certainty(model, label, top)]
    if (confusion := compare_with_labels(context, model["classes"])) is not None:
        certain = compare_with_labels(context, model["classes"], flagged=False)
        pieces.append(_show_confusion(context, confusion, certain))
    return Panel("Morphology", join(pieces))


def _draw_certainty(model: dict[str, Any], label: NDArray[Any], top: NDArray[np.float64]) -> Markup:
    from matplotlib.ticker import MaxNLocator

    classes = model["classes"]
    figure, axes = make_figure(1, len(classes), height=1.9)
    for axis, name in zip(axes, classes, strict=True):
        values = top[label == name]
        axis.hist(values, _EDGES.tolist(), color=BLUE)
        axis.set_title(f"{name} ({len(values)})")
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.set(xlim=(1.0 / len(classes) - 0.05, 1.0), xlabel="Its probability")
    axes[0].set_ylabel("Sources")
    return draw(figure, "Probability of the class that was given", "Probability of the most probable class.")


def compare_with_labels(context: Context, classes: list[str], *, flagged: bool = True) -> Confusion | None:
    """Compare classes with the column ``kind`` of the truth; None where there is none.

    Without ``flagged``, classes that are in doubt by their flags are left out.
    """
    matched = match_truth(context)
    if matched is None:
        return None
    rows, kinds = matched
    given = context.column("sources", "morph_class")[context.is_best][rows]
    if not flagged:
        found = context.column("sources", "morph_flags")[context.is_best][rows]
        sure = ~find_doubtful(found, given)
        given, kinds = given[sure], kinds[sure]
    return count_labels(given, kinds, classes)


def match_truth(context: Context) -> tuple[NDArray[np.int64], NDArray[np.str_]] | None:
    """Return rows among the best sources whose kind the truth gives, and these kinds."""
    if context.config.truth is None:
        return None
    truth = read_catalogue(context.config.truth, context.base, ("ra", "dec"))
    if "kind" not in truth:
        return None
    ours = {name: context.column("sources", name)[context.is_best] for name in ("ra", "dec", "total_flux")}
    rows, objects = match_objects(ours, truth, radius=find_radii(truth, context.beams))
    return rows, np.asarray(truth["kind"], np.str_)[objects]


def _show_confusion(context: Context, confusion: Confusion, certain: Confusion | None) -> Markup:
    accuracy = confusion.accuracy
    unflagged = certain.accuracy if certain is not None else measure_share([])
    text = render(
        "<p>Against the kinds in <code>{{ path }}</code>, each by the brightest source within its extent: "
        "{{ said }} of {{ n }} have the right class, {{ sure }} of the {{ m }} that are not flagged.</p>",
        path=Path(str(context.config.truth)).name,
        said=_say(accuracy),
        n=accuracy.n,
        sure=_say(unflagged),
        m=unflagged.n,
    )
    figure, (axis,) = make_figure(width=5.2, height=0.5 + 0.45 * (len(confusion.kinds) + 1))
    _draw_matrix(axis, confusion)
    caption = "Rows: what a source is; columns: what it was called. Shades are shares of a row."
    return join([text, draw(figure, "Confusion matrix", caption)])


def _draw_matrix(axis: Axes, confusion: Confusion) -> None:
    counts = confusion.counts
    named = (*confusion.classes, "no class")
    if not counts[:, -1].any():
        counts, named = counts[:, :-1], confusion.classes
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    for (i, j), count in np.ndenumerate(counts):
        axis.text(j, i, f"{count}", ha="center", va="center", color="white" if share[i, j] > 0.6 else INK)
    axis.set_xticks(range(len(named)), named)
    axis.set_yticks(range(len(confusion.kinds)), confusion.kinds)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _say(share: Share) -> str:
    if not share.n:
        return "none"
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} – {100 * share.high:.1f})"
