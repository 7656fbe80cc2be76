"""CLIP's image encoder without its pooling: one vector of the joint space per patch.

Shapes: B images, H x W pixels, h x w patches, d the width of CLIP's joint embedding space.
"""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.dense_paths import DensePath, get_dense_path, pixelclip
from pixelclip.modeling.transformer_block import run_block

# A function, and its arguments.
Run = Callable[..., Tensor]


class DenseImageEncoder(nn.Module):
    """The image tower of an open_clip model, returning dense features in the joint space.

    The parameters keep open_clip's names, below ``visual``.

    Args:
        visual: ``model.visual`` of an open_clip model: a ViT with a class token, or a ConvNeXt.
        dense_path: name of a path through a ViT's last block, see ``dense_paths.py``; a ConvNeXt
            has "pixelclip" only.
        activation_checkpointing: keep the blocks' inputs only, and compute the blocks again in the
            backward pass.

    Raises:
        ValueError: the tower is of a kind whose dense features are not defined here, or has no
            such path.
    """

    visual: Any

    def __init__(
        self,
        visual: nn.Module,
        dense_path: str = "pixelclip",
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check_supported(visual)
        self.visual = visual
        self.dense_path = get_dense_path(dense_path)
        self.run: Run = _run_checkpointed if activation_checkpointing else _run
        if dense_path != "pixelclip" and not is_vit(visual):
            raise ValueError(
                f"MODEL.CLIP.DENSE_PATH is {dense_path!r}, a path through a ViT's last block; this "
                "image encoder is a ConvNeXt, which has 'pixelclip' only."
            )

    @property
    def stride(self) -> int:
        """Side of a patch in pixels."""
        if is_vit(self.visual):
            return int(self.visual.patch_size[0])
        return int(self.visual.trunk.feature_info[-1]["reduction"])

    def check_resolution(self, resolution: tuple[int, int]) -> None:
        """Refuse an image size (height, width) that patches do not fill.

        Raises:
            ValueError: naming ``MODEL.CLIP.RESOLUTION``.
        """
        if any(side < self.stride or side % self.stride for side in resolution):
            raise ValueError(
                f"MODEL.CLIP.RESOLUTION is {resolution}; both sides must be multiples of the image "
                f"encoder's stride, {self.stride}."
            )

    @property
    def embedding_dim(self) -> int:
        """Width d of the joint embedding space."""
        if is_vit(self.visual):
            return int(self.visual.output_dim)
        return int(self.visual.head.proj.out_features)

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalized images (B, 3, H, W) to features (B, h, w, d), not L2-normalized.

        H and W must be multiples of ``stride``. Source: paper section 3.3.
        """
        if is_vit(self.visual):
            return encode_dense_vit(self.visual, images, self.dense_path, self.run)
        return encode_dense_convnext(self.visual, images, self.run)


def _run(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return function(*arguments)


def _run_checkpointed(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Run without keeping intermediate results, to run again in the backward pass."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False)


def encode_dense_vit(
    visual: Any,
    images: Tensor,
    dense_path: DensePath = pixelclip,
    run: Run = _run,
) -> Tensor:
    """Features (B, h, w, d) of images (B, 3, H, W) by open_clip's ViT, not L2-normalized.

    Every block but the last is unchanged; ``dense_path`` replaces the last, whose attention mixes
    the patches for the class token. ``run`` calls a block's function with its arguments.
    """
    patches = visual.conv1(images)  # (B, width, h, w)
    batch, width, rows, columns = patches.shape
    patches = patches.reshape(batch, width, rows * columns).transpose(1, 2)  # (B, h*w, width)
    class_token = visual.class_embedding.to(patches.dtype).expand(batch, 1, -1)
    tokens = torch.cat([class_token, patches], dim=1)  # (B, 1 + h*w, width)
    # Under autocast, patches have 16 bits; the sum of the blocks' outputs keeps the parameters' 32.
    tokens = tokens + resize_positional_embedding(visual, rows, columns)
    tokens = visual.ln_pre(visual.patch_dropout(tokens))
    for block in visual.transformer.resblocks[:-1]:
        tokens = run(run_block, block, tokens)
    tokens = run(dense_path, visual.transformer.resblocks[-1], tokens, (rows, columns))
    with torch.autocast(images.device.type, enabled=False):
        features = visual.ln_post(tokens[:, 1:].to(visual.proj.dtype)) @ visual.proj
    return features.reshape(batch, rows, columns, -1)  # (B, h, w, d)


def encode_dense_convnext(visual: Any, images: Tensor, run: Run = _run) -> Tensor:
    """Features (B, h, w, d) of images (B, 3, H, W) by open_clip's ConvNeXt, not L2-normalized.

    Its norm and projection are applied at every position. For ``run`` see the ViT's.
    """
    trunk = visual.trunk
    features = trunk.stem(images)
    for stage in trunk.stages:
        features = stage.downsample(features)
        for block in stage.blocks:
            features = run(block, features)
    features = trunk.head.norm(trunk.norm_pre(features))  # (B, width, h, w)
    return visual.head(features.permute(0, 2, 3, 1))  # (B, h, w, d)


def resize_positional_embedding(visual: Any, rows: int, columns: int) -> Tensor:
    """Positional embedding (1 + rows * columns, width), bicubic from the pretraining grid.

    The class token's own embedding is kept as it is.
    """
    embedding = visual.positional_embedding
    if tuple(visual.grid_size) == (rows, columns):
        return embedding
    grid = embedding[1:].reshape(1, *visual.grid_size, -1).permute(0, 3, 1, 2)  # (1, width, g, g)
    grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
    grid = grid.permute(0, 2, 3, 1).reshape(rows * columns, -1)  # (rows * columns, width)
    return torch.cat([embedding[:1], grid])


def is_vit(visual: nn.Module) -> bool:
    """Whether it is open_clip's vision transformer, which is asked for without importing that."""
    return type(visual).__name__ == "VisionTransformer"


def _check_supported(visual: Any) -> None:
    if is_vit(visual):
        weight = getattr(visual.transformer.resblocks[-1].attn, "in_proj_weight", None)
        supported = visual.attn_pool is None and weight is not None
    else:
        trunk: Any = getattr(visual, "trunk", None)
        supported = hasattr(trunk, "stages") and hasattr(trunk.head, "norm")
        supported = supported and hasattr(visual.head, "proj")
    if supported:
        return
    raise ValueError(
        f"No dense features are defined for the image encoder {type(visual).__name__}. Supported "
        "are open_clip's vision transformers with a class token (ViT-B-16-quickgelu, ViT-L-14, ..) "
        "and its ConvNeXts (convnext_base_w_320, ...): choose another MODEL.CLIP.ARCH."
    )


class CLIPBackbone(Backbone):
    """The dense image encoder as a Detectron2 backbone with one feature map, ``"dense"``.

    Args:
        encoder: the dense image encoder.
    """

    def __init__(self, encoder: DenseImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def size_divisibility(self) -> int:
        """Detectron2 pads image sides to a multiple of this many pixels."""
        return self.encoder.stride

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Encode normalized images (B, 3, H, W) to ``{"dense": (B, d, h, w)}``."""
        return {"dense": self.encoder(images).permute(0, 3, 1, 2)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of the feature map."""
        shape = ShapeSpec(channels=self.encoder.embedding_dim, stride=self.encoder.stride)
        return {"dense": shape}


@BACKBONE_REGISTRY.register()
def build_clip_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> CLIPBackbone:
    """Build CLIP's dense image encoder as the backbone of any Detectron2 model.

    Its only feature map is named "dense" (``MODEL.SEM_SEG_HEAD.IN_FEATURES ["dense"]``) and lies in
    CLIP's joint space, not L2-normalized. Channels and stride: 512 and 16 for the ViT-B/16, 640 and
    32 for the ConvNeXt-B, 768 and 14 for the ViT-L/14; ``output_shape()`` tells those of any other.
    Images are of any size: Detectron2 pads them to multiples of the stride. They must be RGB,
    normalized with CLIP's mean and standard deviation; :func:`add_pixelclip_config` sets all three.

    All parameters train. To freeze some or all, call
    ``apply_finetune_policy(model.backbone.encoder, "attention")``, or ``"none"``.

    Args:
        cfg: of it, ``MODEL.CLIP.ARCH``, ``.PRETRAINED``, ``.DENSE_PATH`` and
            ``.ACTIVATION_CHECKPOINTING`` (less memory for a second forward pass) are used.
        input_shape: Detectron2's; 3 channels, or not known.

    Raises:
        ValueError: the images are not of three channels, or as :func:`load_clip` raises.
    """
    if input_shape.channels not in (None, 3):
        raise ValueError(
            f"CLIP's image encoder takes 3 channels, and the model gives {input_shape.channels}; "
            "MODEL.PIXEL_MEAN must have 3 values."
        )
    node = cfg.MODEL.CLIP
    clip = load_clip(node.ARCH, node.PRETRAINED)
    encoder = DenseImageEncoder(clip.visual, node.DENSE_PATH, node.ACTIVATION_CHECKPOINTING)
    return CLIPBackbone(encoder)
