"""Properties of FAKD."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from distillation import case, edsr, random_batch, rcan, setting
from official_fakd import official, official_batch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from lsfd.distillers import DISTILLERS, Setting, fakd
from lsfd.distillers.fakd import channel_affinity, instance_affinity, spatial_distance
from lsfd.errors import LsfdError
from lsfd.networks.taps import TappedNetwork, resolve_taps


def affinity_term(given: Setting, batch: Any, **options: Any) -> Tensor:
    value: Tensor = DISTILLERS["FAKD"](given, **options)(batch)["affinity"]
    return value


@pytest.mark.parametrize(
    ("name", "student_channels", "options"),
    [
        ("spatial", 4, {}),
        ("channel", 6, {"affinity": "channel"}),
        ("instance", 4, {"affinity": "instance"}),
        ("spatial_max_2", 4, {"pool": 2}),
        ("spatial_avg_4", 4, {"pool": 4, "pooling": "avg"}),
    ],
)
def test_equals_the_official_code(
    name: str, student_channels: int, options: dict[str, Any]
) -> None:
    batch = official_batch(student_channels, 6)
    value = affinity_term(setting(student_channels, 6), batch, **options)
    torch.testing.assert_close(value, official(name))


def test_default_weights_are_the_official_ones() -> None:
    """Official: half of each L1 on 0..255; here: the reconstruction loss has weight 1 on 0..1."""
    given = setting(4, 6)
    batch = official_batch(4, 6)
    distiller = DISTILLERS["FAKD"](given)
    terms = distiller(batch)
    ours = functional.l1_loss(batch.student, batch.gt)
    ours = ours + sum(distiller.weights[name] * value for name, value in terms.items())
    torch.testing.assert_close(127.5 * ours, official("total"))


def feature(channels: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, 4, 5, generator=generator).to(dtype)


def whole_affinity(feature: Tensor) -> Tensor:
    flat = feature.flatten(2)
    return functional.cosine_similarity(flat[:, :, :, None], flat[:, :, None, :], dim=1)


@pytest.mark.parametrize("chunk", [1, 2 * 20 * 3, 2 * 20 * 7, 10**6])
def test_computed_by_parts_it_is_the_same(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakd, "CHUNK", chunk)
    teacher = feature(6, 1, torch.float64)
    parts, whole = (feature(4, 0, torch.float64).requires_grad_() for _ in range(2))
    value = 3 * spatial_distance(parts, teacher)
    expected = 3 * (whole_affinity(whole) - whole_affinity(teacher)).abs().mean()
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    assert parts.grad is not None and parts.grad.abs().max() > 1e-3
    torch.testing.assert_close(parts.grad, whole.grad)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are made inside, while they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self.now -= size


def peak_bytes(work: Callable[[], object]) -> int:
    with LiveBytes() as live:
        work()
    return live.peak


def test_memory_counter_sees_what_is_alive() -> None:
    def work() -> None:
        first = torch.zeros(1000)
        second = first.view(10, 100) + 1
        del first
        second.exp().add_(1)

    assert peak_bytes(work) == 8000


def test_large_patches_fit_into_two_gib() -> None:
    """x2 with patches of 192: 9216 x 9216 affinities, 5.4 GB for each feature of a batch."""

    def work() -> None:
        # On this device nothing is computed, but everything is allocated and released.
        teacher = torch.empty(16, 256, 96, 96, device="meta")
        students = [torch.empty(16, 64, 96, 96, device="meta").requires_grad_() for _ in range(3)]
        torch.stack([spatial_distance(each, teacher) for each in students]).sum().backward()

    assert peak_bytes(work) < 2 * 2**30


def test_cosines() -> None:
    affinities = channel_affinity(feature(6, 0))
    torch.testing.assert_close(affinities, affinities.mT)
    torch.testing.assert_close(affinities.diagonal(dim1=1, dim2=2), torch.ones(2, 6))
    assert affinities.abs().max() <= 1 + 1e-6
    assert affinities.shape == (2, 6, 6)


def test_what_each_affinity_is_blind_to() -> None:
    one, other = feature(4, 0), feature(6, 1)
    pixels = torch.rand(2, 1, 4, 5) + 0.5
    # Scaled pixels, mixed (rotated) channels, doubled channels: the angles between pixels stay.
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3)))[0]
    rotated = torch.einsum("dc,bchw->bdhw", rotation, one)
    expected = spatial_distance(one, other)
    for same in (pixels * one, rotated, torch.cat([one, one], 1)):
        torch.testing.assert_close(spatial_distance(same, other), expected)
    assert not torch.isclose(spatial_distance(one + 1, other), expected)
    # Scaled channels, shuffled pixels.
    channels = torch.tensor([1.0, 2.0, 0.5, 3.0]).view(1, 4, 1, 1)
    for same in (channels * one, one.flip(2, 3)):
        torch.testing.assert_close(channel_affinity(same), channel_affinity(one))
    torch.testing.assert_close(instance_affinity(7 * rotated), instance_affinity(one))


def test_rows_of_the_instance_affinity_are_of_unit_length() -> None:
    rows = instance_affinity(feature(4, 0))
    assert rows.shape == (2, 2)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("affinity", ["spatial", "channel", "instance"])
def test_a_zero_pixel_gives_an_ordinary_gradient(affinity: str) -> None:
    given = setting()
    batch = random_batch(given)
    values = {name: value.detach().clone() for name, value in batch.student_features.items()}
    for value in values.values():
        value[:, 0] = 0
        value[:, :, 1, 2] = 0
        value.requires_grad_()
    affinity_term(given, replace(batch, student_features=values), affinity=affinity).backward()
    for value in values.values():
        assert value.grad is not None and value.grad.abs().max() < 10


def test_autocast_does_not_round_affinities() -> None:
    given = setting(4, 6)
    batch = random_batch(given)
    exact = affinity_term(given, batch)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(affinity_term(given, batch), exact)


def test_channels_must_be_of_equal_number() -> None:
    with pytest.raises(LsfdError, match=r"^affinity: .*'s0' has 4 channels.*'t0' 6"):
        DISTILLERS["FAKD"](setting(4, 6), affinity="channel")


def test_pool_must_be_positive() -> None:
    with pytest.raises(LsfdError, match=r"^pool: .*not 0"):
        DISTILLERS["FAKD"](setting(), pool=0)


@pytest.mark.parametrize("network", [edsr, rcan])
def test_third_tap_of_the_official_code(network: Callable[[], nn.Module]) -> None:
    """The feature after the long skip can be named: it is what the upsampler takes."""
    student = network()
    (tap,) = resolve_taps(student, network(), ["upsample:input"])
    assert tap.student_channels == case(student, [network()]).setting.taps[0][0].student_channels
    tapped = TappedNetwork(student, ["conv_first", "conv_after_body", "upsample:input"])
    features = tapped(torch.rand(1, 3, 6, 7))[1]
    torch.testing.assert_close(
        features["upsample:input"], features["conv_after_body"] + features["conv_first"]
    )
