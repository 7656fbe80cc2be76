"""Masks of an image without annotations: clusters of its DINO features.

Shapes: B images, k masks or clusters, patch grid h x w, N = h * w features of d channels each.
"""

import functools
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.data.loader import random_state_from
from pixelclip.modeling.kmeans import kmeans
from pixelclip.utils.transfer import to_device

logger = logging.getLogger(__name__)

DEFAULT_DINO = "vit_small_patch16_224.dino"
PRETRAINED = "pretrained"

# DINO's and DINOv2's normalization of RGB in 0..255. (What timm notes belongs to the name of a
# model, not to a file of weights.)
_PIXEL_MEAN = (123.675, 116.28, 103.53)
_PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass
class DinoMasks:
    """Makes the masks of training images instead of reading them.

    It is not a module: what holds it does not own DINO's parameters, in checkpoints or elsewhere.

    Args:
        name, weights: see :class:`DinoFeatures`.
        num_masks: clusters of each image.
        size: (height, width) of the masks.
    """

    name: str
    weights: str
    num_masks: int
    size: tuple[int, int]

    @functools.cached_property
    def features(self) -> "DinoFeatures":
        """DINO itself, built at the first use: evaluation does without it."""
        return DinoFeatures(self.name, self.weights)

    def __call__(
        self, batched_inputs: Sequence[Mapping[str, Any]], device: torch.device
    ) -> list[Tensor]:
        """Masks (num_masks, height, width) bool of each image, computed on a device.

        Args:
            batched_inputs: each with ``image`` (3, H, W) RGB in 0..255, and optionally
                ``mask_seed``, the seed of k-means (0).
            device: on which DINO then stays.
        """
        images = [inputs["image"] for inputs in batched_inputs]
        seeds = [inputs.get("mask_seed", 0) for inputs in batched_inputs]
        return cluster_images(self.features.to(device), images, self.num_masks, seeds, self.size)


def build_dino_masks(cfg: CfgNode) -> DinoMasks | None:
    """Build what ``MODEL.PIXELCLIP.DINO`` says; None unless ``MASK_SOURCE`` is "dino"."""
    node = cfg.MODEL.PIXELCLIP
    if node.MASK_SOURCE != "dino":
        return None
    size = tuple(node.MASK_RESOLUTION)
    return DinoMasks(node.DINO.MODEL, node.DINO.WEIGHTS, node.DINO.NUM_MASKS, size)


@torch.no_grad()
def cluster_images(
    dino: "DinoFeatures",
    images: Sequence[Tensor],
    num_masks: int,
    seeds: Sequence[int],
    size: tuple[int, int],
) -> list[Tensor]:
    """Divide each image into the clusters that k-means finds among its DINO features.

    Images of one size go through DINO together. Source: paper section 4.1.

    Args:
        dino: on the device to compute on.
        images: (3, H, W) RGB in 0..255, of any sizes; resized to the nearest multiple of DINO's
            patches.
        num_masks: k.
        seeds: of k-means; equal images with equal seeds get equal masks.
        size: (height, width) of the masks, upsampled by nearest neighbor.

    Returns:
        For each image (k, height, width) bool; each pixel is in one of them, some may be empty.
    """
    resized = [_resize(dino, image) for image in images]
    masks: dict[int, Tensor] = {}
    numbers = torch.arange(num_masks, device=dino.pixel_mean.device)[:, None, None]
    for shape in {image.shape for image in resized}:
        same = [index for index, image in enumerate(resized) if image.shape == shape]
        features = dino(torch.stack([resized[index] for index in same]))  # (n, h, w, d)
        own_seeds = [seeds[index] for index in same]
        labels = kmeans(features.flatten(1, 2), num_masks, own_seeds).assignment  # (n, h*w)
        labels = labels.view(-1, 1, *features.shape[1:3]).float()  # (n, 1, h, w)
        upsampled = F.interpolate(labels, size, mode="nearest")  # (n, 1, height, width)
        masks.update(zip(same, upsampled == numbers, strict=True))  # (n, k, height, width)
    return [masks[index] for index in range(len(images))]


def _resize(dino: "DinoFeatures", image: Tensor) -> Tensor:
    """An image (3, H, W) on DINO's device, resized to whole patches."""
    pixels = to_device(image, dino.pixel_mean.device).float()[None]
    height, width = (
        dino.patch_size * max(1, round(side / dino.patch_size)) for side in image.shape[1:]
    )
    return F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)[0]


class DinoFeatures(nn.Module):
    """The last layer's patch features, after the final norm; nothing in it trains.

    Args:
        name: a timm ViT, with the tag of its weights, such as ``vit_small_patch16_224.dino`` or
            ``vit_small_patch14_dinov2.lvd142m``.
        weights: "pretrained" (the tag's, downloaded once by timm), the path of a weights file
            (timm's or the published one), or "" for random weights, always the same.

    Attributes:
        patch_size: side of a patch in pixels.

    Raises:
        ValueError: an unknown name or another kind of model, or weights that do not fit or are
            neither "pretrained" nor a file.
        RuntimeError: the weights could not be downloaded.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, name: str = DEFAULT_DINO, weights: str = PRETRAINED) -> None:
        super().__init__()
        check_dino(name, weights)
        vit = _build(name, weights).requires_grad_(False).eval()
        self.vit = vit
        self.patch_size: int = vit.patch_embed.patch_size[0]
        # (3, 1, 1) each
        self.register_buffer("pixel_mean", torch.tensor(_PIXEL_MEAN)[:, None, None], False)
        self.register_buffer("pixel_std", torch.tensor(_PIXEL_STD)[:, None, None], False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, H / patch_size, W / patch_size, d) of RGB images in 0..255.

        Args:
            images: (B, 3, H, W), any dtype; H and W multiples of ``patch_size``.
        """
        rows, columns = (side // self.patch_size for side in images.shape[2:])
        # Masks are to be the same with and without 16-bit training.
        with torch.autocast(images.device.type, enabled=False):
            tokens = self.vit.forward_features((images.float() - self.pixel_mean) / self.pixel_std)
        patches = tokens[:, self.vit.num_prefix_tokens :]  # (B, h*w, d)
        return patches.reshape(len(images), rows, columns, -1)  # (B, h, w, d)

    def train(self, mode: bool = True) -> "DinoFeatures":
        """Stay in eval mode: nothing here is random."""
        return super().train(False)


def check_dino(name: str, weights: str) -> None:
    """Refuse a model or weights that do not exist, without building or downloading anything.

    Raises:
        ValueError: timm knows no such model or no such tag of it, or ``weights`` is neither
            "pretrained", nor a file, nor "".
    """
    import timm  # takes a second, which only masks by DINO need

    has_weights = timm.models.is_model_pretrained(name)
    if not timm.is_model(name) or ("." in name and not has_weights):
        raise ValueError(
            f"timm has no model {name!r}. Known are, for example, {DEFAULT_DINO} and "
            "vit_small_patch14_dinov2.lvd142m; timm.list_models('*dino*', pretrained=True) lists "
            "them."
        )
    usable = has_weights if weights == PRETRAINED else not weights or os.path.isfile(weights)
    if not usable:
        raise ValueError(
            f"The DINO weights {weights!r} of {name} are not a file. Expected the path of one, "
            f'"{PRETRAINED}" for a model that timm has weights of, or "" for random weights.'
        )


def _build(name: str, weights: str) -> Any:
    import timm
    from timm.models.vision_transformer import VisionTransformer

    try:
        # Random weights are the same in every process, so that masks are too.
        with random_state_from(0):
            vit = timm.create_model(
                name,
                pretrained=weights == PRETRAINED,
                num_classes=0,
                dynamic_img_size=True,  # the positional embedding follows each image's size
            )
    except TypeError as error:  # other models take no such arguments
        raise ValueError(_not_a_vit(name)) from error
    except Exception as error:  # timm passes on all that its download libraries raise
        raise RuntimeError(
            f"The weights of {name} could not be downloaded ({type(error).__name__}). Without "
            "network, copy them to this machine and give the file's path instead of "
            f'"{PRETRAINED}".'
        ) from error
    if not isinstance(vit, VisionTransformer):
        raise ValueError(_not_a_vit(name))
    if not weights:
        logger.warning("%s has random weights: its features mean nothing", name)
    elif weights != PRETRAINED:
        _load_file(vit, name, weights)
    return vit


def _load_file(vit: Any, name: str, path: str) -> None:
    from timm.models import load_state_dict
    from timm.models.vision_transformer import checkpoint_filter_fn

    try:
        # Renames what the published files name otherwise, and resizes the positional embedding.
        state = checkpoint_filter_fn(load_state_dict(path), vit)
        # timm itself would leave random what the file lacks; a classifier is not needed.
        vit.load_state_dict({k: v for k, v in state.items() if not k.startswith("head.")})
    except Exception as error:  # torch, pickle and safetensors each raise their own kinds
        raise ValueError(
            f"The weights file {path!r} could not be loaded into {name}: {str(error)[:400]}"
        ) from error
    logger.info("Loaded DINO's weights from %s", path)


def _not_a_vit(name: str) -> str:
    return f"{name} is not a plain ViT; expected one of DINO or DINOv2, such as {DEFAULT_DINO}."
