import sys

import pytest

from pixelclip.toy.scenes import CLASS_NAMES
from pixelclip.web.actions import PageActions, ShownComponents
from pixelclip.web.examples import write_examples
from pixelclip.web.models import OURS, PLAIN
from pixelclip.web.page import serve
from pixelclip.web.request import Limits


@pytest.fixture
def actions(toy_models):
    pytest.importorskip("gradio")
    return PageActions(toy_models, Limits(words=3))


def segment(actions, tmp_path, compare=False):
    path = write_examples(tmp_path)[0].path
    return ShownComponents(*actions.segment(path, "sky, stone", compare, 0.6)).state


def test_a_new_picture_is_shown_without_background(actions, tmp_path):
    shown = segment(actions, tmp_path)
    assert shown.names == ("sky", "stone")
    assert shown.view.threshold == shown.similarity_range()[0]
    assert list(shown.label_maps) == [OURS]


def test_changes_of_the_view_ask_no_model(actions, tmp_path, monkeypatch):
    before = segment(actions, tmp_path)
    monkeypatch.setattr(actions, "models", None)
    adjusted = ShownComponents(*actions.adjust(before, 0.3, 0.2)).state
    assert (adjusted.view.threshold, adjusted.view.opacity) == (0.3, 0.2)
    toggled = ShownComponents(*actions.toggle(adjusted, [1.0])).state
    assert toggled.view.hidden == {1} and toggled.view.threshold == 0.3
    assert toggled.label_maps is before.label_maps


def test_comparing_keeps_what_is_there(actions, tmp_path):
    before = segment(actions, tmp_path)
    both = ShownComponents(*actions.compare(before, True)).state
    assert list(both.label_maps) == [OURS, PLAIN]
    assert both.main is before.main
    one = ShownComponents(*actions.compare(both, False)).state
    assert list(one.label_maps) == [OURS]
    assert segment(actions, tmp_path, compare=True).label_maps.keys() == both.label_maps.keys()


def test_without_a_result_changes_do_nothing(actions):
    nothing = [actions.gradio.skip()] * 4
    assert actions.adjust(None, 0.3, 0.2) == nothing
    assert actions.toggle(None, []) == actions.compare(None, True) == nothing


def test_problems_are_messages_and_surprises_are_logged(actions, caplog):
    message, *others = actions.guarded(actions.segment)(None, "<a>, b, c, d", False, 0.6)
    assert "These are 4 classes" in message
    assert others == [actions.gradio.skip()] * 3
    message, _ = actions.guarded(actions.download, 2)(None, "overlay")
    assert "nothing to download yet" in message
    message, *_ = actions.guarded(actions.adjust)("no segmentation", 1.0, 1.0)
    assert "Something went wrong" in message
    assert "could not answer" in caplog.text


def test_examples_are_of_the_world(tmp_path):
    for example in write_examples(tmp_path):
        words = example.words.split(", ")
        assert set(words) <= set(CLASS_NAMES) and len(set(words)) == len(words)


def test_without_gradio_the_extra_is_named(toy_models, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with (
        pytest.raises(ImportError, match=r'gradio.*pip install -e "\.\[web\]"'),
        serve(toy_models, Limits()),
    ):
        pass
