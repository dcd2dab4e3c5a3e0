"""Rasters of every kind through a network: depth, grey, alpha, tiles, little memory."""

from __future__ import annotations

from typing import Any

import lsfd.compat  # noqa: F401

import numpy as np
import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.imaging import raster as raster_module
from lsfd.imaging.raster import Raster
from lsfd.inference import memory
from lsfd.inference import upscaler as upscaler_module
from lsfd.inference.footprint import AT_ONCE, OUTPUTS, bytes_per_pixel
from lsfd.inference.memory import free_memory, is_scarce
from lsfd.inference.tiles import SMALLEST, fitting_tile
from lsfd.inference.upscaler import Upscaler

CPU = torch.device("cpu")


def edsr(blocks: int = 2) -> EDSR:
    torch.manual_seed(0)
    network = EDSR(3, 3, num_feat=8, num_block=blocks, upscale=2)
    for parameter in network.parameters():  # Let the surroundings matter.
        nn.init.normal_(parameter, std=0.15)
    return network


class Nearest(nn.Module):
    """Enlarges x2 by repeating pixels; has no memory for images of more than ``limit`` pixels."""

    def __init__(self, limit: int = 10**9, error: Exception | None = None) -> None:
        super().__init__()
        self.limit, self.error = limit, error or MemoryError()
        self.sizes: list[int] = []

    def forward(self, lq: Tensor) -> Tensor:
        if lq.shape[2] * lq.shape[3] > self.limit:
            raise self.error
        self.sizes.append(lq.shape[2] * lq.shape[3])
        return nn.functional.interpolate(lq, scale_factor=2.0)


def noise(height: int, width: int, bands: int = 3, dtype: type = np.uint8) -> NDArray[Any]:
    largest = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, largest, (height, width, bands), dtype, True)


def enlarge(upscaler: Upscaler, pixels: NDArray[Any], dtype: Any = None) -> NDArray[Any]:
    height, width, bands = (side * 2 for side in pixels.shape)
    target = Raster((height, width, bands // 2), dtype or pixels.dtype)
    upscaler.enlarge(Raster.from_array(pixels), target)
    return target.read(0, height, 0, width)


def double(pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels.repeat(2, 0).repeat(2, 1)


def test_an_array_and_a_raster_give_the_same() -> None:
    lq, upscaler = noise(13, 17), Upscaler(edsr(), 2, CPU)
    assert np.array_equal(enlarge(upscaler, lq), upscaler(lq))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(1, 4))
def test_tiles_equal_the_whole(height: int, width: int, tile: int, bands: int) -> None:
    network, lq = edsr(), noise(height, width, bands)
    lq[: height // 2, :, -1] = 0
    whole = enlarge(Upscaler(network, 2, CPU), lq).astype(int)
    tiled = enlarge(Upscaler(network, 2, CPU, tile=tile), lq)
    assert np.abs(tiled - whole).max() <= 1


def test_tiles_of_16_bits_have_no_seams() -> None:
    lq, network = noise(40, 37, dtype=np.uint16), edsr(4)
    whole = enlarge(Upscaler(network, 2, CPU), lq).astype(int)
    assert np.abs(enlarge(Upscaler(network, 2, CPU, tile=11), lq) - whole).max() <= 2


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [1, 3])
def test_every_level_survives(bands: int, dtype: type, ensemble: bool) -> None:
    lq = noise(40, 40, bands, dtype)
    assert np.array_equal(enlarge(Upscaler(Nearest(), 2, CPU, ensemble=ensemble), lq), double(lq))


def test_16_bits_can_become_8() -> None:
    lq = np.array([0, 128, 129, 32768, 65535], np.uint16).reshape(1, 5, 1)
    levels = enlarge(Upscaler(Nearest(), 2, CPU), lq, np.uint8)
    assert levels[0, ::2, 0].tolist() == [0, 0, 1, 128, 255]


def test_16_bits_are_computed_in_fp32_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        upscaler_module,
        "autocast_dtype",
        lambda name, _: None if name == "fp32" else torch.bfloat16,
    )
    network, lq = EDSR(3, 3, num_feat=8, num_block=2, upscale=2), noise(16, 16, dtype=np.uint16)
    exact = enlarge(Upscaler(network, 2, CPU), lq)
    assert np.array_equal(enlarge(Upscaler(network, 2, CPU, "auto"), lq), exact)
    assert not np.array_equal(enlarge(Upscaler(network, 2, CPU, "bf16"), lq), exact)


def test_grey_is_the_mean_of_what_the_network_makes_of_three_channels() -> None:
    lq, upscaler = noise(9, 9, 1), Upscaler(edsr(), 2, CPU)
    rgb = enlarge(upscaler, lq.repeat(3, 2), np.uint8).astype(float)
    inside = (rgb > 0).all(axis=2) & (rgb < 255).all(axis=2)
    difference = np.abs(enlarge(upscaler, lq)[:, :, 0] - rgb.mean(axis=2))[inside]
    assert inside.any() and difference.max() <= 1


@pytest.mark.parametrize("bands", [2, 4])
def test_opaque_stays_opaque_and_colours_do_not_depend_on_alpha(bands: int) -> None:
    lq, upscaler = noise(12, 14, bands), Upscaler(edsr(), 2, CPU)
    lq[:, :, -1] = 255
    sr = enlarge(upscaler, lq)
    assert (sr[:, :, -1] == 255).all()
    assert np.array_equal(sr[:, :, :-1], enlarge(upscaler, np.ascontiguousarray(lq[:, :, :-1])))
    lq[:, :, -1] = 77
    assert (enlarge(upscaler, lq)[:, :, -1] == 77).all()


def test_transparency_is_interpolated_without_a_shift() -> None:
    lq = np.zeros((16, 16, 4), np.uint8)
    lq[:, :, 3] = np.arange(16) * 10 + 50
    alpha = enlarge(Upscaler(Nearest(), 2, CPU), lq)[:, :, 3].astype(int)
    expected = 50 + 10 * ((np.arange(32) + 0.5) / 2 - 0.5)
    assert np.abs(alpha - expected)[:, 4:-4].max() <= 1


def test_there_is_no_halo_around_what_can_be_seen() -> None:
    """A red disc on hidden black: no visible pixel is darker than the disc."""
    y, x = np.mgrid[:40, :40] - 19.5
    lq = np.zeros((40, 40, 4), np.uint8)
    disc = np.clip(15 - np.hypot(x, y), 0, 1)
    lq[disc > 0, 0] = 200
    lq[:, :, 3] = np.round(255 * disc)
    blur = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.AvgPool2d(5, 1, 2))
    sr = enlarge(Upscaler(blur, 2, CPU), lq)
    assert (sr[sr[:, :, 3] > 0, 0] >= 199).all()


def test_an_ensemble_is_the_mean_of_eight() -> None:
    lq, network = noise(8, 11), edsr()
    x = torch.from_numpy(lq / np.float32(255)).permute(2, 0, 1)[None]
    outputs = []
    with torch.no_grad():
        for turns in range(4):
            for mirrored in (False, True):
                seen = torch.rot90(x.flip(3) if mirrored else x, turns, (2, 3))
                output = torch.rot90(network.eval()(seen), -turns, (2, 3))
                outputs.append(output.flip(3) if mirrored else output)
    expected = (torch.stack(outputs).mean(0)[0].permute(1, 2, 0) * 255).clamp(0, 255).numpy()
    sr = Upscaler(network, 2, CPU, ensemble=True)(lq)
    assert np.abs(sr - expected).max() <= 0.501
    assert not np.array_equal(sr, Upscaler(network, 2, CPU)(lq))


def test_progress_ends_at_one() -> None:
    told: list[float] = []
    lq = Raster.from_array(noise(25, 31))
    Upscaler(Nearest(), 2, CPU, tile=10).enlarge(lq, Raster((50, 62, 3), np.uint8), told.append)
    assert len(told) == 3 * 4
    assert told == sorted(told) and told[0] > 0 and told[-1] == 1


# Little memory


ERRORS = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    torch.cuda.OutOfMemoryError("CUDA out of memory."),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_running_out_of_memory_halves_the_tile(error: Exception) -> None:
    network, lq = Nearest(limit=150, error=error), noise(50, 41)
    upscaler = Upscaler(network, 2, CPU, tile=50, tile_overlap=0)
    assert np.array_equal(enlarge(upscaler, lq), double(lq))
    assert max(network.sizes) == 12 * 12  # 50, 25 and 12 a side
    network.sizes.clear()
    enlarge(upscaler, lq)
    assert len(network.sizes) == 5 * 4  # It is not tried again with the next image.


def test_memory_that_runs_out_later_on_costs_no_pixel() -> None:
    network, lq = Nearest(), noise(64, 40)

    def less(share: float) -> None:
        network.limit = 15 * 15 if share > 0.5 else network.limit

    target = Raster((128, 80, 3), np.uint8)
    Upscaler(network, 2, CPU, tile=20).enlarge(Raster.from_array(lq), target, less)
    assert np.array_equal(target.read(0, 128, 0, 80), double(lq))


def test_too_little_memory_for_anything() -> None:
    with pytest.raises(LsfdError, match="even for the smallest tiles"):
        enlarge(Upscaler(Nearest(limit=0), 2, CPU, tile=8), noise(8, 8))


def test_other_errors_are_not_taken_for_it() -> None:
    assert all(map(is_scarce, ERRORS))
    assert not is_scarce(RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="mismatch"):
        enlarge(Upscaler(Nearest(0, RuntimeError("size mismatch")), 2, CPU, "fp32", 8), noise(8, 8))


def test_the_tile_follows_from_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Nearest()
    each = bytes_per_pixel(network)
    assert each == (AT_ONCE * (3 + 3 * 4) + OUTPUTS * 3 * 4) * 4
    monkeypatch.setattr(memory, "free_system_memory", lambda: 2 * 30 * 30 * each)
    lq = noise(70, 65)
    assert np.array_equal(enlarge(Upscaler(network, 2, CPU), lq), double(lq))
    assert max(network.sizes) == 30 * 30
    monkeypatch.setattr(memory, "free_system_memory", lambda: 2 * 70 * 65 * each)
    network.sizes.clear()
    enlarge(Upscaler(network, 2, CPU), lq)
    assert network.sizes[-1] == 70 * 65


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 40), st.integers(1, 10**6))
def test_tiles_keep_to_the_memory(height: int, width: int, overlap: int, pixels: int) -> None:
    tile = fitting_tile(height, width, overlap, pixels)
    assert tile >= 1
    taken = min(tile + 2 * overlap, height) * min(tile + 2 * overlap, width)
    assert tile <= max(SMALLEST, 1) or taken <= pixels


def test_free_memory_is_some() -> None:
    assert free_memory(CPU) > 1 << 20


def test_pixels_on_disk_are_enlarged_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(raster_module, "IN_MEMORY", 0)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    lq = noise(30, 33, 4, np.uint16)
    lq[:, :, 3] = 65535
    source = Raster(lq.shape, lq.dtype)
    source.write(0, 0, lq)
    target = Raster((60, 66, 4), np.uint16)
    Upscaler(Nearest(), 2, CPU, tile=8).enlarge(source, target)
    assert np.array_equal(target.read(0, 60, 0, 66), double(lq))
