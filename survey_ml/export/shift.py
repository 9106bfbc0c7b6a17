"""What the shift monitor found, for those who watch: a file for Prometheus, and an entry in a history."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from survey_ml.data.history import append_entry

if TYPE_CHECKING:
    from survey_ml.data.release import Release

METRICS = "shift.prom"
"""In the release's folder; node_exporter's textfile collector reads all that ends so."""
HISTORY = "shift"
LEVELS = {"unknown": -1, "green": 0, "amber": 1, "red": 2}
_GAUGES = {
    "level": "How far sources are from what the model was made for: 0 green, 1 amber, 2 red, -1 unknown.",
    "score": "How loud the alarm is, 0 to about 1.",
    "effect": "Maximum mean discrepancy from the reference in the same mix of classes.",
    "p_value": "Probability of so large a distance by chance.",
    "sources": "Sources that were judged.",
    "sources_left_out": "Sources that were not.",
    "cause_info": "1 for the likely cause of a level that is not green.",
}

Verdict = Mapping[str, Any]


def read_verdicts(release: Release) -> tuple[dict[str, Verdict], Verdict | None]:
    """Return what the monitor says of each field, by name, and of all together where that was asked for."""
    fields = {
        unit.field: commit.summaries["shift_verdict"]
        for unit, commit in release.commits(stage="shift").items()
    }
    whole = next(
        (one.summaries["shift_release_verdict"] for one in release.commits(stage="shift_release").values()),
        None,
    )
    return dict(sorted(fields.items())), whole


def publish_shift(release: Release) -> None:
    """Write the metrics and add to the history, each whole or not at all; nothing without the stage.

    Metrics of a stage that was taken out of the configuration are emptied: an alarm about it would never end.
    """
    medium = release.store.medium
    fields, whole = read_verdicts(release)
    if not fields and medium.measure([METRICS])[METRICS] is None:
        return
    text = format_metrics(release.name, fields, whole).encode()
    if medium.read(METRICS) != text:
        medium.replace(METRICS, text)
    if fields:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        append_entry(release.store, HISTORY, make_entry(fields, whole), when=when)


def format_metrics(release: str, fields: Mapping[str, Verdict], whole: Verdict | None) -> str:
    """Return verdicts in the text format of Prometheus, version 0.0.4.

    Parameters
    ----------
    release : str
        Name of the release.
    fields : mapping
        Field to verdict.
    whole : mapping or None
        Of all fields together: metrics with ``release`` in their names and no label ``field``.
    """
    lines: list[str] = []
    groups = [("survey_ml_shift", {name: [("field", name)] for name in fields}, fields)]
    if whole is not None:
        groups.append(("survey_ml_shift_release", {"": []}, {"": whole}))
    for prefix, labels, verdicts in groups:
        for gauge, said in _GAUGES.items():
            rows = [
                f"{prefix}_{gauge}{_format_labels([('release', release), *labels[name], *more])} {value:.10g}"
                for name, verdict in verdicts.items()
                for more, value in _list_values(verdict, gauge)
            ]
            if rows:
                lines += [f"# HELP {prefix}_{gauge} {said}", f"# TYPE {prefix}_{gauge} gauge", *rows]
    return "".join(f"{line}\n" for line in lines)


def make_entry(fields: Mapping[str, Verdict], whole: Verdict | None) -> dict[str, Any]:
    """Return what a history keeps of verdicts: what a later one is held against, and no more."""
    keys = ("level", "score", "cause", "n")

    def shorten(verdict: Verdict) -> dict[str, Any]:
        base = verdict.get("model") or {}
        model = f"{base.get('name', '')} {str(base.get('hash', ''))[:12]}".strip()
        return {key: verdict.get(key) for key in keys} | {"model": model}

    return {
        "fields": {name: shorten(one) for name, one in fields.items()},
        "release": None if whole is None else shorten(whole),
    }


def _list_values(verdict: Verdict, gauge: str) -> Iterator[tuple[list[tuple[str, str]], float]]:
    """Yield labels and value of a gauge; nothing where it has none, as in a verdict of an earlier version."""
    conditional = verdict.get("conditional") or {}
    if gauge == "cause_info":
        if verdict.get("cause"):
            yield [("cause", str(verdict["cause"]))], 1.0
        return
    values = {
        "level": LEVELS[str(verdict["level"])],
        "score": verdict.get("score"),
        "effect": conditional.get("effect"),
        "p_value": conditional.get("p_value"),
        "sources": verdict.get("n"),
        "sources_left_out": verdict.get("n_left_out"),
    }
    if (value := values[gauge]) is not None:
        yield [], float(value)


def _format_labels(pairs: list[tuple[str, str]]) -> str:
    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in pairs) + "}"
