"""Teachers: frozen, trained, and found out from any checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lsfd.errors import LsfdError
from lsfd.networks.build import build_network, network_scale
from lsfd.networks.student_file import StudentCard, save_student
from lsfd.networks.taps import resolve_taps
from lsfd.networks.teachers import load_teacher

RGB = {"num_in_ch": 3, "num_out_ch": 3}
EDSR = {"type": "EDSR", **RGB, "num_feat": 8, "num_block": 2, "upscale": 2}
SWINIR = {"type": "SwinIR", "img_size": 24, "window_size": 8, "embed_dim": 12, "upscale": 2} | {
    "depths": [2, 2],
    "num_heads": [2, 2],
    "upsampler": "pixelshuffle",
}


def image(size: int = 16) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def saved(path: Path, network: nn.Module) -> Path:
    torch.save({"params": network.state_dict()}, path)
    return path


def assert_same_and_frozen(teacher: nn.Module, source: nn.Module) -> None:
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    given = image()
    with torch.no_grad():
        expected = source.eval()(given.clone())
        torch.testing.assert_close(teacher(given), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(given, image()), "the teacher changed the batch it was shown"


@pytest.mark.parametrize("options", [None, {"type": "auto"}, {"type": "spandrel"}, EDSR])
def test_basicsr_checkpoint(tmp_path: Path, options: dict[str, Any] | None) -> None:
    source = build_network(EDSR)
    teacher = load_teacher(options, saved(tmp_path / "net.pth", source))
    assert_same_and_frozen(teacher, source)


def test_student_file_as_teacher(tmp_path: Path) -> None:
    options = {**EDSR, "res_scale": 0.3}  # Weights do not tell it; the file's card does.
    source = build_network(options)
    path = tmp_path / "net.safetensors"
    save_student(path, source, StudentCard(architecture=options, scale=2))
    assert_same_and_frozen(load_teacher(None, path), source)


@pytest.mark.parametrize(
    "options",
    [SWINIR, {"type": "SRVGGNetCompact", "num_feat": 8, "num_conv": 3, "upscale": 4}],
    ids=["SwinIR", "Compact"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_spandrel_recognises(tmp_path: Path, options: dict[str, Any], suffix: str) -> None:
    source = build_network(options)
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        saved(path, source)
    else:
        save_file(source.state_dict(), path)
    teacher = load_teacher({"type": "auto"}, path)
    assert_same_and_frozen(teacher, source)
    assert network_scale(teacher) == options["upscale"]
    student = build_network({**EDSR, "upscale": options["upscale"], "num_block": 6})
    assert len(resolve_taps(student, teacher, "auto")) >= 2


@pytest.mark.parametrize("unshuffle", [False, True])
def test_published_rcan(tmp_path: Path, unshuffle: bool) -> None:
    from spandrel.architectures.RCAN import RCAN

    source = RCAN(
        scale=2, n_resgroups=2, n_resblocks=2, n_feats=8, reduction=4, unshuffle_mod=unshuffle
    )
    teacher = load_teacher(None, saved(tmp_path / "net.pth", source))
    assert_same_and_frozen(teacher, source)
    # BasicSR has no RCAN that folds pixels into channels first: that one stays spandrel's.
    assert type(teacher).__module__.startswith("spandrel" if unshuffle else "basicsr")


def test_the_random_state_is_left_alone(tmp_path: Path) -> None:
    edsr = saved(tmp_path / "edsr.pth", build_network(EDSR))
    swinir = saved(tmp_path / "swinir.pth", build_network(SWINIR))
    before = torch.get_rng_state()
    load_teacher(EDSR, edsr)
    load_teacher(None, edsr)
    load_teacher(None, swinir)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_key_chooses_the_part(tmp_path: Path) -> None:
    live, average = build_network(EDSR), build_network(EDSR)
    path = tmp_path / "net.pth"
    torch.save({"params": live.state_dict(), "params_ema": average.state_dict()}, path)
    assert_same_and_frozen(load_teacher(EDSR, path), average)
    assert_same_and_frozen(load_teacher(EDSR, path, key="params"), live)
    assert_same_and_frozen(load_teacher(None, path, key="params"), live)


def test_a_teacher_without_weights_is_refused() -> None:
    for options in (EDSR, None):
        with pytest.raises(LsfdError, match="network_t: a teacher needs trained weights"):
            load_teacher(options, None)


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", build_network(EDSR))
    with pytest.raises(LsfdError, match=r"network_t\.1\.num_fea.*'num_feat'"):
        load_teacher({**EDSR, "num_fea": 1}, path, where="network_t.1")
    with pytest.raises(LsfdError, match=r"network_t\.num_feat: type 'auto' takes"):
        load_teacher({"type": "auto", "num_feat": 8}, path)
    with pytest.raises(LsfdError, match=r"net\.pth.*missing in the file"):
        load_teacher({**EDSR, "num_block": 3}, path)
    with pytest.raises(LsfdError, match="no such file"):
        load_teacher(EDSR, tmp_path / "other.pth")


def test_what_nobody_recognises(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"weight": torch.zeros(3, 3)}, path)
    with pytest.raises(LsfdError, match="no known architecture"):
        load_teacher(None, path)
    # Names of a known architecture, shapes of none.
    torch.save({"body.0.weight": torch.zeros(2), "body.1.weight": torch.zeros(2)}, path)
    with pytest.raises(LsfdError, match=r"net\.pth: spandrel cannot load"):
        load_teacher(None, path)


def test_what_is_no_rgb_super_resolution_is_refused(tmp_path: Path) -> None:
    compact = {"type": "SRVGGNetCompact", "num_feat": 8, "num_conv": 2}
    restoring = build_network({**compact, "upscale": 1})
    with pytest.raises(LsfdError, match="for Restoration, not for SR"):
        load_teacher(None, saved(tmp_path / "net.pth", restoring))
    state = build_network(compact).state_dict()
    state["body.0.weight"] = state["body.0.weight"][:, :1]
    state["body.6.weight"], state["body.6.bias"] = (
        state["body.6.weight"][:16],
        state["body.6.bias"][:16],
    )
    torch.save(state, tmp_path / "grey.pth")
    with pytest.raises(LsfdError, match="1 channels to 1, but images are RGB"):
        load_teacher(None, tmp_path / "grey.pth")


def test_the_shared_teacher_enlarges_an_image() -> None:
    data = os.environ.get("LSFD_DATA")
    path = Path(data or ".").parent / "teachers" / "edsr_baseline_x4.pth"
    if data is None or not path.is_file():
        pytest.skip("LSFD_DATA is unset, or no teachers lie beside it")
    teacher = load_teacher(None, path)
    assert network_scale(teacher) == 4
    ramp = torch.linspace(0.2, 0.8, 24).expand(1, 3, 24, 24)
    with torch.no_grad():
        output = teacher(ramp)
    smooth = nn.functional.interpolate(ramp, scale_factor=4, mode="bilinear")
    assert (output - smooth)[..., 8:-8, 8:-8].abs().max() < 0.02  # Random weights miss by far.
