import json
import shutil
from collections import namedtuple

import pytest

from pixelclip.toy.demo_folder import open_demo_folder


def state(path):
    return json.loads((path / "demo.json").read_text())


def test_times_add_up_over_attempts(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        open_demo_folder(tmp_path / "new", "a") as folder,
        folder.timed("training"),
    ):
        raise KeyboardInterrupt
    first = state(tmp_path / "new")["seconds"]["training"]
    with open_demo_folder(tmp_path / "new", "a") as folder:
        assert not folder.is_finished
        with folder.timed("training"):
            pass
        folder.finish()
    assert state(tmp_path / "new")["seconds"]["training"] > first
    with open_demo_folder(tmp_path / "new", "a") as folder:
        assert folder.is_finished


def test_another_demo_is_refused_unless_fresh(tmp_path):
    with open_demo_folder(tmp_path, "a") as folder:
        folder.finish()
    (tmp_path / "training").mkdir()
    (tmp_path / "datasets").mkdir()
    (tmp_path / "mine.txt").touch()
    with (
        pytest.raises(ValueError, match="other settings or other weights.*--fresh"),
        open_demo_folder(tmp_path, "b"),
    ):
        pass
    assert (tmp_path / "training").exists()
    with open_demo_folder(tmp_path, "b", fresh=True) as folder:
        assert not folder.is_finished
        assert folder.seconds == {}
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"datasets", "mine.txt", "demo.json", ".lock"}


@pytest.mark.parametrize("fresh", [False, True])
def test_files_of_something_else_are_left_alone(tmp_path, fresh):
    (tmp_path / "training").mkdir()
    with (
        pytest.raises(ValueError, match="holds training, which no demo has made"),
        open_demo_folder(tmp_path, "a", fresh),
    ):
        pass
    assert (tmp_path / "training").is_dir()


def test_two_demos_at_a_time_are_refused(tmp_path):
    with open_demo_folder(tmp_path, "a"):
        with (
            pytest.raises(ValueError, match="another demo is running"),
            open_demo_folder(tmp_path, "a"),
        ):
            pass
        with (
            pytest.raises(ValueError, match="another demo is running"),
            open_demo_folder(tmp_path, "a", fresh=True),
        ):
            pass
    with open_demo_folder(tmp_path, "a"):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"settings": "a", "seconds": 3}'])
def test_a_damaged_state_says_the_remedy(tmp_path, content):
    (tmp_path / "demo.json").write_text(content)
    with pytest.raises(ValueError, match="damaged.*--fresh"), open_demo_folder(tmp_path, "a"):
        pass
    with open_demo_folder(tmp_path, "a", fresh=True):
        pass


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match="cannot be written.*--output"),
        open_demo_folder(tmp_path / "file" / "demo", "a"),
    ):
        pass


def test_a_full_disk_is_refused_before_any_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 5_000_000))
    with pytest.raises(OSError, match="5 MB left.*300 MB"), open_demo_folder(tmp_path, "a"):
        pass
    assert not (tmp_path / "demo.json").exists()
