"""Structured pruning of EDSR: whole channels go, and the network that is left is really smaller.

Channel j inside a residual block is made by row j of conv1 and read by column j of conv2:

    I_j = ||conv1[j]||_2 ||conv2[:, j]||_2

A ReLU lets a positive factor pass from one to the other without a change of the network; I_j stays.
Of all blocks' inner channels, the share ``amount`` with the smallest I_j goes, though a block keeps
one: a global ranking of magnitudes; or, ``uniform``, the same share of every block. Of the channels
between the upsampler's convolutions (s^2 rows make one, through PixelShuffle) each step loses its
share.

Rows are masked by :mod:`torch.nn.utils.prune` together with their biases: a channel without weights
would still be its bias. :func:`slim` then leaves out masked rows and the columns that read them;
what is left is a :class:`lsfd.networks.slim_edsr.SlimEDSR` with the masked network's output.

Ranking filters by their norm is Li et al.'s (arXiv 1608.08710), who look at one convolution and
rank within a layer; the product of both sides, ranked globally, is our choice.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import torch
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor, nn
from torch.nn.utils import prune

from lsfd.errors import LsfdError
from lsfd.networks.ready import find_weights
from lsfd.networks.slim_edsr import SlimEDSR, as_slim
from lsfd.networks.student_file import load_any, save_student


@dataclass(frozen=True)
class _Inner:
    """Channels that two convolutions have to themselves.

    Attributes:
        maker: path of the convolution that makes them, each in ``rows`` successive rows.
        reader: path of the one that reads them, each in one column.
        rows: s^2 before a PixelShuffle by s, otherwise 1.
    """

    maker: str
    reader: str
    rows: int = 1

    def importance(self, network: nn.Module) -> Tensor:
        """Return I_j of every channel."""
        made = _conv(network, self.maker).weight.unflatten(0, (-1, self.rows)).flatten(1)
        read = _conv(network, self.reader).weight.transpose(0, 1).flatten(1)
        return (made.norm(dim=1) * read.norm(dim=1)).detach()

    def mask(self, network: nn.Module, kept: Tensor) -> None:
        """Set the channels that are not ``kept`` to zero for good."""
        maker = _conv(network, self.maker)
        rows = kept.repeat_interleave(self.rows)
        prune.custom_from_mask(maker, "weight", rows.view(-1, 1, 1, 1).expand_as(maker.weight))
        prune.custom_from_mask(maker, "bias", rows)

    def kept_rows(self, network: nn.Module) -> Tensor:
        """Return which rows of the maker a mask left."""
        return _conv(network, self.maker).bias_mask.bool()  # type: ignore[operator]


def mask_channels(network: EDSR, amount: float, *, uniform: bool = False) -> EDSR:
    """Return a copy of an EDSR in which masks set the least important channels to zero.

    Masked weights and biases stay zero when the copy is trained.

    Args:
        network: BasicSR's EDSR.
        amount: share of the inner channels to mask, 0 <= amount < 1.
        uniform: whether every block has the same share masked.

    Raises:
        LsfdError: ``amount`` is no such share.
    """
    if not 0 <= amount < 1:
        raise LsfdError(f"amount: a share of channels is at least 0 and below 1, not {amount}")
    masked = copy.deepcopy(network)
    blocks, steps = _of_blocks(masked), _of_upsampler(masked)
    # Chosen before anything is masked: a mask on one convolution changes what the next one reads.
    found = [inner.importance(masked) for inner in blocks]
    kept = [_share(i, amount) for i in found] if uniform else _choose_among_all(found, amount)
    kept += [_share(inner.importance(masked), amount) for inner in steps]
    for inner, those in zip([*blocks, *steps], kept, strict=True):
        inner.mask(masked, those)
    return masked


def slim(masked: EDSR, architecture: Mapping[str, Any]) -> tuple[SlimEDSR, dict[str, Any]]:
    """Take the masked channels out.

    Args:
        masked: what :func:`mask_channels` returned, trained or not.
        architecture: the EDSR's options of BasicSR's shape.

    Returns:
        The smaller network and its options.
    """
    state = {
        f"{path}.{name}": getattr(module, name).detach().clone()
        for path, module in masked.named_modules()
        if isinstance(module, nn.Conv2d)
        for name in ("weight", "bias")
    }
    blocks, steps = _of_blocks(masked), _of_upsampler(masked)
    for inner in (*blocks, *steps):
        rows = inner.kept_rows(masked)
        columns = rows[:: inner.rows]
        for name in ("weight", "bias"):
            state[f"{inner.maker}.{name}"] = state[f"{inner.maker}.{name}"][rows]
        state[f"{inner.reader}.weight"] = state[f"{inner.reader}.weight"][:, columns]
    options = {
        **as_slim(dict(architecture)),
        "block_widths": [len(state[f"{inner.maker}.bias"]) for inner in blocks],
        "upsample_width": state["conv_last.weight"].shape[1],
    }
    network = SlimEDSR(**{key: value for key, value in options.items() if key != "type"})
    network.load_state_dict(state)
    return network.train(masked.training), options


def prune_file(weights: Path, amount: float, output: Path, *, uniform: bool = False) -> str:
    """Prune the EDSR in a file and write what is left.

    Args:
        weights: a file that :func:`lsfd.networks.student_file.load_any` reads, or the name of a
            ready student.
        amount: share of the inner channels that go.
        output: the smaller network's file.
        uniform: whether every block loses the same share.

    Returns:
        What was done, with the widths that its option file needs.

    Raises:
        LsfdError: the file holds no EDSR, ``amount`` is no share, or a file cannot be read or
            written.
    """
    weights = find_weights(weights)
    network, card = load_any(weights)
    if type(network) is not EDSR:
        name = type(network).__name__
        raise LsfdError(
            f"{weights}: only EDSR can be pruned, and this is {name}; lsfd compress makes "
            "a smaller network of an EDSR teacher"
        )
    smaller, options = slim(mask_channels(network, amount, uniform=uniform), card.architecture)
    note = f"{weights.name} with {amount:.0%} of its inner channels pruned, not fine-tuned"
    update = {"architecture": options, "note": note, "scores": {}}
    save_student(output, smaller, card.model_copy(update=update))
    before, after = (sum(p.numel() for p in n.parameters()) for n in (network, smaller))
    widths = f"block_widths: {options['block_widths']}, upsample_width: {options['upsample_width']}"
    return f"{output}: {after:,} of {before:,} parameters are left; fine-tune them\n{widths}"


def _conv(network: nn.Module, path: str) -> nn.Conv2d:
    module = network.get_submodule(path)
    assert isinstance(module, nn.Conv2d)
    return module


def _of_blocks(network: EDSR) -> list[_Inner]:
    return [_Inner(f"body.{b}.conv1", f"body.{b}.conv2") for b in range(len(network.body))]


def _of_upsampler(network: EDSR) -> list[_Inner]:
    """Return the channels after each PixelShuffle."""
    convs = [f"upsample.{i}" for i in range(0, len(network.upsample), 2)]
    shuffles = [network.upsample[i].upscale_factor for i in range(1, len(network.upsample), 2)]
    readers = [*convs[1:], "conv_last"][: len(convs)]
    return [_Inner(c, r, s**2) for c, r, s in zip(convs, readers, shuffles, strict=True)]


def _share(importance: Tensor, amount: float) -> Tensor:
    """Return which channels stay when a share of them goes, though one stays."""
    return _without(importance, min(round(amount * len(importance)), len(importance) - 1))


def _choose_among_all(importances: Sequence[Tensor], amount: float) -> list[Tensor]:
    """Return which channels of each block stay when all are ranked together."""
    if not importances:
        return []
    ranked = [scores.clone() for scores in importances]
    for scores in ranked:
        scores[scores.argmax()] = torch.inf  # A block's best channel stays.
    together = torch.cat(ranked)
    count = min(round(amount * len(together)), len(together) - len(ranked))
    return list(_without(together, count).split([len(scores) for scores in ranked]))


def _without(importance: Tensor, count: int) -> Tensor:
    """Return which channels stay when so many of the least important ones go."""
    kept = torch.ones_like(importance, dtype=torch.bool)
    kept[importance.argsort()[:count]] = False
    return kept
