from pathlib import Path

import check_gpu
import pytest
from cli import run

from pixelclip.analysis import gpu_check


@pytest.mark.parametrize(("is_good", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_a_check_failed(monkeypatch, is_good, code):
    asked = []
    monkeypatch.setattr(gpu_check, "check_gpu", lambda *given: asked.append(given) or is_good)
    assert run(check_gpu.main, ["--output", "somewhere", "--minutes", "0.5"]) == code
    assert run(check_gpu.main, []) == code
    assert asked == [(Path("somewhere"), 30.0), (Path("output/gpu_check"), 300.0)]


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "soon"])
def test_wrong_times_are_refused(minutes, capsys):
    with pytest.raises(SystemExit):
        run(check_gpu.main, ["--minutes", minutes])
    assert "--minutes" in capsys.readouterr().err
