import importlib.util

import pytest
import torch

from pixelclip.mask_generation.generators import DEFAULT_MODELS, GeneratorChoice
from pixelclip.mask_generation.superpixels import SuperpixelGenerator


def test_superpixels_are_the_default_and_need_nothing():
    choice = GeneratorChoice()
    assert not choice.has_network
    assert isinstance(choice.build(torch.device("cpu")), SuperpixelGenerator)


@pytest.mark.parametrize("name", DEFAULT_MODELS)
def test_every_generator_can_be_chosen_without_loading_it(name):
    assert GeneratorChoice(name).has_network == (name != "superpixels")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("sma",), "'sma' is unknown; choose one of superpixels, sam"),
        (("superpixels", "facebook/sam"), "superpixels need no model"),
        (("sam", "", "weights.pth"), "sam takes no weights file"),
        (("dino", "no_such_vit"), "timm has no model 'no_such_vit'"),
        (("dino", "", "nowhere.pth"), "'nowhere.pth' are no file"),
        (("dino", "", "", 0), "0 clusters"),
    ],
)
def test_what_cannot_be_built_is_refused_before_work(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        GeneratorChoice(*arguments)


@pytest.mark.parametrize("name", ["sam", "sam_hq", "sam2"])
def test_a_missing_package_names_the_extra(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r'transformers: pip install -e "\.\[masks\]"'):
        GeneratorChoice(name)
    GeneratorChoice("superpixels")
