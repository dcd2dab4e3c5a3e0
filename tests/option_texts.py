"""An option file that uses most of the format, and what its mistakes say."""

from __future__ import annotations

from typing import Any

import pytest

from lsfd.errors import LsfdError

TEXT = """\
name: run
scale: 4
datasets:
  train:
    dataroot_gt: hr
    gt_size: 96
  val:
    name: Set5
    dataroot_gt: set5
  val_2: {name: Set14, dataroot_gt: [a, b]}
network_g: {type: EDSR, num_feat: 32, upscale: 4}
network_t:
  - {type: EDSR, num_feat: 64, upscale: 4}
  - type: auto
distillers:
  - type: LSFD
    kernel: 1
    weights:
      feature: 1e-3
path:
  pretrain_network_t: [first.pth, second.pth]
train:
  total_iter: 5e3
  optim_g:
    type: Adam
    lr: 2e-4
    betas: [0.9, 0.99]
"""


def message(call: Any, *arguments: Any) -> str:
    with pytest.raises(LsfdError) as error:
        call(*arguments)
    text = str(error.value)
    assert "\n" not in text
    return text


def without_folder(text: str) -> str:
    return text[text.index("run.yml") :]
