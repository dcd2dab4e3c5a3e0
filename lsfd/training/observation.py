"""What student and teachers do with a batch, looked at beside the training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lsfd.distillers import DistillationBatch
from lsfd.training.model import LSFDModel


def observe(model: LSFDModel, lq: Tensor, gt: Tensor, iteration: int) -> DistillationBatch:
    """Run all networks in float32 and return what a method is given in training.

    The student gets no inputs of the methods, which may be random.

    Args:
        model: in training; nothing of it changes.
        lq: B x 3 x h x w in 0..1, on the model's device.
        gt: B x 3 x sh x sw.
        iteration: counted from 1.
    """
    # Not through torch.compile, which would compile again for another size of images.
    student = _bare(model.step.student)
    teachers = [_bare(teacher) for teacher in model.teachers]
    output, features = student(lq)
    peers = [_bare(peer)(lq) for peer in model.step.peers]
    with torch.no_grad():
        taught = [teacher(lq) for teacher in teachers]
    return DistillationBatch(
        lq=lq,
        gt=gt,
        student=output,
        teachers=[image for image, _ in taught],
        student_features=features,
        teacher_features=[theirs for _, theirs in taught],
        step=iteration,
        student_network=student,
        teacher_networks=teachers,
        peers=[image for image, _ in peers],
        peer_features=[theirs for _, theirs in peers],
    )


def _bare(module: nn.Module) -> Any:
    return getattr(module, "_orig_mod", module)
