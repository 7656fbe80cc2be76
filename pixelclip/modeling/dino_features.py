"""Patch features of a frozen DINO or DINOv2 ViT, built by timm."""

import logging
import os

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from pixelclip.data.random_state import random_state_from

logger = logging.getLogger(__name__)

DEFAULT_DINO = "vit_small_patch16_224.dino"
PRETRAINED = "pretrained"


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
        vit = _build(name, weights)
        self.vit = vit.requires_grad_(False).eval()
        self.patch_size: int = vit.patch_embed.patch_size[0]
        # (3, 1, 1) each, for RGB in 0..255
        # DINO's and DINOv2's own; what timm notes belongs to the name, not to a file of weights.
        mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
        self.register_buffer("pixel_mean", 255 * mean[:, None, None], False)
        self.register_buffer("pixel_std", 255 * std[:, None, None], False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, H / patch_size, W / patch_size, d) of RGB images in 0..255.

        Args:
            images: (B, 3, H, W), any dtype; H and W multiples of ``patch_size``.

        Raises:
            ValueError: another size.
        """
        rows, columns = (side // self.patch_size for side in images.shape[2:])
        if tuple(images.shape[2:]) != (rows * self.patch_size, columns * self.patch_size):
            raise ValueError(
                f"DINO got images of {tuple(images.shape[2:])} pixels; expected multiples of its "
                f"patch size, {self.patch_size}."
            )
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
    has_weights = timm.models.is_model_pretrained(name)
    if not timm.is_model(name) or ("." in name and not has_weights):
        raise ValueError(
            f"timm has no model {name!r}. Known are, for example, {DEFAULT_DINO} and "
            "vit_small_patch14_dinov2.lvd142m; timm.list_models('*dino*', pretrained=True) lists "
            "them."
        )
    if weights == PRETRAINED and not has_weights:
        raise ValueError(
            f"timm has no weights of {name}. Choose a name that has some, such as {DEFAULT_DINO}, "
            'or give a weights file, or "" for random weights.'
        )
    if weights not in ("", PRETRAINED) and not os.path.isfile(weights):
        raise ValueError(
            f'The DINO weights {weights!r} are no file. Expected "{PRETRAINED}", the path of a '
            'weights file, or "" for random weights.'
        )


def _build(name: str, weights: str) -> VisionTransformer:
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
        raise ValueError(_no_vit(name)) from error
    except Exception as error:  # timm passes on whatever its download libraries raise
        raise RuntimeError(
            f"The weights of {name} could not be downloaded ({type(error).__name__}). Without "
            "network, copy them to this machine and give the file's path instead of "
            f'"{PRETRAINED}".'
        ) from error
    if not isinstance(vit, VisionTransformer):
        raise ValueError(_no_vit(name))
    if not weights:
        logger.warning("%s has random weights: its features mean nothing", name)
    elif weights != PRETRAINED:
        _load_file(vit, name, weights)
    return vit


def _load_file(vit: VisionTransformer, name: str, path: str) -> None:
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


def _no_vit(name: str) -> str:
    return f"{name} is no plain ViT; expected one of DINO or DINOv2, such as {DEFAULT_DINO}."
