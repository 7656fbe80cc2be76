"""The training loss.

Shapes: B images, n similarity maps of h x w, mask resolution (Mh, Mw).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.modeling.chunked_sum import chunked_sum
from pixelclip.modeling.targets import MaskTargets

# Number of maps that are decoded at a time, at most: on a CPU their features stay in its cache, on
# a GPU they are as many as keep it busy, in about 2 GB.
_MAPS_AT_A_TIME = {"cpu": 8, "cuda": 256}


def decoded_mask_loss(
    decoder: nn.Module, similarity: Tensor, targets: MaskTargets, total_pixels: Tensor
) -> Tensor:
    """Binary cross entropy of decoded similarity maps, averaged over the pixels that count.

    The gradient is computed along with the loss, some maps at a time. Source: paper section 3.3.

    Args:
        decoder: makes mask logits (n, 1, h', w') of maps (n, 1, h, w), of each map by itself.
        similarity: (n, h, w).
        targets: of the n maps.
        total_pixels: positive scalar, :func:`count_pixels` of the targets, or that of all
            processes' targets divided by their number, because DistributedDataParallel averages.

    Returns:
        Scalar float32.
    """

    def decoded_sum(maps: Tensor, indices: slice) -> Tensor:
        covered = targets.covered[targets.image_index[indices]]  # (chunk, Mh, Mw)
        return summed_cross_entropy(decoder(maps), targets.masks[indices], covered)

    total = chunked_sum(
        decoded_sum,
        similarity[:, None],  # (n, 1, h, w)
        list(decoder.parameters()),
        _MAPS_AT_A_TIME.get(similarity.device.type, _MAPS_AT_A_TIME["cuda"]),
    )
    return total / total_pixels


def count_pixels(image_index: Tensor, covered: Tensor) -> Tensor:
    """Number, scalar int64, of the pixels over which the loss is a mean.

    Args:
        image_index: (n,) int64, image of each map.
        covered: (B, Mh, Mw) bool, which pixels of each image count, in each of its maps.
    """
    return covered.flatten(1).sum(dim=1)[image_index].sum()


def summed_cross_entropy(logits: Tensor, targets: Tensor, covered: Tensor) -> Tensor:
    """Binary cross entropy, summed over the covered pixels, scalar float32.

    Args:
        logits: (n, 1, h, w) float, resized bilinearly to the targets' resolution.
        targets: (n, Mh, Mw) bool.
        covered: (n, Mh, Mw) bool.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = resize_logits(logits.float(), targets.shape[-2:])
        # -log(sigmoid(x)) = softplus(-x), and -log(1 - sigmoid(x)) = softplus(x); softplus(-inf)
        # is 0, and so is its gradient.
        signed = torch.where(targets, -logits, logits).masked_fill(~covered, -torch.inf)
        return F.softplus(signed).sum()


def resize_logits(logits: Tensor, size: torch.Size) -> Tensor:
    """Resize (n, 1, h, w) bilinearly to (n, height, width)."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0]
