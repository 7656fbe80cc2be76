import pytest

from pixelclip.web.actions import PageActions, guarded
from pixelclip.web.models import OURS
from pixelclip.web.page import write_examples
from pixelclip.web.request import Limits

# Components stand for themselves.
OUTPUTS = {name: name for name in ("message", "state", "viewer", "threshold", "file")}


@pytest.fixture
def actions(toy_models):
    pytest.importorskip("gradio")
    return PageActions(toy_models, Limits(words=3))


def segment(actions, tmp_path, baselines=()):
    path = write_examples(tmp_path)[0][0]
    return actions.segment(path, "sky, stone", baselines, 0.6)["state"]


def test_a_new_image_is_shown_without_background(actions, tmp_path):
    shown = segment(actions, tmp_path)
    assert shown.names == ("sky", "stone")
    assert shown.threshold == shown.similarity_range()[0]
    assert list(shown.label_maps) == [OURS]


def test_the_threshold_goes_over_all_scores(actions, tmp_path):
    answer = actions.segment(write_examples(tmp_path)[0][0], "sky, stone", [], 0.6)
    slider = answer["threshold"]
    assert (slider.minimum, slider.maximum) == answer["state"].similarity_range()
    assert slider.value == answer["state"].threshold


def test_changes_of_the_view_ask_no_model(actions, tmp_path):
    before = segment(actions, tmp_path)
    viewer = PageActions(None, Limits())
    adjusted = viewer.show(before, threshold=0.3, opacity=0.2)["state"]
    assert (adjusted.threshold, adjusted.opacity) == (0.3, 0.2)
    toggled = viewer.show(adjusted, hidden=frozenset({1}))["state"]
    assert toggled.hidden == {1} and toggled.threshold == 0.3
    assert toggled.label_maps is before.label_maps


def test_comparing_keeps_what_is_there(actions, tmp_path):
    before = segment(actions, tmp_path)
    two = actions.compare(before, ["NACLIP"])["state"]
    three = actions.compare(two, ["CLIP", "NACLIP"])["state"]
    assert list(two.label_maps) == [OURS, "NACLIP"]
    assert list(three.label_maps) == [OURS, "CLIP", "NACLIP"]
    assert three.label_maps[OURS] is before.label_maps[OURS]
    assert three.label_maps["NACLIP"] is two.label_maps["NACLIP"], "computed once"
    assert list(actions.compare(three, [])["state"].label_maps) == [OURS]
    assert list(segment(actions, tmp_path, ["CLIP"]).label_maps) == [OURS, "CLIP"]


def test_without_a_result_changes_show_nothing(actions):
    assert actions.show(None, threshold=0.3) == actions.compare(None, ["CLIP"]) == {"message": ""}


def test_problems_are_messages_and_surprises_are_logged(actions, caplog):
    answer = guarded(actions.segment, OUTPUTS)(None, "<a>, b, c, d", [], 0.6)
    assert list(answer) == ["message"]
    assert "These are 4 classes" in answer["message"]
    assert "nothing to download yet" in guarded(actions.download, OUTPUTS)(None, "")["message"]
    answer = guarded(actions.show, OUTPUTS)("not a segmentation")
    assert "Something went wrong" in answer["message"]
    assert "could not answer" in caplog.text


def test_problems_cannot_become_markup(actions):
    answer = guarded(actions.segment, OUTPUTS)(None, "<b>" * 30, [], 0.6)
    assert "<b>" not in answer["message"] and "&lt;b&gt;" in answer["message"]
