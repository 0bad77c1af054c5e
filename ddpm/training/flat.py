"""The parameters of a model, and their gradients, each in one contiguous buffer.

The optimizer, the moving average, the clipping and the all-reduce of the gradients then work on
one long vector each, whatever the number of layers. `torch.nn.parallel.DistributedDataParallel`
is not used: it cuts the gradients into buckets, which it cuts anew after the first step, so that
a resumed run with three workers adds them in another order than one that went on.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

_ALIGNMENT = 16  # elements: every parameter begins at a multiple of 64 bytes


class FlatParameters:
    """Holds a model's parameters and their gradients as views of two vectors.

    Attributes:
        values: (P,) float32, all parameters one after another, padded with zeros.
        grads: (P + num_extra,) float32, their gradients, then `extra`.
        parameter_grads: (P,) view of the beginning of `grads`.
        extra: (num_extra,) view of the end of `grads`: numbers that ride along in the all-reduce.
    """

    def __init__(self, model: nn.Module, *, num_extra: int = 0) -> None:
        """Move the parameters of `model` into one vector; each keeps its memory format."""
        self._parameters = dict(model.named_parameters())
        self._offsets: dict[str, int] = {}
        size = 0
        for name, parameter in self._parameters.items():
            self._offsets[name] = size
            size += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        device = next(iter(self._parameters.values())).device
        self.values = torch.zeros(size, device=device)
        self.grads = torch.zeros(size + num_extra, device=device)
        self.parameter_grads = self.grads[:size]
        self.extra = self.grads[size:]
        with torch.no_grad():
            for name, view in self.views(self.values):
                parameter = self._parameters[name]
                view.copy_(parameter)
                parameter.data = view
        for name, view in self.views(self.grads):
            self._parameters[name].grad = view

    def views(self, vector: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) for each parameter's part of a vector laid out like `values`.

        Args:
            vector: (P,) or longer.

        Yields:
            A view with the shape and the strides of the parameter.
        """
        for name, parameter in self._parameters.items():
            offset = vector.storage_offset() + self._offsets[name]
            yield name, vector.as_strided(parameter.shape, _dense_strides(parameter), offset)

    def contiguous_tensors(self, vector: Tensor) -> dict[str, Tensor]:
        """Return each parameter's part of a vector, in row-major order, by name."""
        return {name: view.contiguous() for name, view in self.views(vector)}

    def fill(self, vector: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Copy each parameter's tensor into its part of a vector, in any memory format."""
        with torch.no_grad():
            for name, view in self.views(vector):
                view.copy_(tensors[name])


def _dense_strides(parameter: Tensor) -> tuple[int, ...]:
    """Return strides that fill memory without gaps, in the order of the parameter's own."""
    return torch.empty_like(parameter).stride()
