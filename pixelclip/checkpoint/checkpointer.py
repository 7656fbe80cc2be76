"""Checkpoints: our own, written atomically, and the published PixelCLIP files."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import load_file
from torch import Tensor

from pixelclip.checkpoint.weights_download import CONFIG_FILE, fetch_weights
from pixelclip.utils.atomic_write import atomic_writer, write_text

# Prefixes of names, ours and the published ones, tried in this order; None: weights without use.
_PREFIXES: tuple[tuple[str | None, str], ...] = (
    ("image_encoder.visual.", "sem_seg_head.predictor.clip_model.visual."),
    (None, "sem_seg_head.predictor.clip_model.logit_scale"),
    ("text_encoder.", "sem_seg_head.predictor.clip_model."),
    ("class_prompts.tokens", "sem_seg_head.predictor.prompt_tokens"),
    ("teacher.image_encoder.visual.", "teacher_encoder.visual."),
    (None, "teacher_encoder."),
    ("mask_decoder.conv1.", "head.conv1.double_conv."),
    ("mask_decoder.conv2.", "head.conv2.double_conv."),
    ("mask_decoder.", "head."),
)
# What only training needs; files for inference are without it.
TRAINING_PARTS = ("teacher.", "mask_decoder.")
# What a training holds with some settings only; where a file lacks it, it starts again.
OPTIONAL_PARTS = ("mask_features.", "mask_queue.")
# Where a checkpoint has its config, in YAML; see ``saved_config.py``.
CONFIG_KEY = "config"


class PixelCLIPCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer for PixelCLIP models; strict, and safe against kills and bad files.

    It reads our checkpoints and the published ones, only with ``weights_only``, and writes complete
    files or none. A model in eval mode also takes files for inference, which lack the teacher and
    the mask decoder (see ``conversion.py``); these two are then zero.

    Args:
        model, save_dir, checkpointables: as in Detectron2's.
        config: the model's config in YAML, which the checkpoints then carry.
    """

    def __init__(
        self, model: Any, save_dir: str = "", *, config: str = "", **checkpointables: Any
    ) -> None:
        super().__init__(model, save_dir, **checkpointables)
        self._config = config

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load a checkpoint: a file, or a name or address, see :func:`fetch_weights`; "" for none.

        Raises:
            FileNotFoundError: there is no such file.
            ConnectionError: it cannot be downloaded.
            ValueError: the file is not a checkpoint, or does not fit the model.
        """
        return super().load(fetch_weights(path), *args, **kwargs)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name``.pth with the model and all checkpointables, and tag it as the last one."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **kwargs}
        data.update({CONFIG_KEY: self._config} if self._config else {})
        data.update((key, value.state_dict()) for key, value in self.checkpointables.items())
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        with atomic_writer(path) as file:
            torch.save(data, file)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the checkpoint that ``--resume`` continues from."""
        write_text(os.path.join(self.save_dir, "last_checkpoint"), last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        # For inference only a part of the file is used, and nothing of it is kept.
        return read_checkpoint(filename, mmap=not self.model.training)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        expected = self.model.state_dict()
        if is_for_inference(checkpoint["model"]):
            if self.model.training:
                raise ValueError(
                    "The checkpoint holds the model for inference only, without teacher and mask "
                    "decoder: start a training from the whole checkpoint, or call model.eval() "
                    "before loading."
                )
            unused = {n: v for n, v in expected.items() if n.startswith(TRAINING_PARTS)}
            checkpoint["model"].update({n: torch.zeros_like(v) for n, v in unused.items()})
        own = {n: v for n, v in expected.items() if n.startswith(OPTIONAL_PARTS)}
        left_out = OPTIONAL_PARTS + (TRAINING_PARTS if is_for_inference(expected) else ())
        stored = checkpoint["model"]
        checkpoint["model"] = own | {
            n: v for n, v in stored.items() if n in own or not n.startswith(left_out)
        }
        _check_fit(checkpoint["model"], expected, str(checkpoint.get(CONFIG_KEY, "")))
        return super()._load_model(checkpoint)


def read_checkpoint(path: str, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint, ours or a published one, onto the CPU; ``"model"`` has our names.

    Args:
        path: of a file, or a folder, name or address, see :func:`fetch_weights`.
        mmap: read weights only when they are used, from a file that stays as it is.

    Raises:
        OSError: the file cannot be opened or downloaded.
        ValueError: it is not a checkpoint, or ``path`` is empty.
    """
    if not path:
        raise ValueError(
            "A checkpoint is needed here, and the weights are empty, as those of the model 'toy' "
            "are: give a checkpoint with --weights."
        )
    found = fetch_weights(path)
    path = os.path.realpath(found)  # in a cache of links, what has to be removed
    open(path, "rb").close()  # what torch raises for a missing file looks like a damaged one
    try:
        if found.endswith(".safetensors"):
            return _read_safetensors(found)
        mmap = mmap and zipfile.is_zipfile(path)  # not torch's former format
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch raises pickle, zip and runtime errors of many kinds
        reason = f"{error}".partition("\n")[0].partition(". ")[0]
        raise ValueError(
            f"{path!r} is not a checkpoint that can be read safely (weights_only): "
            f"{type(error).__name__}: {reason}. Remove this file if it was downloaded, so that the "
            "next run downloads it again."
        ) from error
    if not isinstance(data, dict):
        raise ValueError(f"{path!r} holds a {type(data).__name__}, not a checkpoint's dict")
    data = data if "model" in data else {"model": data}
    return {**data, "model": rename_published_weights(data["model"])}


def _read_safetensors(path: str) -> dict[str, Any]:
    """The weights of a file, and the config that lies next to it, if there is one."""
    config = Path(path).with_name(CONFIG_FILE)
    text = {CONFIG_KEY: config.read_text("utf-8", "replace")} if config.is_file() else {}
    return {"model": load_file(path), **text}


def is_for_inference(weights: Mapping[str, Tensor]) -> bool:
    """Whether a model's weights, under our names, lack all that only training needs."""
    is_model = any(name.startswith("image_encoder.") for name in weights)
    return is_model and not any(name.startswith(TRAINING_PARTS) for name in weights)


def rename_published_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the parameters of a published PixelCLIP checkpoint to ours; ours stay as they are.

    What the method does not use (the teacher's text encoder, CLIP's temperature) is left out.

    Raises:
        ValueError: the weights are not a dict from names to tensors.
    """
    if not isinstance(weights, Mapping) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ValueError("The checkpoint's 'model' is not a dict from names to tensors.")
    renamed = {}
    for name, tensor in weights.items():
        matches = ((ours, theirs) for ours, theirs in _PREFIXES if name.startswith(theirs))
        ours, theirs = next(matches, ("", ""))
        if ours is not None:
            renamed[ours + name.removeprefix(theirs)] = tensor
    return renamed


def published_name(name: str) -> str:
    """The published name of one of our parameters.

    Raises:
        ValueError: the published layout has no place for it.
    """
    for ours, published in _PREFIXES:
        if ours is not None and name.startswith(ours):
            return published + name.removeprefix(ours)
    raise ValueError(
        f"The published layout has no place for {name!r}; it is for models with learned class "
        "prompts (MODEL.PIXELCLIP.CLUSTER_EMBEDDINGS 'prompts')."
    )


def _check_fit(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], saved_config: str
) -> None:
    problems = {
        "missing from the file": [n for n in expected if n not in weights],
        "unknown to the model": [n for n in weights if n not in expected],
        "of another shape (file, model)": [
            f"{n} {tuple(weights[n].shape)}, {tuple(expected[n].shape)}"
            for n in expected
            if n in weights and weights[n].shape != expected[n].shape
        ],
    }
    text = ""
    for problem, names in problems.items():
        if names:
            more = "; ..." if len(names) > 3 else ""
            text += f" {len(names)} parameters {problem}: {'; '.join(names[:3])}{more}."
    if text:
        raise ValueError(
            f"The checkpoint does not fit this model.{text} Check MODEL.CLIP.ARCH, "
            "MODEL.PIXELCLIP.NUM_CLUSTERS and PROMPT_LENGTH"
            + (", or leave --config-file out: it carries its own config." if saved_config else ".")
        )
