import base64
import math
import re

import pytest
from detectron2.config import CfgNode

from pixelclip.toy.report import Evaluation, next_commands, write_report
from pixelclip.toy.textures import STUFF_NAMES

CFG = CfgNode(
    {
        "SOLVER": {"MAX_ITER": 7, "IMS_PER_BATCH": 2},
        "MODEL": {"PIXELCLIP": {"NUM_CLUSTERS": 3}, "CLIP": {"DENSE_PATH": "naclip"}},
        "SEED": 1,
    }
)
VALUES = {
    "cfg": CFG, "num_scenes": 600, "best": 44.44, "best_method": "NACLIP", "after": 47.06,
    "results": "| a |\n|---|\n| 1 |", "classes": "", "prompts": "", "times": "",
    "num_batches": 25, "num_skipped": 4, "device": "CPU", "commands": ["make demo", "echo '<'"],
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
    assert "from 44.4 to 47.1 (+2.6)" in " ".join(text.split())
    assert '7 iterations of 2 scenes with 3 class prompts on the dense path "naclip"' in " ".join(
        text.split()
    )
    assert "![The first test scenes](figures/scenes.png)" in text
    assert text.endswith("    make demo\n    echo '<'\n")


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
        write_report(written, **{**VALUES, "best": 1.0}, platform=Platform, torch=Torch)
    assert [(written / name).read_bytes() for name in ("report.md", "report.html")] == before


def test_mean_iou_leaves_out_classes_that_do_not_occur():
    metrics = {f"IoU-{name}": float(i) for i, name in enumerate(STUFF_NAMES)}
    evaluation = Evaluation("after", {**metrics, "IoU-sky": math.nan}, None)
    assert evaluation.mean_iou(["grass", "water"]) == 1.5
    assert evaluation.mean_iou(["sky", "water"]) == 2.0


def test_the_next_commands_name_where_the_scenes_are(tmp_path, monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert f"DETECTRON2_DATASETS='{tmp_path}/a b/datasets' " in next_commands(tmp_path / "a b")[0]
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data/scenes")
    assert "DETECTRON2_DATASETS=/data/scenes " in next_commands(tmp_path)[1]
