"""Properties of output distillation."""

from __future__ import annotations

import torch
from distillation import random_batch, setting
from torch.nn import functional

from lsfd.distillers import DISTILLERS


def test_output_is_l1_to_the_teacher() -> None:
    given = setting()
    batch = random_batch(given)
    expected = functional.l1_loss(batch.student, batch.teachers[0])
    torch.testing.assert_close(DISTILLERS["Output"](given)(batch)["output"], expected)
