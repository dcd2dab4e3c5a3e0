"""``LSFDModel``: BasicSR's model class for training a student with teachers and distillers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import lsfd.compat  # noqa: F401

import torch
from basicsr.losses import build_loss
from basicsr.models.base_model import BaseModel
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from lsfd.config.load import LoadedOptions, options_from_dict
from lsfd.config.options import Options
from lsfd.errors import LsfdError
from lsfd.inference.device import autocast_dtype, pick_device
from lsfd.networks.quick import use_quick_modules
from lsfd.networks.taps import TappedNetwork
from lsfd.training.assembly import Parts, Window, assemble
from lsfd.training.distributed import Processes
from lsfd.training.finite import (
    KeptBuffers,
    all_finite,
    faulty,
    faulty_gradients,
    faulty_terms,
    gradient_norm,
)
from lsfd.training.lessons import Lessons
from lsfd.training.phases import MethodTurn, Phase, phase_at, plan
from lsfd.training.schedule import learning_rate, rate_factor
from lsfd.training.step import DistillationStep
from lsfd.training.tally import LossMeans, SkippedSteps
from lsfd.training.teacher_cache import Result, teacher_caches, weights_digest

SMALLEST_SCALE = 1.0
"""Of fp16's loss: below it an overflow is no matter of the scale any more."""

Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


@MODEL_REGISTRY.register()
class LSFDModel(BaseModel):
    """A student that learns from ground truth, teachers and distillers.

    ``net_g`` is the student, ``net_g_ema`` the moving average of its weights (a plain copy of
    them when ``train.ema_decay`` is 0): what is validated and exported. ``peers`` and
    ``peers_ema`` are the same for networks that are trained beside the student.

    Differs from BasicSR's models on purpose: weights are read without executing code, teachers
    are never wrapped or re-pointed, one object (``state_dict``) holds all that a resume needs.
    """

    def __init__(
        self, opt: Mapping[str, Any] | LoadedOptions, processes: Processes | None = None
    ) -> None:
        """Build networks, losses and optimiser.

        Args:
            opt: BasicSR's option dictionary, or an option file that was loaded already.
            processes: this process's place in distributed training.

        Raises:
            LsfdError: naming the key of what does not fit.
        """
        if isinstance(opt, Mapping):
            opt = options_from_dict(opt)
        self.loaded = opt
        self.options: Options = opt.options
        self.opt = opt.raw
        self.is_train = True
        self.processes = processes or Processes()
        self.device = training_device(self.options, self.processes)
        self.dtype = autocast_dtype(self.options.train.precision, self.device)
        channels_last = self.options.train.channels_last
        self._layout = torch.channels_last if channels_last else torch.contiguous_format

        parts = assemble(opt)
        self.begun_anew = parts.begun_anew
        self.teacher_digests = [weights_digest(teacher) for teacher in parts.teachers]
        caches = teacher_caches(
            self.options, parts, self.device, self.dtype, self.processes.world_size
        )
        self.net_g = self._place(parts.student, parts.student_taps)
        self.peers = [self._place(*peer) for peer in zip(parts.peers, parts.peer_taps, strict=True)]
        # Averages are taken before hooks are attached, so that the copies carry none.
        self._averages = [self._averaged(network) for network in (self.net_g, *self.peers)]
        self.net_g_ema, *self.peers_ema = (average.module for average in self._averages)
        self.teachers = [
            TappedNetwork(self._place(teacher, taps), taps)
            for teacher, taps in zip(parts.teachers, parts.teacher_taps, strict=True)
        ]
        for distiller in parts.distillers.values():
            self._place(distiller)
        student: nn.Module = TappedNetwork(self.net_g, parts.student_taps)
        peers: list[nn.Module] = [
            TappedNetwork(peer, taps)
            for peer, taps in zip(self.peers, parts.peer_taps, strict=True)
        ]
        if self.options.train.compile:
            # Methods may add inputs of one or two sizes more; each is worth a graph of its own.
            student = torch.compile(student, dynamic=False)  # type: ignore[assignment]
            self.teachers = [torch.compile(t, dynamic=False) for t in self.teachers]  # type: ignore[misc]
            peers = [torch.compile(peer, dynamic=False) for peer in peers]  # type: ignore[misc]
        self.lessons = Lessons(self.teachers, caches, self.options, self.processes, self.dtype)
        pixel = self.options.train.pixel_opt
        pixel_loss = build_loss(pixel.model_dump()) if pixel else None
        self.step = DistillationStep(
            student, peers, parts.distillers, parts.windows, pixel_loss
        ).to(self.device)
        self.phases = self._phases(parts)
        self.wrapped_step: nn.Module = self.step
        if self.processes.distributed:
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.wrapped_step = DistributedDataParallel(
                self.step, device_ids=ids, find_unused_parameters=self._some_pause(parts)
            )

        self.optimizer_g = self._optimizer(self.step.parameters())
        self.turns = self._turns(parts)
        self.optimizers = [self.optimizer_g, *(optimizer for _, optimizer in self.turns)]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.rate_factor = rate_factor(self.options.train, self.processes.world_size)
        self._kept = KeptBuffers(self.step)
        self.loss_means = LossMeans(self.device, self.processes)
        self.skipped = SkippedSteps(self.options.train.max_skipped, self.processes)

    def _phases(self, parts: Parts) -> list[Phase]:
        try:
            return plan(parts.distillers, self.options.train.total_iter)
        except LsfdError as error:
            raise self.loaded.error("train.total_iter", str(error)) from error

    def _some_pause(self, parts: Parts) -> bool:
        """Return whether some parameters take no part in some steps."""
        idle = any(not any(method.weights.values()) for method in parts.distillers.values())
        windows = any(window != Window(weight=window.weight) for window in parts.windows.values())
        turns = any(method.turns() for method in parts.distillers.values())
        return len(self.phases) > 1 or windows or idle or turns

    def _place(self, network: nn.Module, taps: Sequence[str] = ()) -> nn.Module:
        network = network.to(self.device)
        use_quick_modules(network, taps)
        if self.options.train.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def _averaged(self, network: nn.Module) -> AveragedModel:
        average = AveragedModel(network, multi_avg_fn=moving_average(self.options.train.ema_decay))
        average.eval().requires_grad_(False)
        return average

    def _optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        arguments = self.options.train.optim_g.model_dump(exclude={"type"})
        kind = getattr(torch.optim, self.options.train.optim_g.type)
        return kind(parameters, **arguments)

    def _turns(self, parts: Parts) -> list[tuple[MethodTurn, torch.optim.Optimizer]]:
        """Return every method's turns with their optimisers, in the order in which they come."""
        networks = [
            *self.net_g.parameters(),
            *(p for peer in self.peers for p in peer.parameters()),
        ]
        turns = []
        for name, method in parts.distillers.items():
            for turn in method.turns():
                shared = networks if turn.trains_networks else []
                optimizer = self._optimizer([*shared, *method.turn_parameters(turn)])
                turns.append((MethodTurn(name, turn), optimizer))
        return turns

    def feed_data(self, data: Mapping[str, Tensor]) -> None:
        """Take a batch: ``lq`` B x 3 x h x w, ``gt`` B x 3 x sh x sw; uint8, or float in 0..1.

        Raises:
            LsfdError: the shapes do not fit each other at this scale.
        """
        shapes = [tuple(data[name].shape) for name in ("lq", "gt")]
        (*count, height, width), scale = shapes[0], self.options.scale
        if shapes[1] != (*count, scale * height, scale * width) or len(count) != 2:
            raise LsfdError(
                f"a batch of lq {shapes[0]} and gt {shapes[1]} cannot be trained on: at scale "
                f"{scale} they are B x 3 x h x w and B x 3 x {scale}h x {scale}w"
            )
        self.lq, self.gt = (self._to_device(data[name]) for name in ("lq", "gt"))

    def _to_device(self, images: Tensor) -> Tensor:
        images = images.to(self.device, non_blocking=True)
        images = images.contiguous(memory_format=self._layout)
        return images.float().div_(255) if images.dtype == torch.uint8 else images

    def optimize_parameters(self, current_iter: int) -> None:
        """Take one optimiser step on the batch that was fed, then the methods' turns.

        A step, or a turn, whose loss or gradient is not finite is skipped, counted and named in
        the log; it leaves no trace in weights, averages, optimisers and running statistics.

        Args:
            current_iter: counted from 1; sets the learning rate.

        Raises:
            LsfdError: in ``train.max_skipped`` iterations in a row something was skipped, or a
                teacher's results are not finite, which skipping does not help.
        """
        phase = phase_at(self.phases, current_iter)
        if current_iter == phase.first:
            self._begin_phase()
        rate = learning_rate(self.options.train, phase, current_iter) * self.rate_factor
        if phase.stage is not None and not phase.stage.learns:
            self.skipped.count(current_iter, self._look(phase, current_iter))
            return
        terms, problem = self._take_step(self.optimizer_g, rate, phase, current_iter, None)
        problems = [problem]
        if terms:
            active = self.step.active(phase, current_iter) if phase.stage is None else {}
            for turn, optimizer in self.turns:
                if turn.method in active:
                    share = rate / self.options.train.optim_g.lr
                    its_terms, problem = self._take_step(
                        optimizer, turn.turn.lr * share, phase, current_iter, turn
                    )
                    terms |= its_terms
                    problems.append(problem)
            self.loss_means.add(terms)
            for network, average in zip((self.net_g, *self.peers), self._averages, strict=True):
                average.update_parameters(network)
        self.skipped.count(current_iter, "; ".join(filter(None, problems)))

    def _take_step(
        self,
        optimizer: torch.optim.Optimizer,
        rate: float,
        phase: Phase,
        current_iter: int,
        turn: MethodTurn | None,
    ) -> tuple[dict[str, Tensor], str]:
        """Move the optimiser's parameters.

        Returns:
            The loss terms and "". If loss or gradient is not finite, nothing is moved: no terms,
            and what was wrong; "" where fp16 overflows now and then, as it may.
        """
        for group in optimizer.param_groups:
            group["lr"] = rate
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.step.zero_grad(set_to_none=True)
        self._kept.keep()
        terms = self._accumulate_gradients(phase, current_iter, turn)
        norm = gradient_norm(parameters)
        terms_finite, norm_finite = self._agreed(
            all_finite([torch.stack(list(terms.values()))]), norm.isfinite()
        )
        if not (terms_finite and norm_finite):
            self._kept.put_back()
            overflows = terms_finite and self.scaler.is_enabled()
            if overflows:
                self.scaler.unscale_(optimizer)  # It notices, and
                self.scaler.update()  # lowers the scale.
                if self.scaler.get_scale() >= SMALLEST_SCALE:
                    return {}, ""
            return {}, self._explained(phase, current_iter, terms)
        self.scaler.unscale_(optimizer)
        if self.options.train.clip_grad_norm:
            nn.utils.clip_grad_norm_(parameters, self.options.train.clip_grad_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        return terms, ""

    def _agreed(self, *flags: Tensor) -> list[bool]:
        """Return the flags, each true if it is so in all processes; waits for the device once."""
        both = torch.stack([flag.to(self.device) for flag in flags])
        if self.processes.distributed:
            numbers = both.float()
            distributed.all_reduce(numbers, distributed.ReduceOp.MIN)
            both = numbers > 0
        values: list[bool] = both.tolist()
        return values

    def _look(self, phase: Phase, current_iter: int) -> str:
        """Show the batch to a method whose stage minimises nothing; return what was wrong."""
        self._kept.keep()
        seen = [self.lq, self.gt]
        with torch.no_grad():
            for index, (lq, gt) in enumerate(self._chunks()):
                taught = self._lesson(lq, phase, current_iter, index)
                seen += [output for output, _ in taught]
                # Not through the wrapper, which waits for gradients.
                self._losses(self.step, lq, gt, phase, current_iter, taught, None)
        if all(self._agreed(all_finite(seen), self._kept.finite())):
            return ""
        self._kept.put_back()
        return self._explained(phase, current_iter, {})

    def _chunks(self) -> list[tuple[Tensor, Tensor]]:
        """Return lq and gt of the batch in ``train.accumulate`` parts."""
        parts = self.options.train.accumulate
        return list(zip(self.lq.chunk(parts), self.gt.chunk(parts), strict=True))

    def _begin_phase(self) -> None:
        """Start with a fresh optimiser and a fresh average: the last phase had other losses."""
        self.optimizer_g.state.clear()
        for average in self._averages:
            average.n_averaged.zero_()

    def _accumulate_gradients(
        self, phase: Phase, current_iter: int, turn: MethodTurn | None
    ) -> dict[str, Tensor]:
        """Run forward and backward over the parts of the batch; return the batch's loss terms."""
        chunks = self._chunks()
        sums: dict[str, Tensor] = {}
        for index, (lq, gt) in enumerate(chunks):
            waits = self.processes.distributed and index + 1 < len(chunks)
            with self.wrapped_step.no_sync() if waits else nullcontext():  # type: ignore[operator]
                share = len(lq) / len(self.lq)
                taught = self._lesson(lq, phase, current_iter, index)
                losses = self._losses(self.wrapped_step, lq, gt, phase, current_iter, taught, turn)
                terms = {name: value * share for name, value in losses.items()}
                self.scaler.scale(torch.stack(list(terms.values())).sum()).backward()
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
        return sums

    def _losses(
        self,
        step: nn.Module,
        lq: Tensor,
        gt: Tensor,
        phase: Phase,
        current_iter: int,
        taught: list[Result],
        turn: MethodTurn | None,
    ) -> dict[str, Tensor]:
        """Return the loss terms of a part of the batch, on which the teachers gave ``taught``."""
        outputs = [output.float() for output, _ in taught]
        features = [features for _, features in taught]
        teachers = self.teachers if taught else []
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            return step(lq, gt, outputs, features, teachers, phase, current_iter, turn)

    def _lesson(self, lq: Tensor, phase: Phase, current_iter: int, part: int) -> list[Result]:
        """Return what the teachers make of a part of the batch; nothing, if no method asks."""
        asked = self._is_taught(phase, current_iter)
        return self.lessons.of(lq, current_iter, part) if asked else []

    def _is_taught(self, phase: Phase, current_iter: int) -> bool:
        """Return whether any method of an iteration looks at the teachers' results."""
        active = self.step.active(phase, current_iter).values()
        return any(method.needs_teacher for method in active)

    def _explained(self, phase: Phase, current_iter: int, terms: Mapping[str, Tensor]) -> str:
        """Return what is not finite in a step that is not taken, in whatever process.

        Raises:
            LsfdError: it is a teacher's results.
        """
        told = self.processes.gather(lambda: self._own_fault(phase, current_iter, terms))
        if len(told) == 1:
            return told[0]
        return ", ".join(f"process {rank}: {text}" for rank, text in enumerate(told) if text)

    def _own_fault(self, phase: Phase, current_iter: int, terms: Mapping[str, Tensor]) -> str:
        """Return what is not finite in this process, from input to gradient; "": nothing."""
        images = faulty({"lq": self.lq, "gt": self.gt})
        if images:
            return f"the batch's {' and '.join(images)} held NaN or infinity"
        if self._is_taught(phase, current_iter):
            for part, (lq, _) in enumerate(self._chunks()):
                self.lessons.check(lq, current_iter, part)
        if not terms:
            return f"what {phase.method} looks at was not finite"
        if wrong := faulty_terms(terms):
            return wrong
        wrong = faulty_gradients(self.step)
        if self.scaler.is_enabled():
            wrong += f" (fp16's scale is {self.scaler.get_scale():g})"
        return wrong

    def get_current_log(self) -> dict[str, float]:
        """Return each named loss, averaged over processes and steps since the last call."""
        return self.loss_means.take()

    def get_current_learning_rate(self) -> list[float]:
        """Return the learning rate of the last step."""
        return [group["lr"] for group in self.optimizer_g.param_groups]

    def test(self) -> None:
        """Upscale the fed ``lq`` with the averaged student; the result is ``output``, 0..1."""
        with torch.inference_mode():
            self.output = self.net_g_ema(self.lq)

    def get_current_visuals(self) -> dict[str, Tensor]:
        """Return ``lq``, ``result`` and ``gt`` as float tensors on the CPU."""
        named = {"lq": self.lq, "result": self.output, "gt": self.gt}
        return {name: value.detach().cpu() for name, value in named.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what training changes, but for the sums of ``loss_means``.

        Each process has its own of those; with them, a resume goes on bit for bit.
        """
        return {
            "student": self.net_g.state_dict(),
            "peers": [peer.state_dict() for peer in self.peers],
            "averages": [average.state_dict() for average in self._averages],
            "distillers": self.step.distillers.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "skipped": self.skipped.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        """Put back what :meth:`state_dict` returned.

        Raises:
            LsfdError: the checkpoint belongs to another student or other distillers.
        """
        try:
            self.net_g.load_state_dict(state["student"])
            for peer, weights in zip(self.peers, state["peers"], strict=True):
                peer.load_state_dict(weights)
            for average, weights in zip(self._averages, state["averages"], strict=True):
                average.load_state_dict(weights)
            self.step.distillers.load_state_dict(state["distillers"])
            for optimizer, its in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(its)
            if state["scaler"]:  # Empty where the run began in another precision than fp16.
                self.scaler.load_state_dict(state["scaler"])
            self.skipped.load_state(state["skipped"])
            if "log" in state:  # Of an older version; now each process has its own.
                self.loss_means.load_state(state["log"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise LsfdError(
                f"{source}: does not fit this option file's student and distillers "
                f"({' '.join(str(error).split())[:200]}); resume with the option file that the run "
                "began with, or start a new run under another name"
            ) from error


def moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return the update of an exponential moving average of weights, in place.

    The decay rises as (1 + n) / (10 + n) until it reaches ``decay``: with a constant 0.999 a run
    of 2,000 steps would still carry 13 % of its random start.

    Args:
        decay: share of the old average, 0 <= decay < 1; with 0 the average is a plain copy.
    """

    @torch.no_grad()
    def update(averages: Tensors, weights: Tensors, done: Tensor | int) -> None:
        now = min(decay, (1 + int(done)) / (10 + int(done)))
        torch._foreach_lerp_(averages, weights, 1 - now)

    return update


def training_device(options: Options, processes: Processes) -> torch.device:
    """Return the CPU for ``num_gpu: 0``, otherwise this process's GPU (CPU if there is none)."""
    if options.num_gpu == 0:
        return torch.device("cpu")
    device = pick_device("auto")
    return torch.device("cuda", processes.local_rank) if device.type == "cuda" else device
