"""Files, folders and globs become inputs with places of their own."""

from pathlib import PurePath

import pytest

from pixelclip.inference.inputs import find_inputs


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        *("one/a.jpg", "one/deep/a.jpg", "two/a.jpg", "two/a.PNG", "two/.hidden.jpg"),
        *("two/notes.txt", "two/clip.MP4", "two/.git/x.jpg", "output/overlays/a.jpg"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names_of(inputs):
    return [str(one.name) for one in inputs]


def test_folders_are_searched_and_results_are_left_out(photos):
    inputs = find_inputs(["."], "output")
    expected = ["one/a", "one/deep/a", "two/a.PNG", "two/a.jpg", "two/clip"]
    assert names_of(inputs) == expected
    assert [one.is_video for one in inputs] == [False] * 4 + [True]
    assert len(find_inputs(["**/*.jpg"], photos / "output")) == 3


def test_each_file_is_taken_once_in_the_order_given(photos):
    (photos / "link.jpg").symlink_to(photos / "two" / "a.jpg")
    patterns = ["two/a.jpg", "one", str(photos / "one" / "a.jpg"), "t?o/*.jpg", "link.jpg"]
    assert names_of(find_inputs(patterns, "output")) == ["two/a", "one/a", "one/deep/a"]


def test_places_do_not_depend_on_what_else_is_there(photos, monkeypatch):
    monkeypatch.chdir(photos / "one")
    [inside] = find_inputs(["a.jpg"], "output")
    [outside] = find_inputs(["../two/a.jpg"], "output")
    assert inside.name == PurePath("a")
    assert outside.name == PurePath(*photos.parts[1:], "two", "a")


def test_no_two_inputs_share_a_place(photos):
    for name in ("a", "a.jpg", "a.png", "a.jpg.png", "a.b.jpg"):
        (photos / "one" / name).touch()
    inputs = find_inputs(["one", "one/a"], "output")
    assert len({one.name for one in inputs}) == len(inputs) == 6


def test_the_folder_of_the_photographs_may_be_that_of_the_results(photos):
    for name in ("overlays/two/a.jpg", "labels/two/a.png", "results/two/a.jpg"):
        (photos / "two" / name).parent.mkdir(parents=True)
        (photos / "two" / name).touch()
    expected = ["two/a.PNG", "two/a.jpg", "two/clip"]
    assert names_of(find_inputs(["two"], "two")) == expected
    assert names_of(find_inputs(["two"], photos / "two")) == expected
    assert names_of(find_inputs(["two/**/*.jpg"], "two")) == ["two/a"]
    assert names_of(find_inputs(["."], ".")) == [
        *("one/a", "one/deep/a", "output/overlays/a", "two/a.PNG", "two/a.jpg", "two/clip"),
        *("two/labels/two/a", "two/overlays/two/a", "two/results/two/a"),
    ]


def test_no_two_results_are_one_file_where_case_does_not_count(photos):
    for name in ("B.jpg", "b.png", "c.jpg", "C.jpg", "c.JPG", "c.jpg_"):
        (photos / "one" / name).touch()
    inputs = find_inputs(["one", "one/c.jpg_"], "output")
    names = names_of(inputs)
    assert len(inputs) == 8
    assert len({name.casefold() for name in names}) == 8, names
    assert {"one/B.jpg", "one/b.png"} < set(names)


def test_a_named_file_may_have_any_suffix(photos):
    assert names_of(find_inputs(["two/notes.txt"], "output")) == ["two/notes"]


@pytest.mark.parametrize("pattern", ["nowhere.jpg", "nothing/*.jpg", "empty", "output"])
def test_what_fits_nothing_is_named(photos, pattern):
    (photos / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=pattern.replace("*", r"\*")):
        find_inputs(["one", pattern], "output")
