import threading
import time

import numpy as np
import pytest

from pixelclip import Predictor
from pixelclip.toy.scenes import make_scene
from pixelclip.web import models as models_module
from pixelclip.web.models import OURS, PageModels
from pixelclip.web.request import RequestError
from tests.web.conftest import TOY_CONFIG

NAMES = ("sky", "stone", "car, auto")
IMAGE = make_scene(13, 0).pixels


@pytest.mark.parametrize(
    ("model", "dense_path"), [(OURS, "naclip"), ("CLIP", "plain"), ("NACLIP", "naclip")]
)
def test_label_maps_are_the_predictors(toy_models, model, dense_path):
    overrides = ("MODEL.CLIP.DENSE_PATH", dense_path)
    expected = Predictor.from_config(TOY_CONFIG, overrides=overrides)(IMAGE, list(NAMES))
    found = toy_models.label(model, IMAGE, NAMES)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.similarity, expected.best_similarity)
    assert (found.labels.dtype, found.similarity.dtype) == (np.uint8, np.float32)


def test_a_background_of_the_config_is_left_to_the_page(toy_models):
    models = PageModels(TOY_CONFIG, seconds=600.0, overrides=("TEST.BACKGROUND_THRESHOLD", "0.9"))
    found = models.label(OURS, IMAGE, NAMES)
    np.testing.assert_array_equal(found.labels, toy_models.label(OURS, IMAGE, NAMES).labels)


def test_what_takes_too_long_is_given_up(monkeypatch):
    models = PageModels(TOY_CONFIG, seconds=0.1)
    resume = threading.Event()
    monkeypatch.setitem(models._predictors, OURS, lambda *_, **__: resume.wait())
    try:
        with pytest.raises(RequestError, match=r"longer than 0\.1 seconds and was given up"):
            models.label(OURS, IMAGE, NAMES)
    finally:
        resume.set()


def test_what_was_given_up_does_not_wait_in_the_way(monkeypatch):
    models = PageModels(TOY_CONFIG, seconds=0.2)
    predict, resume, started = models._predictors[OURS], threading.Event(), []

    def wait(*_, **__):
        started.append(1)
        resume.wait()
        raise ValueError("too late")

    monkeypatch.setitem(models._predictors, OURS, wait)
    for _ in range(5):
        with pytest.raises(RequestError, match="was given up"):
            models.label(OURS, IMAGE, NAMES)
    resume.set()
    monkeypatch.setitem(models._predictors, OURS, predict)
    models.seconds = 600.0
    assert models.label(OURS, IMAGE, NAMES).labels.shape == IMAGE.shape[:2]
    assert len(started) == 1


def test_a_closed_page_does_not_wait_for_its_work(monkeypatch):
    models = PageModels(TOY_CONFIG, seconds=600.0)
    resume, started, results = threading.Event(), threading.Event(), []

    def wait(*_, **__):
        started.set()
        resume.wait()
        raise ValueError("too late")

    def ask():
        try:
            models.label(OURS, IMAGE, NAMES)
        except RequestError as error:
            results.append(str(error))

    monkeypatch.setitem(models._predictors, OURS, wait)
    visitors = [threading.Thread(target=ask) for _ in range(2)]
    visitors[0].start()
    started.wait()
    visitors[1].start()
    while not models._worker._work_queue.qsize():
        time.sleep(0.01)
    models.close()  # would hang here if it waited
    visitors[1].join(timeout=600)
    assert results == ["The page is closing: ask again when it is back."]
    resume.set()
    visitors[0].join(timeout=600)
    assert results[1:] == ["too late"]
    with pytest.raises(RequestError, match="The page is closing"):
        models.label(OURS, IMAGE, NAMES)


def test_words_that_do_not_fit_are_a_sentence(toy_models):
    with pytest.raises(RequestError, match="does not fit into CLIP's context"):
        toy_models.label(OURS, IMAGE, ["q" * 80])


def test_without_weights_of_clip_there_is_nothing_to_compare_with(tiny_vit_json, toy_models):
    assert list(toy_models.baselines) == ["CLIP", "NACLIP"] and toy_models.is_toy
    overrides = ("MODEL.CLIP.ARCH", tiny_vit_json, "MODEL.CLIP.PRETRAINED", "")
    overrides += ("MODEL.CLIP.RESOLUTION", "(64, 64)", "MODEL.CLIP.DENSE_PATH", "pixelclip")
    models = PageModels(TOY_CONFIG, seconds=600.0, overrides=overrides)
    assert not models.baselines and not models.is_toy


def test_weights_that_cannot_be_loaded_are_a_sentence(monkeypatch):
    models = PageModels(TOY_CONFIG, seconds=600.0)

    def refuse(_cfg):
        raise RuntimeError("no network")

    monkeypatch.setattr(models_module.Predictor, "from_config", refuse)
    with pytest.raises(RequestError, match="NACLIP cannot be loaded: no network"):
        models.label("NACLIP", IMAGE, NAMES)
