"""The features that masks are clustered by: pooled from the teacher, or mixed with crops.

Shapes: N masks of (Mh, Mw), B images, feature grid h x w, d the width of the joint space.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.config import check_choice
from pixelclip.modeling.dense_paths import get_dense_path
from pixelclip.modeling.image_encoder import DenseImageEncoder, is_vit
from pixelclip.modeling.mask_crops import MaskCrops, build_mask_crops
from pixelclip.modeling.mask_pooling import pool_masks
from pixelclip.modeling.momentum_teacher import MomentumTeacher

MASK_FEATURES = ("pooled", "pooled_value_path", "pooled_and_crop")

# Share of the old mean crop that a batch keeps.
_MEAN_MOMENTUM = 0.9


class MaskFeatures(nn.Module):
    """Mask features: pooled alone, or with the centered embedding of each mask's crop.

    Pooled and crop embeddings differ by an offset that is larger than what tells masks apart: the
    mean crop embedding (a moving average over all processes) is taken from each crop's.

    Args:
        crops: embeds crops of masks; None for pooled features alone.
        embedding_dim: d.
    """

    mean_crop: Tensor

    def __init__(self, crops: MaskCrops | None = None, embedding_dim: int = 0) -> None:
        super().__init__()
        self.crops = crops
        if crops is not None:
            self.register_buffer("mean_crop", torch.zeros(embedding_dim))

    @torch.no_grad()
    def forward(
        self, features: Tensor, masks: Tensor, image_index: Tensor, images: Iterable[Tensor]
    ) -> Tensor:
        """Features (N, d) float32 of a batch's masks.

        Args:
            features: (B, h, w, d), the teacher's.
            masks: (N, Mh, Mw) bool, none of them empty.
            image_index: (N,) int64, the image of each mask, ascending.
            images: B normalized weak images (3, H, W), of any sizes; taken for crops only.
        """
        pooled = pool_masks(features, masks, image_index)
        if self.crops is None:
            return pooled
        pooled = F.normalize(pooled, dim=-1)
        embeddings, mask_index = self.crops(list(images), masks, image_index)
        embeddings = F.normalize(embeddings, dim=-1)  # (M, d)
        self._update_mean(embeddings)
        mixed = pooled[mask_index] + embeddings - self.mean_crop
        return pooled.index_copy(0, mask_index, F.normalize(mixed, dim=-1))

    def _update_mean(self, embeddings: Tensor) -> None:
        total = torch.cat([embeddings.sum(dim=0), self.mean_crop.new_tensor([len(embeddings)])])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(total)
        mean = total[:-1] / total[-1].clamp(min=1)
        moved = _MEAN_MOMENTUM * self.mean_crop + (1 - _MEAN_MOMENTUM) * mean
        moved = torch.where(self.mean_crop.any(), moved, mean)  # the first batch
        self.mean_crop.copy_(torch.where(total[-1] > 0, moved, self.mean_crop))


def build_mask_features(
    cfg: CfgNode, image_encoder: DenseImageEncoder, teacher: MomentumTeacher
) -> MaskFeatures:
    """Build what ``MODEL.PIXELCLIP.MASK_FEATURES`` says.

    With other features than "pooled", the teacher of a ViT gives MaskCLIP's value path, whatever
    path the student and the test take.

    Raises:
        ValueError: an unknown kind, or the value path of a ConvNeXt, which has none.
    """
    kind = cfg.MODEL.PIXELCLIP.MASK_FEATURES
    check_choice("MODEL.PIXELCLIP.MASK_FEATURES", kind, MASK_FEATURES)
    has_value_path = is_vit(image_encoder.visual)
    if kind == "pooled_value_path" and not has_value_path:
        raise ValueError(
            "MODEL.PIXELCLIP.MASK_FEATURES is 'pooled_value_path', which is a path through a ViT's "
            "last block, and the image encoder is a ConvNeXt: choose 'pooled' or 'pooled_and_crop'."
        )
    if kind != "pooled" and has_value_path:
        encoder: Any = teacher.image_encoder
        encoder.dense_path = get_dense_path("maskclip")
    crops = build_mask_crops(cfg) if kind == "pooled_and_crop" else None
    return MaskFeatures(crops, image_encoder.embedding_dim)
