import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelclip.data.image_mask_pairs import (
    Pair,
    PairTable,
    count_unpaired,
    pair_by_stem,
    split_suffix,
)

spans = st.tuples(st.integers(-1, 2**62), st.integers(-1, 2**62))
pairs = st.lists(st.builds(Pair, st.text(min_size=1), spans, spans), max_size=8)


@given(pairs=pairs, others=pairs)
def test_a_table_gives_back_its_pairs(pairs: list[Pair], others: list[Pair]) -> None:
    table = PairTable.concatenate([PairTable.from_pairs(pairs), PairTable.from_pairs(others)])
    copy = pickle.loads(pickle.dumps(table))
    assert [copy[i] for i in range(len(copy))] == pairs + others
    with pytest.raises(IndexError):
        copy[len(copy)]


def test_names_that_are_no_utf8_survive() -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert PairTable.from_pairs([Pair(name, (0, 1), (2, 3))])[0].image_name == name


def test_pairs_are_sorted_and_taken_out() -> None:
    images = {"b.jpg": (5, 6), "a.JPEG": (1, 2), "c.png": (7, 8)}
    jsons = {"a.json": (3, 4), "b.json": (9, 9), "d.json": (0, 0)}
    table = pair_by_stem(images, jsons)
    assert [table[i] for i in range(len(table))] == [
        Pair("a.JPEG", (1, 2), (3, 4)),
        Pair("b.jpg", (5, 6), (9, 9)),
    ]
    assert count_unpaired(images, jsons) == (1, "c.png", 1, "d.json")


def test_a_json_describes_one_image() -> None:
    images = {"a.png": (0, 1), "a.jpg": (1, 1)}
    table = pair_by_stem(images, {"a.json": (2, 1)})
    assert [table[i].image_name for i in range(len(table))] == ["a.jpg"]
    assert count_unpaired(images, {}) == (1, "a.png", 0, "")


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
    table = PairTable.from_pairs(Pair(f"sa_{i}.jpg", (i, 1), (i + 1, 1)) for i in range(20_000))
    size = sum(array.nbytes for array in (table.names, table.name_ends, table.spans))
    assert size / len(table) < 60
    assert len(pickle.dumps(table)) / len(table) < 60
    assert table.spans.dtype == np.int64
