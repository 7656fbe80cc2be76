"""The config that a checkpoint carries, so that it can be used without a config file."""

import json
import os
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from pixelclip.checkpoint.checkpointer import CONFIG_KEY, read_checkpoint
from pixelclip.checkpoint.model_zoo import SCHEME, get_model, list_models
from pixelclip.config import add_pixelclip_config
from pixelclip.modeling.clip_loader import JSON_PREFIX, load_clip_config
from pixelclip.utils.installation import find_config

# Of a machine or a run, not of the model.
_LEFT_OUT = ("OUTPUT_DIR", "MODEL.DEVICE", "MODEL.WEIGHTS")
# Published checkpoints carry no config; the shape of the first layer tells which model it is.
_CONFIG_OF_FIRST_LAYER = {
    ("image_encoder.visual.conv1.weight", (768, 3, 16, 16)): "configs/pixelclip_vitb16.yaml",
    ("image_encoder.visual.trunk.stem.0.weight", (128, 3, 4, 4)): (
        "configs/pixelclip_convnextb.yaml"
    ),
}


def dump_config(cfg: CfgNode) -> str:
    """YAML of the keys that differ from the defaults, without those of the machine or the run.

    Other versions of Detectron2 have other keys, which only their defaults concern.
    """
    defaults = get_cfg()
    add_pixelclip_config(defaults)
    return yaml.safe_dump(_find_changes(cfg, defaults))


def dump_portable_config(cfg: CfgNode) -> str:
    """:func:`dump_config` for other machines: without folders, and with an own architecture in it.

    Raises:
        ValueError: ``MODEL.CLIP.ARCH`` is a JSON config that cannot stand alone, or that cannot be
            read.
    """
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.MODEL.CLIP.ARCH.endswith(".json"):
        cfg.MODEL.CLIP.ARCH = JSON_PREFIX + json.dumps(load_clip_config(cfg.MODEL.CLIP.ARCH))
        load_clip_config(cfg.MODEL.CLIP.ARCH)  # refuses one that names other files
    return yaml.safe_dump(_shorten_paths(yaml.safe_load(dump_config(cfg))))


def _shorten_paths(value: Any) -> Any:
    """Keep only the last part of each path of this machine."""
    if isinstance(value, dict):
        return {key: _shorten_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_shorten_paths(one) for one in value]
    is_path = isinstance(value, str) and (os.path.isabs(value) or os.path.exists(value))
    return os.path.basename(value.rstrip(os.sep)) if is_path else value


def _find_changes(cfg: CfgNode, defaults: CfgNode, prefix: str = "") -> dict[str, Any]:
    changes = {}
    for key, default in defaults.items():
        value = cfg.get(key, default)
        if isinstance(default, CfgNode):
            if below := _find_changes(value, default, f"{prefix}{key}."):
                changes[key] = below
        elif value != default and prefix + key not in _LEFT_OUT:
            changes[key] = value
    return changes


def load_saved_config(weights: str, config_file: str = "") -> CfgNode:
    """The defaults with a config file, or without one with what belongs to a checkpoint.

    Args:
        weights: see :func:`fetch_weights`; a model of the zoo has its own config.
        config_file: see :func:`find_config`.

    Raises:
        OSError, ValueError: see :func:`merge_config_file` and :func:`merge_saved_config`.
    """
    cfg = get_cfg()
    add_pixelclip_config(cfg)
    if weights.removeprefix(SCHEME) in list_models():
        config_file = config_file or get_model(weights).config_file
    if config_file:
        merge_config_file(cfg, config_file)
    else:
        merge_saved_config(cfg, weights)
    return cfg


def merge_config_file(cfg: CfgNode, config_file: str) -> None:
    """Merge a YAML file, see :func:`find_config`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has a key that PixelCLIP does not know.
    """
    path = find_config(config_file)
    try:
        cfg.merge_from_file(path, allow_unsafe=False)  # no Python objects, which run code
    except KeyError as error:  # of yacs, whose text names the key
        raise ValueError(f"{path}: {error.args[0]}. Is it a config of PixelCLIP?") from error


def merge_saved_config(cfg: CfgNode, path: str) -> None:
    """Merge the config that belongs to a checkpoint, ours or a published one.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is not a checkpoint, or which config it belongs to cannot be told.
    """
    checkpoint = read_checkpoint(path, mmap=True)
    if CONFIG_KEY in checkpoint:
        _merge_text(cfg, checkpoint[CONFIG_KEY], path)
        return
    weights = checkpoint["model"]
    for (name, shape), config_file in _CONFIG_OF_FIRST_LAYER.items():
        if name in weights and tuple(weights[name].shape) == shape:
            cfg.merge_from_file(find_config(config_file))
            return
    raise ValueError(
        f"The checkpoint {path!r} carries no config (those written before version 0.1 do not): add "
        "--config-file with the one that it was trained with, as configs/pixelclip_vitb16.yaml."
    )


def _merge_text(cfg: CfgNode, text: Any, path: str) -> None:
    try:
        cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(text)))
    except Exception as error:  # of YAML and yacs, for what may be anything
        raise ValueError(
            f"The config in the checkpoint {path!r} cannot be used ({error}): add --config-file "
            "with the one that it was trained with."
        ) from error
