"""The published configurations, key by key: ours are equal, or the difference has a reason.

``published_config.json`` holds every effective value of the two published configurations.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from detectron2.config import CfgNode, get_cfg

from pixelclip import add_pixelclip_config
from pixelclip.data.mapper import MaskDatasetMapper

REPOSITORY = Path(__file__).resolve().parents[1]
PUBLISHED = json.loads((Path(__file__).parent / "published_config.json").read_text())
OURS = {"vit_base": "pixelclip_vitb16.yaml", "convnext_base": "pixelclip_convnextb.yaml"}
NO_SUCH_KEY = "no such key"

# Published names that ours replace.
OUR_NAMES = {
    "MODEL.CLIP_PIXEL_MEAN": "MODEL.PIXEL_MEAN",
    "MODEL.CLIP_PIXEL_STD": "MODEL.PIXEL_STD",
    "MODEL.CLIP_RESOLUTION": "MODEL.CLIP.RESOLUTION",
    "MODEL.MASK_RESOLUTION": "MODEL.PIXELCLIP.MASK_RESOLUTION",
    "MODEL.EPS": "MODEL.PIXELCLIP.ASSIGNMENT_SCALE",
    "MODEL.PROMPT_ENSEMBLE_TYPE": "MODEL.PIXELCLIP.PROMPT_ENSEMBLE",
    "MODEL.DINO": "MODEL.PIXELCLIP.MASK_SOURCE",
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": "MODEL.PIXELCLIP.NUM_CLUSTERS",
    "MODEL.SEM_SEG_HEAD.PROMPT_LENGTH": "MODEL.PIXELCLIP.PROMPT_LENGTH",
    "MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED": "MODEL.CLIP.ARCH",
    "MODEL.SEM_SEG_HEAD.CLIP_FINETUNE": "MODEL.CLIP.FINETUNE",
}

# Published values, in our words, where ours are others.
OUR_WORDS = {
    "MODEL.PROMPT_ENSEMBLE_TYPE": {"single": ""},
    "MODEL.DINO": {False: "dataset", True: "dino"},
    "MODEL.SEM_SEG_HEAD.CLIP_PRETRAINED": {
        "ViT-B/16": "ViT-B-16-quickgelu",
        "convnext_base": "convnext_base_w_320",
    },
}

# Of published keys that ours do not have, or have with another value; docs/fidelity.md shows them.
DIFFERENCES = {
    "MODEL.PIXEL_MEAN": (
        "In the published code it is ImageNet's mean for DINO alone, and CLIP's mean is "
        "CLIP_PIXEL_MEAN. Ours is CLIP's; DINO has ImageNet's in its own code."
    ),
    "MODEL.MAX_MASKS": "The published model never reads it and uses all masks. So does ours.",
    "SOLVER.OPTIMIZER": "AdamW is the only optimizer.",
    "SOLVER.WEIGHT_DECAY_EMBED": "Embeddings always have a weight decay of 0.",
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": (
        "1.0 accepts every crop; ours is a random crop that accepts every crop."
    ),
    "INPUT.STRONG_AUG": "The student's image is always the strong one.",
}

# What the published code or its commands fix, and ours have keys for.
FIXED = {
    "MODEL.CLIP.DENSE_PATH": "pixelclip",
    "MODEL.PIXELCLIP.PROMPT_TEMPLATE": "A photo of a {} in the scene",
    "MODEL.PIXELCLIP.CLUSTER_EMBEDDINGS": "prompts",
    "MODEL.PIXELCLIP.ASSIGNMENT": "sinkhorn",
    "MODEL.PIXELCLIP.SINKHORN_ITERS": 3,
    "MODEL.PIXELCLIP.MOMENTUM": 0.999,
    "MODEL.PIXELCLIP.TEST_TEMPLATES": "imagenet_select",
    "MODEL.PIXELCLIP.TEST_FEATURE_SIZE": [64, 64],
    "MODEL.PIXELCLIP.TEST_MASKS": "none",
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.REDUCED_JPEG_DECODING": False,
    "SOLVER.ACCUMULATION_STEPS": 1,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "DATASETS.TRAIN": ["sa1b_train"],
    "DATASETS.TEST": [
        "coco_2017_test_stuff_all_sem_seg",
        "ade20k_150_test_sem_seg",
        "context_59_test_sem_seg",
        "cityscapes_fine_sem_seg_val",
        "voc_2012_test_sem_seg",
    ],
    "TEST.INFERENCE_MODE": "whole",
    "TEST.FLIP": False,
    "TEST.VOCABULARY": "",
}
PRETRAINED = {"vit_base": "openai", "convnext_base": "laion_aesthetic_s13b_b82k"}
DINO = {
    "MODEL.PIXELCLIP.MASK_SOURCE": "dino",
    "MODEL.PIXELCLIP.DINO.MODEL": "vit_small_patch16_224.dino",
    "MODEL.PIXELCLIP.DINO.NUM_MASKS": 16,
}


class Pair(NamedTuple):
    """A published value in our words, and ours."""

    published: Any
    ours: Any


def load(name: str) -> CfgNode:
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    cfg.merge_from_file(str(REPOSITORY / "configs" / name))
    return cfg


def value_of(cfg: CfgNode, key: str) -> Any:
    """A config's value as JSON has it."""
    node = cfg
    for name in key.split("."):
        if name not in node:
            return NO_SUCH_KEY
        node = node[name]
    return list(node) if isinstance(node, tuple) else node


def leaves(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    found = {}
    for name, value in node.items():
        is_node = isinstance(value, CfgNode)
        found.update(leaves(value, f"{prefix}{name}.") if is_node else {prefix + name: value})
    return found


def pair_up(published: Mapping[str, Any], cfg: CfgNode) -> dict[str, Pair]:
    pairs = {}
    for key, value in published.items():
        words = OUR_WORDS.get(key)
        in_our_words = words.get(value, f"unknown: {value}") if words else value
        pairs[key] = Pair(in_our_words, value_of(cfg, OUR_NAMES.get(key, key)))
    return pairs


def find_problems(pairs: Mapping[str, Pair], differences: Mapping[str, str]) -> set[str]:
    """Keys that differ without being listed, and those that are listed wrongly."""
    differing = {key for key, pair in pairs.items() if pair.published != pair.ours}
    # Also those that are listed, but equal or not published at all.
    wrong = differing ^ set(differences)
    return wrong | {key for key, reason in differences.items() if not reason.strip()}


@pytest.fixture(params=sorted(OURS))
def model(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_published_value_is_ours_or_differs_for_a_reason(model):
    pairs = pair_up(PUBLISHED[model], load(OURS[model]))
    problems = find_problems(pairs, DIFFERENCES)
    assert not problems, {key: pairs.get(key) for key in problems}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"INPUT.STRONG_AUG": " "}, "INPUT.STRONG_AUG"),  # without a reason
        ({"INPUT.MAX_SIZE_TRAIN": "a reason"}, "INPUT.MAX_SIZE_TRAIN"),  # equal
        ({"INPUT.NO_KEY": "a reason"}, "INPUT.NO_KEY"),  # not published
    ],
)
def test_a_difference_needs_a_reason_and_must_be_one(model, change, problem):
    pairs = pair_up(PUBLISHED[model], load(OURS[model]))
    assert find_problems(pairs, {**DIFFERENCES, **change}) == {problem}


def test_any_value_that_drifts_is_found(model):
    cfg = load(OURS[model])
    for key in set(PUBLISHED[model]) - set(DIFFERENCES):
        drifted = {**PUBLISHED[model], key: "drifted"}
        assert find_problems(pair_up(drifted, cfg), DIFFERENCES) == {key}


def test_names_and_words_are_of_published_keys():
    for table in (OUR_NAMES, OUR_WORDS):
        assert set(table) <= set(PUBLISHED["vit_base"])


def test_what_the_published_code_fixes_is_the_configurations(model):
    cfg = load(OURS[model])
    expected = {**FIXED, "MODEL.CLIP.PRETRAINED": PRETRAINED[model]}
    assert {key: value_of(cfg, key) for key in expected} == expected


def test_dino_configurations_differ_in_the_source_of_masks_only(model):
    name = OURS[model]
    with_dino = load(name.replace(".yaml", "_dino.yaml"))
    assert {key: value_of(with_dino, key) for key in DINO} == DINO
    ours, others = leaves(load(name)), leaves(with_dino)
    changed = {key for key in ours if ours[key] != others[key]}
    assert changed <= {*DINO, "TEST.PUBLISHED_ROW", "OUTPUT_DIR"}


def test_the_document_lists_these_differences():
    page = (REPOSITORY / "docs" / "fidelity.md").read_text().splitlines()
    cfg, published = load(OURS["vit_base"]), PUBLISHED["vit_base"]
    rows = [
        f"| {key} | {published[key]} | {value_of(cfg, key)} | {reason} |"
        for key, reason in DIFFERENCES.items()
    ]
    start = page.index("|---|---|---|---|") + 1
    assert page[start : page.index("", start)] == rows


def test_the_recorded_values_are_the_published_ones(shared_folder):
    assert json.loads((shared_folder / "facts" / "published_config.json").read_text()) == PUBLISHED


@pytest.mark.parametrize("size", [(1500, 2250), (2250, 1500)])
def test_the_longest_side_of_a_training_image_is_limited(size):
    augmentation = MaskDatasetMapper(load("pixelclip_vitb16.yaml")).weak_augmentation
    plan = augmentation.plan(size)
    assert plan.resized == tuple(1333 if side == 2250 else 889 for side in size)
    assert plan.crop == (640, 640)
