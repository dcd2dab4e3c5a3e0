"""NaN and infinity in a training step: found at the price of one look, named at any price.

Whether a step is finite has to be known before the optimiser moves anything; the device is waited
for once. Only when it is not, what caused it is searched for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


class KeptBuffers:
    """What forward passes change without an optimiser, such as running means, to be put back."""

    def __init__(self, module: nn.Module) -> None:
        """Keep nothing yet.

        Args:
            module: its buffers stay the tensors that they are now.
        """
        self._buffers = list(module.buffers())
        self._kept = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def keep(self) -> None:
        """Note the values, without waiting for the device."""
        if self._buffers:
            torch._foreach_copy_(self._kept, self._buffers)

    @torch.no_grad()
    def put_back(self) -> None:
        """Make the values what they were at the last :meth:`keep`."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept)

    def finite(self) -> Tensor:
        """Return whether all of them are, a boolean on their device."""
        floating = [buffer for buffer in self._buffers if buffer.is_floating_point()]
        return all_finite(floating)


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Return whether all values of all tensors are finite, a boolean on their device."""
    found = [tensor.isfinite().all() for tensor in tensors]
    return torch.stack(found).all() if found else torch.tensor(True)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the L2 norm of all gradients; 0 without any."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def faulty(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity; waits for the device."""
    return [name for name, tensor in tensors.items() if not tensor.isfinite().all()]


def faulty_terms(terms: Mapping[str, Tensor]) -> str:
    """Return which loss terms are not finite, such as ``l_pix is inf``; "" if all are."""
    return ", ".join(f"{name} is {terms[name].item()}" for name in faulty(terms))


def faulty_gradients(module: nn.Module) -> str:
    """Return whose gradients are not finite.

    Args:
        module: with the children ``student``, ``peers`` and ``distillers``.

    Returns:
        Such as ``the gradient of student (conv_first.weight and 3 more)``; parameters whose
        squares alone leave the numbers' range are counted, too.
    """
    owners: dict[str, list[str]] = {}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not parameter.grad.norm().isfinite():
            owner, own = _owner(name)
            owners.setdefault(owner, []).append(own)
    if not owners:
        return "the gradient's norm"
    listed = (f"{owner} ({_shortened(names)})" for owner, names in owners.items())
    return f"the gradient of {', '.join(listed)}"


def _owner(name: str) -> tuple[str, str]:
    """Return whose parameter of a training step this is, and its own name."""
    steps = [step for step in name.split(".") if step not in ("network", "_orig_mod")]
    if steps[0] == "student":
        return "the student", ".".join(steps[1:])
    if steps[0] == "peers":
        return f"peer {int(steps[1]) + 1}", ".".join(steps[2:])
    return f"the distiller {steps[1]}", ".".join(steps[2:])


def _shortened(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
