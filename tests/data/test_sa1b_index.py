import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelclip.data import sa1b_index
from pixelclip.data.sa1b_index import (
    FolderFiles,
    Pair,
    TarIndex,
    TarIndexError,
    build_tar_index,
    describe_unpaired,
    load_tar_index,
    pack_pairs,
    split_suffix,
    unpack_pair,
)
from tests.data.sa1b_files import write_tar

FILES = {
    "./sa_2.jpg": b"image two" * 99,
    "./sa_2.json": b"json two",
    "./sa_1.json": b"json one" * 200,
    "./sa_1.jpg": b"image one",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pixelclip"


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = tmp_path / "tars" / "sa_000000.tar"
    path.parent.mkdir()
    write_tar(path, FILES)
    return path


def pairs_of(index: TarIndex | None) -> list[Pair]:
    assert index is not None
    return [unpack_pair(row) for row in index.table]


def names_of(index: TarIndex | None) -> list[str]:
    return [name for name, _, _ in pairs_of(index)]


def contents(path: Path, index: TarIndex | None) -> dict[str, tuple[bytes, bytes]]:
    """image name -> (bytes of the image, bytes of its JSON), read at the index's spans."""
    data = path.read_bytes()
    return {
        name: tuple(data[offset : offset + size] for offset, size in spans)  # type: ignore[misc]
        for name, *spans in pairs_of(index)
    }


def test_spans_hold_the_members_whatever_their_order(tar: Path) -> None:
    index = build_tar_index(str(tar))
    assert contents(tar, index) == {
        "sa_1.jpg": (FILES["./sa_1.jpg"], FILES["./sa_1.json"]),
        "sa_2.jpg": (FILES["./sa_2.jpg"], FILES["./sa_2.json"]),
    }
    assert names_of(index) == ["sa_1.jpg", "sa_2.jpg"]
    assert index.problems == []


@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_every_tar_format_and_long_names(tmp_path: Path, tar_format: int) -> None:
    stem = "a" * 80 + "/" + "b" * 90 + ("é" if tar_format != tarfile.USTAR_FORMAT else "")
    path = tmp_path / "own.tar"
    write_tar(path, {f"{stem}.png": b"i", f"{stem}.json": b"j"}, format=tar_format)
    assert list(contents(path, build_tar_index(str(path))).values()) == [(b"i", b"j")]


def test_pairs_are_made_within_one_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, {"x/1.jpg": b"x", "y/1.json": b"y", "y/1.jpg": b"yy", "z/2.jpg": b"z"})
    index = build_tar_index(str(path))
    assert contents(path, index) == {"1.jpg": (b"yy", b"y")}
    assert index.problems == ["2 images without JSON (first: x/1.jpg)"]


def test_names_are_keys_only(tmp_path: Path) -> None:
    path = tmp_path / "tars" / "a.tar"
    path.parent.mkdir()
    names = ["../../evil", "/etc/evil", "..", "a/../../b"]
    write_tar(path, {f"{name}{suffix}": b"x" for name in names for suffix in (".jpg", ".json")})
    index = build_tar_index(str(path))
    assert len(index.table) == 3  # "...jpg" of the name ".." is a hidden file
    assert all("/" not in name for name in names_of(index))
    assert sorted(os.listdir(path.parent)) == ["a.tar", "a.tar.index.npz"]


def test_links_folders_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (
            ("1.jpg", tarfile.SYMTYPE),
            ("2.jpg", tarfile.LNKTYPE),
            ("3.jpg", tarfile.DIRTYPE),
            ("4.jpg", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "5.jpg"
            tar.addfile(member)
        for name in ("5.jpg", "5.json", "._5.jpg", "readme.txt"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    index = build_tar_index(str(path))
    assert names_of(index) == ["5.jpg"]
    assert index.problems == []


def test_of_two_members_of_one_name_the_later_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, {"./1.jpg": b"old", "1.jpg": b"new", "1.json": b"j"})
    assert contents(path, build_tar_index(str(path))) == {"1.jpg": (b"new", b"j")}


def test_an_index_is_kept_next_to_the_tar_and_found_again(tar: Path) -> None:
    assert load_tar_index(str(tar)) is None
    built = build_tar_index(str(tar))
    assert sorted(os.listdir(tar.parent)) == ["sa_000000.tar", "sa_000000.tar.index.npz"]
    loaded = load_tar_index(str(tar))
    assert pairs_of(loaded) == pairs_of(built)
    assert loaded is not None and loaded.problems == built.problems == []


def test_in_a_read_only_folder_the_index_goes_to_the_cache(tar: Path, cache: Path) -> None:
    tar.parent.chmod(0o555)
    try:
        built = build_tar_index(str(tar))
        assert os.listdir(tar.parent) == [tar.name]
        (kept,) = os.listdir(cache)
        assert kept.startswith("sa_000000.tar.") and kept.endswith(".index.npz")
        assert pairs_of(load_tar_index(str(tar))) == pairs_of(built)
    finally:
        tar.parent.chmod(0o755)


def test_where_nothing_can_be_written_the_index_is_built_each_time(
    tar: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tar))  # a file: no folder can be made in it
    tar.parent.chmod(0o555)
    try:
        assert len(build_tar_index(str(tar)).table) == 2
    finally:
        tar.parent.chmod(0o755)
    assert "cannot be kept" in caplog.text
    assert load_tar_index(str(tar)) is None


def test_tars_of_the_same_name_do_not_share_a_cached_index(tmp_path: Path, cache: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "x.tar", {f"{folder}.jpg": b"i", f"{folder}.json": b"j"})
        (tmp_path / folder).chmod(0o555)
    try:
        for folder in ("a", "b"):
            build_tar_index(str(tmp_path / folder / "x.tar"))
        for folder in ("a", "b"):
            index = load_tar_index(str(tmp_path / folder / "x.tar"))
            assert names_of(index) == [f"{folder}.jpg"]
    finally:
        for folder in ("a", "b"):
            (tmp_path / folder).chmod(0o755)
    assert len(os.listdir(cache)) == 2


def test_a_changed_tar_needs_a_new_index(tar: Path) -> None:
    build_tar_index(str(tar))
    status = tar.stat()
    os.utime(tar, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert load_tar_index(str(tar)) is None
    build_tar_index(str(tar))
    assert load_tar_index(str(tar)) is not None
    tar.write_bytes(tar.read_bytes() + bytes(512))
    os.utime(tar, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert load_tar_index(str(tar)) is None


def test_an_index_of_another_version_is_not_used(
    tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_tar_index(str(tar))
    monkeypatch.setattr(sa1b_index, "_VERSION", sa1b_index._VERSION + 1)
    assert load_tar_index(str(tar)) is None


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "pickle", "flipped"])
def test_an_unreadable_index_is_not_used(
    tar: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    build_tar_index(str(tar))
    kept = Path(f"{tar}.index.npz")
    content = bytearray(kept.read_bytes())
    if damage == "cut":
        kept.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        with np.load(kept) as arrays:
            changed = dict(arrays)
        changed["table"] = changed["table"].copy()
        changed["table"]["image"] += 10**9
        with kept.open("wb") as file:
            np.savez(file, **changed)
    else:
        kept.write_bytes({"empty": b"", "text": b"hello", "pickle": b"\x80\x04N."}[damage])
    assert load_tar_index(str(tar)) is None
    assert "will be built again" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.1, 0.45, 0.7, 0.95])
def test_a_truncated_tar_gives_its_whole_members(tar: Path, share: float) -> None:
    whole = tar.read_bytes()
    ends = {}
    with tarfile.open(tar) as opened:
        for member in opened:
            ends[member.name] = member.offset_data + member.size
    cut = int(share * max(ends.values()))
    tar.write_bytes(whole[:cut])
    index = build_tar_index(str(tar))
    present = {name for name, end in ends.items() if end <= cut}
    expected = {
        f"{stem}.jpg" for stem in ("sa_1", "sa_2") if {f"./{stem}.jpg", f"./{stem}.json"} <= present
    }
    assert set(contents(tar, index)) == expected
    assert "is truncated" in index.problems[0] or "unreadable" in index.problems[0]


@pytest.mark.parametrize("number", range(4))
def test_a_member_that_lacks_one_byte_is_not_used(tar: Path, number: int) -> None:
    with tarfile.open(tar) as opened:
        member = opened.getmembers()[number]
    tar.write_bytes(tar.read_bytes()[: member.offset_data + member.size - 1])
    index = build_tar_index(str(tar))
    assert list(contents(tar, index)) == (["sa_2.jpg"] if number >= 2 else [])
    assert index.problems[0] == f"it is truncated within {member.name}; what comes before is used"


def test_a_tar_without_end_mark_is_reported(tar: Path) -> None:
    with tarfile.open(tar) as opened:
        last = opened.getmembers()[-1]
    end = last.offset_data + 512
    tar.write_bytes(tar.read_bytes()[:end])
    index = build_tar_index(str(tar))
    assert len(index.table) == 2
    problem = f"it is truncated at byte {end}, without an end mark; what comes before is used"
    assert index.problems == [problem]


def test_rubbish_in_the_middle_is_reported(tar: Path) -> None:
    with tarfile.open(tar) as opened:
        third = opened.getmembers()[2]
    data = bytearray(tar.read_bytes())
    data[third.offset : third.offset + 512] = b"?" * 512
    tar.write_bytes(data)
    index = build_tar_index(str(tar))
    assert list(contents(tar, index)) == ["sa_2.jpg"]
    problem = f"byte {third.offset} does not start a tar header; what comes before is used"
    assert index.problems == [problem]


def with_size(tar: Path, member: tarfile.TarInfo, size: bytes) -> None:
    """Overwrite a member's size field, and make its header's checksum right again."""
    data = bytearray(tar.read_bytes())
    header = data[member.offset : member.offset + 512]
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\x00 " % sum(header)
    data[member.offset : member.offset + 512] = header
    tar.write_bytes(data)


def base_256(number: int) -> bytes:
    sign = b"\xff" if number < 0 else b"\x80"
    return sign + number.to_bytes(11, "big", signed=True)


@pytest.mark.parametrize("size", [-1, -512, 2**80, 2**40, "first", "second"])
def test_absurd_member_sizes_end_the_walk(tar: Path, size: int | str) -> None:
    with tarfile.open(tar) as opened:
        first, second, third, _ = opened.getmembers()
    if isinstance(size, str):  # a size that leads back to an earlier member
        size = {"first": first, "second": second}[size].offset - third.offset_data
    with_size(tar, third, base_256(size))
    index = build_tar_index(str(tar))
    assert list(contents(tar, index)) == ["sa_2.jpg"]
    # Newer Pythons refuse a negative size themselves, in other words.
    (problem,) = index.problems
    assert size < 0 or "it is truncated within" in problem


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_points_outside(tar: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    data = bytearray(tar.read_bytes()[: 512 * 14])
    for position in generator.integers(0, len(data), 12):
        data[position] = generator.integers(0, 256)
    tar.write_bytes(data)
    try:
        index = build_tar_index(str(tar))
    except TarIndexError as error:
        assert str(tar) in str(error)
        return
    for _, *spans in pairs_of(index):
        for offset, size in spans:
            assert offset >= 0 and size >= 0 and offset + size <= len(data)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_gets_a_remedy(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "sa.tar"
    content = np.random.default_rng(0).bytes(2000)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        member = tarfile.TarInfo("1.jpg")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    with pytest.raises(TarIndexError, match=r"sa\.tar is not an uncompressed tar .*decompress it"):
        build_tar_index(str(path))


def test_what_is_not_a_tar_gets_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "sa.tar"
    path.write_bytes(b"<html>" * 200)
    with pytest.raises(TarIndexError, match="is not an uncompressed tar .*download it again"):
        build_tar_index(str(path))
    assert os.listdir(tmp_path) == ["sa.tar"]


def test_a_sparse_member_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "sa.tar"
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "1.jpg",
        "GNU.sparse.realsize": "4096",
    }
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("GNUSparseFile.0/1.jpg")
        member.pax_headers = headers
        content = b"1\n4095\n1\n".ljust(512, b"\0") + b"x"
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
        tar.addfile(tarfile.TarInfo("1.json"))
    index = build_tar_index(str(path))
    assert index.problems == ["1 JSON files without image (first: 1.json)"]


def test_a_name_above_the_limit_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    files = {stem + suffix: b"x" for stem in ("a", "b" * 2000) for suffix in (".jpg", ".json")}
    write_tar(path, files)
    assert names_of(build_tar_index(str(path))) == ["a.jpg"]


spans = st.tuples(st.integers(-1, 2**62), st.integers(-1, 2**62))
image_names = st.text(min_size=1).map(lambda stem: f"{stem}.jpg")
pairs = st.lists(st.tuples(image_names, spans, spans), max_size=8)


@given(pairs=pairs)
def test_a_table_gives_back_its_pairs(pairs: list[Pair]) -> None:
    table = pickle.loads(pickle.dumps(pack_pairs(pairs)))
    assert [unpack_pair(row) for row in table] == pairs


def test_names_that_are_not_utf8_survive() -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert unpack_pair(pack_pairs([(name, (0, 1), (2, 3))])[0])[0] == name


def files_of(spans: dict[str, tuple[int, int]]) -> FolderFiles:
    files = FolderFiles()
    for name, span in spans.items():
        files.add(name, span)
    return files


def test_pairs_are_sorted_and_taken_out() -> None:
    images = {"b.jpg": (5, 6), "a.JPEG": (1, 2), "c.png": (7, 8)}
    jsons = {"a.json": (3, 4), "b.json": (9, 9), "d.json": (0, 0)}
    expected = [("a.JPEG", (1, 2), (3, 4)), ("b.jpg", (5, 6), (9, 9))]
    files = files_of({**images, **jsons})
    assert files.pair() == expected
    assert describe_unpaired({"x": files}) == [
        "1 images without JSON (first: x/c.png)",
        "1 JSON files without image (first: x/d.json)",
    ]
    files, others = files_of(images), files_of(jsons)
    assert files.pair(others) == expected
    assert list(files.images) == ["c.png"] and list(others.jsons) == ["d.json"]


def test_a_json_describes_one_image() -> None:
    files = files_of({"a.png": (0, 1), "a.jpg": (1, 1), "a.json": (2, 1)})
    assert [name for name, _, _ in files.pair()] == ["a.jpg"]
    assert describe_unpaired({"": files}) == ["1 images without JSON (first: a.png)"]


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("sa_1.jpg", "sa_1", ".jpg"),
        ("my photo.v2.JPG", "my photo.v2", ".JPG"),
        ("a.json", "a", ".json"),
        ("a.txt", "a.txt", ""),
        ("json", "json", ""),
        (".jpg", ".jpg", ""),
        ("._sa_1.jpg", "._sa_1.jpg", ""),
        ("sa_0.tar", "sa_0.tar", ""),
    ],
)
def test_suffixes(name: str, stem: str, suffix: str) -> None:
    assert split_suffix(name) == (stem, suffix)


def test_memory_per_image_is_that_of_its_arrays() -> None:
    table = pack_pairs([(f"sa_{i}.jpg", (i, 1), (i + 1, 1)) for i in range(20_000)])
    assert table.nbytes / len(table) < 60
    assert len(pickle.dumps(table)) / len(table) < 60
