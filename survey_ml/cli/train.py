"""`survey-ml train`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from survey_ml.cli.group import debug_option
from survey_ml.cli.output import format_table, json_option, json_output

if TYPE_CHECKING:
    from survey_ml.models.fitting import Fitting


threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="CPU threads: with more no two trainings give the same file, and on busy cores each takes longer.",
)


@click.group()
def train() -> None:
    """Train models on labelled images of your own."""


@train.command()
@click.option(
    "--data", required=True, metavar="SOURCE", help="Data set by name, or a path; see docs/models.md."
)
@click.option("--subset", metavar="NAME", help="Part of a data set known by name, such as confident.")
@click.option(
    "--test", "test", metavar="SOURCE", help="Test images: the split test of the data unless given."
)
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="YAML with further settings.")
@click.option(
    "--model",
    type=click.Choice(["attention-gate", "equivariant", "cnn", "tang", "lenet", "forest"]),
    help="Kind of model: equivariant unless given here or in the file.",
)
@click.option("--name", help="Name of the model: lower-case letters, digits and hyphens.")
@click.option("--seed", type=click.IntRange(min=0), help="Of everything random.")
@click.option(
    "--semi-supervised",
    "unlabelled",
    metavar="UNLABELLED",
    help="Learn from these images as well, whose labels are not looked at: what --data takes, or a .npy "
    "array or a folder of cutouts.",
)
@click.option(
    "--pool-model",
    metavar="NAME|PATH",
    help="Model that tells whether UNLABELLED are like the labelled images: one of their classes.",
)
@click.option("--pool-anyway", is_flag=True, help="Learn from UNLABELLED even where that is not safe.")
@click.option("--out", default="trained", show_default=True, metavar="DIR", help="Folder for all of it.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that share every batch out among them, with a GPU each under --device cuda; by Ray.",
)
@threads_option
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@json_option
@debug_option
def morphology(
    data: str,
    subset: str | None,
    test: str | None,
    config: str | None,
    model: str | None,
    name: str | None,
    seed: int | None,
    unlabelled: str | None,
    pool_model: str | None,
    pool_anyway: bool,
    out: str,
    device: str,
    workers: int,
    threads: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train a morphology classifier, and write it with its card, curves and figures.

    A summary of the held-out images lies beside it, for the stage shift and `survey-ml shift`. The same
    command goes on with a training that was interrupted. Test images are looked at once, after everything
    is chosen.

    With --semi-supervised unlabelled images are learnt from by FixMatch. Those within 30 arcsec of validation
    or test images are left out. If the others are not like the labelled ones, as `survey-ml shift pool`
    tells, nothing is trained unless --pool-anyway is given.
    """
    with json_output(as_json) as emit:
        import torch

        from survey_ml.cli.train_pool import open_pool
        from survey_ml.data.labelled.reading import read_labelled
        from survey_ml.errors import ConfigError
        from survey_ml.models.fitting import fit_model
        from survey_ml.models.format import read_model
        from survey_ml.models.settings import check_fixmatch
        from survey_ml.models.summarising import choose_held_out, summarise_images

        given = {"model": model, "name": name, "seed": seed}
        fitting = _read_fitting(config, {key: value for key, value in given.items() if value is not None})
        # With several workers the GPUs are the cluster's.
        if device.startswith("cuda") and workers == 1 and not torch.cuda.is_available():
            raise ConfigError(f"there is no device {device} here", "leave --device out to train on the CPU")
        if workers > 1 and (fitting.model == "forest" or unlabelled is not None):
            what = "a forest is grown" if fitting.model == "forest" else "unlabelled images are learnt from"
            raise ConfigError(f"{what} in one process", "leave --workers out")
        # Before images are looked at, which takes long.
        check_fixmatch(fitting, unlabelled is not None)
        torch.set_num_threads(threads)
        images = read_labelled(data, subset)
        held = images.take(images.split == "test")
        images = images.take(images.split != "test")
        if test is not None:
            held = read_labelled(test, classes=images.classes)
        pool = None
        if unlabelled is not None:
            pool = open_pool(unlabelled, pool_model, images, held, fitting, anyway=pool_anyway)
        with _progress(quiet or as_json) as report:
            path = fit_model(
                images,
                fitting,
                Path(out),
                test=held,
                pool=pool,
                source=" ".join(part for part in (data, subset) if part),
                device=device,
                progress=report,
                trainer=_make_trainer(workers, device) if workers > 1 else None,
            )
        _, card, digest = read_model(path)
        summary = None
        if (kept := choose_held_out(images, held, fitting)) is not None:
            origin = test if test is not None and kept[0] is held else data
            summary = summarise_images(path, kept[0], f"{origin}, {kept[1]}")
        emit(
            {
                "model": path,
                "hash": digest,
                "reference": summary,
                "metrics": [metric.model_dump() for metric in card.metrics],
            }
        )
    if as_json:
        return
    rows = [
        (metric.data, metric.quantity, f"{metric.value:.4g}",
         "" if metric.low is None else f"[{metric.low:.3f}, {metric.high:.3f}]", metric.n)
        for metric in card.metrics
    ]  # fmt: skip
    click.echo(format_table(("images", "quantity", "value", "95 %", "n"), rows))
    lines = [str(path), f"survey-ml models show {path}", f"survey-ml classify IMAGES --model {path}"]
    if summary is None:
        lines.append("no reference summary: fewer than 20 images were held out, so no shift can be told")
    else:
        lines.insert(1, f"{summary}  (what the stage shift compares with; keep it beside the model)")
    click.echo("\n" + "\n".join(lines))


def _make_trainer(workers: int, device: str) -> Any:
    """Return what trains a network in several processes."""
    from survey_ml.engine.team import run_team
    from survey_ml.models.team_training import TeamTraining

    return TeamTraining(partial(run_team, workers=workers, gpus=device.startswith("cuda")))


@train.command()
@click.option("--model", "name", required=True, metavar="NAME|PATH", help="The trained network.")
@click.option("--data", required=True, metavar="SOURCE", help="Images that it was trained on.")
@click.option("--subset", metavar="NAME", help="Part of a data set known by name, such as confident.")
@click.option(
    "--held",
    metavar="SOURCE",
    help="Labelled images that it was not trained on: the split valid of the data unless given.",
)
@click.option("--held-subset", metavar="NAME", help="Part of it, when it is known by name.")
@click.option(
    "--method",
    type=click.Choice(["bayes-by-backprop", "mc-dropout", "laplace"]),
    default="bayes-by-backprop",
    show_default=True,
    help="Of the posterior.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of everything random.")
@click.option("--out", default="trained", show_default=True, metavar="DIR", help="Folder for the file.")
@threads_option
@json_option
@debug_option
def uncertainty(
    name: str,
    data: str,
    subset: str | None,
    held: str | None,
    held_subset: str | None,
    method: Any,
    seed: int,
    out: str,
    threads: int,
    as_json: bool,
) -> None:
    """Fit a posterior over the last layer of a trained network, and calibrate it on held-out images.

    The file says how far the classes of that network can be trusted: name it as `model` of the stage
    uncertainty, or as `classify --uncertainty --posterior`.
    """
    with json_output(as_json) as emit:
        import torch

        from survey_ml.data.labelled.reading import read_labelled
        from survey_ml.errors import ConfigError
        from survey_ml.models.estimator import find_estimator
        from survey_ml.models.format import read_card
        from survey_ml.models.posterior_fitting import Trained, fit_posterior
        from survey_ml.models.registry import find_model

        torch.set_num_threads(threads)
        base = find_model(name)
        card, digest = read_card(base.path)
        images = read_labelled(data, subset, classes=card.classes)
        if held is None:
            kept, train = images.take(images.split == "valid"), images.take(images.split == "train")
            if not len(kept):
                raise ConfigError(
                    f"{data} has no validation images", "name images that were held out with --held"
                )
            said = f"{data}, validation images"
        else:
            kept, train = read_labelled(held, held_subset, classes=card.classes), images
            train = train.take(train.split != "test")
            said = " ".join(part for part in (held, held_subset) if part)
        source = " ".join(part for part in (data, subset) if part)
        path = fit_posterior(
            base.path,
            train,
            [Trained(base.path, train, kept)],
            Path(out),
            method=method,
            seed=seed,
            held=said,
            source=source,
        )
        found = find_estimator(card.name, digest, method, given=path).describe()
        emit({"model": path, "hash": found["hash"], "base": card.name, "held_out": found["held_out"]})
    if as_json:
        return
    known = found["held_out"]
    rows = [
        (f"sets of 90 % hold {label}", one["value"], one["low"], one["high"], one["n"])
        for label, one in zip(card.classes, known["coverage"], strict=True)
    ]
    ece = known["ece"]
    rows = [("calibration error", ece["value"], ece["low"], ece["high"], ece["n"]), *rows]
    click.echo(format_table(("on held-out images", "value", "low", "high", "n"), rows))
    click.echo(f"\n{path}\nsurvey-ml classify IMAGES --model {name} --uncertainty --posterior {path}")


def _read_fitting(config: str | None, given: dict[str, Any]) -> Fitting:
    from pydantic import ValidationError

    from survey_ml.document import read_yaml
    from survey_ml.errors import ConfigError
    from survey_ml.explain import suggest
    from survey_ml.models.fitting import Fitting
    from survey_ml.models.weight_fitting import PosteriorFitting

    settings: Any = read_yaml(Path(config))[0] if config else {}
    if not isinstance(settings, dict):
        raise ConfigError(f"{config}: keys and values are needed", "see docs/models.md")
    try:
        return Fitting.model_validate({**settings, **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        inside = first["loc"][0] == "posterior" and len(first["loc"]) > 1
        known = list(PosteriorFitting.model_fields if inside else Fitting.model_fields)
        near = suggest(str(first["loc"][-1]), known) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(
            f"{config or 'the command line'}: {key}: {first['msg']}{near}", f"keys: {', '.join(known)}"
        ) from None


def _progress(quiet: bool) -> Any:
    """Return a context that gives what shows an epoch: a bar on a terminal, nothing when quiet."""
    from contextlib import contextmanager

    @contextmanager
    def show() -> Any:
        if quiet:
            yield None
            return
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("training")

            def report(entry: dict[str, float], epochs: int) -> None:
                text = f"epoch {entry['epoch']:.0f} of {epochs}, loss {entry['loss']:.3f}"
                if "networks" in entry:
                    text = f"network {entry['network']:.0f} of {entry['networks']:.0f}, {text}"
                if "val_loss" in entry:
                    text += f", validation {entry['val_loss']:.3f}, accuracy {entry['val_accuracy']:.3f}"
                bar.update(task, total=epochs, completed=entry["epoch"], description=text)
                if not console.is_terminal:
                    console.print(text, highlight=False)

            yield report

    return show()
