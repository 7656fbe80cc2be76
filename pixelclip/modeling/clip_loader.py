"""Build an open_clip CLIP model by name or JSON config, with weights by tag or file."""

import json
import logging
import os
import zipfile
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from pixelclip.modeling.transformers_weights import from_transformers, is_from_transformers

if TYPE_CHECKING:
    import open_clip

logger = logging.getLogger(__name__)


def _open_clip() -> ModuleType:
    """Imported at its first use: it takes seconds, with transformers and timm behind it."""
    import open_clip

    return open_clip


# Of an architecture that is the content of a JSON config.
JSON_PREFIX = "json:"
# Registered architectures by name: the path of the JSON config, and of weights by tag.
BUILT_IN_ARCHITECTURES: dict[str, str] = {}
BUILT_IN_WEIGHTS: dict[str, dict[str, str]] = {}
_BUILT_IN_NOTES: dict[str, str] = {}


def register_clip_architecture(
    name: str, config: str, weights: dict[str, str], note: str = ""
) -> None:
    """Add an architecture to those of open_clip.

    Args:
        name: for ``MODEL.CLIP.ARCH``.
        config: path of an open_clip JSON model config.
        weights: tag for ``MODEL.CLIP.PRETRAINED`` -> path of a weights file.
        note: a sentence on what it can do, for those who use it.
    """
    BUILT_IN_ARCHITECTURES[name], BUILT_IN_WEIGHTS[name] = config, weights
    _BUILT_IN_NOTES[name] = note


def get_clip_note(architecture: str) -> str:
    """What users of an architecture should know; "" where there is nothing to say."""
    return _BUILT_IN_NOTES.get(architecture, "")


def load_clip(architecture: str, pretrained: str, weights_follow: bool = False) -> "open_clip.CLIP":
    """Build a CLIP model in float32 on the CPU and load its weights.

    Args:
        architecture: an open_clip architecture name, an open_clip JSON model config (its path, or
            "json:" and its content), or one that was registered, as "toy", the tiny CLIP of the toy
            benchmark.
        pretrained: an open_clip tag of that architecture (downloaded by open_clip), the path of a
            weights file (``.pt``, ``.pth``, ``.bin``, ``.safetensors``, the last also as
            transformers' CLIPModel writes it), or "" for random weights; the toy's are "captions".
        weights_follow: whether a checkpoint's weights will follow, so that these are random until
            then: ``pretrained`` has no effect, and may name a file of another machine.

    Raises:
        ValueError: the architecture is unknown or not a plain CLIP, or ``pretrained`` is neither a
            tag nor a file, or the weights do not fit the architecture.
        RuntimeError: the weights of a tag could not be downloaded.
    """
    config = load_clip_config(architecture)
    weights_file = None
    if not weights_follow:
        _check_pretrained(architecture, config, pretrained)
        weights_file = _locate_weights(architecture, pretrained)
    model = _build(config, architecture)
    if weights_file is not None:
        _load_weights(model, weights_file, architecture)
    elif not weights_follow:
        logger.warning("MODEL.CLIP.PRETRAINED is empty: %s has random weights", architecture)
    return model


def _build(config: dict[str, Any], architecture: str) -> "open_clip.CLIP":
    try:
        return _open_clip().CLIP(**config)
    except Exception as error:  # of open_clip, timm and torch, for what a config may hold
        raise ValueError(
            f"MODEL.CLIP.ARCH {_first_lines(architecture)} cannot be built: "
            f"{type(error).__name__}: {error}"
        ) from error


def load_tokenizer(architecture: str) -> "open_clip.SimpleTokenizer":
    """Build the tokenizer of an architecture: CLIP's, with other merges where its config has some.

    Raises:
        ValueError: as :func:`load_clip_config`.
    """
    text_config = load_clip_config(architecture)["text_cfg"]
    settings = text_config.get("tokenizer_kwargs") or {}
    context_length = text_config.get("context_length")
    return _open_clip().SimpleTokenizer(context_length=context_length, **settings)


def load_clip_config(architecture: str) -> dict[str, Any]:
    """Return the open_clip config of an architecture name, of a JSON file, or of JSON.

    A relative ``bpe_path`` of the tokenizer lies next to the JSON file.

    Raises:
        ValueError: the name is unknown, the JSON is not such a config, or the architecture is not
            a plain CLIP (its text encoder is a model of its own, as in SigLIP).
    """
    architecture = BUILT_IN_ARCHITECTURES.get(architecture, architecture)
    config: Any
    if architecture.startswith(JSON_PREFIX):
        config = _parse_json_config(architecture.removeprefix(JSON_PREFIX), "as JSON")
        _refuse_other_sources(config)
    elif architecture.endswith(".json"):
        config = _read_json_config(architecture)
    else:
        # open_clip takes addresses, too, which a stranger's config could name.
        config = None if ":" in architecture else _open_clip().get_model_config(architecture)
        if config is None:
            raise ValueError(
                f"MODEL.CLIP.ARCH is {architecture!r}: neither an open_clip architecture nor the "
                f"path of a .json model config. Known are, for example, ViT-B-16-quickgelu and "
                f"convnext_base_w_320; `open_clip.list_models()` lists all of them."
            )
    text_config = config.get("text_cfg", {})
    if config.pop("custom_text", False) or text_config.get("hf_model_name"):
        raise ValueError(
            f"MODEL.CLIP.ARCH {architecture!r} has a text encoder of another kind than CLIP's; "
            "PixelCLIP needs CLIP's (for example ViT-B-16-quickgelu or convnext_base_w_320)."
        )
    return config


def _read_json_config(path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        raise ValueError(
            f"MODEL.CLIP.ARCH names the JSON file {path!r}, which does not exist: give its path "
            "with --opts MODEL.CLIP.ARCH, relative to the current folder."
        )
    with open(path, encoding="utf-8") as file:
        config = _parse_json_config(file.read(), repr(path))
    _resolve_merges(path, config["text_cfg"].get("tokenizer_kwargs") or {})
    return config


def _parse_json_config(text: str, source: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"MODEL.CLIP.ARCH {source} is not valid JSON: {error}") from error
    if isinstance(config, dict):
        config = config.get("model_cfg", config)
    if not isinstance(config, dict):
        raise ValueError(f"MODEL.CLIP.ARCH {source} holds a {type(config).__name__}, not an object")
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(config)
    if missing:
        raise ValueError(
            f"MODEL.CLIP.ARCH {source} is not an open_clip model config: it lacks {sorted(missing)}"
        )
    for section in ("vision_cfg", "text_cfg"):
        if not isinstance(config[section], dict):
            raise ValueError(f"MODEL.CLIP.ARCH {source}: its {section} is not an object")
    return config


def _refuse_other_sources(config: dict[str, Any]) -> None:
    """Let a config that came with weights, perhaps a stranger's, name neither files nor sites."""
    vision, tokenizer = config["vision_cfg"], config["text_cfg"].get("tokenizer_kwargs")
    if tokenizer or ":" in str(vision.get("timm_model_name")):
        raise ValueError(
            "MODEL.CLIP.ARCH is JSON that names files or addresses (tokenizer_kwargs, "
            "timm_model_name); give it as the path of a .json file of yours."
        )
    vision["timm_model_pretrained"] = False


def _resolve_merges(path: str, settings: dict[str, Any]) -> None:
    if "bpe_path" not in settings:
        return
    settings["bpe_path"] = os.path.join(os.path.dirname(path), settings["bpe_path"])
    if not os.path.isfile(settings["bpe_path"]):
        raise ValueError(
            f"MODEL.CLIP.ARCH {path!r} names the tokenizer's merges {settings['bpe_path']!r}, "
            "which is not a file."
        )


def _check_pretrained(architecture: str, config: dict[str, Any], pretrained: str) -> None:
    if not pretrained or os.path.isfile(pretrained):
        return
    own = BUILT_IN_WEIGHTS.get(architecture, {})
    if pretrained in own:
        return
    tags = [*own, *_open_clip().list_pretrained_tags_by_model(architecture)]
    if pretrained not in tags:
        known = ", ".join(tags) if tags else "none (it is not one of open_clip's)"
        raise ValueError(
            f"MODEL.CLIP.PRETRAINED is {pretrained!r}: no such file, and no open_clip tag of "
            f'{architecture}. Its tags: {known}. Give a tag, a weights file, or "" for random.'
        )
    tag_config = _open_clip().get_pretrained_cfg(architecture, pretrained)
    if bool(tag_config.get("quick_gelu")) != bool(config.get("quick_gelu")):
        trained_with = "QuickGELU" if tag_config.get("quick_gelu") else "GELU"
        raise ValueError(
            f"The weights {pretrained!r} were trained with {trained_with}, and {architecture} uses "
            "the other activation. Choose the matching MODEL.CLIP.ARCH: OpenAI's weights need the "
            "-quickgelu variant (ViT-B-16-quickgelu)."
        )


def _locate_weights(architecture: str, pretrained: str) -> str | None:
    if not pretrained:
        return None
    if os.path.isfile(pretrained):
        return pretrained
    if pretrained in BUILT_IN_WEIGHTS.get(architecture, {}):
        return BUILT_IN_WEIGHTS[architecture][pretrained]
    try:
        tag_config = _open_clip().get_pretrained_cfg(architecture, pretrained)
        return _open_clip().download_pretrained(tag_config)
    except Exception as error:  # open_clip passes on all that its download library raises
        raise RuntimeError(
            f"The weights {pretrained!r} of {architecture} could not be downloaded "
            f"({type(error).__name__}). Without network, copy the file "
            f"{_origin(architecture, pretrained)} to this machine and set MODEL.CLIP.PRETRAINED to "
            'its path. With a PixelCLIP checkpoint in MODEL.WEIGHTS, "" is enough.'
        ) from error


def _origin(architecture: str, tag: str) -> str:
    """Where open_clip takes the weights of a tag from."""
    config = _open_clip().get_pretrained_cfg(architecture, tag)
    hub = config.get("hf_hub", "").rstrip("/")
    return f"open_clip_model.safetensors of Hugging Face's {hub}" if hub else config.get("url", "")


def _load_weights(model: torch.nn.Module, path: str, architecture: str) -> None:
    try:
        if _is_torchscript(path):
            model.load_state_dict(_read_torchscript_weights(path))
        elif path.endswith(".safetensors") and is_from_transformers(weights := load_file(path)):
            model.load_state_dict(from_transformers(weights))
        else:
            _open_clip().load_checkpoint(model, path)
    except Exception as error:  # torch, pickle and safetensors each raise their own kinds
        raise ValueError(
            f"The weights file {path!r} could not be loaded into {architecture}: "
            f"{_first_lines(str(error))}"
        ) from error
    logger.info("Loaded CLIP weights from %s", path)


def _is_torchscript(path: str) -> bool:
    """Whether a file is an archive of a scripted model, as OpenAI published its weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript_weights(path: str) -> dict[str, torch.Tensor]:
    weights = torch.jit.load(path, map_location="cpu").state_dict()
    for setting in ("input_resolution", "context_length", "vocab_size"):
        weights.pop(setting, None)
    return weights


def _first_lines(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else text[:limit] + " ..."
