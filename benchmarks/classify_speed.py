"""Images a second of the classifiers, 150 px, beside the published attention-gated network in torch.

Run: ``python -m benchmarks.classify_speed [--models NAME ...] [--n 512] [--repeat 3] [--threads 2]``.

Ours is `Classifier.predict` on images in memory, float32, through the exported path (OpenVINO) and through
torch; built-in models that are not there are stood in for by untrained networks of the architecture that
``ATTENTION`` and ``D4`` give, which cost the same. The peer is the published architecture (Bowles et al.
2021): all 150 pixels, convolution, batch normalisation, ReLU, three gates, about 101,000 parameters, in
plain torch, eager, float32, in batches of 16, written here from its description. The best of
``--repeat`` runs counts for each, taken in turns so that other work on the machine meets all alike. CPU
seconds are those of this process: images a CPU second say what a quiet machine would do.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.reporting import Report, make_parser
from survey_ml.learning.networks import Architecture, AttentionNetwork
from survey_ml.models.card import Card
from survey_ml.models.classifier import Classifier, load_classifier
from survey_ml.models.format import save_model
from survey_ml.models.registry import list_models
from survey_ml.models.runtime import count_cores
from survey_ml.models.trial import make_images

SIDE = 150
ATTENTION = Architecture(n_classes=2)
D4 = Architecture(n_classes=2, group="D4", fields=(4, 8, 16, 16))
BATCH = 16
"""Images that the peer sees at once, as it was published."""


class PublishedGate(nn.Module):
    """A gate with the range normalisation over the batch, and dropout, as published."""

    def __init__(self, fine: int, coarse: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(fine, coarse, 1, bias=False)
        self.phi = nn.Conv2d(coarse, coarse, 1, bias=False)
        self.psi = nn.Conv2d(coarse, 1, 1)

    def forward(self, x: Tensor, signal: Tensor) -> Tensor:
        """Return features (n, fine)."""
        up = functional.interpolate(
            self.phi(signal), (x.shape[2], x.shape[3]), mode="bilinear", align_corners=False
        )
        weights = self.psi(functional.relu(self.theta(x) + up))
        weights = (weights - weights.min()) / (weights.max() - weights.min() + 1e-9)
        return (weights * x).flatten(2).sum(dim=2)


class PublishedNetwork(nn.Module):
    """Three gates, aggregated by fine-tuning: 101,447 parameters, as published."""

    def __init__(self) -> None:
        super().__init__()
        widths, depths = (6, 16, 32, 64), (3, 3, 3, 2)
        self.scales, before = nn.ModuleList(), 1
        for width, depth in zip(widths, depths, strict=True):
            layers: list[nn.Module] = []
            for _ in range(depth):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            self.scales.append(nn.Sequential(*layers))
        self.gates = nn.ModuleList(PublishedGate(width, 64) for width in widths[:3])
        self.heads = nn.ModuleList(nn.Linear(width, 2) for width in widths[:3])
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, 2)."""
        seen = []
        for number, scale in enumerate(self.scales):
            x = scale(functional.max_pool2d(x, 2) if number else x)
            seen.append(x)
        looks = [gate(fine, x) for gate, fine in zip(self.gates, seen[:3], strict=True)]
        each = [functional.relu(head(one)) for head, one in zip(self.heads, looks, strict=True)]
        return self.last(torch.cat(each, dim=1))


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--models", nargs="*", help="names or files; the attention-gated ones and D4 if none")
    parser.add_argument("--n", type=int, default=512, help="images")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=min(2, count_cores()))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = make_images(options.n, SIDE, options.seed)
    settings = {"n": options.n, "side": SIDE, "threads": options.threads, "repeat": options.repeat}
    report = Report("Classification speed", settings | {"seed": options.seed})
    runs: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in choose_models(options.models, Path(folder)).items():
            for runtime in ("openvino", "torch"):
                classifier = load_classifier(path, runtime, threads=options.threads)  # type: ignore[arg-type]
                runs[f"{name}, {classifier.runtime}"] = call_predict(classifier, images)
                if classifier.card.kind == "forest":
                    break
    peer = PublishedNetwork().eval()
    n_parameters = sum(p.numel() for p in peer.parameters())
    peer_name = f"published, torch eager ({n_parameters} parameters)"
    few = images[: max(BATCH, options.n // 8)]
    runs[peer_name] = lambda: run_peer(peer, few)
    best = time_runs(runs, options.repeat)
    rows = []
    for what, (wall, cpu) in best.items():
        n = len(few) if what == peer_name else options.n
        rows.append({"what": what, "images/s": n / wall, "images per CPU s": n / cpu})
    report.add_table(f"{options.threads} threads", rows)
    speed = {row["what"]: row for row in rows}
    for what, row in speed.items():
        if "attention" in what and "openvino" in what:
            report.add_bar(f"{what}: images/s", row["images/s"], ">= 400", row["images/s"] >= 400.0)
            for unit in ("images/s", "images per CPU s"):
                ratio = row[unit] / speed[peer_name][unit]
                report.add_bar(f"{what}: {unit} over the peer's", ratio, ">= 10", ratio >= 10.0)
    return report.finish(options.json)


def choose_models(names: list[str] | None, folder: Path) -> dict[str, str | Path]:
    """Return what to measure: built-in models where they are, else untrained ones."""
    if names:
        return {Path(name).stem: name for name in names}
    built_in = {model.name for model in list_models() if not model.fault}
    found: dict[str, str | Path] = {}
    for name, architecture in (("mirabest-attention", ATTENTION), ("mirabest-d4", D4)):
        if name in built_in:
            found[name] = name
            continue
        torch.manual_seed(0)
        path = folder / f"{name}.safetensors"
        card = Card(
            name=name,
            classes=("FRI", "FRII"),
            kind="attention",
            architecture=asdict(architecture),
            invariant_under="" if architecture.group == "C1" else architecture.group,
        )
        save_model(path, AttentionNetwork(architecture), card)
        found[f"{name} (untrained)"] = path
    if "firstgalaxy-forest" in built_in:
        found["firstgalaxy-forest"] = "firstgalaxy-forest"
    return found


def call_predict(classifier: Classifier, images: np.ndarray) -> Callable[[], object]:
    """Return a function that classifies all images."""
    return lambda: classifier.predict(images)


def run_peer(peer: nn.Module, images: np.ndarray) -> None:
    """Classify in batches, without gradients."""
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            peer(torch.from_numpy(images[start : start + BATCH])[:, None])


def time_runs(runs: dict[str, Callable[[], object]], repeat: int) -> dict[str, tuple[float, float]]:
    """Return the least wall and CPU seconds of each, taken in turns after one that does not count."""
    best = dict.fromkeys(runs, (np.inf, np.inf))
    for number in range(repeat + 1):
        for what, run in runs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            taken = time.perf_counter() - wall, time.process_time() - cpu
            if number:
                best[what] = min(best[what][0], taken[0]), min(best[what][1], taken[1])
    return best


if __name__ == "__main__":
    sys.exit(main())
