import pickle

import pytest

from pixelclip.data.image_folder import load_photographs


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a/c.JPG", "a/c.json", "a/d.jpeg", "notes.txt", ".hidden.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_images_at_any_depth_in_an_order_of_their_names(folder):
    records = load_photographs(folder)
    assert [record["image_id"] for record in records] == ["b", "a/c", "a/d"]
    assert records[1] == {
        "file_name": str(folder / "a" / "c.JPG"),
        "image_id": "a/c",
        "image_span": None,
    }
    assert records[-1] == records[2] == records[1:][1]
    assert list(pickle.loads(pickle.dumps(records))) == list(records)
    with pytest.raises(IndexError):
        records[3]


def test_folders_without_photographs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no photograph; looked for .jpg"):
        load_photographs(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone is no folder"):
        load_photographs(tmp_path / "gone")
