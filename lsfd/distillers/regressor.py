"""The training-only layer that maps a student feature to the width of a teacher feature."""

from __future__ import annotations

from torch import nn

from lsfd.distillers.base import Setting


def regressor(student_channels: int, teacher_channels: int, kernel: int) -> nn.Conv2d:
    """Return a convolution Cs -> Ct with bias that keeps height and width.

    Equal widths start as the identity, so that a student whose features already agree with the
    teacher's starts at zero loss; otherwise Kaiming's initialisation, zero bias.

    Args:
        student_channels: Cs.
        teacher_channels: Ct.
        kernel: odd kernel size; 1 sees one pixel only ("local").
    """
    layer = nn.Conv2d(student_channels, teacher_channels, kernel, padding=kernel // 2)
    if student_channels == teacher_channels:
        nn.init.dirac_(layer.weight)
    else:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def regressors(setting: Setting, kernel: int) -> nn.ModuleList:
    """Return, for each teacher, the list of one regressor for each pair of taps."""
    return nn.ModuleList(
        nn.ModuleList(
            regressor(tap.student_channels, tap.teacher_channels, kernel) for tap in taps
        )
        for taps in setting.taps
    )
