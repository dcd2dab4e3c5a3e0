"""EDSR with gates that a mixture of objectives moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.networks.build import build_network, network_scale
from lsfd.networks.gated_edsr import ChannelGate, GatedEDSR
from lsfd.networks.stages import auto_taps
from lsfd.networks.student_file import StudentCard, read_student, save_student
from lsfd.networks.taps import TappedNetwork

EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 6}
GATED = {**EDSR, "type": "GatedEDSR", "upscale": 2}


def gated(seed: int = 0, **options: Any) -> GatedEDSR:
    torch.manual_seed(seed)
    network = build_network({**GATED, **options})
    assert isinstance(network, GatedEDSR)
    return network.eval()


def image(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def mixtures(count: int, objectives: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, objectives, generator=generator).softmax(1)


def open_gates(network: GatedEDSR) -> None:
    for module in network.modules():
        if isinstance(module, ChannelGate):
            nn.init.constant_(module.excite[0].bias, 100.0)


@pytest.mark.parametrize("upscale", [2, 3, 4])
@torch.no_grad()
def test_with_open_gates_it_is_edsr(upscale: int) -> None:
    network, edsr = gated(upscale=upscale), build_network({**EDSR, "upscale": upscale})
    edsr.load_state_dict({k: v for k, v in network.state_dict().items() if k in edsr.state_dict()})
    open_gates(network)
    x = image(2, 3, 9, 7)
    torch.testing.assert_close(network(x, mixtures(2)), edsr(x))
    assert network_scale(network) == upscale


def test_factors_are_between_0_and_1_and_depend_on_mixture_and_image() -> None:
    torch.manual_seed(0)
    gate = ChannelGate(8, 3, 255.0)
    features = 255 * image(4, 8, 5, 6)
    factors = gate.factors(features, mixtures(4))
    assert factors.shape == (4, 8, 1, 1)
    assert (factors > 0).all() and (factors < 1).all()
    torch.testing.assert_close(gate(features, mixtures(4)), features * factors)
    assert not torch.equal(gate.factors(features, mixtures(4).flip(0)), factors)
    assert not torch.equal(gate.factors(features / 2, mixtures(4)), factors)


@pytest.mark.parametrize(
    ("blocks", "ends"), [(8, [0, 2, 5, 8]), (6, [0, 2, 4, 6]), (2, [0, 1, 2]), (1, [0, 1])]
)
def test_gates_stand_after_the_stem_and_each_third(blocks: int, ends: list[int]) -> None:
    network = gated(num_block=blocks)
    seen: list[tuple[int, Tensor]] = []
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1

    for block in network.body:
        block.register_forward_hook(count)
    for gate in network.gates:
        gate.register_forward_hook(lambda _, args, output: seen.append((done, args[1])))
    network(image(2, 3, 8, 8), mixtures(2))
    assert [position for position, _ in seen] == ends
    assert all(torch.equal(mixture, mixtures(2)) for _, mixture in seen)


@torch.no_grad()
def test_each_image_has_a_mixture_of_its_own() -> None:
    network, x, s = gated(), image(3, 3, 8, 8), mixtures(3)
    for index in range(3):
        one = network(x[index : index + 1], s[index : index + 1])
        torch.testing.assert_close(network(x, s)[index : index + 1], one)
    same = x[:1].expand(3, -1, -1, -1)
    outputs = network(same, s)
    assert not torch.allclose(outputs[0], outputs[1])


@torch.no_grad()
def test_without_a_mixture_the_stored_one_counts() -> None:
    network, x = gated(), image(2, 3, 8, 8)
    first, last = (torch.eye(3)[index].expand(2, 3) for index in (0, 2))
    assert torch.equal(network(x), network(x, first))
    network.set_mixture({"teacher": 4})
    assert torch.equal(network(x), network(x, last))


def test_shares_are_divided_by_their_sum() -> None:
    network = gated()
    network.set_mixture({"teacher": 3, "fidelity": 1})
    assert network.mixture.tolist() == [0.25, 0, 0.75]
    assert not network.mixture.requires_grad


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({"fidelty": 1.0}, r"^mixture\.fidelty: .*did you mean 'fidelity'\?$"),
        ({"fidelity": 1.0, "teacher": -0.5}, r"^mixture\.teacher: .*at least 0, not -0\.5$"),
        ({"fidelity": float("nan")}, r"^mixture\.fidelity: .*finite"),
        ({"fidelity": float("inf")}, r"^mixture\.fidelity: .*finite"),
        ({"fidelity": 0.0}, r"^mixture: .*above 0.*fidelity, perceptual, teacher$"),
        ({}, r"^mixture: .*above 0"),
        ({"fidelity": 1e308, "teacher": 1e308}, r"^mixture: .*finite"),
    ],
)
def test_impossible_mixtures_are_named(shares: dict[str, float], sentence: str) -> None:
    network = gated()
    with pytest.raises(LsfdError, match=sentence):
        network.set_mixture(shares)
    assert network.mixture.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("objectives", "sentence"),
    [
        ([], "at least two names, all different, not none"),
        (["fidelity"], "at least two names"),
        (["fidelity", "fidelity"], "all different"),
        ("fidelity", r"network_g\.objectives: must be a list of names"),
        (["fidelity", 3], r"network_g\.objectives: must be a list of names"),
    ],
)
def test_impossible_objectives_are_named(objectives: Any, sentence: str) -> None:
    with pytest.raises(LsfdError, match=sentence):
        build_network({**GATED, "objectives": objectives})


@torch.no_grad()
def test_a_file_keeps_objectives_and_mixture(tmp_path: Path) -> None:
    network = gated(objectives=["sharp", "soft"])
    network.set_mixture({"sharp": 1, "soft": 3})
    card = StudentCard(architecture={**GATED, "objectives": ["sharp", "soft"]}, scale=2)
    save_student(tmp_path / "student.safetensors", network, card)
    loaded, _ = read_student(tmp_path / "student.safetensors")
    assert isinstance(loaded, GatedEDSR)
    assert loaded.objectives == ("sharp", "soft") and loaded.mixture.tolist() == [0.25, 0.75]
    x = image(1, 3, 8, 8)
    assert torch.equal(loaded(x), network(x))


def test_taps_are_those_of_edsr() -> None:
    network, edsr = gated(), build_network(EDSR)
    assert auto_taps(network) == auto_taps(edsr)
    output, features = TappedNetwork(network, auto_taps(network))(
        image(2, 3, 8, 8), inputs={"mixture": mixtures(2)}
    )
    assert torch.equal(output, network(image(2, 3, 8, 8), mixtures(2)))
    assert {tuple(feature.shape) for feature in features.values()} == {(2, 8, 8, 8)}


def test_gates_cost_little() -> None:
    network, edsr = (
        build_network({**options, "num_feat": 32, "num_block": 8, "upscale": 4})
        for options in (GATED, EDSR)
    )
    gate = (32 * 3 + 32) + (8 * 64 + 8) + (32 * 8 + 32)
    assert count_parameters(network) == count_parameters(edsr) + 4 * gate
    assert multiply_adds(network, 90, 90) < 1.001 * multiply_adds(edsr, 90, 90)


def test_bf16() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        output = gated()(image(2, 3, 8, 8), mixtures(2))
    torch.testing.assert_close(
        output.float(), gated()(image(2, 3, 8, 8), mixtures(2)), rtol=0.05, atol=0.05
    )
