"""One step of LSFD training, beside a subclass of BasicSR's SRModel that does the same.

    LSFD_DATA=... python scripts/bench/train_step.py

EDSR 64 x 16 teaches EDSR 32 x 8 at x4, with batches of 16 patches of 48 x 48 pixels. The peer is
written as such models usually are: hooks on the blocks, fp32, what BasicSR's SRModel does
otherwise. Both are fed from memory; nothing here reads images. Every contestant has a process of
its own. The bound is what the step's multiply-adds take at the rate of the teacher's own
convolution, alone, in bf16: no arrangement of them is faster with this library.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lsfd.compat  # noqa: F401

import torch
from basicsr.archs import build_network
from basicsr.models.sr_model import SRModel
from common import Contestant, Row, keep, parser, per_unit
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lsfd.allocation import keep_freed_memory
from lsfd.config.load import load_options
from lsfd.metrics.cost import take_turns
from lsfd.networks.weights import load_weights
from lsfd.training.model import LSFDModel

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ROOT / "options" / "edsr_x4_lsfd.yml"
TEACHER = ROOT / "results" / "teachers" / "edsr_x4_teacher.safetensors"
BATCH, SIDE, SCALE = 16, 48, 4
STEPS = 4
"""Steps in each turn."""
SIZE = (f"datasets.train.batch_size_per_gpu={BATCH}", f"datasets.train.gt_size={SIDE * SCALE}")
PLAIN = ("distillers=[]", "network_t=[]", "path.pretrain_network_t=null")
STUDENT_TAPS = ("body.1", "body.4", "conv_after_body")
TEACHER_TAPS = ("body.4", "body.9", "conv_after_body")


def batch() -> dict[str, Tensor]:
    """Return a batch of noise, as BasicSR's data sets give it: float32 in 0..1."""
    torch.manual_seed(0)
    return {
        "lq": torch.rand(BATCH, 3, SIDE, SIDE),
        "gt": torch.rand(BATCH, 3, SIDE * SCALE, SIDE * SCALE),
    }


class UsualModel(SRModel):
    """LSFD as a BasicSR model: a frozen teacher, hooks, regressors, and three losses."""

    def init_training_settings(self) -> None:
        """Add the teacher, the hooks and the regressors."""
        self.net_t = build_network(self.opt["network_t"]).to(self.device)
        load_weights(self.net_t, TEACHER, None)
        self.net_t.eval()
        self.student_features: dict[str, Tensor] = {}
        self.teacher_features: dict[str, Tensor] = {}
        pairs = (
            (self.net_g, STUDENT_TAPS, self.student_features),
            (self.net_t, TEACHER_TAPS, self.teacher_features),
        )
        for network, taps, store in pairs:
            for tap in taps:
                network.get_submodule(tap).register_forward_hook(
                    lambda module, given, output, tap=tap, store=store: store.update(
                        {tap: output.clone()}
                    )
                )
        widths = self.opt["network_g"]["num_feat"], self.opt["network_t"]["num_feat"]
        layers = [nn.Conv2d(*widths, 3, padding=1) for _ in STUDENT_TAPS]
        self.regressors = nn.ModuleList(layers)
        self.regressors.to(self.device)
        self.cri_teacher = nn.L1Loss()
        super().init_training_settings()

    def setup_optimizers(self) -> None:
        """Give Adam the student and the regressors."""
        parameters = [*self.net_g.parameters(), *self.regressors.parameters()]
        self.optimizer_g = torch.optim.Adam(parameters, lr=5e-4, betas=(0.9, 0.99))
        self.optimizers.append(self.optimizer_g)

    def optimize_parameters(self, current_iter: int) -> None:
        """Take one step."""
        self.optimizer_g.zero_grad()
        self.output = self.net_g(self.lq)
        with torch.no_grad():
            taught = self.net_t(self.lq)
        losses = {
            "l_pix": self.cri_pix(self.output, self.gt),
            "l_output": self.cri_teacher(self.output, taught),
        }
        l_feature = torch.zeros((), device=self.device)
        taps = zip(self.regressors, STUDENT_TAPS, TEACHER_TAPS, strict=True)
        for regressor, student, teacher in taps:
            projected = regressor(self.student_features[student])
            difference = (self.teacher_features[teacher] - projected).abs().mean(1, keepdim=True)
            attention = difference.detach() / difference.detach().mean((2, 3), keepdim=True)
            l_feature = l_feature + (attention * difference).mean()
        losses["l_feature"] = 0.3 * l_feature
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_([*self.net_g.parameters(), *self.regressors.parameters()], 1)
        self.optimizer_g.step()
        self.log_dict = self.reduce_loss_dict(losses)
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)


def usual() -> Callable[[], object]:
    """Prepare the peer."""
    raw = load_options(OPTIONS, SIZE).raw
    gpus = torch.cuda.device_count()
    model = UsualModel(
        {
            "num_gpu": gpus,
            "dist": False,
            "is_train": True,
            "path": {},
            "network_g": raw["network_g"],
            "network_t": raw["network_t"],
            "train": {
                "ema_decay": 0.999,
                "pixel_opt": {"type": "L1Loss"},
                "scheduler": {"type": "MultiStepLR", "milestones": [10**6]},
            },
        }
    )
    return _steps(model)


def ours(overrides: tuple[str, ...] = (), *, cache: Path | None = None) -> Callable[[], object]:
    """Prepare this project's model; with a cache, the teacher's results are there already."""
    keep_freed_memory()
    # So few iterations, for the cache asks for the room that a whole run takes.
    more = () if cache is None else (f"path.teacher_cache={cache}", "train.total_iter=300")
    torch.manual_seed(0)
    model = LSFDModel(load_options(OPTIONS, (*SIZE, *overrides, *more)))
    run = _steps(model)
    if cache is not None:
        run()
        return _steps(model)  # From the first step on, whose results are kept.
    return run


def cached(folder: str) -> Callable[[], object]:
    """Prepare this project's model with the teacher's results on disk."""
    return ours(cache=Path(folder))


def teacher_forward() -> Callable[[], object]:
    """Prepare the teacher alone, as a step runs it."""
    keep_freed_memory()
    model = LSFDModel(load_options(OPTIONS, SIZE))
    model.feed_data(batch())

    def run() -> None:
        with torch.no_grad(), torch.autocast(model.device.type, model.dtype):
            for _ in range(STEPS):
                model.teachers[0](model.lq)
        _wait()

    return run


def _steps(model: Any) -> Callable[[], object]:
    """Return what takes some steps, always of the same numbers."""
    data = batch()

    def run() -> None:
        for number in range(1, STEPS + 1):
            model.feed_data(data)
            model.optimize_parameters(number)
        _wait()

    return run


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def step_operations() -> tuple[int, int]:
    """Return the operations of a step, two for each multiply-add: the teacher's, the student's."""
    model = LSFDModel(load_options(OPTIONS, (*SIZE, "num_gpu=0")))
    model.feed_data(batch())
    with FlopCounterMode(display=False) as teacher, torch.no_grad():
        model.teachers[0](model.lq)
    with FlopCounterMode(display=False) as student:
        output, _ = model.step.student(model.lq)
        output.sum().backward()
    return teacher.get_total_flops(), student.get_total_flops()


def bare_convolutions() -> Callable[[], object]:
    """Prepare the teacher's convolution, alone."""
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout, dtype = torch.channels_last, torch.bfloat16
    x = torch.rand(BATCH, 64, SIDE, SIDE, device=device).to(dtype, memory_format=layout)
    layer = nn.Conv2d(64, 64, 3, padding=1).to(device, dtype).to(memory_format=layout)  # type: ignore[call-overload]

    def run() -> None:
        with torch.no_grad():
            for _ in range(CONVOLUTIONS):
                layer(x)
        _wait()

    return run


CONVOLUTIONS = 60
CONVOLUTION_OPERATIONS = 2 * BATCH * SIDE * SIDE * 64 * 64 * 9


def main() -> None:
    """Measure, print and keep."""
    arguments = parser(__doc__).parse_args()
    teacher_operations, student_operations = step_operations()
    with tempfile.TemporaryDirectory() as folder:
        contestants = {
            "usual": Contestant(usual),
            "ours": Contestant(ours),
            "cached": Contestant(cached, folder),
            "plain": Contestant(ours, PLAIN),
            "teacher": Contestant(teacher_forward),
            "convolutions": Contestant(bare_convolutions),
        }
        seconds = take_turns(contestants, arguments.rounds)
        memory = {name: each() / 2**20 for name, each in contestants.items()}
    times = {name: per_unit(each, STEPS) for name, each in seconds.items()}
    rate = CONVOLUTION_OPERATIONS * CONVOLUTIONS / min(seconds["convolutions"])
    parts = [t + p for t, p in zip(times["teacher"], times["plain"], strict=True)]
    whole, student = teacher_operations + student_operations, student_operations
    bound = f"its operations at {rate / 1e9:,.0f} GFLOP/s"
    rows = [
        Row(
            "LSFD step", "BasicSR SRModel, fp32", "lsfd", "step",
            times["usual"], times["ours"], 3, bound, whole / rate,
        ),
        Row(
            "LSFD step, cached teacher", "BasicSR SRModel, fp32", "lsfd, teacher_cache", "step",
            times["usual"], times["cached"], 6, bound, student / rate,
        ),
        Row(
            "LSFD step", "teacher forward + plain step", "lsfd", "step",
            parts, times["ours"], 1 / 1.08, "8 % on top of its parts",
        ),
    ]  # fmt: skip
    keep("train_step", rows, arguments.output, {"resident_mib": memory, "gflops": rate / 1e9})


if __name__ == "__main__":
    main()
