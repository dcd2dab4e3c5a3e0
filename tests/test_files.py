"""Reading, writing and finding image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsfd.errors import LsfdError
from lsfd.imaging.files import IMAGE_EXTENSIONS, find_images, read_image, write_image


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)


@pytest.mark.parametrize("extension", sorted(set(IMAGE_EXTENSIONS) - {".jpg", ".jpeg"}))
def test_lossless_formats_come_back_equal(
    tmp_path: Path, image: np.ndarray, extension: str
) -> None:
    path = tmp_path / f"image{extension}"
    write_image(path, image)
    np.testing.assert_array_equal(read_image(path), image)
    # Another reader agrees on the order of the channels.
    np.testing.assert_array_equal(np.asarray(Image.open(path).convert("RGB")), image)


@pytest.mark.parametrize("extension", [".jpg", ".jpeg", ".JPG"])
def test_jpeg_comes_back_near(tmp_path: Path, extension: str) -> None:
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    smooth = np.stack([np.tile(ramp, (24, 1)), np.full((24, 32), 80), np.full((24, 32), 160)], 2)
    write_image(tmp_path / f"image{extension}", smooth.astype(np.uint8))
    back = read_image(tmp_path / f"image{extension}")
    assert np.abs(back.astype(int) - smooth).mean() < 4


def test_unicode_paths_and_new_folders(tmp_path: Path, image: np.ndarray) -> None:
    path = tmp_path / "größe" / "写真 1.png"
    write_image(path, image)
    np.testing.assert_array_equal(read_image(path), image)


def test_grey_alpha_palette_and_16_bit(tmp_path: Path, image: np.ndarray) -> None:
    grey = image[:, :, 0]
    path = tmp_path / "image.png"
    Image.fromarray(grey).save(path)
    np.testing.assert_array_equal(read_image(path), np.stack([grey] * 3, axis=2))
    Image.fromarray(np.dstack([image, grey])).save(path)
    np.testing.assert_array_equal(read_image(path), image)
    Image.fromarray(np.dstack([grey, grey]), "LA").save(path)
    np.testing.assert_array_equal(read_image(path), np.stack([grey] * 3, axis=2))
    palette = Image.fromarray(image).quantize(16)
    palette.save(path)
    np.testing.assert_array_equal(read_image(path), np.asarray(palette.convert("RGB")))
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(deep).save(path)
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]  # deep / 257, rounded


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", "half"])
def test_damaged_files_are_named(
    tmp_path: Path, image: np.ndarray, content: bytes | str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.png"
    if content == "half":
        write_image(path, image)
        content = path.read_bytes()[:-200]
    assert isinstance(content, bytes)
    path.write_bytes(content)
    with pytest.raises(LsfdError, match=r"broken\.png is not an image"):
        read_image(path)
    assert "WARN" not in capfd.readouterr().err


def test_missing_folder_and_float_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match=r"missing\.png: No such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(LsfdError, match="cannot read the image"):
        read_image(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(LsfdError, match=r"float\.tif holds float32"):
        read_image(tmp_path / "float.tif")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "image.png"
    write_image(path, image)
    before = path.read_bytes()

    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", disk_full)
    with pytest.raises(LsfdError, match=r"image\.png cannot be written: No space left"):
        write_image(path, 255 - image)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["image.png"]


def test_wrong_writes_are_refused(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(LsfdError, match=r"'\.pgn'.*did you mean '\.png'"):
        write_image(tmp_path / "image.pgn", image)
    with pytest.raises(LsfdError, match="float64"):
        write_image(tmp_path / "image.png", image / 255.0)
    with pytest.raises(LsfdError, match=r"\(12, 17\)"):
        write_image(tmp_path / "image.png", image[:, :, 0])
    assert list(tmp_path.iterdir()) == []


def test_written_files_are_as_readable_as_any_other(tmp_path: Path, image: np.ndarray) -> None:
    write_image(tmp_path / "image.png", image)
    (tmp_path / "other").touch()
    assert (tmp_path / "image.png").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "sub/c.tiff", "notes.txt", ".hidden.png", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.jpg", "b.PNG", "sub/c.tiff"]
    with pytest.raises(LsfdError, match="nowhere does not exist"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(LsfdError, match=r"a\.jpg is not a folder"):
        find_images(tmp_path / "a.jpg")
