import io
import os

import numpy as np
import pytest
from PIL import ExifTags, Image

from pixelclip.web.request import Limits, RequestError, find_upload, read_image, read_words

LIMITS = Limits(upload_megabytes=0.2, megapixels=0.05, working_side=100, words=3, word_length=20)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("sky", ("sky",)),
        (" sky ,, grass\n\nhouse ,", ("sky", "grass", "house")),
        ("sofa/couch, Traffic  Light", ("sofa, couch", "Traffic Light")),
        (" / sofa / , sky", ("sofa", "sky")),
        ("犬, عشب", ("犬", "عشب")),
    ],
)
def test_words_are_separated_by_commas_and_synonyms_by_slashes(text, names):
    assert read_words(text, LIMITS) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one word"),
        (" ,\n/ , ", "at least one word"),
        ("sky, Sky", "Given twice: 'sky'"),
        ("a, b, c, d", "These are 4 classes; at most 3"),
        ("x" * 21, "21 characters; at most 20"),
        ("a," * 10_000, "20000 characters; at most"),
    ],
)
def test_words_beyond_the_limits_are_refused(text, message):
    with pytest.raises(RequestError, match=message):
        read_words(text, LIMITS)


def test_an_image_is_upright_and_of_the_working_size(tmp_path):
    image = Image.new("RGB", (200, 100), "red")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    pixels = read_image(str(tmp_path / "turned.jpg"), LIMITS)
    assert pixels.shape == (100, 50, 3)
    assert pixels.dtype == np.uint8


def test_a_small_image_keeps_its_size(tmp_path):
    Image.new("L", (7, 1), 200).save(tmp_path / "small.png")
    assert (read_image(str(tmp_path / "small.png"), LIMITS) == np.full((1, 7, 3), 200)).all()


def write(path, content):
    path.write_bytes(content)
    return str(path)


def encode(image, kind):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image; expected a JPEG"),
        (b"text", "not an image; expected a JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (encode(Image.effect_noise((90, 90), 50), "png")[:3000], "cannot be read: is its file"),
        (encode(Image.new("RGB", (9, 9)), "gif"), "cannot be read: is its file whole, and a JPEG"),
        (b"\xff" * 300_000, r"The file has 0\.3 MB; at most 0\.2"),
        (encode(Image.new("1", (600, 100)), "png"), r"600 x 100 pixels; at most 0\.05 megapixels"),
        (encode(Image.new("1", (20_000, 10_000)), "png"), "too large; at most 0.05 megapixels"),
    ],
    ids=["empty", "text", "svg", "truncated", "gif", "heavy", "large", "bomb"],
)
def test_a_file_that_is_not_a_usable_image_is_refused(tmp_path, content, message):
    with pytest.raises(RequestError, match=message):
        read_image(write(tmp_path / "image.png", content), LIMITS)


def test_an_image_is_asked_for():
    with pytest.raises(RequestError, match="Choose an image first"):
        read_image(None, LIMITS)


@pytest.mark.parametrize("name", list(vars(Limits())))
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_not_positive_is_refused(name, value):
    with pytest.raises(ValueError, match=f"limit {name} is {value}; expected a positive"):
        Limits(**{name: value})


def test_more_words_than_labels_can_hold_are_refused():
    assert Limits(words=255).words == 255
    with pytest.raises(ValueError, match="limit words is 256; expected 1 to 255"):
        Limits(words=256)


def test_an_image_that_has_gone_is_asked_for_again(tmp_path):
    with pytest.raises(RequestError, match="no longer there: choose it again"):
        read_image(str(tmp_path / "gone.png"), LIMITS)


@pytest.fixture
def uploads(tmp_path):
    folder = tmp_path / "uploads"
    (folder / "a").mkdir(parents=True)
    for path in (folder / "a" / "own.png", tmp_path / "secret.png"):
        Image.new("RGB", (8, 8), "red").save(path)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "inner.png").symlink_to(folder / "a" / "own.png")
    os.mkfifo(folder / "pipe")
    return folder


def test_an_upload_is_found(uploads):
    own = os.path.realpath(uploads / "a" / "own.png")
    assert find_upload(own, str(uploads)) == own
    assert find_upload(str(uploads / "inner.png"), str(uploads)) == own
    gone = os.path.realpath(uploads / "gone.png")  # read_image asks for it again
    assert find_upload(gone, str(uploads)) == gone


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "a/../../gone.png", "link.png", "pipe", "", "a", "own\0.png", "a/" * 3000],
)
def test_all_else_is_refused(uploads, path):
    with pytest.raises(RequestError, match="was not uploaded to this page"):
        find_upload(os.path.join(uploads, path), str(uploads))


def test_a_folder_with_the_same_beginning_is_another(uploads, tmp_path):
    with pytest.raises(RequestError, match="was not uploaded"):
        find_upload(str(tmp_path / "uploads2.png"), str(uploads))
