"""The training-only layer that maps a student feature to the width of a teacher feature."""

from __future__ import annotations

from torch import Tensor, nn

from lsfd.distillers.base import DistillationBatch, Setting
from lsfd.errors import LsfdError


def regressor(student_channels: int, teacher_channels: int, kernel: int) -> nn.Module:
    """Return a convolution Cs -> Ct with bias that keeps height and width.

    Equal widths start as the identity, so that a student whose features already agree with the
    teacher's starts at zero loss; otherwise Kaiming's initialisation, zero bias.

    Args:
        student_channels: Cs.
        teacher_channels: Ct.
        kernel: odd kernel size; 1 sees one pixel only ("local"); 0: no layer at all.

    Raises:
        LsfdError: the widths differ, and there is to be no layer.
    """
    if kernel == 0:
        if student_channels != teacher_channels:
            raise LsfdError(
                "kernel: 0 (no regressor) needs features of equal width, not "
                f"{student_channels} channels of the student and {teacher_channels} of the teacher"
            )
        return nn.Identity()
    layer = nn.Conv2d(student_channels, teacher_channels, kernel, padding=kernel // 2)
    if student_channels == teacher_channels:
        nn.init.dirac_(layer.weight)
    else:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Regressors(nn.Module):
    """For each teacher, one regressor for each pair of taps."""

    def __init__(self, setting: Setting, kernel: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            regressor(tap.student_channels, tap.teacher_channels, kernel)
            for taps in setting.taps
            for tap in taps
        )
        self._setting = setting

    def forward(self, batch: DistillationBatch, teacher: int) -> list[tuple[Tensor, Tensor]]:
        """Return (student feature through its regressor, teacher feature) for each pair of taps.

        Both are float32, B x Ct x h x w.
        """
        first = sum(len(taps) for taps in self._setting.taps[:teacher])
        return [
            (
                self.layers[first + index](batch.student_features[tap.student]).float(),
                batch.teacher_features[teacher][tap.teacher].float(),
            )
            for index, tap in enumerate(self._setting.taps[teacher])
        ]
