"""Every kind of image file, read and written; other libraries agree on what is in it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from lsfd.errors import LsfdError
from lsfd.imaging import raster as raster_module
from lsfd.imaging.files import read_image, write_image
from lsfd.imaging.picture import Picture, read_picture
from lsfd.imaging.picture_files import FORMATS, write_picture
from lsfd.imaging.raster import Raster

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF_ORIENTATION, EXIF_MAKER, EXIF_WIDTH = 0x0112, 0x010F, 0xA002
EXIF_DETAILS = 0x8769


def smooth(height: int = 24, width: int = 32, bands: int = 3) -> NDArray[np.uint8]:
    """An image that JPEG hardly changes."""
    y, x = np.mgrid[:height, :width]
    planes = [128 + 100 * np.sin((x * (k + 1) + 2 * y) / 25 + k) for k in range(bands)]
    return np.stack(planes, axis=2).astype(np.uint8)


def pixels(picture: Picture) -> NDArray[Any]:
    height, width, _ = picture.raster.shape
    return picture.raster.read(0, height, 0, width)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def differences(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    assert first.shape == second.shape
    return np.abs(first.astype(int) - second.astype(int))


# Reading


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.bmp", "a.ppm", "a.gif"])
def test_colours_are_read_as_others_read_them(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name.endswith("webp") else {}
    path = saved(tmp_path / name, Image.fromarray(smooth()), **options)
    assert np.array_equal(pixels(read_picture(path)), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "1", "P", "I;16"])
def test_an_8_bit_png_is_read_as_for_training(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(smooth())
    if mode == "I;16":
        image = Image.fromarray(smooth(bands=1)[:, :, 0].astype(np.uint16) * 257)
    path = saved(tmp_path / "a.png", image if mode == "I;16" else image.convert(mode))
    read = pixels(read_picture(path))
    colours = read[:, :, :1].repeat(3, 2) if read.shape[2] < 3 else read[:, :, :3]
    assert np.array_equal(colours // 257 if mode == "I;16" else colours, read_image(path))


@pytest.mark.parametrize(
    ("mode", "bands"), [("1", 1), ("L", 1), ("LA", 2), ("RGB", 3), ("P", 3), ("RGBA", 4)]
)
def test_grey_stays_grey_and_alpha_stays(tmp_path: Path, mode: str, bands: int) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(smooth()).convert(mode))
    assert read_picture(path).raster.shape == (24, 32, bands)


def test_a_palette_with_a_transparent_colour_has_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(smooth()).quantize(8)
    path = saved(tmp_path / "a.png", image, transparency=3)
    read = pixels(read_picture(path))
    assert np.array_equal(read, np.asarray(Image.open(path).convert("RGBA")))
    assert set(np.unique(read[:, :, 3])) == {0, 255}


def test_16_bits_stay(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 5, 4), np.uint16)
    for bands in (1, 2, 3, 4):
        for ending in ("png", "tif"):
            path = tmp_path / f"{bands}.{ending}"
            write_picture(path, Picture(Raster.from_array(deep[:, :, :bands].copy())))
            assert np.array_equal(pixels(read_picture(path)), deep[:, :, :bands])
    grey = np.asarray(Image.open(tmp_path / "1.png"))
    assert np.array_equal(grey, deep[:, :, 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path: Path, orientation: int) -> None:
    upright, exif = smooth(), Image.Exif()
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright), 8: np.rot90(upright, -1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
    }[orientation]  # fmt: skip
    exif[EXIF_ORIENTATION], exif[EXIF_MAKER] = orientation, "Maker"
    image = Image.fromarray(np.ascontiguousarray(turned))
    path = saved(tmp_path / "a.jpg", image, exif=exif.tobytes(), quality=95)
    picture = read_picture(path)
    assert differences(pixels(picture), upright).mean() < 3
    for name in ("b.png", "b.jpg", "b.webp", "b.tif"):
        write_picture(tmp_path / name, picture)
        with Image.open(tmp_path / name) as written:
            assert written.size == (32, 24)
            assert written.getexif().get(EXIF_ORIENTATION, 1) == 1
            if name != "b.tif":
                assert written.getexif()[EXIF_MAKER] == "Maker"
                assert written.getexif().get_ifd(EXIF_DETAILS)[EXIF_WIDTH] == 32


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    for name in ("a.jpg", "a.tif"):
        picture = read_picture(saved(tmp_path / name, red))
        assert picture.raster.shape == (16, 16, 3)
        r, g, b = pixels(picture)[8, 8].astype(int)
        assert r > 200 and g < 90 and b < 90
        write_picture(tmp_path / "b.png", picture)
        with Image.open(tmp_path / "b.png") as written:
            assert written.info["icc_profile"][16:20] == b"RGB "


def test_colour_profiles_are_kept(tmp_path: Path) -> None:
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(smooth()), icc_profile=SRGB))
    for name in ("b.png", "b.jpg", "b.webp", "b.tif"):
        write_picture(tmp_path / name, picture)
        with Image.open(tmp_path / name) as written:
            assert written.info["icc_profile"] == SRGB


def test_colours_become_srgb_where_a_format_has_no_profile(tmp_path: Path) -> None:
    # A profile whose red and green primaries have changed places.
    profile = bytearray(SRGB)
    tags = int.from_bytes(profile[128:132], "big")
    places = {bytes(profile[o : o + 4]): o for o in range(132, 132 + 12 * tags, 12)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    swapped = profile[green + 4 : green + 12], profile[red + 4 : red + 12]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = swapped
    source = np.full((8, 8, 3), (200, 40, 90), np.uint8)
    picture = read_picture(
        saved(tmp_path / "a.png", Image.fromarray(source), icc_profile=bytes(profile))
    )
    assert np.array_equal(pixels(picture), source)
    write_picture(tmp_path / "b.bmp", picture)
    assert differences(read_image(tmp_path / "b.bmp"), source[:, :, [1, 0, 2]]).max() <= 3


def test_a_profile_of_other_colours_is_dropped(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(smooth()[:, :, 0]), icc_profile=SRGB)
    picture = read_picture(path)
    assert "icc-profile-data" not in picture.metadata
    write_picture(tmp_path / "b.png", picture)
    assert "icc_profile" not in Image.open(tmp_path / "b.png").info


def test_thumbnails_go(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_MAKER] = "Maker"
    small = io.BytesIO()
    Image.fromarray(smooth(8, 8)).save(small, "JPEG")
    exif.get_ifd(1)[0x0103] = 6
    path = saved(tmp_path / "a.jpg", Image.fromarray(smooth()), exif=exif.tobytes())
    write_picture(tmp_path / "b.jpg", read_picture(path))
    with Image.open(tmp_path / "b.jpg") as written:
        assert written.getexif()[EXIF_MAKER] == "Maker"
        assert 0x0201 not in written.getexif().get_ifd(1)


def test_a_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(smooth()), format="JPEG", quality=95)
    assert differences(pixels(read_picture(path)), smooth()).mean() < 2
    path = saved(tmp_path / "b.jpg", Image.fromarray(smooth()), format="BMP")
    assert np.array_equal(pixels(read_picture(path)), smooth())


def test_a_bmp_whose_fourth_byte_means_nothing_is_opaque(tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    Image.fromarray(np.dstack([smooth(), np.zeros((24, 32), np.uint8)])).save(path)
    assert read_picture(path).raster.shape[2] == 3


def animation(path: Path) -> Path:
    frames = [Image.fromarray(smooth() // shift) for shift in (1, 2, 3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.tif"])
def test_animations_and_pages_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LsfdError, match="holds 3 pictures"):
        read_picture(animation(tmp_path / name))


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "bmp"])
def test_a_truncated_file_is_refused(
    tmp_path: Path, ending: str, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raster_module, "IN_MEMORY", in_memory)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(tmp_path / f"a.{ending}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(LsfdError, match="not an image that can be read"):
        read_picture(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"BM", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(LsfdError, match=r"a\.png is not an image that can be read"):
        read_picture(path)


def test_floating_point_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(smooth()[:, :, 0].astype(np.float32)))
    with pytest.raises(LsfdError, match=r"a\.tif holds float pixels"):
        read_picture(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LsfdError, match=r"cannot read the image .*absent"):
        read_picture(tmp_path / "absent.png")


# Writing


@pytest.mark.parametrize("ending", sorted(FORMATS))
@pytest.mark.parametrize("bands", [1, 3])
def test_what_is_written_is_read_by_others(tmp_path: Path, ending: str, bands: int) -> None:
    source = smooth(23, 33, bands)
    path = tmp_path / f"größe [1] 写真{ending}"
    write_picture(path, Picture(Raster.from_array(source)))
    near = ending in (".jpg", ".jpeg")
    with Image.open(path) as written:
        if ending != ".webp":  # Has no grey.
            assert written.mode == ("L" if bands == 1 else "RGB")
        rgb = source.repeat(3, 2) if bands == 1 else source
        assert differences(np.asarray(written.convert("RGB")), rgb).mean() <= (2 if near else 0)
    assert differences(read_image(path), rgb).mean() <= (2 if near else 0)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["jpg", "bmp", "ppm", "webp"])
def test_16_bits_are_rounded_where_there_is_no_place_for_them(tmp_path: Path, ending: str) -> None:
    deep = np.array([0, 128, 129, 257, 32768, 65535], np.uint16).repeat(48).reshape(6, 16, 3)
    write_picture(tmp_path / f"a.{ending}", Picture(Raster.from_array(deep)))
    levels = read_image(tmp_path / f"a.{ending}")[:, 0, 1].tolist()
    assert np.abs(np.subtract(levels, [0, 0, 1, 1, 128, 255])).max() <= (
        1 if ending == "jpg" else 0
    )


@pytest.mark.parametrize("ending", ["jpg", "bmp", "ppm"])
@pytest.mark.parametrize("bands", [2, 4])
def test_transparency_becomes_white_where_there_is_no_place_for_it(
    tmp_path: Path, ending: str, bands: int
) -> None:
    source = np.zeros((16, 16, bands), np.uint8)
    source[:, 8:, -1] = 255
    write_picture(tmp_path / f"a.{ending}", Picture(Raster.from_array(source)))
    written = read_image(tmp_path / f"a.{ending}")
    assert (written[:, 2] >= 253).all() and (written[:, 13] <= 2).all()


def test_alpha_is_kept(tmp_path: Path) -> None:
    source = smooth(bands=4)
    for ending in ("png", "webp", "tif"):
        write_picture(tmp_path / f"a.{ending}", Picture(Raster.from_array(source)))
        with Image.open(tmp_path / f"a.{ending}") as written:
            assert np.array_equal(np.asarray(written)[:, :, 3], source[:, :, 3])


def test_too_long_for_a_format(tmp_path: Path) -> None:
    picture = Picture(Raster.from_array(np.zeros((2, 16384, 3), np.uint8)))
    with pytest.raises(LsfdError, match="WebP holds at most 16383 pixels a side"):
        write_picture(tmp_path / "a.webp", picture)
    assert not list(tmp_path.iterdir())


def test_resizing(tmp_path: Path) -> None:
    large = smooth(96, 128)
    write_picture(tmp_path / "a.png", Picture(Raster.from_array(large)), (64, 48))
    assert differences(read_image(tmp_path / "a.png"), large[::2, ::2]).max() <= 12
    assert read_image(tmp_path / "a.png").shape == (48, 64, 3)


def test_resizing_lets_no_hidden_colour_show(tmp_path: Path) -> None:
    source = np.zeros((64, 64, 4), np.uint8)
    source[:, 31:] = (200, 100, 50, 255)
    write_picture(tmp_path / "a.png", Picture(Raster.from_array(source)), (32, 32))
    written = np.asarray(Image.open(tmp_path / "a.png"))
    visible = written[:, :, 3] > 16
    assert (
        differences(written[visible][:, :3], np.full((visible.sum(), 3), (200, 100, 50))).max() <= 8
    )


def test_equal_to_the_writer_of_training_data(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", smooth())
    write_picture(tmp_path / "b.png", Picture(Raster.from_array(smooth())))
    assert np.array_equal(read_image(tmp_path / "a.png"), read_image(tmp_path / "b.png"))
