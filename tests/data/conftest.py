"""Roots with miniature copies of the published layouts, or with copies of real ones."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.published_layouts import (
    write_ade,
    write_cityscapes,
    write_coco_stuff,
    write_context,
    write_voc,
)

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture
def ade_root(tmp_path: Path) -> Path:
    """A root with what :func:`write_ade` writes."""
    write_ade(tmp_path)
    return tmp_path


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    """A root with what :func:`write_voc` writes."""
    write_voc(tmp_path)
    return tmp_path


@pytest.fixture
def coco_stuff_root(tmp_path: Path) -> Path:
    """A root with what :func:`write_coco_stuff` writes."""
    write_coco_stuff(tmp_path)
    return tmp_path


@pytest.fixture
def context_root(tmp_path: Path) -> Path:
    """A root with what :func:`write_context` writes."""
    write_context(tmp_path)
    return tmp_path


@pytest.fixture
def cityscapes_root(tmp_path: Path) -> Path:
    """A root with what :func:`write_cityscapes` writes."""
    write_cityscapes(tmp_path)
    return tmp_path


@pytest.fixture
def copy_real(tmp_path: Path) -> Callable[[str], Path]:
    """Copies a folder of the real published layouts below a root; skips where there are none."""

    def copy(folder: str) -> Path:
        source = SHARED / "real" / "datasets" / folder
        if not source.is_dir():
            pytest.skip("the folder of real layouts is not next to this repository")
        for path in source.rglob("*"):
            if path.is_file():
                target = tmp_path / folder / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        return tmp_path

    return copy
