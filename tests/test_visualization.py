import json

import pytest
from PIL import Image

from pixelclip.visualization import draw_training_curve, read_iteration_log, save_figure


def line(iteration, loss=0.5):
    return json.dumps({"iteration": iteration, "total_loss": loss, "clusters/used": 0.5})


def write(tmp_path, text):
    path = tmp_path / "iterations.jsonl"
    path.write_text(text)
    return path


def test_repeated_iterations_count_once_and_a_cut_line_not(tmp_path):
    text = "\n".join([line(1), line(2, 0.4), line(3), line(2, 0.3), line(3, 0.2), '{"iter'])
    entries = read_iteration_log(write(tmp_path, text))
    assert [(e["iteration"], e["total_loss"]) for e in entries] == [(1, 0.5), (2, 0.3), (3, 0.2)]


@pytest.mark.parametrize("text", ["", "\n", line(1) + "\n[]\n" + line(2), "{}\n" + line(1)])
def test_other_files_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"iterations\.jsonl"):
        read_iteration_log(write(tmp_path, text))


def test_curve_is_a_picture_of_all_iterations(tmp_path):
    entries = [json.loads(line(i, 1 / i)) for i in range(1, 50)]
    figure = draw_training_curve(entries)
    raw, smooth = figure.axes[0].lines
    assert list(raw.get_ydata()) == [1 / i for i in range(1, 50)]
    assert smooth.get_ydata()[-1] == pytest.approx(sum([1 / 39, 1 / 40]) / 2)
    path = tmp_path / "training.png"
    save_figure(figure, path)
    assert Image.open(path).size == (800, 600)
