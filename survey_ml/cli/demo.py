"""`survey-ml demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import (
    format_count,
    format_seconds,
    format_table,
    json_option,
    json_output,
    print_set_aside,
)
from survey_ml.cli.run import count_made, describe, tabulate_stages

if TYPE_CHECKING:
    from survey_ml.config import LoadedConfig
    from survey_ml.data.release import Release
    from survey_ml.engine.run import RunResult
    from survey_ml.validation.completeness import Share


MODEL = "firstgalaxy-d4"
"""Classifies the demo's sources; it was not trained on the galaxies that are injected."""


@click.command()
@click.option("--out", default="demo-release", show_default=True, metavar="DIR", help="Folder for all of it.")
@click.option("--seed", default=1, show_default=True, help="Another seed, another sky.")
@click.option("--size", default=1536, show_default=True, type=click.IntRange(min=384), help="Pixels a side.")
@click.option("--fields", default=4, show_default=True, type=click.IntRange(min=1), help="Number of fields.")
@click.option("--engine", type=click.Choice(["ray", "local"]), help="Where it runs: ray unless given.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors.")
@json_option
@debug_option
@click.pass_context
def demo(
    ctx: click.Context,
    out: str,
    seed: int,
    size: int,
    fields: int,
    engine: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a small release with a known truth, process it, and compare.

    Real radio galaxies and simulated point sources are put into simulated noise like that of the
    FIRST survey. The same command again redoes nothing.
    """
    say = (lambda text: None) if quiet or as_json else click.echo
    with json_output(as_json) as emit:
        from survey_ml.data.sample import make_demo_release
        from survey_ml.engine.progress import QuietProgress, choose_progress
        from survey_ml.engine.run import run_release
        from survey_ml.loader import load_config

        say(f"making {format_count(fields, 'field')} of {size} x {size} px in {out}")
        path = make_demo_release(Path(out), seed=seed, size=size, n_fields=fields, model=pick_model())
        config = load_config(path, engine=engine)
        say(f"survey-ml run {path}  (on {config.release.engine.kind})")
        progress = QuietProgress() if quiet or as_json else choose_progress()
        result = run_release(config, progress=progress)
        scores = score_release(config)
        classes = score_classes(config)
        levels = list_levels(config)
        made = count_made(config.out)
        emit(_describe(path, result, scores, made) | {"morphology": classes, "shift": levels})
    print_set_aside(result.set_aside)
    if not (quiet or as_json):
        _print(result, scores, made)
        if classes is not None:
            _print_classes(classes)
        if levels:
            _print_levels(levels)
        _print_places(path, result)
    ctx.exit(result.exit_code)


def score_release(config: LoadedConfig) -> list[dict[str, Any]]:
    """Compare the catalogue of a release with its truth.

    Returns
    -------
    list of dict
        One a bin of signal to noise, and one over all above the threshold of 5: ``low``,
        ``high``, completeness and reliability as `Share` or None.
    """
    from survey_ml.data.release import Release
    from survey_ml.data.tables import from_arrow, read_parquet_bytes
    from survey_ml.validation.completeness import compare_with_truth, find_radii, measure_share

    assert config.release.truth is not None
    truth = from_arrow(read_parquet_bytes(Path(config.release.truth).read_bytes()))
    release = Release.open(config.out)
    found = release.catalogue("sources")
    best = found[found["duplicate_of"] == ""]
    compared = compare_with_truth(
        {name: best[name] for name in ("ra", "dec", "snr")},
        truth,
        radius=find_radii(truth, _list_beams(release)),
        edges=(5, 7, 10, 20, 1e9),
    )
    bins: dict[tuple[float, float], dict[str, Any]] = {}
    for what, shares in (("completeness", compared.completeness), ("reliability", compared.reliability)):
        for one in shares:
            bins.setdefault((one.low, one.high), {})[what] = one.share
    rows = [
        {"low": low, "high": high, "completeness": None, "reliability": None} | bins[low, high]
        for low, high in sorted(bins)
    ]
    whole = {
        "completeness": measure_share(compared.found[truth["snr"] >= 5]),
        "reliability": measure_share(compared.real[best["snr"] >= 5]),
    }
    return [*rows, {"low": 5.0, "high": 1e9, **whole}]


def pick_model() -> str:
    """Return the model that classifies the demo's sources; empty where models cannot be run."""
    from importlib.util import find_spec

    from survey_ml.errors import SurveyMLError
    from survey_ml.models.registry import find_model

    if find_spec("torch") is None or find_spec("safetensors") is None:
        return ""
    try:
        return find_model(MODEL).name
    except SurveyMLError:
        return ""


def score_classes(config: LoadedConfig) -> dict[str, Any] | None:
    """Compare the classes of a release with the kinds of its truth.

    Returns
    -------
    dict or None
        ``model``; ``accuracy`` over all kinds that are classes of the model, as `Share`, and ``unflagged``
        over those whose class is not in doubt by its flags; and ``kinds``, one entry a kind: ``kind``,
        ``right`` (`Share`) and ``called`` (class to number). None where nothing was classified.
    """
    from survey_ml.data.release import Release
    from survey_ml.data.tables import from_arrow, read_parquet_bytes
    from survey_ml.validation.completeness import find_radii
    from survey_ml.validation.labels import count_labels, find_doubtful, match_objects

    assert config.release.truth is not None
    release = Release.open(config.out)
    models = (commit.summaries["morphology_model"] for commit in release.commits(stage="morphology").values())
    if (model := next(models, None)) is None:
        return None
    truth = from_arrow(read_parquet_bytes(Path(config.release.truth).read_bytes()))
    found = release.catalogue("sources")
    best = found[found["duplicate_of"] == ""]
    rows, objects = match_objects(best, truth, radius=find_radii(truth, _list_beams(release)))
    label, kind = best["morph_class"][rows], truth["kind"][objects]
    counted = count_labels(label, kind, model["classes"])
    sure = ~find_doubtful(best["morph_flags"][rows], label)
    named = (*counted.classes, "no class")
    return {
        "model": f"{model['name']} {model['version']} {model['hash'][:12]}",
        "accuracy": counted.accuracy,
        "unflagged": count_labels(label[sure], kind[sure], model["classes"]).accuracy,
        "kinds": [
            {
                "kind": kind,
                "right": counted.recall(kind),
                "called": dict(zip(named, map(int, counts), strict=True)),
            }
            for kind, counts in zip(counted.kinds, counted.counts, strict=True)
        ],
    }


def list_levels(config: LoadedConfig) -> dict[str, dict[str, Any]]:
    """Return for each field how far its sources are from what the model was made for.

    Returns
    -------
    dict
        Field to ``level``, ``cause``, ``score`` (None where nothing is said), ``n`` (objects that were
        judged) and ``reason``; the last is of all fields together, ``all``. Empty where the stage shift has
        not run.
    """
    from survey_ml.data.release import Release

    release = Release.open(config.out)
    verdicts = {
        unit.field: commit.summaries["shift_verdict"]
        for unit, commit in sorted(release.commits(stage="shift").items(), key=lambda one: one[0].field)
    }
    for commit in release.commits(stage="shift_release").values():
        verdicts["all"] = commit.summaries["shift_release_verdict"]
    keys = ("level", "cause", "score", "n", "reason")
    return {name: {key: one[key] for key in keys} for name, one in verdicts.items()}


def _list_beams(release: Release) -> dict[str, float]:
    return {name: release.field(name).info.beam.major for name in release.fields}


def _describe(path: Path, result: RunResult, scores: list[dict[str, Any]], made: dict[str, str]) -> Any:
    return {**describe(result), "yaml": path, "made": made, "scores": scores}


def _print(result: RunResult, scores: list[dict[str, Any]], made: dict[str, str]) -> None:
    click.echo("\n" + tabulate_stages(result, made))
    lines = [
        (
            f"{score['low']:g} - {score['high']:g}" if score["high"] < 1e9 else f"above {score['low']:g}",
            *(
                f"{share.value:.3f} ({share.k} of {share.n})" if share is not None and share.n else "-"
                for share in (score["completeness"], score["reliability"])
            ),
        )
        for score in scores
    ]
    click.echo("\nsources against the truth\n" + format_table(("S/N", "completeness", "reliability"), lines))


def _print_classes(found: dict[str, Any]) -> None:
    rows = [
        (kind, str(share.n), _format_share(share), "  ".join(called))
        for kind, share, called in (
            (row["kind"], row["right"], [f"{name} {n}" for name, n in row["called"].items() if n])
            for row in found["kinds"]
        )
        if share.n
    ]
    if not found["accuracy"].n:
        return
    for what, share in (("all", found["accuracy"]), ("not flagged", found["unflagged"])):
        rows.append((what, str(share.n), _format_share(share) if share.n else "-", ""))
    header = ("injected", "n", "right class (95 %)", "called")
    click.echo(f"\nclasses by {found['model']} against the truth\n" + format_table(header, rows))


def _print_levels(levels: dict[str, dict[str, Any]]) -> None:
    rows = [
        (
            name,
            one["level"],
            one["cause"] or "-",
            "-" if one["score"] is None else f"{one['score']:.2f}",
            str(one["n"]),
            one["reason"] if one["level"] == "unknown" else "",
        )
        for name, one in levels.items()
    ]
    header = ("field", "shift", "likely cause", "score", "objects judged", "")
    click.echo("\nsources against what the model was made for\n" + format_table(header, rows))


def _format_share(share: Share) -> str:
    return f"{share.value:.2f} ({share.low:.2f} - {share.high:.2f})"


def _print_places(path: Path, result: RunResult) -> None:
    from survey_ml.data.sample import describe_shift

    click.echo(
        f"\n{format_seconds(result.seconds)} in all. What to open:"
        f"\n  {result.out}/report.html (in a browser)"
        f"\n  {result.out}/catalogue/ (sources.vot in TOPCAT or Aladin, sources.reg in DS9)"
        f"\n  {path} (change something, then: survey-ml run {path})"
        "\nThe report counts components against the truth. The reference catalogue is off on purpose: "
        f"\n{describe_shift()}."
    )
