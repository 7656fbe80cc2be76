"""What an installed package holds."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 12e6


def test_a_build_holds_every_file_of_the_package_and_is_small(tmp_path):
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", str(tmp_path)]
    # Elsewhere, what setuptools writes beside the sources would stay in the repository.
    command += ["egg_info", "--egg-base", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ})
    built = {
        path.relative_to(tmp_path / "lib"): path.stat().st_size
        for path in (tmp_path / "lib").rglob("*")
        if path.is_file()
    }
    sources = {
        path.relative_to(ROOT)
        for path in (ROOT / "pixelclip").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(built) == sources
    assert {Path("pixelclip/toy/assets/toy_clip.safetensors")} <= set(built)
    assert sum(built.values()) < LIMIT
