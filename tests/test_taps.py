"""Features by name: the value at the module's return, on every call, with nothing kept."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.networks.build import build_network
from lsfd.networks.stages import auto_taps
from lsfd.networks.taps import TapPair, TappedNetwork, resolve_taps, tap_channels

RGB = {"num_in_ch": 3, "num_out_ch": 3}
TAPS = ["body.1", "conv_after_body", "upsample:input", "conv_after_body:input"]


def edsr(width: int = 8, blocks: int = 3, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_network(
        {"type": "EDSR", **RGB, "num_feat": width, "num_block": blocks, "upscale": 2, **options}
    )


def rcan(groups: int = 3, blocks: int = 12) -> nn.Module:
    torch.manual_seed(0)
    return build_network(
        {"type": "RCAN", **RGB, "num_feat": 8, "num_group": groups, "num_block": blocks}
        | {"squeeze_factor": 4, "upscale": 2}
    )


def images(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(seed))


def recomputed(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Compute EDSR's features step by step, without hooks."""
    shallow = network.conv_first((x - network.mean) * network.img_range)
    second = network.body[1](network.body[0](shallow))
    body = network.body[2](second)
    after = network.conv_after_body(body)
    return {
        "body.1": second,
        "conv_after_body": after,
        "upsample:input": after + shallow,
        "conv_after_body:input": body,
    }


def assert_same(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert list(left) == list(right)
    for name in left:
        torch.testing.assert_close(left[name], right[name], atol=1e-3, rtol=1e-4, msg=name)


def test_features_are_the_values_at_return_in_spite_of_in_place_skips() -> None:
    network = edsr()
    plain = network(images())
    output, features = TappedNetwork(network, TAPS)(images())
    expected = recomputed(network, images())
    assert torch.equal(output, plain)
    assert list(features) == TAPS
    for name in TAPS:
        assert torch.equal(features[name], expected[name]), name
    # The trap itself: without a copy the tap would hold the sum with the long skip.
    assert not torch.equal(features["conv_after_body"], features["upsample:input"])


def test_in_place_activations_do_not_reach_a_tapped_convolution() -> None:
    network = rcan(1, 1)
    _, features = TappedNetwork(network, ["body.0.residual_group.0.rcab.0"])(images())
    assert features["body.0.residual_group.0.rcab.0"].min() < 0  # The ReLU after it is in place.


def test_gradients_flow_through_features() -> None:
    network = edsr()
    _, features = TappedNetwork(network, ["conv_after_body"])(images())
    features["conv_after_body"].square().sum().backward()
    through_tap = network.conv_first.weight.grad.clone()
    assert network.conv_last.weight.grad is None
    network.zero_grad()
    recomputed(network, images())["conv_after_body"].square().sum().backward()
    torch.testing.assert_close(through_tap, network.conv_first.weight.grad)


def test_no_taps_no_hooks() -> None:
    network = edsr()
    output, features = TappedNetwork(network, [])(images())
    assert features == {}
    assert torch.equal(output, network(images()))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_repeated_names_give_one_feature() -> None:
    tapped = TappedNetwork(edsr(), ["body.0", "body.0"])
    assert tapped.taps == ("body.0",)
    assert list(tapped(images())[1]) == ["body.0"]


def test_state_dict_is_the_plain_network_s() -> None:
    network = edsr()
    keys = list(network.state_dict())
    tapped = TappedNetwork(network, TAPS)
    assert list(tapped.network.state_dict()) == keys
    assert list(tapped.state_dict()) == [f"network.{key}" for key in keys]


def test_nothing_is_kept_after_forward() -> None:
    tapped = TappedNetwork(edsr(), TAPS)
    output, features = tapped(images())
    kept = [weakref.ref(tensor) for tensor in (output, *features.values())]
    del output, features
    gc.collect()
    assert not any(reference() is not None for reference in kept)


def test_the_bare_network_records_nothing() -> None:
    tapped = TappedNetwork(edsr(), TAPS)
    clone = copy.deepcopy(tapped.network)
    for network in (tapped.network, clone):
        network(images())
    assert tapped._store.features is None
    assert all(
        hook.store.features is None
        for module in clone.modules()
        for hook in module._forward_hooks.values()
    )


def test_a_failing_forward_leaves_the_network_usable() -> None:
    tapped = TappedNetwork(edsr(), TAPS)
    with pytest.raises(RuntimeError):
        tapped(torch.rand(1, 5, 8, 8))
    assert tapped._store.features is None
    assert_same(tapped(images())[1], recomputed(tapped.network, images()))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_evaluation_then_training(context: Any) -> None:
    tapped = TappedNetwork(edsr(), TAPS).eval()
    with context():
        _, features = tapped(images())
    assert not any(feature.requires_grad for feature in features.values())
    _, features = tapped.train()(images())
    features["body.1"].sum().backward()
    assert tapped.network.conv_first.weight.grad is not None


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_tap_themselves(how: str) -> None:
    tapped = TappedNetwork(edsr(), TAPS)
    tapped(images())
    other = copy.deepcopy(tapped) if how == "deepcopy" else pickle.loads(pickle.dumps(tapped))
    with torch.no_grad():
        other.network.body[1].conv2.weight.mul_(3)
    assert_same(other(images(1))[1], recomputed(other.network, images(1)))
    assert_same(tapped(images(1))[1], recomputed(tapped.network, images(1)))
    other.remove()
    assert other(images())[1] == {}
    assert list(tapped(images())[1]) == TAPS


def test_two_tapped_views_of_one_network_are_independent() -> None:
    network = edsr()
    first, second = TappedNetwork(network, ["body.0"]), TappedNetwork(network, ["body.2"])
    assert list(first(images())[1]) == ["body.0"]
    assert list(second(images())[1]) == ["body.2"]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_features_are_right_on_every_call(backend: str) -> None:
    torch._dynamo.reset()
    network = edsr(width=4)
    tapped = TappedNetwork(network, TAPS)
    compiled = torch.compile(tapped, backend=backend, fullgraph=True)
    for seed in range(3):
        with torch.no_grad():
            network.conv_first.weight.mul_(1.5)
        output, features = compiled(images(seed))
        assert_same(features, recomputed(network, images(seed)))
        torch.testing.assert_close(output, network(images(seed)), atol=1e-4, rtol=1e-4)
    features["conv_after_body"].sum().backward()
    compiled_gradient = network.conv_first.weight.grad.clone()
    network.zero_grad()
    recomputed(network, images(2))["conv_after_body"].sum().backward()
    torch.testing.assert_close(
        compiled_gradient, network.conv_first.weight.grad, atol=1e-2, rtol=1e-3
    )
    assert tapped._store.features is None
    torch._dynamo.reset()


def test_inductor_gives_the_same_features() -> None:
    torch._dynamo.reset()
    network = edsr(width=4)
    compiled = torch.compile(TappedNetwork(network, TAPS), backend="inductor", fullgraph=True)
    with torch.no_grad():  # Half the kernels to build: gradients are compared above.
        for seed in range(2):
            _, features = compiled(images(seed))
            assert_same(features, recomputed(network, images(seed)))
    torch._dynamo.reset()


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(LsfdError, match=r"EDSR has no module 'body\.3' to tap; did you mean 'body"):
        TappedNetwork(edsr(), ["body.3"])
    with pytest.raises(LsfdError, match="did you mean 'conv_after_body'"):
        TappedNetwork(edsr(), ["conv_after_bdy:input"])
    with pytest.raises(LsfdError, match="valid: body, conv_after_body, conv_first"):
        TappedNetwork(edsr(), ["zzz"])
    for nonsense in ("", 3):
        with pytest.raises(LsfdError):
            TappedNetwork(edsr(), [nonsense])  # type: ignore[list-item]


def test_a_module_that_does_not_run_is_named() -> None:
    network = build_network({"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1})
    with pytest.raises(LsfdError, match="tap 'body' gave no feature"):  # A list of layers.
        TappedNetwork(network, ["body"])(images())


def test_channels() -> None:
    network = edsr(width=6)
    names = ["body.0", "conv_first:input", "upsample.0"]
    assert tap_channels(network, names) == {
        "body.0": 6,
        "conv_first:input": 3,
        "upsample.0": 24,
    }
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert network.training


@pytest.mark.parametrize("name", ["conv_last", "upsample", "conv_last:input"])
def test_the_enlarged_grid_is_refused(name: str) -> None:
    with pytest.raises(LsfdError, match=rf"'{name}' of EDSR has shape \(1, \d, 48, 48\)"):
        tap_channels(edsr(), [name])


def test_tokens_are_refused() -> None:
    swin = build_network(SWIN)
    with pytest.raises(LsfdError, match=r"'layers.0' of SwinIR has shape \(1, 576, 12\)"):
        tap_channels(swin, ["layers.0"])


SWIN = {"type": "SwinIR", "img_size": 24, "window_size": 8, "embed_dim": 12, "upscale": 2} | {
    "depths": [1, 1, 1],
    "num_heads": [2, 2, 2],
    "upsampler": "pixelshuffle",
}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"type": "EDSR", **RGB, "num_feat": 4, "num_block": 16},
            ["body.4", "body.9", "conv_after_body"],
        ),
        (
            {"type": "EDSR", **RGB, "num_feat": 4, "num_block": 32},
            ["body.9", "body.20", "conv_after_body"],
        ),
        ({"type": "EDSR", **RGB, "num_feat": 4, "num_block": 2}, ["body.0", "conv_after_body"]),
        ({"type": "EDSR", **RGB, "num_feat": 4, "num_block": 1}, ["conv_after_body"]),
        (
            {"type": "RCAN", **RGB, "num_feat": 4, "num_group": 10, "num_block": 12}
            | {"squeeze_factor": 2},
            ["body.2", "body.5", "conv_after_body"],
        ),
        ({"type": "MSRResNet", "num_feat": 4, "num_block": 6}, ["body.1", "body.3", "body.5"]),
        (
            {"type": "RRDBNet", **RGB, "num_feat": 4, "num_block": 3, "num_grow_ch": 2},
            ["body.0", "body.1", "conv_body"],
        ),
        (SWIN, ["layers.0.conv", "layers.1.conv", "conv_after_body"]),
        (
            {"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 5},
            ["body.3", "body.7", "body.11"],
        ),
        (
            {"type": "ECBSR", **RGB, "num_block": 5, "num_channel": 4, "with_idt": False}
            | {"act_type": "relu", "scale": 2},
            ["backbone.1", "backbone.3", "backbone.5"],
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_auto_taps(options: dict[str, Any], expected: list[str]) -> None:
    network = build_network(options)
    assert auto_taps(network) == expected
    assert len(set(tap_channels(network, expected).values())) == 1


def test_auto_taps_of_rcan_with_its_published_names() -> None:
    from spandrel.architectures.RCAN import RCAN

    network = RCAN(scale=4, n_resgroups=10, n_resblocks=2, n_feats=8, reduction=4)
    assert auto_taps(network) == ["body.2", "body.5", "body.10"]  # body.10 is the convolution.


def test_auto_taps_count() -> None:
    assert auto_taps(edsr(blocks=8), 1) == ["conv_after_body"]
    assert auto_taps(edsr(blocks=8), 4) == ["body.1", "body.3", "body.5", "conv_after_body"]


def test_auto_taps_without_a_body() -> None:
    with pytest.raises(LsfdError, match="Conv2d has no row of blocks"):
        auto_taps(nn.Conv2d(3, 3, 3, padding=1))


def test_resolve_auto_across_architectures() -> None:
    assert resolve_taps(edsr(blocks=16), rcan(groups=10, blocks=1), "auto") == [
        TapPair("body.4", "body.2", 8, 8),
        TapPair("body.9", "body.5", 8, 8),
        TapPair("conv_after_body", "conv_after_body", 8, 8),
    ]


def test_resolve_auto_with_a_short_student() -> None:
    assert resolve_taps(edsr(width=4, blocks=2), edsr(blocks=16), "auto") == [
        TapPair("body.0", "body.7", 4, 8),
        TapPair("conv_after_body", "conv_after_body", 4, 8),
    ]


def test_resolve_names_and_mappings() -> None:
    student, teacher = edsr(width=4), edsr(blocks=9)
    spec = ["body.2", {"student": "body.0", "teacher": "body.8"}]
    assert resolve_taps(student, teacher, spec) == [
        TapPair("body.2", "body.2", 4, 8),
        TapPair("body.0", "body.8", 4, 8),
    ]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("body.0", "taps must be 'auto'"),
        ([], "taps must be 'auto'"),
        (None, "taps must be 'auto'"),
        ([{"student": "body.0"}], "neither a name nor"),
        ([3], "neither a name nor"),
        (["body.8"], r"student EDSR has no module 'body\.8'"),
        ([{"student": "body.0", "teacher": "body.9x"}], r"teacher EDSR has no module 'body\.9x'"),
        ([{"student": "body.0", "teacher": 1}], "teacher EDSR has no module '1'"),
        ([{"student": "body.0", "teacher": "conv_last"}], r"'conv_last' of teacher EDSR has shape"),
    ],
)
def test_resolve_names_the_network_that_lacks_a_tap(spec: object, said: str) -> None:
    with pytest.raises(LsfdError, match=said):
        resolve_taps(edsr(), edsr(blocks=9), spec)
