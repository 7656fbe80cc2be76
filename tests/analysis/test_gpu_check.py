import json
import os
from functools import partial
from pathlib import Path

import pytest

from pixelclip.analysis import gpu_check
from pixelclip.analysis.checks import FAILED, PASSED, SKIPPED, Check, Line, skipped
from pixelclip.analysis.gpu_check import Machine, check_gpu, list_checks


@pytest.fixture(autouse=True)
def no_images(monkeypatch):
    monkeypatch.setattr(gpu_check, "write_images", lambda folder, count: None)
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")


def say(status, machine, lines):
    yield Line(status, "something", f"after {len(lines)} lines", {"device": machine.device})


def use(monkeypatch, *statuses):
    checks = [Check(f"check of {status}", partial(say, status)) for status in statuses]
    monkeypatch.setattr(gpu_check, "list_checks", lambda machine: checks)


@pytest.mark.parametrize(("last", "is_good"), [(PASSED, True), (SKIPPED, True), (FAILED, False)])
def test_the_report_has_every_line(tmp_path, monkeypatch, capsys, last, is_good):
    use(monkeypatch, PASSED, last)
    output = tmp_path / "new" / "folder"
    assert check_gpu(output) == is_good
    text = (output / "report.md").read_text()
    assert "Not complete" not in text and "after 1 lines" in text
    content = json.loads((output / "report.json").read_text())
    assert content["is_complete"]
    assert [line["status"] for line in content["lines"]] == [PASSED, last]
    assert "after 1 lines" in capsys.readouterr().out
    assert str(tmp_path) not in text


def test_an_interrupted_check_leaves_a_report_that_says_so(tmp_path, monkeypatch):
    def run(checks, machine, seconds, log):
        yield skipped("x", "y")._replace(check="z")
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_check, "run_checks", run)
    with pytest.raises(KeyboardInterrupt):
        check_gpu(tmp_path)
    assert "Not complete: 0 passed, 0 failed, 1 skipped" in (tmp_path / "report.md").read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "list_checks", lambda machine: pytest.fail("work"))
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission denied|cannot be written"):
        check_gpu(tmp_path / "output")


def test_a_file_in_the_place_of_the_folder_is_refused_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "list_checks", lambda machine: pytest.fail("work"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        check_gpu(tmp_path / "file")


@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_every_check_of_a_machine_can_be_sent_to_another_process(gpus):
    import pickle

    machine = Machine("cuda" if gpus else "cpu", gpus, Path("images"), Path("folder"))
    checks = list_checks(machine)
    assert len(pickle.loads(pickle.dumps(checks))) == len(checks)
    titles = [check.title for check in checks]
    assert titles.count("Training steps") == (6 if gpus else 3)
    for configuration in gpu_check._small_or_full(machine).values():
        assert configuration.load().MODEL.CLIP.PRETRAINED == ""


def test_without_a_gpu_it_says_what_is_missing(tmp_path):
    machine = Machine("cpu", 0, tmp_path, tmp_path)
    lines = [*gpu_check._check_machine(machine, []), *gpu_check._check_stages(machine, [])]
    assert [line.status for line in lines] == [PASSED, PASSED, SKIPPED, SKIPPED]
    assert "torch" in lines[0].result and "cores" in lines[1].result
    (line,) = gpu_check._check_scaling(machine, [])
    assert line.status == SKIPPED
