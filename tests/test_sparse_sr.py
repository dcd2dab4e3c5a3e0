"""Sparse-coding super-resolution: its parts, fitting it, and its way through the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsfd.cli import main
from lsfd.errors import LsfdError
from lsfd.imaging.color import rgb_to_y
from lsfd.imaging.files import find_images, read_image
from lsfd.imaging.resize import downscale, upscale
from lsfd.inference.upscaler import Upscaler
from lsfd.metrics.cost import count_parameters, multiply_adds
from lsfd.metrics.image import psnr
from lsfd.networks.build import build_network, sr_networks
from lsfd.networks.sparse_fit import (
    PatchPairs,
    fit_dictionaries,
    fit_projection,
    sample_patches,
)
from lsfd.networks.sparse_sr import SparseSR, bicubic, luma
from lsfd.networks.student_file import StudentCard, load_any, save_student
from lsfd.sparse.pursuit import exhaustive_search

SMALL = {"upscale": 2, "num_atoms": 100, "num_feat": 10, "patch": 3, "sparsity": 2, "beam": 2}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def filled(**arguments: int) -> SparseSR:
    """A network with random dictionaries, its tree included."""
    network = SparseSR(**{**SMALL, **arguments})
    features = 2 * draw(400, arguments.get("num_feat", 10)) - 1
    network.projection.copy_(0.05 * (2 * draw(*network.projection.shape, seed=2) - 1))
    fit_dictionaries(network, PatchPairs(features, torch.zeros(400, network.hr_atoms.shape[1])))
    network.hr_atoms.copy_(0.2 * (2 * draw(*network.hr_atoms.shape, seed=1) - 1))
    return network.eval()


def pair(path: Path, scale: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    hr = read_image(path)
    return downscale(hr, scale), hr


@pytest.fixture(scope="module")
def fitted(photographs: Path) -> SparseSR:
    """A network fitted to the first photograph."""
    pairs = [pair(find_images(photographs)[0], 2)]
    network = SparseSR(**{**SMALL, "num_feat": 20})
    fit_projection(network, pairs)
    fit_dictionaries(network, sample_patches(network, pairs, 5000), rounds=2)
    return network.eval()


# Enlarging


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 17])
@pytest.mark.parametrize("turned", [False, True])
def test_bicubic_is_matlabs(scale: int, size: int, turned: bool) -> None:
    # Constant in one dimension, MATLAB's image is rounded once; these values are never clipped.
    line = torch.randint(60, 190, (size, 1), generator=torch.Generator().manual_seed(size))
    image = line.expand(size, 5).to(torch.uint8).numpy()
    image = np.ascontiguousarray(image.T if turned else image)
    found = 255 * bicubic(torch.from_numpy(image)[None, None].float() / 255, scale)[0, 0]
    assert np.abs(found.numpy() - upscale(image, scale)).max() <= 0.5 + 1e-3


def test_bicubic_enlarges_each_dimension_by_itself() -> None:
    column, row = draw(7, 1), draw(1, 9, seed=1)
    tall = bicubic(column.expand(7, 9)[None, None], 3)[0, 0, :, :1]
    wide = bicubic(row.expand(7, 9)[None, None], 3)[0, 0, :1]
    torch.testing.assert_close(bicubic((column * row)[None, None], 3)[0, 0], tall * wide)


def test_the_border_is_that_of_a_mirrored_image() -> None:
    image = draw(1, 2, 5, 6)
    mirrored = torch.cat([image.flip(2), image, image.flip(2)], dim=2)
    mirrored = torch.cat([mirrored.flip(3), mirrored, mirrored.flip(3)], dim=3)
    expected = bicubic(mirrored, 2)[:, :, 2 * 2 : 2 * 13, 2 * 3 : 2 * 15]
    torch.testing.assert_close(bicubic(image, 2, border=3), expected)


def test_luma_is_bt601s_without_offset() -> None:
    image = (255 * draw(6, 5, 3)).byte()
    found = 16 + 255 * luma(image.permute(2, 0, 1)[None].float() / 255)[0, 0]
    np.testing.assert_allclose(found.numpy(), rgb_to_y(image.numpy()), atol=1e-3)


# The network


def test_without_dictionaries_it_is_bicubic() -> None:
    image = draw(2, 3, 8, 7)
    assert torch.equal(SparseSR(**SMALL).eval()(image), bicubic(image, 2))


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (12, 10)])
@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("scale", [2, 3])
def test_the_whole_image_gets_the_mean_of_its_patches(
    size: tuple[int, int], patch: int, scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = filled(patch=patch, upscale=scale)
    image = draw(2, 3, *size)
    monkeypatch.setattr(  # Every patch is all ones: so is their mean, borders included.
        "lsfd.networks.sparse_sr.synthesise",
        lambda code, atoms: torch.ones(len(code.indices), atoms.shape[1]),
    )
    added = network(image) - bicubic(image, scale)
    torch.testing.assert_close(added, torch.full_like(added, 255 / 219))


def test_luma_gains_the_detail_and_chroma_stays() -> None:
    network, image = filled(), draw(1, 3, 12, 10)
    added = network(image) - bicubic(image, 2)
    assert added.std() > 1e-3
    torch.testing.assert_close(added[:, 1:], added[:, :1].expand(-1, 2, -1, -1))
    # Adding one number to R, G and B moves luma by 219/255 of it.
    torch.testing.assert_close(luma(added), added[:, :1] * 219 / 255)


def test_detail_lies_where_its_patch_was_taken() -> None:
    # An impulse far from the border is answered within the patches that see it, and nowhere else.
    network = filled()
    image = torch.full((1, 3, 21, 21), 0.5)
    image[:, :, 10, 10] = 1.0
    added = (network(image) - bicubic(image, 2))[0, 0].abs()
    reach = 2 * (2 + 2 + 1 + 2)  # Bicubic 2, differences 1, the patch 2 on either side.
    centre = slice(20 - reach, 22 + reach)
    assert added[centre, centre].max() > 1e-3
    added[centre, centre] = 0
    assert added.max() == 0


def test_moving_the_image_moves_the_result() -> None:
    network, image = filled(beam=99), draw(1, 3, 20, 20)
    whole, part = network(image), network(image[:, :, 1:, 2:])
    torch.testing.assert_close(part[:, :, 16:-16, 16:-16], whole[:, :, 18:-16, 20:-16])


def test_a_full_beam_is_exhaustive_search() -> None:
    image, tree = draw(1, 3, 10, 10), filled(beam=9)
    full, flat = filled(beam=10), filled(levels=1)
    assert full.tree.num_leaves == 10 and flat.tree.num_leaves == 1
    flat.lr_atoms.copy_(full.lr_atoms)
    flat.hr_atoms.copy_(full.hr_atoms)
    torch.testing.assert_close(full(image), flat(image))
    tree.hr_atoms.copy_(full.hr_atoms)
    assert (tree(image) - full(image)).abs().mean() < 1e-3


def test_autocast_changes_nothing() -> None:
    network, image = filled(), draw(1, 3, 10, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(image)
    assert found.dtype == torch.float32
    assert torch.equal(found, network(image))


def test_images_of_a_batch_do_not_meet() -> None:
    network, images = filled(), draw(3, 3, 8, 9)
    singly = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), singly)


def test_it_cannot_be_trained() -> None:
    with pytest.raises(LsfdError, match="SparseSR is fitted"):
        filled().train()(draw(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_in_ch": 1}, "must be 3"),
        ({"num_feat": 1000}, "num_feat: a patch has 144 numbers"),
        ({"sparsity": 11}, "sparsity: 11 atoms"),
        ({"num_atoms": 1 << 21}, "whole number in 1..1048576"),
        ({"beams": 1}, "did you mean 'beam'"),
    ],
)
def test_mistakes_get_a_sentence(arguments: dict[str, int], sentence: str) -> None:
    with pytest.raises(LsfdError, match=sentence):
        build_network({"type": "SparseSR", **SMALL, **arguments})


# Fitting


def test_a_fit_beats_bicubic_on_another_photograph(fitted: SparseSR, photographs: Path) -> None:
    lq, hr = pair(find_images(photographs)[1], 2)
    found = psnr(Upscaler(fitted, 2, "cpu")(lq), hr, crop_border=2)
    assert found > psnr(upscale(lq, 2), hr, crop_border=2) + 0.3


def test_features_and_details_are_of_the_same_places(photographs: Path) -> None:
    network = filled()
    lq, hr = pair(find_images(photographs)[0], 2)
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 for image in (lq, hr))
    missing = luma(y - bicubic(x, 2))[0, 0]
    places = [(i, j) for i in range(4, 30) for j in range(4, 30)]
    known = torch.stack(
        [missing[2 * i : 2 * i + 6, 2 * j : 2 * j + 6].flatten() for i, j in places]
    )
    features, details = sample_patches(network, [(lq, hr)], 500)
    distances, nearest = torch.cdist(details, known).min(dim=1)
    found = (distances < 1e-5).nonzero()[:, 0]
    assert len(found) > 20
    for sample in found[:20].tolist():
        i, j = places[int(nearest[sample])]
        around = x[:, :, i - 4 : i + 7, j - 4 : j + 7]  # 11 x 11, the patch in its centre.
        centre = network.features(around)[13 * 6 + 6]
        torch.testing.assert_close(features[sample], centre, rtol=0, atol=1e-5)


def test_the_projection_is_orthonormal(fitted: SparseSR) -> None:
    rows = fitted.projection.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), rtol=0, atol=1e-4)


def test_equal_seeds_give_equal_fits(photographs: Path, fitted: SparseSR) -> None:
    pairs = [pair(find_images(photographs)[0], 2)]
    again = SparseSR(**{**SMALL, "num_feat": 20})
    torch.manual_seed(123)
    fit_projection(again, pairs)
    fit_dictionaries(again, sample_patches(again, pairs, 5000), rounds=2)
    for name, value in fitted.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_too_few_patches_are_a_clear_mistake(photographs: Path) -> None:
    network = SparseSR(**{**SMALL, "num_atoms": 5000})
    pairs = [pair(find_images(photographs)[0], 2)]
    fit_projection(network, pairs)
    with pytest.raises(LsfdError, match="num_atoms: 5000 atoms"):
        fit_dictionaries(network, sample_patches(network, pairs, 1000))
    tiny = np.zeros((2, 2, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(LsfdError, match="no image has 3 x 3 LR pixels"):
        fit_projection(network, [tiny])


# Its way through the rest


def test_it_is_a_network_like_any_other(fitted: SparseSR, tmp_path: Path) -> None:
    assert sr_networks()["SparseSR"] is SparseSR
    architecture = {"type": "SparseSR", **SMALL, "num_feat": 20}
    first, second = tmp_path / "sparse.safetensors", tmp_path / "again.safetensors"
    for path in (first, second):
        save_student(path, fitted, StudentCard(architecture=architecture, scale=2))
    assert first.read_bytes() == second.read_bytes()
    loaded, card = load_any(first)
    image = draw(1, 3, 9, 8)
    assert card.scale == 2
    assert torch.equal(loaded(image), fitted(image))


def test_benchmark_and_upscale_take_its_file(
    fitted: SparseSR,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lsfd.evaluation.cost.PAPER_OUTPUT", (72, 128))
    weights = tmp_path / "sparse.safetensors"
    architecture = {"type": "SparseSR", **SMALL, "num_feat": 20}
    save_student(weights, fitted, StudentCard(architecture=architecture, scale=2))
    common = ["--device", "cpu"]
    assert main(["benchmark", "--weights", str(weights), "--sets", str(photographs),
                 "--scale", "2", *common]) == 0  # fmt: skip
    table = capsys.readouterr().out
    assert "sparse" in table and "bicubic" in table
    target = tmp_path / "large"
    assert main(["upscale", "-i", str(photographs), "-o", str(target), "-w", str(weights),
                 *common]) == 0  # fmt: skip
    assert [read_image(path).shape for path in find_images(target)] == [(256, 320, 3)] * 2


def test_its_cost_counts_dictionaries_and_search() -> None:
    tree, flat = SparseSR(**SMALL), SparseSR(**{**SMALL, "levels": 1})
    assert not any(value.requires_grad for value in tree.parameters())
    side = 6
    assert count_parameters(tree) == 10 * 4 * side**2 + 100 * (10 + side**2)
    assert multiply_adds(tree, 20, 30) < multiply_adds(flat, 20, 30)
    # Exhaustive search alone: patches x atoms x features x steps.
    assert multiply_adds(flat, 20, 30) > 22 * 32 * 100 * 10 * 2


def test_the_median_of_two_times_is_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    import stmp

    clock = iter([0, 1, 0, 10, 0, 3, 0, 30])  # Search and pursuit, twice.
    monkeypatch.setattr(stmp.time, "process_time", lambda: next(clock))
    network, features = filled(), draw(64, 10)
    searches = {(0, 0): exhaustive_search(network.lr_atoms)}
    assert stmp.interleaved_times(network, features, searches, 2) == {(0, 0): (2, 20)}
