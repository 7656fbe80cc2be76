from pathlib import Path

import pytest

from pixelclip.mask_generation.image_records import COPIES, find_photographs


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def copies(images: Path, output: Path) -> dict[str, str]:
    """Name of each photograph below its folder, and of its copy."""
    found = find_photographs(images, output)
    assert all(one.annotation == one.image.with_suffix(".json") for one in found)
    return {
        one.source.relative_to(images).as_posix(): one.image.relative_to(output / COPIES).as_posix()
        for one in found
    }


def test_copies_keep_folders_and_have_names_of_their_own(tmp_path):
    images, output = tmp_path / "in", tmp_path / "out"
    touch(images, "a.jpg", "a.png", "A.JPEG", "b/a.jpg", "c.d.webp", "e.tif", "e.bmp", "notes.txt")
    touch(images, ".hidden.jpg", ".git/x.jpg", "b/a.json")
    found = copies(images, output)
    assert found == {
        "A.JPEG": "A.JPEG",
        "a.jpg": "a_jpg.jpg",
        "a.png": "a_png.png",
        "b/a.jpg": "b/a.jpg",
        "c.d.webp": "c.d.jpg",
        "e.bmp": "e.jpg",
        "e.tif": "e_tif.jpg",
    }


def test_what_is_written_is_not_read(tmp_path):
    touch(tmp_path, "a.jpg", "out/a.jpg", "out/b/c.jpg")
    assert copies(tmp_path, tmp_path / "out") == {"a.jpg": "a.jpg"}


@pytest.mark.parametrize("output", ["in", "."])
def test_the_output_must_not_hold_the_photographs(tmp_path, output):
    touch(tmp_path / "in", "a.jpg")
    with pytest.raises(ValueError, match="give another folder"):
        find_photographs(tmp_path / "in", tmp_path / output)


def test_no_photographs_no_folder_and_a_file_as_output(tmp_path):
    touch(tmp_path, "in/notes.txt", "file")
    with pytest.raises(FileNotFoundError, match=r"holds no photograph; looked for \.jpg, .*\.bmp"):
        find_photographs(tmp_path / "in", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        find_photographs(tmp_path / "nowhere", tmp_path / "out")
    touch(tmp_path / "in", "a.jpg")
    with pytest.raises(ValueError, match="file is a file"):
        find_photographs(tmp_path / "in", tmp_path / "file")
