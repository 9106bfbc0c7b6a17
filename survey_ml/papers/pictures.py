"""Pictures of reproductions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from survey_ml.learning.scores import measure_mean
from survey_ml.papers.trials import Trial


def draw_combinations(table: Mapping[tuple[str, str], float], path: Path) -> Path:
    """Draw the accuracy of each normalisation (row) with each aggregation (column)."""
    rows, columns = (list(dict.fromkeys(key[axis] for key in table)) for axis in (0, 1))
    values = np.array([[table.get((row, column), np.nan) for column in columns] for row in rows])
    figure, axes = _open((1.6 + 1.1 * len(columns), 1.4 + 0.6 * len(rows)))
    shown = axes.imshow(values, cmap="viridis", vmin=0.5, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("aggregation")
    axes.set_ylabel("normalisation")
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "black" if value > 0.8 else "white"
            axes.text(x, y, f"{value:.3f}", ha="center", va="center", color=colour)
    figure.colorbar(shown, label="accuracy, Confident and Uncertain")
    return _save(figure, path)


def draw_groups(shown: Mapping[str, Sequence[Trial]], fitted: float, labels: np.ndarray, path: Path) -> Path:
    """Draw the validation loss by epoch, and the accuracy, of each group: of seeds, and mean with 95 %."""
    figure, (left, right) = _open((9.0, 3.6), 2)
    for number, (group, trials) in enumerate(shown.items()):
        for seed, trial in enumerate(trials):
            epochs = [entry["epoch"] for entry in trial.history]
            losses = [entry["val_loss"] for entry in trial.history]
            left.plot(epochs, losses, color=f"C{number}", lw=1.0, label=group if seed == 0 else None)
        values = [float((t.logits["Confident"].argmax(axis=1) == labels).mean()) for t in trials]
        right.plot([number - 0.12] * len(values), values, "o", color=f"C{number}", ms=4, alpha=0.6)
        mean = measure_mean(values, within=(0.0, 1.0))
        reach = np.nan_to_num([[mean.value - mean.low], [mean.high - mean.value]])
        right.errorbar([number + 0.12], [mean.value], reach, fmt="s", color=f"C{number}", ms=5, capsize=3)
    left.axhline(fitted, color="0.5", ls=":", lw=1.0)
    left.set(xlabel="epoch", ylabel="validation loss", ylim=(0.0, 1.0))
    left.legend(frameon=False)
    right.set_xticks(range(len(shown)), list(shown))
    right.set(xlabel="group", ylabel="accuracy on Confident test")
    return _save(figure, path)


def draw_posteriors(
    temperatures: Mapping[float, Sequence[float]],
    priors: Mapping[str, Sequence[float]],
    pruning: Mapping[str, Mapping[float, Sequence[float]]],
    entropies: Mapping[str, np.ndarray],
    path: Path,
) -> Path:
    """Draw errors by temperature, prior and pruned share, and entropies by how sure people were."""
    figure, ((cold, prior), (prune, people)) = _open((9.0, 6.6), 2, 2)
    for value, errors in temperatures.items():
        cold.plot([value] * len(errors), errors, "o", color="C0", ms=4)
    cold.plot(
        list(temperatures), [float(np.mean(errors)) for errors in temperatures.values()], color="C0", lw=1
    )
    cold.set(xscale="log", xlabel="temperature", ylabel="validation error", ylim=(0.0, 0.55))
    for number, errors in enumerate(priors.values()):
        prior.plot([number] * len(errors), errors, "o", color=f"C{number}", ms=4)
    prior.set_xticks(range(len(priors)), [name.replace("-", "\n") for name in priors])
    prior.set(xlabel="prior", ylabel="validation error", ylim=(0.0, None))
    for number, (name, curve) in enumerate(pruning.items()):
        means = [float(np.mean(errors)) for errors in curve.values()]
        prune.plot(list(curve), means, "o-", color=f"C{number}", ms=4, lw=1, label=name)
    prune.set(xlabel="share of dense weights taken out", ylabel="validation error", ylim=(0.0, 0.55))
    prune.legend(frameon=False)
    edges = np.linspace(0.0, np.log(2.0), 15)
    for number, (name, values) in enumerate(entropies.items()):
        people.hist(
            values, edges, density=True, histtype="step", color=f"C{number}", label=f"{name} ({len(values)})"
        )
    people.set(xlabel="entropy (nats)", ylabel="density")
    people.legend(frameon=False)
    return _save(figure, path)


def draw_volumes(shares: Mapping[tuple[str, int], Sequence[float]], plain: str, path: Path) -> Path:
    """Draw accuracy, and gain over the arm ``plain``, by number of labels, for each arm and training.

    Gains are means over seeds with their 95 % intervals.
    """
    figure, (left, right) = _open((9.0, 3.8), 2)
    volumes = list(dict.fromkeys(volume for _, volume in shares))
    for number, arm in enumerate(dict.fromkeys(arm for arm, _ in shares)):
        colour = f"C{number}"
        values = np.array([shares[arm, volume] for volume in volumes])
        gains = values - np.array([shares[plain, volume] for volume in volumes])
        places = np.array(volumes) * 1.03 ** (number - 2)
        left.plot(places, values.mean(axis=1), "o-", color=colour, ms=4, lw=1, label=arm)
        left.plot(places, values, ".", color=colour, ms=3, alpha=0.6)
        if arm != plain:
            means = [measure_mean(each) for each in gains]
            reach = np.array([[one.value - one.low, one.high - one.value] for one in means]).T
            error = reach if gains.shape[1] > 1 else None
            right.errorbar(places, gains.mean(axis=1), error, fmt="o-", color=colour, ms=4, lw=1, capsize=2)
    right.axhline(0.0, color="0.5", ls=":", lw=1.0)
    left.set(xscale="log", xlabel="labelled images", ylabel="accuracy on Confident test")
    right.set(xscale="log", xlabel="labelled images", ylabel=f"gain over {plain}, 95 %")
    left.legend(frameon=False, fontsize="small")
    for axes in (left, right):
        axes.set_xticks(volumes, [str(volume) for volume in volumes], minor=False)
        axes.minorticks_off()
    return _save(figure, path)


def _open(size: tuple[float, float], columns: int = 1, rows: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def _save(figure: Any, path: Path) -> Path:
    aside = path.with_name(f".{path.name}")
    figure.savefig(aside, dpi=150, format="png")
    aside.replace(path)
    return path
