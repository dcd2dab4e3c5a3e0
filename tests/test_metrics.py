from __future__ import annotations

import math
import os
import time
from functools import partial
from pathlib import Path

import lsfd.compat  # noqa: F401

import basicsr.metrics
import numpy as np
import pytest
import torch
import torchvision
from basicsr.archs.edsr_arch import EDSR
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from lsfd.errors import LsfdError
from lsfd.imaging.files import find_images, read_image
from lsfd.metrics.cost import count_parameters, latency, multiply_adds, take_turns
from lsfd.metrics.image import mean_score, psnr, ssim
from lsfd.metrics.lpips import Lpips


def smooth_image(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """An image with large structures, so that its SSIM is not that of noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    return coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)


def noisy(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(7).normal(0, sigma, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("border", [0, 3, 4])
@pytest.mark.parametrize("sigma", [1, 12, 80])
@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_scores_equal_those_of_basicsr(border: int, sigma: float, channel: str) -> None:
    hr = smooth_image(61, 74, seed=1)
    sr = noisy(hr, sigma)
    bgr = sr[..., ::-1], hr[..., ::-1]
    luma = channel == "y"
    expected_psnr = basicsr.metrics.calculate_psnr(*bgr, border, test_y_channel=luma)
    expected_ssim = basicsr.metrics.calculate_ssim(*bgr, border, test_y_channel=luma)
    assert psnr(sr, hr, border, channel) == pytest.approx(expected_psnr, abs=1e-4)
    assert ssim(sr, hr, border, channel) == pytest.approx(expected_ssim, abs=1e-6)


@pytest.mark.skipif(
    "LSFD_DATA" not in os.environ,
    reason="set LSFD_DATA to the folder of real images (see datasets/README.md)",
)
def test_rcan_scores_what_its_authors_published() -> None:
    data = Path(os.environ["LSFD_DATA"])
    pairs = [
        (read_image(path), read_image(data / "benchmarks/Set5/HR" / path.name))
        for path in find_images(data / "golden/rcan_x4")
    ]
    assert len(pairs) == 5
    assert round(np.mean([psnr(sr, hr, 4) for sr, hr in pairs]), 2) == 32.63
    assert round(np.mean([ssim(sr, hr, 4) for sr, hr in pairs]), 4) == 0.9002


@given(st.integers(1, 255))
def test_psnr_of_a_constant_error(error: int) -> None:
    black = np.zeros((8, 9, 3), np.uint8)
    expected = 20 * math.log10(255 / error)
    assert psnr(black + np.uint8(error), black, 0, "rgb") == pytest.approx(expected)


def test_only_pixels_inside_the_border_count() -> None:
    hr = smooth_image(40, 50, seed=2)
    sr = noisy(hr, 20)
    sr[4:-4, 4:-4] = hr[4:-4, 4:-4]
    assert psnr(sr, hr, 4) == math.inf
    assert ssim(sr, hr, 4) == pytest.approx(1)
    assert psnr(sr, hr, 3) < 60


@pytest.mark.parametrize("channel", ["y", "rgb"])
def test_scores_are_symmetric_and_fall_with_noise(channel: str) -> None:
    hr = smooth_image(40, 50, seed=3)
    for score in (psnr, ssim):
        values = [score(noisy(hr, sigma), hr, 2, channel) for sigma in (2, 8, 32)]
        assert values == sorted(values, reverse=True)
        assert score(hr, noisy(hr, 8), 2, channel) == pytest.approx(values[1])


def test_images_that_cannot_be_compared() -> None:
    image = smooth_image(20, 20, seed=4)
    with pytest.raises(LsfdError, match=r"one shape.*\(20, 20, 3\) and \(20, 19, 3\)"):
        psnr(image, image[:, :19], 0)
    with pytest.raises(LsfdError, match=r"20x20 pixels is too small.*11x11"):
        ssim(image, image, 5)
    with pytest.raises(LsfdError, match="too small"):
        psnr(image, image, 10)
    with pytest.raises(LsfdError, match="float64"):
        psnr(image / 255, image / 255, 0)
    assert psnr(image, image, 9) == math.inf
    assert ssim(image, image, 4) == pytest.approx(1)


def test_infinity_neither_poisons_a_mean_nor_vanishes() -> None:
    assert mean_score([30.0, math.inf, 32.0, math.inf]) == (31.0, 2)
    assert mean_score([30.0, 32.0]) == (31.0, 0)
    assert mean_score([math.inf]) == (math.inf, 1)
    assert math.isnan(mean_score([30.0, math.nan])[0])
    with pytest.raises(LsfdError, match="no scores"):
        mean_score([])


def test_cost_of_one_convolution() -> None:
    convolution = nn.Conv2d(3, 8, 5, padding=2)
    assert count_parameters(convolution) == 3 * 8 * 25 + 8
    assert multiply_adds(convolution, 12, 10) == 12 * 10 * 3 * 8 * 25


def test_cost_of_the_edsr_baseline_leaves_it_as_it_is() -> None:
    network = EDSR(3, 3, num_feat=64, num_block=16, upscale=4).train()
    assert count_parameters(network) == 1_517_571
    # 114.2 G for 1280 x 720, as in the papers that compare with EDSR-baseline.
    assert multiply_adds(network, 180, 320) == pytest.approx(114.2e9, rel=1e-3)
    assert network.training
    assert network.mean.device.type == "cpu"
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())


def test_actions_take_turns_and_the_first_round_is_not_timed() -> None:
    done: list[str] = []
    ticks = iter(range(100))
    actions = {name: partial(done.append, name) for name in ("one", "other")}
    seconds = take_turns(actions, 2, clock=lambda: next(ticks) ** 2)
    assert done == ["one", "other"] * 3
    assert seconds == {"one": [5, 13], "other": [9, 17]}


def test_latency_is_the_median_without_the_first_runs() -> None:
    class Sleeper(nn.Module):
        calls = 0

        def forward(self, lq: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            time.sleep({1: 0.2, 5: 0.2}.get(self.calls, 0.01))
            return lq

    sleeper = Sleeper()
    assert 0.01 <= latency(sleeper, 4, 4, torch.device("cpu"), repeats=5) < 0.1
    assert sleeper.calls == 7


def test_lpips_without_its_backbone_says_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(LsfdError) as raised:
        Lpips("alex")
    place = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert str(place) in str(raised.value)
    assert "download https://" in str(raised.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_equals_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import lpips

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    # Random weights: what is tested is that they arrive in the right layers.
    backbone = torchvision.models.squeezenet1_1(weights=None)
    torch.save(backbone.state_dict(), folder / "squeezenet1_1-b8a52dc0.pth")
    first, second = smooth_image(64, 72, seed=5), smooth_image(64, 72, seed=6)
    ours = Lpips("squeeze")
    theirs = lpips.LPIPS(net="squeeze", verbose=False)
    tensors = [lpips.im2tensor(image) for image in (first, second)]
    assert ours(first, second) == pytest.approx(float(theirs(*tensors)), rel=1e-5)
    assert ours(first, second) > 0
    assert ours(first, first) == 0
    with pytest.raises(LsfdError, match="one shape"):
        ours(first, second[:32])
