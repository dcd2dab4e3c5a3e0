"""Quantisation-aware training: levels, gradients, ranges, and its way through the trainer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lsfd.cli import main
from lsfd.config.load import options_from_dict
from lsfd.errors import LsfdError
from lsfd.metrics.cost import multiply_adds
from lsfd.networks.build import build_network
from lsfd.networks.post_training import calibration_crops, quantize
from lsfd.networks.quantization import LearnedRange, QuantizedConv2d, fake_quantize
from lsfd.networks.quantized_edsr import QuantizedEDSR
from lsfd.networks.stages import auto_taps
from lsfd.networks.student_file import StudentCard, read_student, save_student
from lsfd.training.distributed import Processes
from lsfd.training.run import Run

Options = Callable[..., dict[str, Any]]
SIZES = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 3, "upscale": 2}
EDSR = {"type": "EDSR", **SIZES}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pair(bits: int, **options: Any) -> tuple[Any, QuantizedEDSR]:
    """An EDSR, and what quantising leaves of it."""
    torch.manual_seed(0)
    network = build_network({**EDSR, **options}).eval()
    quantized, _ = quantize(network, {**EDSR, **options}, bits, [draw(1, 3, 20, 16, seed=1)])
    return network, quantized


# One tensor


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_values_are_those_of_torchs_own_operations(bits: int) -> None:
    conv = QuantizedConv2d.of(
        torch.nn.Conv2d(5, 7, 3), bits, LearnedRange(bits, signed=True, largest=3)
    )
    high, zeros = 2 ** (bits - 1) - 1, torch.zeros(7, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(
        conv.weight, conv.weight_scale().flatten(), zeros, 0, -high, high
    )
    torch.testing.assert_close(conv.quantized_weight(), expected)
    x = 8 * draw(3, 40) - 4
    for signed in (True, False):
        module = LearnedRange(bits, signed=signed, largest=3)
        expected = torch.fake_quantize_per_tensor_affine(
            x, float(module.scale().detach()), 0, module.lowest, module.highest
        )
        torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_there_are_at_most_2_to_the_b_levels(bits: int, signed: bool) -> None:
    module = LearnedRange(bits, signed=signed, largest=2)
    levels = module(torch.linspace(-5, 5, 10_001)).unique()
    assert len(levels) == 2**bits
    assert levels.max() <= 2 and levels.min() >= (-2 if signed else 0)
    torch.testing.assert_close(levels / module.scale(), (levels / module.scale()).round())


def test_gradients_are_straight_through_and_lsqs() -> None:
    module = LearnedRange(4, signed=True, largest=2)
    x = torch.tensor([-9.0, -1.93, -0.3, 0.0, 0.6, 1.2, 9.0], requires_grad=True)
    given = torch.tensor([1.0, 2.0, -3.0, 4.0, 5.0, -6.0, 7.0])
    module(x).backward(given)
    scale = module.scale().detach()
    inside = torch.tensor([0, 1, 1, 1, 1, 1, 0], dtype=torch.bool)
    assert torch.equal(x.grad, given * inside)
    ratio = x.detach() / scale
    lsq = torch.where(inside, ratio.round() - ratio, ratio.clamp(-8, 7))
    expected = (given * lsq).sum() * scale * torch.log(torch.tensor(2.0))
    torch.testing.assert_close(module.log_range.grad, expected)


def test_zeros_are_quantised_to_zeros_with_finite_gradients() -> None:
    conv = torch.nn.Conv2d(2, 2, 3, padding=1)
    torch.nn.init.zeros_(conv.weight)
    module = QuantizedConv2d.of(
        conv, 8, LearnedRange(8, signed=True, largest=1), LearnedRange(8, signed=True, largest=1)
    )
    torch.nn.init.zeros_(module.bias)
    output = module(torch.zeros(1, 2, 4, 4))
    output.sum().backward()
    assert not output.any()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


# The network


def test_every_weight_and_every_input_of_a_convolution_has_few_levels() -> None:
    bits = 4
    _, network = pair(bits)
    seen = {}
    for name, module in network.named_modules():
        if isinstance(module, QuantizedConv2d):
            for channel in module.quantized_weight():
                assert len(channel.unique()) <= 2**module.bits - 1

            def note(m: Any, args: Any, name: str = name) -> None:
                given = args[0] if m.input_range is None else m.input_range(args[0])
                seen[name] = len(given.unique())

            module.register_forward_pre_hook(note)
    network(draw(1, 3, 17, 23))
    edges = {"conv_first", "conv_last"}
    assert len(seen) == 10
    assert all(count <= 2**bits for name, count in seen.items() if name not in edges)
    assert 2**bits < max(seen[name] for name in edges) <= 2**8


def test_many_bits_are_full_precision_and_fewer_are_worse() -> None:
    errors = []
    for bits in (16, 8, 6, 4):
        network, quantized = pair(bits)
        x = draw(1, 3, 20, 16, seed=1)
        errors.append((network(x) - quantized(x)).square().mean().sqrt().item())
    assert errors == sorted(errors)
    assert errors[0] < 1e-4 and errors[0] < errors[1] / 20


@pytest.mark.parametrize("options", [{"upscale": 1}, {"upscale": 3}, {"upscale": 4}])
def test_other_scales(options: dict[str, Any]) -> None:
    network, quantized = pair(12, **options)
    x = draw(1, 3, 20, 16, seed=1)
    torch.testing.assert_close(quantized(x), network(x), atol=5e-3, rtol=0)


def test_it_begins_with_the_weights_of_edsr_and_has_its_names_and_taps() -> None:
    torch.manual_seed(0)
    network = build_network(EDSR)
    torch.manual_seed(0)
    quantized = build_network({**EDSR, "type": "QuantizedEDSR"})
    state = quantized.state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(state.pop(name), value)
    assert all(name.endswith("_range.log_range") for name in state)
    assert auto_taps(quantized) == auto_taps(network)
    assert multiply_adds(quantized, 8, 8) == multiply_adds(network, 8, 8)


def test_a_copy_has_ranges_of_its_own() -> None:
    _, network = pair(8)
    other = copy.deepcopy(network)
    assert other.conv_last.given is other.upsample[0].output_range
    assert other.conv_last.given is not network.conv_last.given


@pytest.mark.parametrize("bits", [1, 17])
def test_impossible_bits_are_refused(bits: int) -> None:
    with pytest.raises(LsfdError, match=r"bits: must be in 2\.\.16"):
        build_network({**EDSR, "type": "QuantizedEDSR", "bits": bits})


def test_it_is_traced_without_a_break() -> None:
    network = torch.nn.Sequential(pair(8)[1].conv_first)
    x = draw(1, 3, 6, 5)
    traced = torch.compile(network, backend="eager", fullgraph=True)
    assert torch.equal(traced(x), network(x))


# Calibration


def test_calibration_takes_the_range_with_the_least_error() -> None:
    network, quantized = pair(4)
    x = draw(1, 3, 20, 16, seed=1)
    module = quantized.conv_first.input_range
    assert module is not None
    given = (x - network.mean) * network.img_range

    def error(r: Tensor) -> float:
        scale = torch.exp2(r) / 128  # The first convolution has 8 bits.
        return float((fake_quantize(given, scale, -128, 127) - given).square().sum())

    best = error(module.log_range.detach())
    for shift in (-0.25, 0.25, -0.5, -2):
        candidate = module.log_range.detach() + shift
        if torch.exp2(candidate) <= given.abs().max() * 1.001:
            assert best <= error(candidate)


def test_calibration_leaves_weights_and_hooks_as_they_were() -> None:
    network, quantized = pair(8)
    state = quantized.state_dict()
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    assert not any(m._forward_hooks for m in quantized.modules())
    assert not quantized.training


def test_the_verb_writes_a_network_that_describes_itself(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, result = tmp_path / "float.safetensors", tmp_path / "int8.safetensors"
    save_student(source, build_network(EDSR), StudentCard(architecture=EDSR, scale=2, seed=5))
    command = ["quantize", "-i", str(photographs), "--bits", "6", "-w"]
    assert main([*command, str(source), "-o", str(result)]) == 0
    network, card = read_student(result)
    assert isinstance(network, QuantizedEDSR) and card.architecture["bits"] == 6
    assert card.seed == 5 and "6 bits" in (card.note or "")
    assert main([*command, "edsr-m-x2", "-o", str(tmp_path / "ready.safetensors")]) == 0
    assert main([*command, str(result), "-o", str(tmp_path / "again.safetensors")]) == 2
    assert "only EDSR can be quantised" in capsys.readouterr().err


def test_a_folder_without_images_ends_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match="there is no image in it"):
        calibration_crops(tmp_path)


# The trainer


@pytest.fixture
def int8_options(run_options: Options, photographs: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a run that goes on from a calibrated student."""
    edsr = run_options()["network_g"]
    source, start = tmp_path / "float.safetensors", tmp_path / "int8.safetensors"
    save_student(source, build_network(edsr), StudentCard(architecture=edsr, scale=2))
    main(["quantize", "-i", str(photographs), "-w", str(source), "-o", str(start)])
    return run_options(
        network_g={**edsr, "type": "QuantizedEDSR", "bits": 8},
        path={"pretrain_network_g": str(start)},
    )


def test_ranges_are_learned_averaged_and_resumed_bit_for_bit(int8_options: dict[str, Any]) -> None:
    whole = Run(options_from_dict(int8_options), Processes())
    before = {name: p.detach().clone() for name, p in whole.model.net_g.named_parameters()}
    whole.go(auto_resume=False)
    after, average = whole.model.net_g.state_dict(), whole.model.net_g_ema.state_dict()
    ranges = [name for name in before if name.endswith("log_range")]
    assert len(ranges) == 15
    for name in ranges:
        assert not torch.equal(after[name], before[name]), name
        # A moving average lies between the beginning and the end of a way in one direction.
        assert not torch.equal(average[name], after[name]), name
    final = whole.folder.student.read_bytes()

    for path in (whole.folder.student, whole.folder.states / "12.state"):
        path.unlink()
    resumed = Run(options_from_dict(int8_options), Processes())
    assert resumed.go(auto_resume=True) == 0
    assert resumed.folder.student.read_bytes() == final


def test_the_teacher_stays_in_full_precision(int8_options: dict[str, Any]) -> None:
    int8_options["train"]["total_iter"] = 2
    run = Run(options_from_dict(int8_options), Processes())
    (teacher,) = run.model.teachers
    assert not any(isinstance(m, QuantizedConv2d | LearnedRange) for m in teacher.modules())
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    run.go(auto_resume=False)
    for name, value in teacher.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[name])
