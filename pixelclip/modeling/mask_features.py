"""The features that masks are clustered by: pooled from the teacher, or mixed with crops.

Shapes: N masks of (Mh, Mw), B images, feature grid h x w, d the width of the joint space.
"""

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.config import check_choice
from pixelclip.data.masks import split_by_image
from pixelclip.modeling.dense_paths import get_dense_path
from pixelclip.modeling.image_encoder import DenseImageEncoder, is_vit
from pixelclip.modeling.inference_masks import CropScores
from pixelclip.modeling.mask_crops import CropEmbeddings, MaskCrops, build_mask_crops
from pixelclip.modeling.mask_pooling import pool_masks
from pixelclip.modeling.momentum_teacher import MomentumTeacher
from pixelclip.modeling.text_classifier import TextClassifier

logger = logging.getLogger(__name__)

MASK_FEATURES = ("pooled", "pooled_value_path", "pooled_and_crop")
TEST_MASK_FEATURES = ("pooled", "pooled_and_crop")

# Share of the old mean crop that a batch keeps.
_MEAN_MOMENTUM = 0.9

# A container has this share of a mask, so many times its area, and less of the image.
_CONTAINED, _LARGER, _LARGEST = 0.8, 1.1, 0.25


class MaskFeatures(nn.Module):
    """Mask features: pooled alone, or with the centered embedding of each mask's crop.

    Pooled and crop embeddings differ by an offset that is larger than what tells masks apart: the
    mean crop embedding (a moving average over all processes) is taken from each crop's.

    Args:
        crops: embeds crops of masks; None for pooled features alone.
        embedding_dim: d.
        max_crops: most crops of an image; of more masks, random ones get one.
        container_weight: of the feature of the smallest mask that contains a mask, where the mask's
            own weighs 1; 0 leaves masks their own. What a part is of, a part alone may not show.
    """

    mean_crop: Tensor

    def __init__(
        self,
        crops: MaskCrops | None = None,
        embedding_dim: int = 0,
        max_crops: int = 8,
        container_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.crops = crops
        self.max_crops = max_crops
        self.container_weight = container_weight
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
            image_index: (N,) int64, the image of each mask, ascending; on the host.
            images: B normalized weak images (3, H, W), of any sizes; taken for crops only.
        """
        mask_features = pool_masks(features, masks, image_index)
        if self.crops is not None:
            crops = self.crops(list(images), masks, image_index, self.max_crops)
            mask_features = self._mix(mask_features, crops)
        if self.container_weight > 0:
            mask_features = F.normalize(mask_features, dim=-1)
            containers = find_containers(masks, image_index)
            of_containers = mask_features[containers] * (containers >= 0)[:, None]
            mask_features = mask_features + self.container_weight * of_containers
        return mask_features

    def _mix(self, pooled: Tensor, crops: CropEmbeddings) -> Tensor:
        """Features (N, d) of pooled ones and the centered ones of some masks' crops."""
        pooled = F.normalize(pooled, dim=-1)
        embeddings = F.normalize(crops.embeddings, dim=-1)  # (M, d)
        if self.training:
            self._update_mean(embeddings)
        mixed = pooled[crops.mask_index] + embeddings - self.mean_crop
        return pooled.index_copy(0, crops.mask_index, F.normalize(mixed, dim=-1))

    def _update_mean(self, embeddings: Tensor) -> None:
        count = self.mean_crop.new_full((1,), len(embeddings))
        total = torch.cat([embeddings.sum(dim=0), count])
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(total)
        mean = total[:-1] / total[-1].clamp(min=1)
        moved = _MEAN_MOMENTUM * self.mean_crop + (1 - _MEAN_MOMENTUM) * mean
        moved = torch.where(self.mean_crop.any(), moved, mean)  # the first batch
        self.mean_crop.copy_(torch.where(total[-1] > 0, moved, self.mean_crop))


def find_containers(masks: Tensor, image_index: Tensor) -> Tensor:
    """The smallest mask of the same image that contains each mask, -1 for none.

    It has at least 80% of the mask, 1.1 times its area, and less than a quarter of the image, for
    what fills an image has parts of many classes.

    Args:
        masks: (N, Mh, Mw) bool, none of them empty.
        image_index: (N,) int64, ascending; on the host.

    Returns:
        (N,) int64 in -1..N-1.
    """
    none = torch.zeros(0, dtype=torch.int64, device=masks.device)
    containers, start = [none], 0
    for own in split_by_image(masks.flatten(1), image_index, 0):  # (n, Mh*Mw)
        pixels = own.float()
        area = pixels.sum(dim=1)
        with torch.autocast(masks.device.type, enabled=False):  # 16 bits would round numbers
            shared = pixels @ pixels.T  # (n, n)
        larger, limit = area > _LARGER * area[:, None], _LARGEST * own.shape[1]
        contains = (shared >= _CONTAINED * area[:, None]) & larger & (area < limit)
        areas = torch.where(contains, area, torch.inf)  # (n, n): of the containers of each mask
        found = areas.argmin(dim=1) + start if len(own) else none
        containers.append(torch.where(contains.any(dim=1), found, -1))
        start += len(own)
    return torch.cat(containers)


def build_mask_features(
    cfg: CfgNode, image_encoder: DenseImageEncoder, teacher: MomentumTeacher | None
) -> MaskFeatures:
    """Build what ``MODEL.PIXELCLIP.MASK_FEATURES`` says.

    With other features than "pooled", the teacher of a ViT gives MaskCLIP's value path, whatever
    path the student and the test take. A model for inference has no teacher.

    Raises:
        ValueError: an unknown kind, no crop, a negative weight, or the value path of a ConvNeXt,
            which has none.
    """
    node = cfg.MODEL.PIXELCLIP
    kind, max_crops = node.MASK_FEATURES, node.CROPS.MAX_PER_IMAGE
    check_choice("MODEL.PIXELCLIP.MASK_FEATURES", kind, MASK_FEATURES)
    if max_crops < 1:
        raise ValueError(
            f"MODEL.PIXELCLIP.CROPS.MAX_PER_IMAGE is {max_crops}; expected at least 1."
        )
    if not 0 <= node.CONTAINER_WEIGHT < math.inf:
        raise ValueError(
            f"MODEL.PIXELCLIP.CONTAINER_WEIGHT is {node.CONTAINER_WEIGHT}; expected at least 0."
        )
    has_value_path = is_vit(image_encoder.visual)
    if kind == "pooled_value_path" and not has_value_path:
        raise ValueError(
            "MODEL.PIXELCLIP.MASK_FEATURES is 'pooled_value_path', which is a path through a ViT's "
            "last block, and the image encoder is a ConvNeXt: choose 'pooled' or 'pooled_and_crop'."
        )
    if teacher is not None and kind != "pooled" and has_value_path:
        encoder: Any = teacher.image_encoder
        encoder.dense_path = get_dense_path("maskclip")
    crops = build_mask_crops(cfg) if kind == "pooled_and_crop" else None
    return MaskFeatures(crops, image_encoder.embedding_dim, max_crops, node.CONTAINER_WEIGHT)


class CropScorer:
    """Scores the masks of a test image by their crops: all that are large enough.

    The mean crop embedding of a training with crops is taken from each, as in the training.

    Args:
        crops: embeds them.
        mask_features: of the training.
        weight: of a crop's scores, where that of pooled similarity is 1.
    """

    def __init__(self, crops: MaskCrops, mask_features: MaskFeatures, weight: float) -> None:
        self.crops = crops
        self.mask_features = mask_features
        self.weight = weight
        self._has_warned = False

    def __call__(self, image: Tensor, masks: Tensor, classifier: TextClassifier) -> CropScores:
        """Scores of the masks (N, Mh, Mw) bool of a normalized image (3, H, W)."""
        image_index = torch.zeros(len(masks), dtype=torch.int64)
        embeddings, mask_index = self.crops([image], masks, image_index)
        embeddings = F.normalize(embeddings, dim=-1)  # (M, d)
        if self.mask_features.crops is not None:
            self._check_mean()
            embeddings = embeddings - self.mask_features.mean_crop
        return CropScores(classifier.scores(embeddings), mask_index, self.weight)


    def _check_mean(self) -> None:
        if not self._has_warned and not self.mask_features.mean_crop.any():
            self._has_warned = True
            logger.warning(
                "The weights have no mean crop, which a training with crops leaves in "
                "checkpoints and in files for inference: crops are scored as they are."
            )


def build_crop_scorer(cfg: CfgNode, mask_features: MaskFeatures) -> CropScorer | None:
    """Build what ``MODEL.PIXELCLIP.TEST_MASK_FEATURES`` says; None where crops are not scored.

    Raises:
        ValueError: an unknown kind, a weight that is not positive, or crops without the weights of
            the CLIP that sees them.
    """
    node = cfg.MODEL.PIXELCLIP
    check_choice("MODEL.PIXELCLIP.TEST_MASK_FEATURES", node.TEST_MASK_FEATURES, TEST_MASK_FEATURES)
    if not 0 < node.TEST_CROP_WEIGHT < math.inf:
        raise ValueError(
            f"MODEL.PIXELCLIP.TEST_CROP_WEIGHT is {node.TEST_CROP_WEIGHT}; expected a positive "
            "number."
        )
    if node.TEST_MASK_FEATURES == "pooled":
        return None
    if cfg.MODEL.WEIGHTS and not cfg.MODEL.CLIP.PRETRAINED:
        raise ValueError(
            "MODEL.PIXELCLIP.TEST_MASK_FEATURES is 'pooled_and_crop', and MODEL.CLIP.PRETRAINED is "
            "empty: crops are seen by the original CLIP, whose weights are not in MODEL.WEIGHTS. "
            "Name them, or choose 'pooled'."
        )
    crops = mask_features.crops or build_mask_crops(cfg)
    return CropScorer(crops, mask_features, node.TEST_CROP_WEIGHT)
