"""Degraded low-resolution images: what each kind does, and who gets to see it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from option_texts import TEXT, message

from lsfd.cli import main
from lsfd.config.load import options_from_dict
from lsfd.config.reader import Document
from lsfd.data.pack import build_store, ensure_store
from lsfd.errors import LsfdError
from lsfd.evaluation.sets import set_from_folders
from lsfd.imaging.degradation import Degradation, low_resolution
from lsfd.imaging.files import read_image, write_image
from lsfd.imaging.resize import downscale
from lsfd.training.teacher_cache import describe_samples

ALL = Degradation(blur=1.2, noise=10, jpeg=40)


def picture(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """Smooth waves of colour with some texture, far from black and white."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[0:height, 0:width]
    waves = [np.sin(down / (7 + c) + right / (9 - c) + seed) for c in range(3)]
    image = 128 + 50 * np.stack(waves, 2) + random.normal(0, 6, (height, width, 3))
    return image.round().astype(np.uint8)


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return one.astype(float) - other.astype(float)


def test_without_degradation_the_image_is_bicubic_bit_for_bit() -> None:
    image = picture()
    assert np.array_equal(low_resolution(image, 4), downscale(image, 4))


@pytest.mark.parametrize("given", [Degradation(1.5), Degradation(noise=5), Degradation(jpeg=30)])
def test_each_kind_changes_pixels_and_neither_size_nor_type(given: Degradation) -> None:
    image = picture()
    before = image.copy()
    lr = low_resolution(image, 4, given)
    assert lr.shape == (24, 32, 3) and lr.dtype == np.uint8 and lr.flags.c_contiguous
    assert not np.array_equal(lr, downscale(image, 4))
    assert np.array_equal(image, before)


def test_the_blur_is_a_gaussian_of_its_width() -> None:
    sigma = 1.5
    image = np.zeros((32, 60, 3), np.uint8)
    image[:, 30:] = 255
    blurred = low_resolution(image, 1, Degradation(sigma)).astype(float)
    edge = np.diff(blurred[16, :, 1])
    offsets = np.arange(59) - 29
    spread = np.sqrt((edge * offsets**2).sum() / edge.sum())
    assert spread == pytest.approx(sigma, rel=0.02)
    assert np.abs(edge - edge[::-1]).max() <= 1
    turned = low_resolution(image.transpose(1, 0, 2).copy(), 1, Degradation(sigma))
    assert np.array_equal(turned.transpose(1, 0, 2), blurred)


def test_blur_leaves_flat_images_and_comes_before_the_reduction() -> None:
    flat = np.full((24, 24, 3), (10, 100, 200), np.uint8)
    assert np.array_equal(low_resolution(flat, 4, Degradation(2)), downscale(flat, 4))
    image = picture()
    blurred = low_resolution(image, 1, Degradation(2))
    assert np.array_equal(low_resolution(image, 4, Degradation(2)), downscale(blurred, 4))


@pytest.mark.parametrize("sigma", [3, 12])
def test_noise_has_its_strength_no_mean_and_no_colour_in_common(sigma: float) -> None:
    image = np.full((512, 512, 3), 128, np.uint8)
    noise = difference(low_resolution(image, 2, Degradation(noise=sigma)), downscale(image, 2))
    assert noise.std() == pytest.approx(np.hypot(sigma, 12**-0.5), rel=0.01)  # Rounding adds a bit.
    assert abs(noise.mean()) < 0.05 * sigma
    red, green, blue = (noise[:, :, channel].ravel() for channel in range(3))
    for one, other in ((red, green), (green, blue), (red[:-1], red[1:])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.02


def test_one_image_has_one_noise_and_another_another() -> None:
    one, other = picture(seed=0), picture(seed=1)
    given = Degradation(noise=10)
    assert np.array_equal(low_resolution(one, 4, given), low_resolution(one, 4, given))
    noises = [difference(low_resolution(i, 4, given), downscale(i, 4)) for i in (one, other)]
    assert abs(np.corrcoef(noises[0].ravel(), noises[1].ravel())[0, 1]) < 0.1


def test_nobodys_random_numbers_are_touched() -> None:
    np.random.seed(5)
    expected = np.random.rand(4)
    np.random.seed(5)
    low_resolution(picture(), 4, ALL)
    assert np.array_equal(np.random.rand(4), expected)


def test_threads_make_the_same_images() -> None:
    images = [picture(seed=seed) for seed in range(12)]
    alone = [low_resolution(image, 4, ALL) for image in images]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda image: low_resolution(image, 4, ALL), images))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_jpeg_is_that_of_a_file_of_this_quality(tmp_path: Path) -> None:
    import cv2

    image = picture()
    lr = downscale(image, 4)
    file = tmp_path / "a.jpg"
    cv2.imwrite(str(file), lr[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])
    found = low_resolution(image, 4, Degradation(jpeg=40))
    assert np.array_equal(found, read_image(file))  # Colours swapped, it would differ.
    errors = [
        np.square(difference(low_resolution(image, 4, Degradation(jpeg=q)), lr)).mean()
        for q in (10, 40, 95)
    ]
    assert errors == sorted(errors, reverse=True)


def test_the_order_is_blur_reduction_noise_jpeg() -> None:
    image = picture()
    noisy = low_resolution(image, 4, Degradation(1.2, noise=10))
    assert np.array_equal(
        low_resolution(image, 4, ALL), low_resolution(noisy, 1, Degradation(jpeg=40))
    )


@pytest.mark.parametrize(
    ("strengths", "words"),
    [
        ({"blur": 0}, "blur: must be more than 0"),
        ({"noise": -1}, "noise: must be more than 0"),
        ({"noise": float("inf")}, "noise: must be"),
        ({"jpeg": 0}, "jpeg: must be a quality of 1 to 100, not 0"),
        ({"jpeg": 101}, "jpeg: must be"),
    ],
)
def test_impossible_strengths_are_refused(strengths: dict[str, Any], words: str) -> None:
    with pytest.raises(LsfdError, match=words):
        Degradation(**strengths)


def test_an_image_that_is_too_small_for_its_blur_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "HR" / "a.png", picture(20, 20))
    with pytest.raises(LsfdError, match=r"a\.png: an image of 20x20 pixels is too small"):
        build_store(tmp_path / "store", [tmp_path / "HR"], None, 4, degradation=Degradation(8))
    found = set_from_folders("Set", [tmp_path / "HR"], [], 4, Degradation(8))
    with pytest.raises(LsfdError, match=r"a\.png: an image of 20x20 pixels is too small"):
        found.check()


@pytest.fixture
def hr(tmp_path: Path) -> Path:
    for seed in range(2):
        write_image(tmp_path / "HR" / f"{seed}.png", picture(seed=seed))
    return tmp_path / "HR"


def test_training_and_validation_see_the_same_images(tmp_path: Path, hr: Path) -> None:
    store = build_store(tmp_path / "store", [hr], None, 4, degradation=ALL)
    assert store.index.lq_origin == "MATLAB bicubic, blur 1.2, noise 10, JPEG 40"
    for index, (_, lq, gt) in enumerate(set_from_folders("Set", [hr], [], 4, ALL)):
        assert np.array_equal(gt, store.gt(index))
        assert np.array_equal(lq, store.lq(index))
        assert np.array_equal(lq, low_resolution(picture(seed=index), 4, ALL))


def test_a_store_is_found_again_by_its_degradation(tmp_path: Path, hr: Path) -> None:
    kinds = [None, Degradation(jpeg=40), Degradation(jpeg=41), ALL]
    stores = [ensure_store(tmp_path / "cache", [hr], None, 4, 0, kind) for kind in kinds]
    assert len({store.folder for store in stores}) == len({s.fingerprint for s in stores}) == 4
    again = ensure_store(tmp_path / "cache", [hr], None, 4, 0, Degradation(jpeg=40))
    assert (again.folder, again.fingerprint) == (stores[1].folder, stores[1].fingerprint)
    # In a folder of the same name, another degradation takes its place.
    assert build_store(again.folder, [hr], None, 4).fingerprint == stores[0].fingerprint


def test_stores_without_degradation_keep_their_names_and_fingerprints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of stores that were made before there were degradations."""
    asked: list[object] = []
    monkeypatch.setattr("lsfd.data.pack._digest", lambda value: asked.append(value) or "0" * 64)
    file = tmp_path / "HR" / "a.png"
    write_image(file, picture())
    store = ensure_store(tmp_path / "cache", [tmp_path / "HR"], None, 4, 32)
    status = file.stat()
    found = ("HR/a.png", "a.png", status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    assert asked == [
        [[str(tmp_path / "HR")], None, 4, 32],
        [1, 4, 32, [found]],
        [4, store.names, store.shapes],
    ]


def options_with(train: dict[str, Any] | None = None, **val: Any) -> dict[str, Any]:
    data = Document(TEXT, "run.yml").data
    data["datasets"]["train"] |= train or {}
    data["datasets"]["val"] |= val
    return data


def test_an_option_file_says_it_for_each_set() -> None:
    given = {"blur": 1, "noise": 10.5, "jpeg": 4e1}
    loaded = options_from_dict(options_with({"degradation": given}, degradation={"jpeg": 30}))
    train, val = loaded.options.datasets.train, loaded.options.datasets.validation
    assert train.degradation is not None
    assert train.degradation.model_dump() == {"blur": 1.0, "noise": 10.5, "jpeg": 40}
    assert val["val"].degradation is not None and val["val_2"].degradation is None
    plain = options_from_dict(options_with()).options
    assert "degradation" not in describe_samples(plain)
    assert describe_samples(loaded.options)["degradation"]["noise"] == 10.5


@pytest.mark.parametrize(
    ("degradation", "words"),
    [
        ({"blur": -1}, "datasets.train.degradation.blur: should be greater than 0, got -1"),
        ({"jpeg": 0}, "datasets.train.degradation.jpeg: should be greater than or equal to 1"),
        ({"jpeg": 40.5}, "datasets.train.degradation.jpeg: should be a whole number, got 40.5"),
        ({"nois": 3}, "datasets.train.degradation.nois: unknown option; did you mean 'noise'"),
        ({}, "datasets.train.degradation: names no degradation"),
    ],
)
def test_mistakes_in_the_option_file_are_named(degradation: dict[str, Any], words: str) -> None:
    assert words in message(options_from_dict, options_with({"degradation": degradation}))


def test_images_from_files_are_not_degraded() -> None:
    text = message(options_from_dict, options_with(dataroot_lq="lr", degradation={"jpeg": 4}))
    assert "datasets.val.degradation: images from dataroot_lq are taken as they are" in text


def test_the_command_prepares_degraded_images(
    tmp_path: Path, hr: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs"
    prepare = ["prepare", "-i", str(hr), "-o", str(out), "--workers", "1"]
    assert main([*prepare, "--blur", "1.2", "--noise", "10", "--jpeg", "40"]) == 0
    lr = read_image(out / "LR_blur1.2_noise10_jpeg40" / "X4" / "0.png")
    assert np.array_equal(lr, low_resolution(picture(seed=0), 4, ALL))
    assert main([*prepare, "--jpeg", "0"]) == 2
    assert "jpeg: must be a quality of 1 to 100, not 0" in capsys.readouterr().err
    assert main(["prepare", "--embedded", "-o", str(out), "--noise", "3"]) == 2
    assert "--blur, --noise and --jpeg go with -i" in capsys.readouterr().err
