"""The prepare_*.py command lines, as a user starts them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pixelclip.data.datasets.ade20k_150 import ADE20K_150, PUBLISHED_LABEL_FOLDER
from pixelclip.data.datasets.pascal_voc_20 import PASCAL_VOC_20
from pixelclip.data.datasets.sem_seg_benchmark import SemSegBenchmark

REPOSITORY = Path(__file__).resolve().parents[3]


def _command(benchmark: SemSegBenchmark, *options: str) -> list[str]:
    """The script and its options, as error messages tell users to run it."""
    python, script = benchmark.prepare_command.split()
    assert python == "python"
    return [str(REPOSITORY / script), *options]


def _run(command: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a script in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(command[0], run_name="__main__")
    return caught.value.code


@pytest.mark.parametrize(
    ("benchmark", "fixture"), [(ADE20K_150, "ade_root"), (PASCAL_VOC_20, "voc_root")]
)
def test_the_command_prepares_the_root_of_the_environment(
    benchmark: SemSegBenchmark,
    fixture: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = request.getfixturevalue(fixture)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    assert _run(_command(benchmark), monkeypatch) == 0
    count = len(list((root / benchmark.label_folder).iterdir()))
    assert f"{count} labels written, 0 were finished before" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", [ADE20K_150, PASCAL_VOC_20], ids=lambda b: b.name)
def test_a_wrong_root_is_refused_by_saying_what_was_looked_for(
    benchmark: SemSegBenchmark,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run(_command(benchmark, "--root", str(tmp_path)), monkeypatch) == 1
    error = capsys.readouterr().err
    assert f"not found below {tmp_path}. Looked for" in error
    assert benchmark.image_folder in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_broken_label_is_named_and_the_exit_code_is_one(ade_root: Path) -> None:
    broken = ade_root / PUBLISHED_LABEL_FOLDER / "ADE_val_00000002.png"
    broken.write_bytes(broken.read_bytes()[:100])
    command = _command(ADE20K_150, "--root", str(ade_root), "--workers", "1")
    search_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ade_root,
        env=os.environ | {"PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert str(broken) in done.stderr
    assert "Traceback" not in done.stderr
    assert "4 labels written, 0 were finished before, 1 could not be prepared" in done.stdout
