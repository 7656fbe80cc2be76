from pixelclip.analysis.baselines import BASELINE_NAMES, baseline_configs
from pixelclip.modeling.dense_paths import DENSE_PATHS


def test_every_training_free_path_has_a_name():
    assert {*BASELINE_NAMES, "pixelclip"} == set(DENSE_PATHS)


def test_a_vit_is_compared_with_clip_and_naclip(tiny_config):
    tiny_config.MODEL.WEIGHTS = "model.pth"
    tiny_config.freeze()
    configs = baseline_configs(tiny_config)
    paths = {name: cfg.MODEL.CLIP.DENSE_PATH for name, cfg in configs.items()}
    assert paths == {"CLIP": "plain", "NACLIP": "naclip"}
    assert [cfg.MODEL.WEIGHTS for cfg in configs.values()] == ["", ""]
    assert tiny_config.MODEL.WEIGHTS == "model.pth"


def test_a_convnext_is_compared_with_clip(tiny_config):
    tiny_config.MODEL.CLIP.ARCH = "convnext_base_w_320"
    ((name, cfg),) = baseline_configs(tiny_config).items()
    assert (name, cfg.MODEL.CLIP.DENSE_PATH) == ("CLIP", tiny_config.MODEL.CLIP.DENSE_PATH)
