"""The prepare_*.py command lines, as a user starts them."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pixelclip.data.datasets.ade20k_150 import ADE20K_150, PUBLISHED_LABEL_FOLDER
from pixelclip.data.datasets.coco_stuff import COCO_STUFF_171, MASK_FOLDERS, MASKS_TEMPLATE
from pixelclip.data.datasets.pascal_context import PASCAL_CONTEXT_59
from pixelclip.data.datasets.pascal_voc import PASCAL_VOC_20
from pixelclip.data.datasets.sem_seg_benchmark import SemSegBenchmark

# With a miniature root of each, and how many labels the command writes for an image.
PREPARED = [
    (COCO_STUFF_171, "coco_stuff_root", 1),
    (ADE20K_150, "ade_root", 1),
    (PASCAL_CONTEXT_59, "context_root", 2),
    (PASCAL_VOC_20, "voc_root", 2),
]
REPOSITORY = Path(__file__).resolve().parents[3]


def _command(benchmark: SemSegBenchmark, *options: str) -> list[str]:
    """The script and its options, as error messages tell users to run it."""
    assert benchmark.prepare_template is not None
    python, script, *root = benchmark.prepare_template.split()
    assert (python, root) == ("python", ["--root", "{root}"])
    return [str(REPOSITORY / script), *options]


def _run(command: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a script in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(command[0], run_name="__main__")
    return caught.value.code


@pytest.mark.parametrize(("benchmark", "fixture", "labels_per_image"), PREPARED)
def test_the_command_prepares_the_root_of_the_environment(
    benchmark: SemSegBenchmark,
    fixture: str,
    labels_per_image: int,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = request.getfixturevalue(fixture)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    assert _run(_command(benchmark), monkeypatch) == 0
    count = labels_per_image * len(list((root / benchmark.label_folder).iterdir()))
    assert count
    assert f"{count} labels written, 0 were finished before" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", [row[0] for row in PREPARED], ids=lambda b: b.name)
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


def test_the_masks_of_a_split_are_prepared(
    coco_stuff_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python, script, *options = (MASKS_TEMPLATE + "val2017").split()
    assert (python, options) == ("python", ["--root", "{root}", "--split", "val2017"])
    command = [str(REPOSITORY / script), "--root", str(coco_stuff_root)]
    assert _run([*command, "--split", "val2017"], monkeypatch) == 0
    assert len(list((coco_stuff_root / MASK_FOLDERS[2] / "val2017").iterdir())) == 4
    assert _run(command, monkeypatch) == 1
    assert "missing: coco-stuff/images/train2017" in capsys.readouterr().err


@pytest.mark.parametrize(("workers", "code"), [("0", 1), ("-1", 1), ("two", 2)])
def test_a_number_of_workers_that_makes_no_sense_is_refused(
    workers: str, code: int, ade_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = _command(ADE20K_150, "--root", str(ade_root), "--workers", workers)
    assert _run(command, monkeypatch) == code
    assert not list(ade_root.rglob("annotations_detectron2/**/*.png"))


def test_arguments_are_parsed_before_anything_is_imported() -> None:
    scripts = [path.stem for path in (REPOSITORY / "datasets").glob("prepare_*.py")]
    code = f"import sys, check_datasets, {', '.join(scripts)}; print(*sys.modules)"
    folders = os.pathsep.join(str(REPOSITORY / folder) for folder in ("datasets", "tools"))
    environment = os.environ | {"PYTHONPATH": folders}
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert len(scripts) == 6
    assert not {"torch", "numpy", "detectron2", "pixelclip"} & set(output.split())


@pytest.mark.slow
def test_a_damaged_label_is_named_and_the_exit_code_is_one(ade_root: Path) -> None:
    damaged = ade_root / PUBLISHED_LABEL_FOLDER / "ADE_val_00000002.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    command = _command(ADE20K_150, "--root", str(ade_root), "--workers", "1")
    search_path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ade_root,
        env=os.environ | {"PYTHONPATH": search_path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1
    assert str(damaged) in done.stderr
    assert "Traceback" not in done.stderr
    assert "4 labels written, 0 were finished before, 1 could not be prepared" in done.stdout
