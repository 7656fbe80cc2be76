"""The demo's command line; what it does is tested in tests/toy/test_demo.py."""

import os
import re
from pathlib import Path

import demo
import pytest
from cli import run


@pytest.fixture
def calls(monkeypatch):
    made = []
    monkeypatch.setenv("DETECTRON2_DATASETS", "")

    def run(*arguments):
        made.append(arguments)
        return Path(arguments[0]) / "report.html", len(made) > 1

    monkeypatch.setattr("pixelclip.toy.demo.run_demo", run)
    monkeypatch.setattr("pixelclip.toy.report.describe_demo", lambda report: f"Results of {report}")
    return made


def test_it_ends_with_the_results(calls, capsys):
    assert demo.main(["--output", "here", "--opts", "SOLVER.MAX_ITER", "3"]) == 0
    assert calls == [(Path("here"), ["SOLVER.MAX_ITER", "3"], False)]
    printed = capsys.readouterr().out
    assert printed == "Results of here/report.html\n"
    assert demo.main(["--fresh"]) == 0
    assert calls[1] == (Path("output/demo"), [], True)
    assert "finished before; --fresh" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(28, "No space left on device", "x.jpg"), 1, "error: .*No space left.*x.jpg"),
        (ValueError("other settings"), 1, "error: other settings"),
        (KeyboardInterrupt(), 130, "the same command starts it again"),
    ],
)
def test_errors_are_one_line(calls, monkeypatch, capsys, error, code, message):
    def fail(*_):
        raise error

    monkeypatch.setattr("pixelclip.toy.demo.run_demo", fail)
    assert run(demo.main, []) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.strip().splitlines()) == 1
    assert re.search(message, printed.err)


@pytest.mark.parametrize(("given", "used"), [("", "here/datasets"), ("/data", "/data")])
def test_scenes_go_to_the_output_folder_by_default(calls, monkeypatch, given, used):
    monkeypatch.setenv("DETECTRON2_DATASETS", given)
    demo.main(["--output", "here"])
    assert os.environ["DETECTRON2_DATASETS"] == used
