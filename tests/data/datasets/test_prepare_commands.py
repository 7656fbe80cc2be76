"""The commands ``pixelclip datasets prepare``, and the scripts that are the same."""

import os
import subprocess
import sys
from pathlib import Path

import cli
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
    """The command's words and options, as error messages tell users to run it."""
    assert benchmark.prepare_template is not None
    pixelclip, *words, option, root = benchmark.prepare_template.split()
    assert (pixelclip, option, root) == ("pixelclip", "--root", "{root}")
    return [*words, *options]


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
    assert cli.main(_command(benchmark)) == 0
    count = labels_per_image * len(list((root / benchmark.label_folder).iterdir()))
    assert count
    assert f"{count} files written, 0 were finished before" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", [row[0] for row in PREPARED], ids=lambda b: b.name)
def test_a_wrong_root_is_refused_by_saying_what_was_looked_for(
    benchmark: SemSegBenchmark,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(_command(benchmark, "--root", str(tmp_path))) == 1
    error = capsys.readouterr().err
    assert f"not found below {tmp_path}. Looked for" in error
    assert benchmark.image_folder in error
    assert list(tmp_path.iterdir()) == []


def test_the_masks_of_a_split_are_prepared(
    coco_stuff_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixelclip, *words = (MASKS_TEMPLATE + "val2017").format(root=coco_stuff_root).split()
    assert pixelclip == "pixelclip"
    assert cli.main(words) == 0
    assert len(list((coco_stuff_root / MASK_FOLDERS[2] / "val2017").iterdir())) == 4
    assert cli.main(words[:-2]) == 1
    assert "missing: coco-stuff/images/train2017" in capsys.readouterr().err


@pytest.mark.parametrize("workers", ["0", "-1"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers: str, ade_root: Path) -> None:
    assert cli.main(_command(ADE20K_150, "--root", str(ade_root), "--workers", workers)) == 1
    assert not list(ade_root.rglob("annotations_detectron2/**/*.png"))


def test_arguments_are_parsed_before_anything_is_imported() -> None:
    code = "import sys, cli; cli.main(['--help']); print('MODULES', *sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "tools")}
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    modules = set(output.split("MODULES")[1].split())
    assert not {"torch", "numpy", "detectron2", "pixelclip"} & modules


@pytest.mark.slow
def test_a_damaged_label_is_named_and_the_exit_code_is_one(ade_root: Path) -> None:
    damaged = ade_root / PUBLISHED_LABEL_FOLDER / "ADE_val_00000002.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    script = REPOSITORY / "datasets" / "prepare_ade20k_150.py"
    command = [str(script), "--root", str(ade_root), "--workers", "1"]
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
    assert "4 files written, 0 were finished before, 1 could not be prepared" in done.stdout
