"""Structured pruning: what is chosen, and that the smaller network is the masked one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsfd.cli import main
from lsfd.errors import LsfdError
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.networks.build import build_network
from lsfd.networks.pruning import mask_channels, slim
from lsfd.networks.slim_edsr import SlimEDSR
from lsfd.networks.student_file import StudentCard, read_student, save_student

SIZES = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 4, "res_scale": 0.5}


def architecture(upscale: int = 4) -> dict[str, Any]:
    return {"type": "EDSR", **SIZES, "upscale": upscale}


def edsr(upscale: int = 4) -> Any:
    torch.manual_seed(0)
    return build_network(architecture(upscale))


def images(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("upscale", [2, 3, 4])
@pytest.mark.parametrize("uniform", [True, False])
def test_the_slim_network_is_the_masked_one(upscale: int, uniform: bool) -> None:
    network = edsr(upscale)
    masked = mask_channels(network, 0.6, uniform=uniform)
    smaller, options = slim(masked, architecture(upscale))
    torch.testing.assert_close(smaller(images()), masked(images()), atol=1e-5, rtol=1e-4)
    assert (masked(images()) - network(images())).abs().max() > 1e-3
    build_network(options).load_state_dict(smaller.state_dict())


def test_it_really_shrinks() -> None:
    network = edsr()
    smaller, options = slim(mask_channels(network, 0.5), architecture())
    assert sum(options["block_widths"]) == 4 * 8 / 2
    assert options["upsample_width"] == 4
    assert count_parameters(smaller) < 0.55 * count_parameters(network)
    assert multiply_adds(smaller, 10, 10) < 0.5 * multiply_adds(network, 10, 10)


def test_masked_weights_stay_zero_and_slim_training_is_masked_training() -> None:
    masked = mask_channels(edsr(), 0.5)
    smaller, _ = slim(masked, architecture())
    for network in (masked, smaller):
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
        for step in range(3):
            optimizer.zero_grad()
            network(images(step)).square().mean().backward()
            optimizer.step()
    masked(images())  # torch.nn.utils.prune multiplies by the mask in forward.
    block = masked.body[0].conv1
    gone = block.bias_mask == 0
    assert gone.any() and not block.weight[gone].any() and not block.bias[gone].any()
    trained, _ = slim(masked, architecture())
    for name, value in smaller.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def test_what_goes_is_least_important_in_all_blocks_together() -> None:
    network = edsr()
    with torch.no_grad():  # One block's channels hardly do anything, whatever conv1 alone says.
        network.body[1].conv1.weight.mul_(10)
        network.body[1].conv2.weight.mul_(1e-4)
    _, options = slim(mask_channels(network, 0.25), architecture())
    assert options["block_widths"][1] == 1  # Its best channel stays; 7 of 8 are gone.
    assert sum(options["block_widths"]) == 24
    _, options = slim(mask_channels(network, 0.25, uniform=True), architecture())
    assert options["block_widths"] == [6] * 4


def test_a_factor_passed_through_the_relu_changes_no_choice() -> None:
    network, other = edsr(), edsr()
    with torch.no_grad():
        factor = torch.linspace(0.1, 9, 8)
        other.body[2].conv1.weight.mul_(factor.view(-1, 1, 1, 1))
        other.body[2].conv1.bias.mul_(factor)
        other.body[2].conv2.weight.div_(factor.view(1, -1, 1, 1))
    first, second = (slim(mask_channels(n, 0.4), architecture())[0] for n in (network, other))
    torch.testing.assert_close(first(images()), second(images()), atol=1e-5, rtol=1e-4)


def test_nothing_pruned_is_the_network_itself_and_something_always_stays() -> None:
    network = edsr()
    same, _ = slim(mask_channels(network, 0), architecture())
    assert torch.equal(same(images()), network(images()))
    least, options = slim(mask_channels(network, 0.999), architecture())
    assert options["block_widths"] == [1] * 4 and options["upsample_width"] == 1
    assert torch.isfinite(least(images())).all()


def test_zero_weights_are_pruned_without_fault() -> None:
    network = edsr()
    nn.init.zeros_(network.body[0].conv1.weight)
    smaller, _ = slim(mask_channels(network, 0.25), architecture())
    assert torch.isfinite(smaller(images())).all()


@pytest.mark.parametrize("amount", [-0.1, 1, 2.0])
def test_an_impossible_share_is_refused(amount: float) -> None:
    with pytest.raises(LsfdError, match=r"^amount: "):
        mask_channels(edsr(), amount)


def test_the_verb_writes_a_network_that_describes_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, result = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    card = StudentCard(architecture=architecture(), scale=4, seed=5, scores={"Set5": {"psnr": 1.0}})
    save_student(source, edsr(), card)
    assert (
        main(["prune", "-w", str(source), "--amount", "0.5", "--uniform", "-o", str(result)]) == 0
    )
    network, card = read_student(result)
    assert isinstance(network, SlimEDSR)
    assert card.seed == 5 and not card.scores and "50%" in (card.note or "")
    assert "block_widths: [4, 4, 4, 4], upsample_width: 4" in capsys.readouterr().out
    assert main(["prune", "-w", "edsr-m-x2", "-o", str(tmp_path / "ready.safetensors")]) == 0
    assert main(["prune", "-w", str(result), "-o", str(tmp_path / "again.safetensors")]) == 2
    assert "only EDSR can be pruned" in capsys.readouterr().err
