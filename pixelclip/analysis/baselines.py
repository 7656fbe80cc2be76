"""The training-free baselines that PixelCLIP is compared with."""

from detectron2.config import CfgNode

from pixelclip.modeling.clip_loader import load_clip_config

# The one name of each method, in tables, figures and on pages; the keys are those of
# ``MODEL.CLIP.DENSE_PATH``.
BASELINE_NAMES = {
    "plain": "CLIP",
    "maskclip": "MaskCLIP",
    "sclip": "SCLIP",
    "clearclip": "ClearCLIP",
    "naclip": "NACLIP",
}


def baseline_configs(cfg: CfgNode) -> dict[str, CfgNode]:
    """Configs of CLIP and of NACLIP, the best training-free baseline, by their names.

    They have CLIP's own weights, ``MODEL.CLIP.PRETRAINED``. A ConvNeXt has no last block that
    NACLIP could change: there it is CLIP alone.

    Args:
        cfg: of PixelCLIP, which stays as it is.
    """
    is_vit = "timm_model_name" not in load_clip_config(cfg.MODEL.CLIP.ARCH)["vision_cfg"]
    if not is_vit:
        return {"CLIP": _change_config(cfg, cfg.MODEL.CLIP.DENSE_PATH)}
    return {BASELINE_NAMES[path]: _change_config(cfg, path) for path in ("plain", "naclip")}


def _change_config(cfg: CfgNode, dense_path: str) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.CLIP.DENSE_PATH = dense_path
    cfg.MODEL.WEIGHTS = ""
    return cfg
