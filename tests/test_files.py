"""Reading, writing and finding image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsfd.errors import LsfdError
from lsfd.imaging.claims import claims_too_much
from lsfd.imaging.files import IMAGE_EXTENSIONS, find_images, read_image, write_image
from lsfd.imaging.picture import read_picture


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


def forged(tmp_path: Path, kind: str) -> Path:
    """A small image of a kind, whose header claims 16,000 x 16,000 pixels."""
    path = tmp_path / f"forged.{kind}"
    Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    side = 16_000
    if kind == "jpg":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = 2 * side.to_bytes(2, "big")
    elif kind == "gif":
        data[6:10] = 2 * side.to_bytes(2, "little")
    else:
        data[18:26] = 2 * side.to_bytes(4, "little")
        data[30:34] = (1).to_bytes(4, "little")  # Of runs: OpenCV wants whole files of others.
        data[28:30] = (8).to_bytes(2, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["jpg", "gif", "bmp"])
def test_a_header_is_not_believed_more_than_its_file_can_hold(tmp_path: Path, kind: str) -> None:
    path = forged(tmp_path, kind)
    data = path.read_bytes()
    assert claims_too_much(data, len(data))
    assert not claims_too_much(data, 2**28)
    for read in (read_image, read_picture):
        with pytest.raises(LsfdError, match="is not an image"):
            read(path)


def test_a_jpeg_that_holds_little_for_its_size_is_read(tmp_path: Path) -> None:
    """One colour, and a profile and a comment in front of its size."""
    path = tmp_path / "plain.jpg"
    flat = Image.new("L", (4000, 3000), 99)
    flat.save(path, quality=1, icc_profile=b"x" * 200_000, comment=b"\xff\xc0" * 9)
    assert read_image(path).shape == (3000, 4000, 3)


@pytest.mark.parametrize("magic", ["P2", "P3", "P5", "P6"])
@pytest.mark.parametrize("white", [15, 200, 255, 1023, 65535])
def test_white_may_be_any_number_in_a_ppm(tmp_path: Path, magic: str, white: int) -> None:
    ramp = (np.arange(64) * white // 63).reshape(8, 8)
    bands = 1 if magic in ("P2", "P5") else 3
    values = np.repeat(ramp[:, :, None], bands, axis=2)
    if magic in ("P2", "P3"):
        body = " ".join(map(str, values.ravel())).encode() + b"\n"
    else:
        body = values.astype(">u2" if white > 255 else np.uint8).tobytes()
    path = tmp_path / "ramp.ppm"
    path.write_bytes(f"{magic}\n# 8 x 8\n8 8\n{white}\n".encode() + body)
    np.testing.assert_allclose(read_image(path)[:, :, 0], ramp * 255 / white, atol=1)
    pixels = read_picture(path).raster.read(0, 8, 0, 8)
    top = 65535 if white > 255 else 255
    np.testing.assert_allclose(pixels[:, :, 0], ramp * top / white, atol=1)


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
