"""The ``train`` section: optimiser, schedule, reconstruction loss, precision."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from lsfd.config.base import WHOLE, Count, Natural, NonNegative, Positive, Section

Momentum = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Momentum, Momentum], Field(strict=False)]
"""Two numbers; YAML has lists only, so a list is taken for the tuple."""


class Adam(Section):
    """Adam (Kingma and Ba, arXiv 1412.6980)."""

    type: Literal["Adam"]
    """Adam."""
    lr: Positive
    """Learning rate after warm-up."""
    weight_decay: NonNegative = 0.0
    """L2 penalty on the weights."""
    betas: Betas = (0.9, 0.99)
    """Decay rates of the running means of gradient and squared gradient."""


class AdamW(Section):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101)."""

    type: Literal["AdamW"]
    """AdamW."""
    lr: Positive
    """Learning rate after warm-up."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    betas: Betas = (0.9, 0.99)
    """Decay rates of the running means of gradient and squared gradient."""


class SGD(Section):
    """Stochastic gradient descent."""

    type: Literal["SGD"]
    """SGD."""
    lr: Positive
    """Learning rate after warm-up."""
    weight_decay: NonNegative = 0.0
    """L2 penalty on the weights."""
    momentum: Momentum = 0.9
    """Decay rate of the running mean of the gradient."""


Optimizer = Annotated[Adam | AdamW | SGD, Field(discriminator="type")]


def _ascending(iterations: list[int]) -> list[int]:
    if any(later <= earlier for earlier, later in pairwise(iterations)):
        raise ValueError("must ascend")
    return iterations


Milestones = Annotated[list[Count], Field(min_length=1), AfterValidator(_ascending)]


class CosineAnnealingLR(Section):
    """One half period of a cosine over the whole run."""

    type: Literal["CosineAnnealingLR"]
    """Cosine from lr to eta_min over total_iter."""
    eta_min: NonNegative = 0.0
    """Learning rate at the end."""


class MultiStepLR(Section):
    """The learning rate is multiplied by gamma at each milestone."""

    type: Literal["MultiStepLR"]
    """Steps at milestones."""
    milestones: Milestones
    """Iterations, ascending."""
    gamma: Positive = 0.5
    """Factor at each milestone."""


class CosineAnnealingRestartLR(Section):
    """BasicSR's cosine with restarts (SGDR, arXiv 1608.03983)."""

    type: Literal["CosineAnnealingRestartLR"]
    """One cosine for each period."""
    periods: list[Count] = Field(min_length=1)
    """Length of each period in iterations."""
    restart_weights: list[Positive] = Field(default=[1.0])
    """Factor on lr in each period."""
    eta_min: NonNegative = 0.0
    """Learning rate at the end of each period."""


class MultiStepRestartLR(Section):
    """BasicSR's steps with restarts."""

    type: Literal["MultiStepRestartLR"]
    """Steps at milestones, with restarts."""
    milestones: Milestones
    """Iterations, ascending."""
    gamma: Positive = 0.1
    """Factor at each milestone."""
    restarts: Annotated[list[Natural], AfterValidator(_ascending)] = Field(default=[0])
    """Iterations, ascending, at which the learning rate is set anew."""
    restart_weights: list[Positive] = Field(default=[1.0])
    """Factor on lr from each restart on."""


Scheduler = Annotated[
    CosineAnnealingLR | MultiStepLR | CosineAnnealingRestartLR | MultiStepRestartLR,
    Field(discriminator="type"),
]


class PixelLoss(Section):
    """Reconstruction loss between the student's output and the ground truth."""

    type: Literal["L1Loss", "MSELoss", "CharbonnierLoss"] = "L1Loss"
    """BasicSR's name of the loss."""
    loss_weight: NonNegative = 1.0
    """Weight of the term."""
    reduction: Literal["mean", "sum"] = "mean"
    """How the pixels' losses become one number."""


class Train(Section):
    """How the student is trained."""

    total_iter: Count
    """Number of optimiser steps."""
    warmup_iter: Annotated[int, Field(ge=-1), WHOLE] = -1
    """Steps over which the learning rate rises linearly from 0 to lr; -1: none."""
    optim_g: Optimizer
    """Optimiser of the student and of the distillers' own parameters."""
    scheduler: Scheduler | None = None
    """Learning-rate schedule; null: constant."""
    pixel_opt: PixelLoss | None = PixelLoss()
    """Reconstruction loss; null: none, only the distillers' terms."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the running mean of the student's weights, which is what gets evaluated; 0: off."""
    clip_grad_norm: NonNegative = 0.0
    """Largest norm of the gradient; 0: no clipping."""
    accumulate: Count = 1
    """Batches whose gradients are averaged for one optimiser step."""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """Factor on every learning rate for k = processes x accumulate batches in one optimiser step:
    linear: k, sqrt: its square root, none: 1."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward pass; auto: bf16 where the hardware has it, otherwise fp32."""
    channels_last: bool = True
    """Whether tensors are laid out channels-last, which is faster for convolutions."""
    compile: bool = False
    """Whether the networks go through torch.compile."""
    generations: Count = 1
    """How many students are trained in a row, each the next one's teacher."""
    max_skipped: Count = 20
    """Consecutive non-finite losses after which the run stops."""
