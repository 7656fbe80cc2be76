import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pixelclip.utils.atomic_write import (
    atomic_folder,
    atomic_writer,
    remove_leftovers,
    write_text,
)


def test_writes_whole_files_with_the_usual_permissions(tmp_path):
    path = tmp_path / "file"
    with atomic_writer(path) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(os.stat(path).st_mode) == stat.S_IMODE(os.stat(plain).st_mode)


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(failure), atomic_writer(path) as file:
        file.write(b"new")
        raise failure
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path):
    for name in ("x" * 255, "写" * 85):  # bytes
        with atomic_writer(tmp_path / name) as file:
            file.write(b"content")
        assert (tmp_path / name).read_bytes() == b"content"


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_writer(tmp_path / "no" / "file"):
        pass


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    path = tmp_path / "file"
    module = Path(sys.modules[atomic_writer.__module__].__file__)
    code = (  # the module alone, without the package, is imported in a moment
        "import os, signal, sys\n"
        f"from {module.stem} import atomic_writer\n"
        "with atomic_writer(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=module.parent)
    assert len(os.listdir(tmp_path)) == 1 and not path.exists()
    with atomic_writer(tmp_path / "other"):
        assert len(os.listdir(tmp_path)) == 1, "only the new temporary file"
    with atomic_writer(path) as file, atomic_writer(path):
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


def test_a_running_process_keeps_its_temporary_file(tmp_path):
    """Two runs that write into one folder used to remove each other's files."""
    with atomic_writer(tmp_path / "a.png") as file:
        remove_leftovers(tmp_path)
        file.write(b"whole")
    dead = f".b.png.{socket.gethostname()}-{2**22 + 1}-{'0' * 32}.tmp"
    elsewhere = f".b.png.other.machine-{2**22 + 1}-{'0' * 32}.tmp"
    for name in (dead, elsewhere, "b.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert set(os.listdir(tmp_path)) == {"a.png", "b.tmp", elsewhere}


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_another_process_wrote_meanwhile_may_stay(tmp_path, monkeypatch, has_links):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "file"
    with atomic_writer(path, replace=False) as file:
        file.write(b"mine")
        write_text(path, "the other's", replace=False)
    assert path.read_text() == "the other's"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_is_listed_once_however_many_files_are_written(tmp_path, monkeypatch):
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    for number in range(20):
        with atomic_writer(tmp_path / f"file{number}") as file:
            file.write(b"content")
    assert listed == [str(tmp_path)]
    assert len(os.listdir(tmp_path)) == 20


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_folder_appears_whole_or_not_at_all(tmp_path, failure):
    path = tmp_path / "above" / "folder"
    with pytest.raises(failure), atomic_folder(path) as folder:
        Path(folder, "file").touch()
        raise failure
    assert os.listdir(tmp_path / "above") == []
    path.mkdir()
    with atomic_folder(path) as folder:
        Path(folder, "file").touch(mode=0o600)
        assert os.listdir(path) == []
    assert os.listdir(path) == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(path.parent.stat().st_mode)
    (tmp_path / "plain").touch()
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (path / "file", tmp_path / "plain")}
    assert len(modes) == 1


def test_what_stands_in_a_folders_place_stays(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "own").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "file", "link"):
        refused = pytest.raises(FileExistsError, match="choose another folder")
        with refused, atomic_folder(tmp_path / name):
            raise AssertionError("work was done before")
    assert {path.name for path in tmp_path.rglob("*")} == {"folder", "own", "file", "link"}


def test_a_link_to_an_empty_folder_stays(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    with atomic_folder(tmp_path / "link") as folder:
        Path(folder, "file").touch()
    assert (tmp_path / "link").is_symlink()
    assert os.listdir(tmp_path / "empty") == ["file"]


def test_folders_of_killed_writers_are_removed(tmp_path):
    module = Path(sys.modules[atomic_folder.__module__].__file__)
    code = (
        f"import os, sys; from {module.stem} import atomic_folder\n"
        "with atomic_folder(sys.argv[1]) as folder:\n"
        "    open(os.path.join(folder, 'half'), 'w').close(); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "folder")], cwd=module.parent)
    (leftover,) = tmp_path.iterdir()
    assert os.listdir(leftover) == ["half"]
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())
