"""Where the stages of a network's body end, found by looking at what its modules give."""

from __future__ import annotations

from itertools import groupby

from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.networks.trial import evaluating, on_lr_grid, trial_input


def auto_taps(network: nn.Module, count: int = 3) -> list[str]:
    """Return taps at equal relative depth of the body, the last one at its end.

    The body is the heaviest ``Sequential`` or ``ModuleList`` whose n children give features of
    one width on the grid of the input (of children that give tokens, as SwinIR's do, the first
    submodule that all of them share and that gives such features). Taps are the outputs after
    blocks floor(n/count), floor(2n/count), ... and, last, of the convolution after the body,
    or after block n where there is none. With ``count=3`` on EDSR with 16 blocks:
    ``["body.4", "body.9", "conv_after_body"]``.

    Args:
        network: From N x 3 x H x W to N x 3 x (scale H) x (scale W).
        count: Number of taps, at least 1; a body of fewer blocks gives fewer.

    Raises:
        LsfdError: No such body is found.
    """
    channels = _channels_on_lr_grid(network)
    blocks = _body(network, channels)
    if not blocks:
        raise LsfdError(
            f"{type(network).__name__} has no row of blocks with features on the input's grid, "
            "so taps 'auto' cannot be found; name them under taps"
        )
    tail = _conv_after(network, blocks, channels)
    if tail in blocks:
        blocks = blocks[: blocks.index(tail)]
    depths = [step * len(blocks) // count for step in range(1, count)]
    inner = [blocks[depth - 1] for depth in depths if depth > 0]
    return list(dict.fromkeys([*inner, tail or blocks[-1]]))


def _channels_on_lr_grid(network: nn.Module) -> dict[str, int]:
    """Return the width of every module that gives N x C x h x w, by the module's path."""
    channels: dict[str, int] = {}
    image = trial_input(network)
    handles = []
    for name, module in network.named_modules():

        def note(_module: nn.Module, _args: object, output: object, name: str = name) -> None:
            channels.pop(name, None)
            if isinstance(output, Tensor) and on_lr_grid(output, image):
                channels[name] = output.shape[1]

        handles.append(module.register_forward_hook(note))
    try:
        with evaluating(network):
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return channels


def _body(network: nn.Module, channels: dict[str, int]) -> list[str]:
    """Return the paths of the body's blocks in order; empty where there is no body."""
    containers = [
        (name, module)
        for name, module in network.named_modules()
        if name and isinstance(module, (nn.Sequential, nn.ModuleList)) and len(module) > 0
    ]
    # An outer container weighs at least what an inner one does, and the sort is stable.
    containers.sort(key=lambda item: -sum(p.numel() for p in item[1].parameters()))
    for name, container in containers:
        inside = [path for path, _ in next(iter(container)).named_modules()]
        for path in sorted(inside, key=lambda path: path.count(".") + bool(path)):
            tail = f".{path}" if path else ""
            row = [f"{name}.{child}{tail}" for child, _ in container.named_children()]
            runs = groupby(row, key=channels.get)
            longest = max(([*run] for width, run in runs if width), key=len, default=[])
            if len(longest) > len(row) / 2:
                return longest
    return []


def _conv_after(network: nn.Module, blocks: list[str], channels: dict[str, int]) -> str | None:
    """Return the convolution that ends the body, if it gives what the blocks give.

    It is the next sibling of the body (EDSR, RCAN, RRDBNet, SwinIR), or the last of the row
    where the others are no convolutions (RCAN as first published).
    """
    first, last = network.get_submodule(blocks[0]), network.get_submodule(blocks[-1])
    if isinstance(last, nn.Conv2d) and not isinstance(first, nn.Conv2d):
        return blocks[-1]
    top = [name for name, _ in network.named_children()]
    for name in top[top.index(blocks[0].split(".")[0]) + 1 :]:
        module = network.get_submodule(name)
        ends_in_conv = isinstance(module, nn.Conv2d) or (
            isinstance(module, nn.Sequential) and isinstance(module[-1], nn.Conv2d)
        )
        if ends_in_conv and channels.get(name) == channels[blocks[-1]]:
            return name
    return None
