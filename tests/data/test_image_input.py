"""Images of any kind become the same RGB pixels, or an error says what is wrong with them."""

import numpy as np
import pytest
import torch
from PIL import Image

from pixelclip.data.image_input import to_rgb_pixels
from pixelclip.data.image_reading import ImageReadError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS.astype(np.float64) + 0.3,
        PIXELS.astype(np.int64),
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        torch.from_numpy(PIXELS).permute(2, 0, 1).float().requires_grad_(),
        torch.from_numpy(PIXELS).permute(2, 0, 1).short(),
        Image.fromarray(PIXELS),
    ],
    ids=["bytes", "floats", "integers", "tensor", "float tensor", "short tensor", "PIL"],
)
def test_all_kinds_give_the_same_pixels(image):
    if isinstance(image, np.ndarray) and image.dtype == np.float64:
        image = np.minimum(image, 255)
    pixels = to_rgb_pixels(image)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, PIXELS)


def test_bgr_is_turned_but_not_for_images_that_know_their_order():
    assert np.array_equal(to_rgb_pixels(PIXELS, "BGR"), PIXELS[:, :, ::-1])
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    assert np.array_equal(to_rgb_pixels(tensor, "BGR"), PIXELS[:, :, ::-1])
    assert np.array_equal(to_rgb_pixels(Image.fromarray(PIXELS), "BGR"), PIXELS)


def test_grey_images_get_three_equal_channels():
    grey = PIXELS[:, :, 0]
    for image in (grey, Image.fromarray(grey)):
        pixels = to_rgb_pixels(image)
        assert pixels.shape == (5, 7, 3)
        assert all(np.array_equal(pixels[:, :, channel], grey) for channel in range(3))


def test_bfloat16_is_read():
    tensor = torch.full((3, 2, 2), 200.0, dtype=torch.bfloat16)
    assert (to_rgb_pixels(tensor) == 200).all()


def test_a_pil_image_stays_as_it_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert to_rgb_pixels(image).shape == (7, 5, 3)
        assert image.size == (7, 5)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (PIXELS[None], r"\(1, 5, 7, 3\).*as a list"),
        (np.zeros((5, 7, 4), np.uint8), r"alpha channel"),
        (PIXELS.transpose(2, 0, 1), r"transpose\(1, 2, 0\)"),
        (np.zeros((0, 7, 3), np.uint8), "no pixels: 0 x 7"),
        (np.zeros((5, 7, 3), bool), "type bool"),
        (np.full((5, 7, 3), 300), "span 300 to 300"),
        (np.full((5, 7, 3), -1.0), "expected uint8"),
        (np.full((5, 7, 3), np.nan), "span nan"),
        (PIXELS / 255, "Multiply an image in 0..1 by 255"),
        (np.array("photo.jpg"), r"shape \(\)"),
        (torch.zeros(5, 7, 3), r"permute\(2, 0, 1\)"),
        (torch.zeros(2, 3, 5, 7), "several as a list"),
        (torch.zeros(3, 0, 4), "no pixels"),
        (torch.zeros(3, 5, 7, dtype=torch.complex64), "type complex64"),
    ],
)
def test_bad_arrays_and_tensors_are_refused(image, problem):
    with pytest.raises(ValueError, match=problem):
        to_rgb_pixels(image)


def test_bad_files_and_pil_images_are_refused(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for image in (tmp_path / "cut.png", Image.open(tmp_path / "cut.png"), tmp_path / "none.png"):
        with pytest.raises(ImageReadError, match="cannot be decoded"):
            to_rgb_pixels(image)
    with pytest.raises(ImageReadError, match="floating-point"):
        to_rgb_pixels(Image.new("F", (3, 3)))
    with pytest.raises(ImageReadError, match="no pixels"):
        to_rgb_pixels(Image.new("RGB", (0, 3)))


@pytest.mark.parametrize("image", [None, 3, b"bytes", {"image": PIXELS}])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(TypeError, match=f"got {type(image).__name__}"):
        to_rgb_pixels(image)
