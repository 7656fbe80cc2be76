"""For comparison: masks that are targets of their own, without clusters."""

import torch
from torch import Tensor

from pixelclip.data.masks import split_by_image
from pixelclip.modeling.losses import count_pixels
from pixelclip.modeling.targets import MaskTargets, union_of_masks
from pixelclip.modeling.text_classifier import cosine_maps
from pixelclip.utils.distributed import all_gather_uneven
from pixelclip.utils.transfer import to_device


def match_masks(
    features: Tensor, mask_features: Tensor, masks: Tensor, image_index: Tensor
) -> tuple[Tensor, MaskTargets, Tensor]:
    """Similarity (N, h, w) of dense features (B, h, w, d) to each mask's own feature (N, d).

    Returns:
        The similarity, its targets, and the number of pixels of all processes, scalar int64.
    """
    valid_mask = union_of_masks(masks, image_index, len(features))
    image_of_map = to_device(image_index, masks.device)
    pixel_count = count_pixels(image_of_map, valid_mask)
    gathered = all_gather_uneven(mask_features[:0], pixel_count)  # the count only
    per_image = split_by_image(mask_features, image_index, len(features))
    similarity = [
        cosine_maps(image_features[None], own)[0]  # (n, h, w)
        for image_features, own in zip(features, per_image, strict=True)
    ]
    return torch.cat(similarity), MaskTargets(masks, image_of_map, valid_mask), gathered.total
