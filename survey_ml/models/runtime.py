"""What runs a model: OpenVINO, torch, or plain numpy for a forest.

What is given for an image never depends on the others. OpenVINO sees one image at a time; torch sees
batches of one size, the last one filled up with empty images, so that the same code runs for every image.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

from survey_ml.errors import ConfigError
from survey_ml.learning.forest import Forest, evaluate_forest
from survey_ml.learning.measurements import NAMES, measure_images
from survey_ml.models.card import Card
from survey_ml.models.kinds import build_network

if TYPE_CHECKING:
    from torch import nn

TORCH_BATCH = 1
"""Images that torch sees at once. Eight are a quarter faster, but some CPUs (seen with AMX) round the rows of
a batch differently, by 1e-8: what is said of a source would depend on its place."""
LEAST_PROBABILITY = 1e-7
"""A forest's probability of zero has no logarithm; this is its least."""

Arrays = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]
"""Logits (n, n_classes), embedding (n, d), and attention (n, y, x) or None."""


class Runtime(Protocol):
    """Runs one model."""

    name: str

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Run the model on images (n, side, side); row k is about image k and nothing else."""


class ForestRuntime:
    """Measures images and evaluates a forest.

    Parameters
    ----------
    forest : Forest
    measurements : tuple of str
        What its trees look at.
    """

    name = "numpy"

    def __init__(self, forest: Forest, measurements: tuple[str, ...]) -> None:
        self._forest = forest
        self._columns = [NAMES.index(name) for name in measurements]

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Return logarithms of the probabilities, measurements, and no attention."""
        features = measure_images(images)[:, self._columns]
        probabilities = evaluate_forest(self._forest, features)
        logits = np.log(np.maximum(probabilities, LEAST_PROBABILITY)).astype(np.float32)
        return logits, features, None


class TorchRuntime:
    """Runs a network in torch.

    Parameters
    ----------
    network : nn.Module
        With plain convolutions only.
    threads : int, optional
        For all of torch in this process; left as it is when not given.
    """

    name = "torch"

    def __init__(self, network: nn.Module, threads: int | None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        # Channels last is faster by a tenth over groups, but torch sums their squares in one pass there:
        # probabilities were off by up to 1.2e-4, and by 2e-6 without.
        self._network = network

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Run the network batch by batch."""
        import torch

        with torch.inference_mode():
            parts = [
                [value.numpy() for value in self._network(torch.from_numpy(batch))]
                for batch in split_images(images, TORCH_BATCH)
            ]
        logits, embedding, attention = (
            np.concatenate(one)[: len(images)] for one in zip(*parts, strict=True)
        )
        return logits, embedding, attention


class MixtureRuntime:
    """Runs the members of an ensemble: their mean probability is what they say together.

    Parameters
    ----------
    members : sequence of Runtime
    """

    def __init__(self, members: Sequence[Runtime]) -> None:
        self._members, self.name = members, members[0].name

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Return logarithms of the mean probability, the first one's embedding, and the mean attention."""
        logits, embedding, attention = zip(*(one.run(images) for one in self._members), strict=True)
        logs = special.log_softmax(np.stack(logits).astype(np.float64), axis=2)
        joined = special.logsumexp(logs, axis=0) - np.log(len(logs))
        seen = [one for one in attention if one is not None]
        mean = np.asarray(np.mean(seen, axis=0), np.float32) if seen else None
        return np.asarray(joined, np.float32), embedding[0], mean


class OpenVinoRuntime:
    """Runs a network in OpenVINO, in float32, on one image at a time and as many at once as threads.

    Parameters
    ----------
    network : nn.Module
        With plain convolutions only.
    side : int
        Pixels a side of its images.
    threads : int, optional
        All cores that this process may use when not given.

    Notes
    -----
    Batches of 1 to 64 images were measured to be equally fast.
    """

    name = "openvino"

    def __init__(self, network: nn.Module, side: int, threads: int | None) -> None:
        openvino = import_openvino()
        threads = threads or count_cores()
        options: dict[str, Any] = {
            # Where a processor has bfloat16, OpenVINO would take it by itself: 5e-3 off in a logit.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
        }
        compiled = openvino.Core().compile_model(convert_network(network, (1, 1, side, side)), "CPU", options)
        self._queue = openvino.AsyncInferQueue(compiled, threads)
        self._queue.set_callback(self._keep)
        self._shapes = [tuple(output.shape)[1:] for output in compiled.outputs]
        self._found: list[NDArray[np.float32]] = []

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Run the network on image after image."""
        self._found = [np.zeros((len(images), *shape), np.float32) for shape in self._shapes]
        for number in range(len(images)):
            self._queue.start_async([images[number][None, None]], number, share_inputs=True)
        self._queue.wait_all()
        logits, embedding, attention = self._found
        return logits, embedding, attention

    def _keep(self, request: Any, number: int) -> None:
        for place, found in enumerate(self._found):
            found[number] = request.get_output_tensor(place).data[0]


def has_openvino() -> bool:
    """Say whether OpenVINO is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def import_openvino() -> Any:
    """Import OpenVINO without its reports to its makers.

    As it comes, importing it writes a client number into the home folder and sends a message to a
    statistics service. Without its telemetry package it takes a stub of its own instead.
    """
    if "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        try:
            importlib.import_module("openvino")
        finally:
            del sys.modules["openvino_telemetry"]
    return importlib.import_module("openvino")


def open_network(
    tensors: Mapping[str, NDArray[Any]], card: Card, runtime: str, threads: int | None
) -> Runtime:
    """Make a network ready to run.

    Parameters
    ----------
    tensors : mapping
        Its weights.
    card : Card
    runtime : str
        ``torch`` or ``openvino``.
    threads : int, optional

    Raises
    ------
    ConfigError
        When the runtime is unknown or not installed.
    """
    if runtime not in ("torch", "openvino"):
        raise ConfigError(f"there is no runtime {runtime!r}", "use auto, torch or openvino")
    if runtime == "openvino" and not has_openvino():
        raise ConfigError("openvino is not installed", "pip install 'survey-ml[learning]', or use torch")
    network = load_network(tensors, card, pooled=runtime == "openvino")
    if runtime == "torch":
        return TorchRuntime(network, threads)
    return OpenVinoRuntime(network, card.preprocessing.side, threads)


def load_network(tensors: Mapping[str, NDArray[Any]], card: Card, *, pooled: bool = False) -> nn.Module:
    """Return the network of a card with its weights, of plain convolutions, ready to be used.

    Parameters
    ----------
    tensors : mapping
        Its weights.
    card : Card
    pooled : bool
        See `survey_ml.learning.convolution.freeze_network`.
    """
    import torch

    from survey_ml.learning.convolution import freeze_network

    network = build_network(card)
    weights = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
    network.load_state_dict(weights, assign=True)
    return freeze_network(network.eval(), pooled=pooled).requires_grad_(False)


def convert_network(network: nn.Module, shape: tuple[int, int, int, int]) -> Any:
    """Return a network as an OpenVINO model."""
    import torch

    openvino = import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad(), _use_one_thread():
        # Tracing is deprecated in torch, and is all that the decoder reads; the version of torch is
        # pinned. It also warns of the branch on the image's size, which is fixed here.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, torch.zeros(shape), check_trace=False)  # type: ignore[no-untyped-call]
        traced = torch.jit.freeze(traced)
        decoder = TorchScriptPythonDecoder(traced)  # a name, since it must outlive the loading
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    model.inputs[0].get_node().set_element_type(openvino.Type.f32)
    model.reshape(list(shape))
    model.validate_nodes_and_infer_types()
    return model


@contextlib.contextmanager
def _use_one_thread() -> Iterator[None]:
    """Let torch have one thread for a while: on busy cores more wait for each other for minutes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def split_images(images: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    """Yield batches (size, 1, side, side); one at least, the last one filled up with zeros."""
    for start in range(0, max(len(images), 1), size):
        part = images[start : start + size]
        if len(part) < size:
            part = np.concatenate([part, np.zeros((size - len(part), *images.shape[1:]), np.float32)])
        yield part[:, None]
