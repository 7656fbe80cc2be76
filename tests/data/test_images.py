import http.server
import io
import math
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops

from pixelclip.data.images import ImageFile, ImageReadError, read_rgb_image, to_rgb_pixels
from tests.data.sa1b_files import image_bytes, random_image

PIXELS = random_image(seed=0, height=12, width=20)


def saved(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def test_rgb_pixels_come_back_as_they_are() -> None:
    result = read_rgb_image(image_bytes(PIXELS, "PNG"))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, PIXELS)


def test_a_path_and_its_content_read_the_same(tmp_path: Path) -> None:
    data = image_bytes(PIXELS, "JPEG")
    path = tmp_path / "X.jpg"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_rgb_image(path), read_rgb_image(data))
    np.testing.assert_array_equal(read_rgb_image(str(path)), read_rgb_image(data))


def gray_as_rgb(values: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(values[:, :, None], 3, axis=2)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_grayscale(image_format: str) -> None:
    data = saved(Image.fromarray(PIXELS[:, :, 0]), image_format)
    result = read_rgb_image(data)
    assert result.shape == PIXELS.shape
    assert (result == result[:, :, :1]).all()
    assert np.abs(result[:, :, 0].astype(int) - PIXELS[:, :, 0]).max() <= (
        0 if image_format == "PNG" else 40
    )


def test_one_bit() -> None:
    bits = PIXELS[:, :, 0] > 127
    result = read_rgb_image(saved(Image.fromarray(bits)))
    np.testing.assert_array_equal(result, gray_as_rgb(bits * 255))


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_is_dropped_and_the_colors_are_kept(alpha: int) -> None:
    layer = np.full((12, 20, 1), alpha, np.uint8)
    rgba = Image.fromarray(np.concatenate([PIXELS, layer], axis=2))
    np.testing.assert_array_equal(read_rgb_image(saved(rgba)), PIXELS)
    la = Image.fromarray(np.concatenate([PIXELS[:, :, :1], layer], axis=2))
    np.testing.assert_array_equal(read_rgb_image(saved(la)), gray_as_rgb(PIXELS[:, :, 0]))


@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 255, 128])])
def test_palette_without_warnings(transparency: int | bytes | None) -> None:
    palette = Image.fromarray(PIXELS).quantize(16)
    options = {} if transparency is None else {"transparency": transparency}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = read_rgb_image(saved(palette, **options))
    np.testing.assert_array_equal(result, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(image_format: str) -> None:
    values = np.array([[0, 128, 129, 257, 32_768, 65_534, 65_535]], np.uint16)
    result = read_rgb_image(saved(Image.fromarray(values), image_format))
    np.testing.assert_array_equal(result[0, :, 0], np.round(values[0] / 257))
    np.testing.assert_array_equal(result, gray_as_rgb(result[:, :, 0]))


def test_integer_pixels_of_sixteen_bits_are_scaled() -> None:
    values = np.array([[0, 300, 65_535]], np.int32)
    result = read_rgb_image(saved(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(result[0, :, 0], [0, 1, 255])


@pytest.mark.parametrize("values", [np.array([[70_000]], np.int32), np.array([[-1]], np.int32)])
def test_integers_of_unknown_range_are_refused(values: NDArray[np.int32]) -> None:
    with pytest.raises(ImageReadError, match="expected 0..65535"):
        read_rgb_image(saved(Image.fromarray(values), "TIFF"))


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageReadError, match="floating-point"):
        read_rgb_image(saved(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))


def without_adobe_segment(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    length = int.from_bytes(jpeg[start + 2 : start + 4], "big")
    assert jpeg[start + 4 : start + 9] == b"Adobe"
    return jpeg[:start] + jpeg[start + 2 + length :]


def test_cmyk_jpeg_with_and_without_adobe_inversion() -> None:
    image_file = Image.fromarray(random_image(1, 64, 64)).resize((4, 4)).resize((64, 64))
    cmyk = image_file.convert("CMYK")
    adobe = saved(cmyk, "JPEG", quality=95)
    # Pillow stores the inverse of what it is given; without Adobe's segment, that means the values.
    plain = without_adobe_segment(saved(ImageChops.invert(cmyk), "JPEG", quality=95))
    for data in (adobe, plain):
        difference = read_rgb_image(data).astype(int) - np.asarray(image_file)
        assert np.abs(difference).mean() < 4


def test_multi_picture_jpeg_gives_its_first_image() -> None:
    first, second = Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1])
    data = saved(first, "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_rgb_image(data), read_rgb_image(saved(first, "JPEG")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(orientation: int, image_format: str) -> None:
    turns = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
        8: lambda x: np.rot90(x, 1),
    }
    exif = Image.Exif()
    exif[274] = orientation
    plain = read_rgb_image(image_bytes(PIXELS, image_format))
    result = read_rgb_image(image_bytes(PIXELS, image_format, exif=exif))
    np.testing.assert_array_equal(result, turns[orientation](plain))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_corrupt_exif_leaves_the_image_as_it_is() -> None:
    data = image_bytes(PIXELS, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff\x00\x01")
    np.testing.assert_array_equal(read_rgb_image(data), read_rgb_image(image_bytes(PIXELS)))


def bomb() -> bytes:
    return saved(Image.new("1", (20_000, 20_000)))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (
            b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
            "not an image in one of the formats",
        ),
        (b"\xff\xd8\xff", "not an image in one of the formats"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF", "not an image"),
        (image_bytes(PIXELS)[:-40], "truncated"),
        (image_bytes(PIXELS, "PNG")[:-40], "cannot be decoded"),
        (bomb(), "decompression bomb"),
    ],
    ids=["empty", "html", "three bytes", "eps", "cut jpeg", "cut png", "bomb"],
)
def test_what_is_not_a_whole_image_gets_one_kind_of_error(data: bytes, sentence: str) -> None:
    with pytest.raises(ImageReadError, match=sentence):
        read_rgb_image(data)


def test_the_error_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"absent\.jpg does not exist"):
        read_rgb_image(tmp_path / "absent.jpg")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageReadError, match=r"empty\.jpg is empty"):
        read_rgb_image(tmp_path / "empty.jpg")


def test_an_address_may_have_any_letters_and_the_server_learns_who_asks() -> None:
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            asked.append((self.path, self.headers["User-Agent"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(image_bytes(PIXELS, "PNG"))

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/grüne%20 wiese.png?size=2&x=%2F"
        np.testing.assert_array_equal(to_rgb_pixels(address), PIXELS)
    assert asked == [("/gr%C3%BCne%20%20wiese.png?size=2&x=%2F", "pixelclip")]


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_reads_or_raises_the_one_error(seed: int) -> None:
    generator = np.random.default_rng(seed)
    image_format = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")[seed % 5]
    data = bytearray(image_bytes(PIXELS, image_format))
    for position in generator.integers(0, len(data), 8):
        data[position] = generator.integers(0, 256)
    try:
        assert read_rgb_image(bytes(data)).shape[2] == 3
    except ImageReadError as error:
        assert len(str(error)) > 10


@pytest.mark.parametrize(
    ("min_scale", "expected"),
    [(1.0, 1.0), (0.51, 1.0), (0.5, 0.5), (0.3, 0.5), (0.25, 0.25), (0.2, 0.25), (0.01, 0.125)],
)
@pytest.mark.parametrize("size", [(64, 96), (61, 83), (9, 40), (1, 1), (3, 90)])
def test_a_jpeg_is_decoded_at_the_smallest_wanted_scale(
    min_scale: float, expected: float, size: tuple[int, int]
) -> None:
    pixels = random_image(0, *size)
    data = image_bytes(pixels, quality=95)
    image_file = ImageFile(data)
    assert image_file.size == size
    image, scale = image_file.decode(min_scale)
    # A side of few pixels cannot be halved so often.
    assert scale == expected or (scale > expected and min(size) < 9)
    assert image.mode == "RGB"
    assert (image.height, image.width) == tuple(math.ceil(side * scale) for side in size)
    if min(size) >= 61:
        # The half-sized image is about the mean of each 2x2 pixels, and so on.
        step = round(1 / scale)
        rows, columns = (side // step * step for side in size)
        blocks = read_rgb_image(data)[:rows, :columns].astype(float)
        means = blocks.reshape(rows // step, step, columns // step, step, 3).mean(axis=(1, 3))
        decoded = np.asarray(image)[: rows // step, : columns // step]
        assert np.abs(decoded - means).mean() < 2.5


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "BMP"])
def test_other_formats_are_decoded_in_full(image_format: str) -> None:
    image, scale = ImageFile(image_bytes(PIXELS, image_format)).decode(0.1)
    assert scale == 1.0
    assert (image.height, image.width) == PIXELS.shape[:2]


def test_a_turned_jpeg_is_decoded_in_full_and_its_size_is_the_upright_one() -> None:
    exif = Image.Exif()
    exif[274] = 6
    image_file = ImageFile(image_bytes(PIXELS, "JPEG", exif=exif))
    assert image_file.size == PIXELS.shape[1::-1]
    image, scale = image_file.decode(0.1)
    assert scale == 1.0
    assert (image.height, image.width) == image_file.size


@pytest.mark.parametrize("min_scale", [1.0, 0.25])
def test_a_truncated_jpeg_is_found_when_it_is_decoded(min_scale: float) -> None:
    data = image_bytes(random_image(0, 64, 64))
    image_file = ImageFile(data[:-300])
    with pytest.raises(ImageReadError, match="truncated"):
        image_file.decode(min_scale)


SMALL = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        SMALL,
        SMALL.astype(np.float64) + 0.3,
        SMALL.astype(np.int64),
        torch.from_numpy(SMALL).permute(2, 0, 1),
        torch.from_numpy(SMALL).permute(2, 0, 1).float().requires_grad_(),
        torch.from_numpy(SMALL).permute(2, 0, 1).short(),
        Image.fromarray(SMALL),
    ],
    ids=["bytes", "floats", "integers", "tensor", "float tensor", "short tensor", "PIL"],
)
def test_all_kinds_give_the_same_pixels(image):
    if isinstance(image, np.ndarray) and image.dtype == np.float64:
        image = np.minimum(image, 255)
    pixels = to_rgb_pixels(image)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, SMALL)


def test_bgr_is_turned_but_not_for_images_that_know_their_order():
    assert np.array_equal(to_rgb_pixels(SMALL, "BGR"), SMALL[:, :, ::-1])
    tensor = torch.from_numpy(SMALL).permute(2, 0, 1)
    assert np.array_equal(to_rgb_pixels(tensor, "BGR"), SMALL[:, :, ::-1])
    assert np.array_equal(to_rgb_pixels(Image.fromarray(SMALL), "BGR"), SMALL)


def test_gray_images_get_three_equal_channels():
    gray = SMALL[:, :, 0]
    for image in (gray, Image.fromarray(gray)):
        pixels = to_rgb_pixels(image)
        assert pixels.shape == (5, 7, 3)
        assert all(np.array_equal(pixels[:, :, channel], gray) for channel in range(3))


def test_bfloat16_is_read():
    tensor = torch.full((3, 2, 2), 200.0, dtype=torch.bfloat16)
    assert (to_rgb_pixels(tensor) == 200).all()


def test_a_pil_image_stays_as_it_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(SMALL).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert to_rgb_pixels(image).shape == (7, 5, 3)
        assert image.size == (7, 5)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (SMALL[None], r"\(1, 5, 7, 3\).*as a list"),
        (np.zeros((5, 7, 4), np.uint8), r"alpha channel"),
        (SMALL.transpose(2, 0, 1), r"transpose\(1, 2, 0\)"),
        (np.zeros((0, 7, 3), np.uint8), "no pixels: 0 x 7"),
        (np.zeros((5, 7, 3), bool), "type bool"),
        (np.full((5, 7, 3), 300), "span 300 to 300"),
        (np.full((5, 7, 3), -1.0), "expected uint8"),
        (np.full((5, 7, 3), np.nan), "span nan"),
        (SMALL / 255, "Multiply an image in 0..1 by 255"),
        (np.array("photo.jpg"), r"shape \(\)"),
        (torch.zeros(5, 7, 3), r"permute\(2, 0, 1\)"),
        (torch.zeros(2, 3, 5, 7), "several images as a list"),
        (torch.zeros(3, 0, 4), "no pixels"),
        (torch.zeros(3, 5, 7, dtype=torch.complex64), "type complex64"),
    ],
)
def test_bad_arrays_and_tensors_are_refused(image, problem):
    with pytest.raises(ValueError, match=problem):
        to_rgb_pixels(image)


def test_bad_files_and_pil_images_are_refused(tmp_path):
    Image.fromarray(SMALL).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for image in (tmp_path / "cut.png", Image.open(tmp_path / "cut.png"), tmp_path / "none.png"):
        with pytest.raises(ImageReadError, match="cannot be decoded|does not exist"):
            to_rgb_pixels(image)
    with pytest.raises(ImageReadError, match="floating-point"):
        to_rgb_pixels(Image.new("F", (3, 3)))
    with pytest.raises(ImageReadError, match="no pixels"):
        to_rgb_pixels(Image.new("RGB", (0, 3)))


@pytest.mark.parametrize("image", [None, 3, b"bytes", {"image": SMALL}])
def test_what_is_not_an_image_is_refused(image):
    with pytest.raises(TypeError, match=f"got {type(image).__name__}"):
        to_rgb_pixels(image)
