import analyze_speed
import pytest
from cli import run

from pixelclip.analysis import speed
from pixelclip.analysis.speed import Configuration


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        (
            "SOLVER.AMP.ENABLED True",
            Configuration("a.yaml", ("K", "1", "SOLVER.AMP.ENABLED", "True")),
        ),
        ("b.yaml", Configuration("b.yaml", ("K", "1"))),
        ("b.yaml X '(1, 2)'", Configuration("b.yaml", ("K", "1", "X", "(1, 2)"))),
    ],
)
def test_the_other_configuration_differs_as_said(compare, expected, monkeypatch):
    asked = []

    def measure(command, configurations, warm_up, repeats, images):
        asked.append((command, configurations, warm_up, repeats, images))
        raise ValueError("enough")

    monkeypatch.setattr(speed, "analyze_speed", measure)
    arguments = [
        "train",
        "--config-file",
        "a.yaml",
        "--compare",
        compare,
        "--repeats",
        "7",
        "--opts",
        "K",
        "1",
    ]
    assert run(analyze_speed.main, arguments) == 1
    assert asked == [("train", [Configuration("a.yaml", ("K", "1")), expected], 3, 7, None)]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["data", "--images", "nowhere"], "nowhere is not a folder"),
        (["data", "--output", "nowhere/speed.json"], "the folder of nowhere/speed.json"),
        (["eval", "--config-file", "nowhere.yaml"], "nowhere.yaml"),
        (["eval", "--opts", "SOLVER.MAX_ITER"], "not pairs"),
    ],
)
def test_mistakes_are_explained(arguments, problem, capsys):
    assert run(analyze_speed.main, arguments) == 1
    assert problem in capsys.readouterr().err
