"""Models out of checkpoints that were trained with other numbers of class prompts."""

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.modeling import build_model

from pixelclip.checkpoint import PixelCLIPCheckpointer, read_checkpoint
from pixelclip.meta_arch import PixelCLIP


def build_checkpoint_model(cfg: CfgNode, weights: str | Path) -> PixelCLIP:
    """Build a config's model, with as many prompts as a checkpoint has, and load the checkpoint.

    Args:
        cfg: of the training, but for ``NUM_CLUSTERS`` and ``PROMPT_LENGTH``.
        weights: a checkpoint, ours or a published one.

    Returns:
        The model in eval mode, on ``MODEL.DEVICE``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, or does not fit the config.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(weights)
    if not Path(weights).is_file():
        raise FileNotFoundError(f"The checkpoint {str(weights)!r} does not exist.")
    tokens = read_checkpoint(str(weights))["model"].get("class_prompts.tokens")
    if tokens is not None:
        cfg.MODEL.PIXELCLIP.NUM_CLUSTERS, cfg.MODEL.PIXELCLIP.PROMPT_LENGTH = tokens.shape[:2]
    model = build_model(cfg).eval()
    PixelCLIPCheckpointer(model).load(str(weights))
    return model
