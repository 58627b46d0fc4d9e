"""What training changes weights by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Optimiser"]

_BETAS = (0.9, 0.99)


class Optimiser:
    """AdamW; and Muon for the kernels within residual blocks, where it is asked for.

    Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) takes a
    layer's momentum to the nearest matrix all of whose singular values are alike. PyTorch's is for
    matrices; a kernel is the matrix from what it sees of the input to its outputs. Its updates are
    as large as AdamW's (Liu et al., "Muon is scalable for LLM training", 2025), so that one
    learning rate does for both.

    Args:
        named: parameters by their names; those that need no gradient are left alone.
        rate: learning rate.
        decay: weight decay.
        muon: whether to take it.
    """

    def __init__(
        self, named: Iterable[tuple[str, nn.Parameter]], rate: float, decay: float, muon: bool
    ) -> None:
        trained = [(name, value) for name, value in named if value.requires_grad]
        inside = {
            name: value
            for name, value in trained
            if muon and ".blocks." in f".{name}" and value.ndim == 4
        }
        self._kernels = [(value, nn.Parameter(_matrix(value))) for value in inside.values()]
        rest = [value for name, value in trained if name not in inside]
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if rest:
            self._parts["adamw"] = torch.optim.AdamW(
                rest, lr=rate, betas=_BETAS, weight_decay=decay
            )
        if self._kernels:
            self._parts["muon"] = torch.optim.Muon(
                [matrix for _, matrix in self._kernels],
                lr=rate,
                weight_decay=decay,
                adjust_lr_fn="match_rms_adamw",
            )

    def set_rate(self, rate: float) -> None:
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate

    def zero_grad(self) -> None:
        for part in self._parts.values():
            part.zero_grad(set_to_none=True)
        for kernel, _ in self._kernels:
            kernel.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for kernel, matrix in self._kernels:
            matrix.copy_(_matrix(kernel))
            matrix.grad = None if kernel.grad is None else _matrix(kernel.grad)
        for part in self._parts.values():
            part.step()
        for kernel, matrix in self._kernels:
            outputs, inputs, height, width = kernel.shape
            kernel.copy_(matrix.view(outputs, height, width, inputs).permute(0, 3, 1, 2))

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _matrix(kernel: Tensor) -> Tensor:
    """(outputs, inputs, height, width) as (outputs, the rest)."""
    return kernel.detach().permute(0, 2, 3, 1).flatten(1).clone()
