import base64
import math
import re

import pytest
from detectron2.config import CfgNode

from pixelclip.toy import report
from pixelclip.toy.report import (
    Evaluation,
    describe_demo,
    describe_gain,
    next_steps,
    write_report,
)
from pixelclip.toy.textures import STUFF_NAMES

CFG = CfgNode(
    {
        "SOLVER": {"MAX_ITER": 7, "IMS_PER_BATCH": 2},
        "MODEL": {"PIXELCLIP": {"NUM_CLUSTERS": 3}, "CLIP": {"DENSE_PATH": "naclip"}},
        "SEED": 1,
    }
)
VALUES = {
    "cfg": CFG, "num_scenes": 600, "best_method": "NACLIP", "meaning": "It is 2.6 points better.",
    "results": "| a |\n|---|\n| 1 |", "classes": "", "prompts": "", "times": "", "device": "CPU",
    "num_batches": 25, "num_skipped": 4, "steps": {"Again": "make demo", "Less": "echo '<'"},
}


class Platform:
    machine = python_version = staticmethod(lambda: "x")


class Torch:
    get_num_threads, __version__ = staticmethod(lambda: 5), "2"


@pytest.fixture
def written(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("scenes", "training"):
        (tmp_path / "figures" / f"{name}.png").write_bytes(b"PNG of " + name.encode())
    write_report(tmp_path, **VALUES, platform=Platform, torch=Torch)
    return tmp_path


def test_markdown_has_the_values(written):
    text = (written / "report.md").read_text()
    assert "\n\nIt is 2.6 points better.\n\n" in text
    assert '7 iterations of 2 scenes with 3 class prompts on the dense path "naclip"' in " ".join(
        text.split()
    )
    assert "![The first test scenes](figures/scenes.png)" in text
    assert "Again:\n\n    make demo\n\nLess:\n\n    echo '<'\n" in text


def test_html_holds_its_figures_and_escapes_text(written):
    page = (written / "report.html").read_text()
    data = [base64.b64decode(d) for d in re.findall(r'src="data:image/png;base64,(.*?)"', page)]
    assert data == [b"PNG of scenes", b"PNG of training"]
    assert "<title>Dense recognition learned without labels</title>" in page
    assert "<td>1</td>" in page
    assert "echo '&lt;'" in page
    assert "http" not in page


def test_a_missing_figure_leaves_the_old_report(written):
    before = [(written / name).read_bytes() for name in ("report.md", "report.html")]
    (written / "figures" / "scenes.png").unlink()
    with pytest.raises(FileNotFoundError):
        write_report(written, **{**VALUES, "meaning": "other"}, platform=Platform, torch=Torch)
    assert [(written / name).read_bytes() for name in ("report.md", "report.html")] == before


def test_mean_iou_leaves_out_classes_that_do_not_occur():
    metrics = {f"IoU-{name}": float(i) for i, name in enumerate(STUFF_NAMES)}
    evaluation = Evaluation("after", {**metrics, "IoU-sky": math.nan}, None)
    assert evaluation.mean_iou(["grass", "water"]) == 1.5
    assert evaluation.mean_iou(["sky", "water"]) == 2.0


@pytest.mark.parametrize(
    ("mean_ious", "meaning"),
    [
        (
            {"CLIP": 10.23, "MaskCLIP": 41.5, "NACLIP": 44.44, "PixelCLIP": 45.86},
            "1.5 points better than NACLIP, the best training-free baseline, and 35.7 points "
            "better than CLIP.",
        ),
        (
            {"CLIP": 5.0, "NACLIP": 2.0, "PixelCLIP": 4.0},
            "1.0 points worse than CLIP, the best training-free baseline.",
        ),
    ],
)
def test_the_gain_is_that_of_the_tables_numbers(mean_ious, meaning):
    expected = f"Trained with masks and without labels, PixelCLIP is {meaning}"
    assert describe_gain(mean_ious) == expected


@pytest.fixture
def active(monkeypatch):
    """An environment whose programs are in the path."""
    monkeypatch.setenv("PATH", f"{report.sys.prefix}/bin")


def test_the_next_steps_name_where_the_files_are(active, tmp_path, monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    web, predict, train = next_steps(tmp_path / "a b").values()
    assert web == f"pixelclip web --weights '{tmp_path}/a b/training/model_final.pth'"
    assert predict == 'pixelclip predict photo.jpg --words "sky, tree, road"'
    assert train.startswith(f"DETECTRON2_DATASETS='{tmp_path}/a b/datasets' pixelclip train ")
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data/scenes")
    assert "DETECTRON2_DATASETS=/data/scenes " in [*next_steps(tmp_path).values()][-1]


def test_an_environment_that_is_not_active_is_activated_first(tmp_path, monkeypatch):
    (tmp_path / "my env" / "bin").mkdir(parents=True)
    monkeypatch.setattr(report.sys, "prefix", str(tmp_path / "my env"))
    monkeypatch.setenv("PATH", "/usr/bin")
    assert len(next_steps(tmp_path)) == 3, "nothing that could activate it"
    (tmp_path / "my env" / "bin" / "activate").touch()
    assert [*next_steps(tmp_path).values()][0] == f"source '{tmp_path}/my env/bin/activate'"
    monkeypatch.chdir(tmp_path)
    assert [*next_steps(tmp_path).values()][0] == "source 'my env/bin/activate'"
    monkeypatch.setenv("PATH", f"/usr/bin:{tmp_path}/my env/bin")
    assert len(next_steps(tmp_path)) == 3


def test_the_terminal_ends_with_results_report_and_next_steps(active, written):
    described = describe_demo(written / "report.html")
    assert described.startswith("A tiny CLIP has learned")
    order = ["| a |", "It is 2.6 points better.", f"The report is {written / 'report.html'}"]
    order += next_steps(written).values()
    places = [described.index(text) for text in order]
    assert places == sorted(places)
    assert "## " not in described
