"""A hundred weight samples for many sources: the estimator beside loops over samples.

Run: ``python -m benchmarks.posterior_speed [--n 10000] [--samples 100] [--threads 2]``.

Sources are MiraBest's, turned and reflected, judged by mirabest-bayes as the stage does it: every source is
looked at with ten samples, those that are doubted with all. Beside it stand, on the first few sources and
scaled to all: every source with all samples, a loop over samples on batches of 64 in torch that draws weights
as it goes, and the loop as published, source by source. Loops have one thread, as threads that wait for each
other burn CPU time. CPU and wall time both; ratios are of CPU time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.realdata import find_data
from benchmarks.reporting import Report, make_parser
from survey_ml.data.labelled.reading import read_labelled
from survey_ml.learning.preprocessing import prepare_images
from survey_ml.models.classifier import load_classifier
from survey_ml.models.estimator import find_estimator
from survey_ml.models.format import read_model
from survey_ml.models.kinds import make_network, parse_architecture
from survey_ml.models.posterior import MEAN, SCALE
from survey_ml.models.registry import find_model

NAME = "mirabest-bayes"
BAR = 5.0


def main() -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--n", type=int, default=10_000, help="sources")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    find_data()
    report = Report(
        "Weight samples of a whole network",
        {"sources": options.n, "samples": options.samples, "threads": options.threads},
    )
    images = turn_images(options.n)
    classifier = load_classifier(NAME, threads=options.threads)
    began = time.process_time(), time.perf_counter()
    estimator = find_estimator(NAME, classifier.hash, samples=options.samples, threads=options.threads)
    start = tuple(
        now - then for now, then in zip((time.process_time(), time.perf_counter()), began, strict=True)
    )
    # The stage has it from morphology; it is no part of what is timed.
    embedding = classifier.predict(images).embedding
    few, one = images[: max(64, options.n // 50)], images[: max(8, options.n // 500)]
    loop = make_loop(options.samples)
    rows = [
        {"what": "made ready, once", "sources": options.n, "CPU s": start[0], "wall s": start[1]},
        run(
            "as the stage does", images, options.n, lambda part: estimator.judge(embedding[: len(part)], part)
        ),
        run("all samples for all", few, options.n, estimator.sample),
        run("loop over samples, batches of 64", few, options.n, lambda part: loop(part, 64)),
        run("loop source by source", one, options.n, lambda part: loop(part, 1)),
    ]
    report.add_table(f"{options.n} sources; the last three on fewer, and scaled", rows)
    spent = rows[0]["CPU s"] + rows[1]["CPU s"]
    for row in rows[2:]:
        report.notes.append(f"{row['what']}: {row['CPU s'] / spent:.1f} times the CPU time of the stage")
    ratio = rows[3]["CPU s"] / spent
    report.add_bar(
        "faster than the loop over samples, start included", ratio, f"at least {BAR:g}", ratio >= BAR
    )
    return report.finish(options.json)


def turn_images(n: int) -> NDArray[np.float32]:
    """Return n images (n, side, side): MiraBest's in eight orientations, in mixed order."""
    data = read_labelled("mirabest")
    plain = prepare_images(data, 150)
    moved = [np.rot90(flipped, k, (1, 2)) for flipped in (plain, plain[:, :, ::-1]) for k in range(4)]
    order = np.random.default_rng(0).permutation(8 * len(plain))
    return np.ascontiguousarray(np.concatenate(moved)[np.resize(order, n)])


def make_loop(samples: int) -> Callable[[NDArray[np.float32], int], None]:
    """Return what looks at images sample by sample in torch, in batches of a size."""
    import torch

    from survey_ml.learning.variational import VariationalNetwork

    torch.set_num_threads(1)
    tensors, card, _ = read_model(find_model(NAME).path)
    network = VariationalNetwork(make_network(card.kind, parse_architecture(card)))
    state = {name: torch.from_numpy(tensors[f"{MEAN}{name}"].copy()) for name in network.network.state_dict()}
    network.network.load_state_dict(state)
    with torch.no_grad():
        for (name, _), log in zip(network.network.named_parameters(), network.log_scales, strict=True):
            log.copy_(torch.log(torch.from_numpy(tensors[f"{SCALE}{name}"].copy())))
    network.train()

    def loop(images: NDArray[np.float32], size: int) -> None:
        with torch.inference_mode():
            for start in range(0, len(images), size):
                batch = torch.from_numpy(images[start : start + size])[:, None]
                torch.stack([network(batch)[0].softmax(dim=1) for _ in range(samples)])

    return loop


def run(
    what: str, images: NDArray[np.float32], n: int, call: Callable[[NDArray[np.float32]], Any]
) -> dict[str, Any]:
    """Return a row of the table: the time for these images, scaled to n."""
    began = time.process_time(), time.perf_counter()
    call(images)
    spent = time.process_time() - began[0], time.perf_counter() - began[1]
    scale = n / len(images)
    return {"what": what, "sources": len(images), "CPU s": scale * spent[0], "wall s": scale * spent[1]}


if __name__ == "__main__":
    sys.exit(main())
