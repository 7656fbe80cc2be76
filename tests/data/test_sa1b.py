import io
import logging
import multiprocessing
import os
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, get_detection_dataset_dicts

from pixelclip.data.sa1b import SA1BRecords, load_images, load_sa1b, register_images, register_sa1b
from pixelclip.data.sa1b_files import read_annotation_bytes, read_image_bytes
from pixelclip.data.sa1b_index import TarIndexError
from tests.data.sa1b_files import write_files, write_tar

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "real" / "sa1b"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Every layout in one folder; an image's content is its name, a JSON's its image's and "!"."""
    root = tmp_path / "root"
    together = ["sa_9", "own/My Photo.v2", "own/deep/er/sa_8"]
    write_files(root, {f"{name}.jpg": name.encode() for name in together})
    write_files(root, {f"{name}.json": f"{name}!".encode() for name in together})
    apart = ["sa_000/a", "sa_000/b", "sa_001/a"]
    write_files(root, {f"part/images/{name}.PNG": name.encode() for name in apart})
    write_files(root, {f"part/annotations/{name}.json": f"{name}!".encode() for name in apart})
    for tar in ("sa_000001.tar", "own/sa_000000.tar"):
        members = [f"./{tar[-5]}{i}" for i in (2, 1)]
        files = {f"{name}.jpg": name[2:].encode() for name in members}
        write_tar(root / tar, {**files, **{f"{m}.json": f"{m[2:]}!".encode() for m in members}})
    return root


def contents(records: Any) -> list[tuple[bytes, bytes]]:
    return [(read_image_bytes(record), read_annotation_bytes(record)) for record in records]


def test_records_of_each_tar_and_folder_have_names_and_problems(root: Path) -> None:
    write_files(root, {"own/deep/er/alone.jpg": b""})
    (root / "own" / "broken.tar").write_bytes(b"")
    records = load_sa1b(root)
    parts = records.split()
    assert [record for part in parts for record in part] == list(records)
    assert [len(part) for part in parts] == [1, 2, 1, 2, 1, 2, 1]
    assert [parts[1].image_name(position) for position in range(2)] == ["11.jpg", "12.jpg"]
    broken, alone = records.problems
    assert f"{root}/own/broken.tar: it is truncated within its first header" in broken
    assert alone == f"{root}/own/deep/er: 1 images without JSON (first: alone.jpg)"
    assert [part.problems for part in parts].count([]) == 6


def test_any_mixture_of_layouts(root: Path) -> None:
    records = load_sa1b(root)
    found = [image.decode() for image, _ in contents(records)]
    assert found == [
        "sa_9",
        "11",
        "12",  # the root, then its tar
        "own/My Photo.v2",
        "01",
        "02",
        "own/deep/er/sa_8",
        "sa_000/a",
        "sa_000/b",
        "sa_001/a",
    ]
    assert all(json == image + b"!" for image, json in contents(records))
    assert [record["image_id"] for record in records[3:5]] == ["My Photo.v2", "01"]


def test_records_are_plain_and_name_their_file(root: Path) -> None:
    records = load_sa1b(root)
    assert records[0] == {
        "file_name": str(root / "sa_9.jpg"),
        "image_id": "sa_9",
        "image_span": None,
        "annotation_file_name": str(root / "sa_9.json"),
        "annotation_span": None,
        "tar_version": None,
    }
    in_tar = records[1]
    status = (root / "sa_000001.tar").stat()
    assert in_tar["tar_version"] == (status.st_size, status.st_mtime_ns)
    assert in_tar["file_name"] == in_tar["annotation_file_name"] == str(root / "sa_000001.tar")
    assert [type(x) for span in ("image_span", "annotation_span") for x in in_tar[span]] == [
        int
    ] * 4
    assert records[-3]["annotation_file_name"] == str(root / "part/annotations/sa_000/a.json")


def test_records_are_an_immutable_sequence(root: Path) -> None:
    records = load_sa1b(root)
    assert len(records) == 10 and len(list(records)) == 10
    assert records[-1] == records[9] and records[2:4] == [records[2], records[3]]
    with pytest.raises(IndexError):
        records[10]
    with pytest.raises(TypeError):
        records[0] = {}  # type: ignore[index]
    records[0]["image_id"] = "changed"
    assert records[0]["image_id"] == "sa_9"
    assert list(pickle.loads(pickle.dumps(records))) == list(records)


def test_the_order_does_not_depend_on_the_file_system(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(load_sa1b(root))
    scandir = os.scandir

    class Reversed:
        def __init__(self, folder: str) -> None:
            with scandir(folder) as entries:
                self.entries = iter(list(entries)[::-1])

        def __enter__(self) -> "Reversed":
            return self

        def __exit__(self, *_: object) -> None: ...

        def __iter__(self) -> Iterator[Any]:
            return self.entries

        def __next__(self) -> Any:
            return next(self.entries)

    monkeypatch.setattr(os, "scandir", Reversed)
    assert list(load_sa1b(root)) == expected


def test_what_lacks_its_counterpart_is_reported_once_a_source(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_files(root, {"own/x.jpg": b"", "own/y.jpg": b"", "own/z.json": b""})
    write_files(root, {"part/images/sa_000/c.jpg": b"", "part/annotations/sa_001/d.json": b""})
    write_tar(root / "late.tar", {"1.jpg": b"", "2.json": b"", "3.jpg": b"", "3.json": b""})
    assert len(load_sa1b(root)) == 11
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert sorted(warnings) == [
        f"{root}/late.tar: 1 images without JSON (first: 1.jpg); "
        "1 JSON files without image (first: 2.json)",
        f"{root}/own: 2 images without JSON (first: x.jpg); "
        "1 JSON files without image (first: z.json)",
        f"{root}/part/annotations/sa_001: 1 JSON files without image (first: d.json)",
        f"{root}/part/images/sa_000: 1 images without JSON (first: c.jpg)",
    ]


def test_nothing_is_reported_where_all_is_well(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_sa1b(root)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_json_next_to_its_image_goes_before_that_of_the_other_tree(tmp_path: Path) -> None:
    write_files(
        tmp_path, {"images/a.jpg": b"", "images/a.json": b"next", "annotations/a.json": b"apart"}
    )
    (record,) = load_sa1b(tmp_path)
    assert read_annotation_bytes(record) == b"next"


def test_a_truncated_tar_is_reported_and_its_whole_members_used(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tar = root / "sa_000001.tar"
    with tarfile.open(tar) as opened:
        last = opened.getmember("./11.json")
    tar.write_bytes(tar.read_bytes()[: last.offset_data + 1])
    assert [record["image_id"] for record in load_sa1b(root)[1:2]] == ["12"]
    assert "it is truncated within ./11.json; what comes before is used" in caplog.text
    load_sa1b(root)
    assert caplog.text.count("is truncated") == 2  # also when the kept index is used


def test_a_second_load_uses_the_kept_indices(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = list(load_sa1b(root))

    def no_tars(*_: object, **__: object) -> None:
        raise AssertionError("a tar was opened")

    monkeypatch.setattr(tarfile, "open", no_tars)
    assert list(load_sa1b(root)) == expected


def test_links_are_followed_but_no_folder_comes_twice(tmp_path: Path) -> None:
    write_files(tmp_path / "elsewhere", {"a.jpg": b"", "a.json": b""})
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(root)
    (root / "dangling").symlink_to(tmp_path / "absent")
    (root / "dangling.jpg").symlink_to(tmp_path / "absent")
    (record,) = load_sa1b(root)
    assert record["file_name"] == str(root / "again" / "a.jpg")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    for suffix in (b".jpg", b".json"):
        with open(folder + b"/\xff" + suffix, "wb") as file:
            file.write(suffix)
    assert contents(load_sa1b(tmp_path)) == [(b".jpg", b".json")]


def test_a_folder_that_may_not_be_read_is_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scandir = os.scandir

    def guarded(folder: str) -> Any:
        if folder == str(root / "own"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    assert len(load_sa1b(root)) == 6
    assert f"{root}/own is left out: Permission denied" in caplog.text


def test_a_missing_root_names_itself_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent is not a folder; SAM_DATASETS must name"):
        load_sa1b(tmp_path / "absent")


def test_an_empty_root_says_what_was_looked_for(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"", "b.json": b"", "sa_0.tar.gz": b""})
    with pytest.raises(FileNotFoundError, match=r"no image with masks; looked for \*\.tar"):
        load_sa1b(tmp_path)


def test_a_compressed_tar_stops_the_load(root: Path) -> None:
    (root / "z.tar").write_bytes(b"\x1f\x8b\x08" + bytes(600))
    with pytest.raises(TarIndexError, match=r"z\.tar is not an uncompressed tar"):
        load_sa1b(root)


@pytest.fixture
def registered() -> Iterator[None]:
    was_there = "sa1b_train" in DatasetCatalog.list()
    if not was_there:
        register_sa1b()
    yield
    if not was_there:
        DatasetCatalog.remove("sa1b_train")


@pytest.mark.usefixtures("registered")
def test_the_root_is_read_when_the_data_set_is_asked_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for unset in (
        lambda: monkeypatch.delenv("SAM_DATASETS", raising=False),
        lambda: monkeypatch.setenv("SAM_DATASETS", ""),
    ):
        unset()
        with pytest.raises(FileNotFoundError, match="SAM_DATASETS is not set; set it to"):
            DatasetCatalog.get("sa1b_train")
    monkeypatch.setenv("SAM_DATASETS", str(root))
    assert isinstance(DatasetCatalog.get("sa1b_train"), SA1BRecords)
    # Detectron2's own loader makes a list of it.
    assert get_detection_dataset_dicts("sa1b_train") == list(load_sa1b(root))


def read_all(records: SA1BRecords) -> list[tuple[bytes, bytes]]:
    return contents(list(records) * 20)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_read_at_the_same_time(root: Path, method: str) -> None:
    records = load_sa1b(root)
    with multiprocessing.get_context(method).Pool(2) as pool:
        for result in pool.map(read_all, [records] * 2):
            assert result == read_all(records)


def test_memory_of_an_index_is_small(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    number = 5000
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i in range(number):
            for suffix in ("jpg", "json"):
                tar.addfile(tarfile.TarInfo(f"./sa_{i}.{suffix}"))
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    records = load_sa1b(tmp_path)
    assert len(records) == number
    assert len(pickle.dumps(records)) < 60 * number


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs the images of ../shared")
def test_published_tars() -> None:
    records = load_sa1b(PUBLISHED)
    assert len(records) == 300
    assert all(image[:2] == b"\xff\xd8" and json[:1] == b"{" for image, json in contents(records))


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a/c.JPG", "a/c.json", "a/d.jpeg", "notes.txt", ".hidden.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_images_are_registered_by_their_new_and_their_old_name(folder, monkeypatch, caplog):
    monkeypatch.setenv("SAM_DATASETS", str(folder))
    register_images()  # at most once
    expected = list(load_images(folder))
    assert list(DatasetCatalog.get("images_train")) == expected
    assert "deprecated" not in caplog.text
    assert list(DatasetCatalog.get("photographs_train")) == expected
    assert "photographs_train is deprecated: it is now called images_train" in caplog.text


def test_images_at_any_depth_in_an_order_of_their_names(folder):
    records = load_images(folder)
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


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no image; looked for .jpg"):
        load_images(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone is not a folder"):
        load_images(tmp_path / "gone")


def letters(root: Path) -> list[dict[str, Any]]:
    """The records of :func:`load_sa1b` on five images in three folders, one by one."""
    for name in ("a/a", "a/b", "b/c", "c/d", "c/e"):
        write_files(root, {f"{name}.jpg": b"", f"{name}.json": b""})
    names = {"annotation_span": None, "image_span": None, "tar_version": None}
    paths = [root / name for name in ("a/a", "a/b", "b/c", "c/d", "c/e")]
    return [
        {"file_name": f"{p}.jpg", "annotation_file_name": f"{p}.json", "image_id": p.name, **names}
        for p in paths
    ]


@pytest.mark.parametrize(
    "index", [0, 4, -1, -5, slice(None), slice(1, 3), slice(None, None, -2), slice(3, 99)]
)
def test_records_are_indexed_and_sliced_as_a_list(tmp_path, index):
    expected = letters(tmp_path)
    assert load_sa1b(tmp_path)[index] == expected[index]


@pytest.mark.parametrize("index", [5, -6])
def test_beyond_their_ends_is_an_index_error(tmp_path, index):
    letters(tmp_path)
    with pytest.raises(IndexError):
        load_sa1b(tmp_path)[index]


def test_records_are_iterated_and_searched_as_a_list(tmp_path):
    expected = letters(tmp_path)
    records = load_sa1b(tmp_path)
    assert list(records) == expected
    assert list(reversed(records)) == expected[::-1]
    assert records.index(expected[2]) == 2
