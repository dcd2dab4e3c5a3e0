"""Properties of FitNet."""

from __future__ import annotations

from dataclasses import replace

import torch
from distillation import agreeing, random_batch, setting

from lsfd.distillers import DISTILLERS


def test_fitnet_distance_values() -> None:
    given = setting()
    batch = agreeing(random_batch(given))
    shifted = replace(batch, student_features={k: v + 2 for k, v in batch.student_features.items()})
    for distance, expected in (("l2", 3 * 0.5 * 4), ("l1", 3 * 2)):
        value = DISTILLERS["FitNet"](given, kernel=1, distance=distance)(shifted)["feature"]
        torch.testing.assert_close(value, torch.tensor(float(expected)))
