"""Records that are made when they are asked for are indexed as a list is."""

import pytest

from pixelclip.data.lazy_records import LazyRecords


class Letters(LazyRecords):
    def __len__(self):
        return 5

    def _make_record(self, position):
        assert position in range(5)
        return {"letter": "abcde"[position]}


LIST = [{"letter": letter} for letter in "abcde"]


@pytest.mark.parametrize(
    "index", [0, 4, -1, -5, slice(None), slice(1, 3), slice(None, None, -2), slice(3, 99)]
)
def test_they_are_indexed_and_sliced_as_a_list(index):
    assert Letters()[index] == LIST[index]


@pytest.mark.parametrize("index", [5, -6])
def test_beyond_their_ends_is_an_index_error(index):
    with pytest.raises(IndexError):
        Letters()[index]


def test_they_are_iterated_and_searched_as_a_list():
    assert list(Letters()) == LIST
    assert list(reversed(Letters())) == LIST[::-1]
    assert Letters().index({"letter": "c"}) == 2
