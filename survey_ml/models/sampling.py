"""What runs many networks of one architecture on the same images: samples of a posterior.

One fixed set of them is made ready once, as one program: weights are constants to it, the image is prepared
once for all, and no sample costs a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from survey_ml.models.card import Card
from survey_ml.models.runtime import (
    TORCH_BATCH,
    convert_network,
    count_cores,
    has_openvino,
    import_openvino,
    load_network,
    split_images,
)

if TYPE_CHECKING:
    from torch import Tensor, nn


class Samples(Protocol):
    """Runs a fixed set of networks."""

    size: int

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits (size, n, n_classes) of images (n, side, side); each image by itself."""


class TorchSamples:
    """Runs one network after another in torch.

    Parameters
    ----------
    networks : sequence of nn.Module
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._many, self.size = _stack(networks), len(networks)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run all of them, batch by batch."""
        import torch

        with torch.inference_mode():
            parts = [
                self._many(torch.from_numpy(batch)).numpy() for batch in split_images(images, TORCH_BATCH)
            ]
        return np.ascontiguousarray(np.moveaxis(np.concatenate(parts)[: len(images)], 1, 0))


class OpenVinoSamples:
    """Runs all networks as one OpenVINO program, in float32, on one image at a time.

    Parameters
    ----------
    networks : sequence of nn.Module
    side : int
        Pixels a side of the images.
    threads : int, optional
        All cores that this process may use when not given.
    """

    def __init__(self, networks: Sequence[nn.Module], side: int, threads: int | None) -> None:
        openvino = import_openvino()
        threads, self.size = threads or count_cores(), len(networks)
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
        }
        model = convert_network(_stack(networks), (1, 1, side, side))
        compiled = openvino.Core().compile_model(model, "CPU", options)
        self._shape = tuple(compiled.outputs[0].shape)[1:]
        self._queue = openvino.AsyncInferQueue(compiled, threads)
        self._queue.set_callback(self._keep)
        self._found = np.zeros((0, *self._shape), np.float32)

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run all of them on image after image."""
        self._found = np.zeros((len(images), *self._shape), np.float32)
        for number in range(len(images)):
            self._queue.start_async([images[number][None, None]], number, share_inputs=True)
        self._queue.wait_all()
        return np.ascontiguousarray(np.moveaxis(self._found, 1, 0))

    def _keep(self, request: Any, number: int) -> None:
        self._found[number] = request.get_output_tensor(0).data[0]


def open_samples(
    states: Sequence[Mapping[str, NDArray[Any]]],
    card: Card,
    runtime: str = "auto",
    threads: int | None = None,
) -> Samples:
    """Make a set of networks ready to run.

    Parameters
    ----------
    states : sequence of mapping
        Weights of each.
    card : Card
        Of their architecture.
    runtime : str
        ``torch``, ``openvino``, or ``auto`` for the faster of those installed.
    threads : int, optional
    """
    compiled = runtime == "openvino" or (runtime == "auto" and has_openvino())
    networks = [load_network(one, card, pooled=compiled) for one in states]
    return OpenVinoSamples(networks, card.preprocessing.side, threads) if compiled else TorchSamples(networks)


def _stack(networks: Sequence[nn.Module]) -> nn.Module:
    """Return one module that gives the logits (n, size, n_classes) of all networks."""
    import torch
    from torch import nn

    stem = networks[0].get_submodule("stem")
    for network in networks:
        network.set_submodule("stem", nn.Identity())

    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.networks = stem, nn.ModuleList(networks)

        def forward(self, x: Tensor) -> Tensor:
            seen = self.stem(x)
            return torch.stack([network(seen)[0] for network in self.networks], dim=1)

    return Many().eval()
