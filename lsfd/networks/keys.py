"""Names of weights: from the first publications to BasicSR's, and back to the architecture."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour that EDSR and RCAN subtract, RGB in 0..1 (EDSR-PyTorch, BasicSR's default)."""

IMAGE_RANGE = 255.0

_EDSR_NAMES = (
    (r"head\.0\.", r"conv_first."),
    (r"body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
    (r"body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
    (r"body\.\d+\.(weight|bias)", r"conv_after_body.\1"),
    (r"tail\.0\.", r"upsample."),
    (r"tail\.1\.", r"conv_last."),
)
_RCAN_NAMES = (
    (r"head\.0\.", r"conv_first."),
    (r"body\.(\d+)\.body\.(\d+)\.body\.([02])\.", r"body.\1.residual_group.\2.rcab.\3."),
    (
        r"body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.0\.",
        r"body.\1.residual_group.\2.rcab.3.attention.1.",
    ),
    (
        r"body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.2\.",
        r"body.\1.residual_group.\2.rcab.3.attention.3.",
    ),
    (r"body\.(\d+)\.body\.\d+\.(weight|bias)", r"body.\1.conv.\2"),
    (r"body\.\d+\.(weight|bias)", r"conv_after_body.\1"),
    (r"tail\.0\.", r"upsample."),
    (r"tail\.1\.", r"conv_last."),
)


def to_basicsr_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of EDSR or RCAN as first published to BasicSR's names.

    Known are the names of EDSR-PyTorch (https://github.com/sanghyun-son/EDSR-PyTorch) and of
    RCAN (https://github.com/yulunzhang/RCAN). Their fixed mean-shift layers are left out: in
    BasicSR the shift is the argument ``rgb_mean``. Any other state dict is returned as it is.
    """
    names = _foreign_names(state)
    if names is None:
        return dict(state)
    renamed = {}
    for key, value in state.items():
        if key.startswith(("sub_mean.", "add_mean.")):
            continue
        for pattern, replacement in names:
            new, hits = re.subn(rf"^{pattern}", replacement, key)
            if hits:
                break
        else:
            new = key  # Strict loading will name what is neither one's nor the other's.
        renamed[new] = value
    return renamed


def infer_architecture(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the options of the EDSR or RCAN that a state dict belongs to, or ``None``.

    Widths, depths, ``squeeze_factor`` and ``upscale`` follow from names and shapes. What weights
    do not tell: ``img_range`` is BasicSR's 255; ``res_scale`` is 1, except for EDSR of 256
    channels and 32 blocks, which its paper trains with 0.1; ``rgb_mean`` is BasicSR's default,
    except that names of the first publications say it by their mean-shift layer (where that is
    missing, nothing says whether colours are shifted: ``None``).

    Args:
        state: Under BasicSR's names or those of the first publications.
    """
    named = to_basicsr_keys(state)
    first, last = named.get("conv_first.weight"), named.get("conv_last.weight")
    upscale = _upscale(named)
    mean = _rgb_mean(state) if _foreign_names(state) else DIV2K_MEAN
    if first is None or last is None or upscale is None or mean is None:
        return None
    if first.dim() != 4 or last.dim() != 4 or "conv_after_body.weight" not in named:
        return None
    width = first.shape[0]
    options: dict[str, Any] = {
        "num_in_ch": first.shape[1],
        "num_out_ch": last.shape[0],
        "num_feat": width,
        "upscale": upscale,
        "res_scale": 1,
        "img_range": IMAGE_RANGE,
        "rgb_mean": list(mean),
    }
    blocks = _count(named, r"body\.(\d+)\.conv1\.weight")
    if blocks:
        if (width, blocks) == (256, 32):
            options["res_scale"] = 0.1
        return {"type": "EDSR", "num_block": blocks, **options}
    groups = _count(named, r"body\.(\d+)\.residual_group\.0\.rcab\.0\.weight")
    squeezed = named.get("body.0.residual_group.0.rcab.3.attention.1.weight")
    if groups and squeezed is not None and 0 < squeezed.shape[0] <= width:
        return {
            "type": "RCAN",
            "num_group": groups,
            "num_block": _count(named, r"body\.0\.residual_group\.(\d+)\.rcab\.0\.weight"),
            "squeeze_factor": width // squeezed.shape[0],
            **options,
        }
    return None


def _foreign_names(state: Mapping[str, Tensor]) -> tuple[tuple[str, str], ...] | None:
    if "head.0.weight" not in state or "tail.1.weight" not in state:
        return None
    if "body.0.body.0.body.3.conv_du.0.weight" in state:
        return _RCAN_NAMES
    return _EDSR_NAMES if "body.0.body.0.weight" in state else None


def _rgb_mean(state: Mapping[str, Tensor]) -> tuple[float, ...] | None:
    """Return what the mean-shift layer subtracts; ``None`` if it is missing or does more."""
    weight, bias = state.get("sub_mean.weight"), state.get("sub_mean.bias")
    if weight is None or bias is None:
        return None
    if bias.shape != (3,) or weight.shape != (3, 3, 1, 1):
        return None
    if not torch.allclose(weight.float().flatten(1), torch.eye(3)):
        return None
    mean = tuple((-bias.double() / IMAGE_RANGE).tolist())
    near = all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(mean, DIV2K_MEAN, strict=True))
    return DIV2K_MEAN if near else mean


def _upscale(named: Mapping[str, Tensor]) -> int | None:
    convs = _count(named, r"upsample\.(\d+)\.weight")
    if convs == 0:
        return 1
    growth = named.get("upsample.0.weight")
    if growth is None or growth.dim() != 4:
        return None
    factor = growth.shape[0] / max(growth.shape[1], 1)
    if factor == 4:
        return int(2**convs)
    return 3 if factor == 9 and convs == 1 else None


def _count(named: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in named if (match := re.fullmatch(pattern, name))})
