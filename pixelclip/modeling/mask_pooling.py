"""Mean of upsampled dense features inside masks, without upsampling them.

Shapes: B images, N masks of (Mh, Mw), feature grid h x w, d channels.

Bilinear upsampling is linear and separable: upsampled = U_h @ features @ U_w^T for each channel.
The mean of the upsampled map inside a mask is therefore the mean of the small map weighted by
U_h^T @ mask @ U_w, an (h, w) weight map per mask; no (Mh, Mw, d) tensor is needed.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def pool_masks(features: Tensor, masks: Tensor, image_index: Tensor) -> Tensor:
    """Mean feature of each mask, features taken as bilinearly upsampled to the masks' resolution.

    In float32, under autocast too. Source: paper section 3.2.

    Args:
        features: (B, h, w, d) float.
        masks: (N, Mh, Mw) bool, none of them empty.
        image_index: (N,) int64, the image in 0..B-1 that each mask belongs to, ascending.

    Returns:
        (N, d) float32.
    """
    with torch.autocast(features.device.type, enabled=False):
        return _pool(features.float(), masks, image_index)


def _pool(features: Tensor, masks: Tensor, image_index: Tensor) -> Tensor:
    batch, rows, columns, dim = features.shape
    counts = torch.bincount(image_index, minlength=batch).tolist()
    flat_features = features.reshape(batch, rows * columns, dim)  # (B, h*w, d)
    pooled = []
    # Image by image, so that only one image's masks are held as floats at a time.
    for image_masks, image_features in zip(masks.split(counts), flat_features, strict=True):
        weights = pooling_weights(image_masks.float(), (rows, columns))  # (n, h, w)
        area = image_masks.sum(dim=(1, 2))[:, None]  # (n, 1)
        pooled.append(weights.flatten(1) @ image_features / area)  # (n, d)
    return torch.cat(pooled)


def pooling_weights(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Weight of each position of a small map in the sum of the upsampled map inside masks.

    Args:
        masks: (N, Mh, Mw) float, the weight of each pixel in the sum.
        grid: (h, w) of the small map.

    Returns:
        (N, h, w), same dtype.
    """
    up_rows = upsampling_matrix(grid[0], masks.shape[1]).to(masks)  # (Mh, h)
    up_columns = upsampling_matrix(grid[1], masks.shape[2]).to(masks)  # (Mw, w)
    return up_rows.T @ masks @ up_columns


def upsampling_matrix(size: int, target: int) -> Tensor:
    """The (target, size) float32 matrix of bilinear resizing along one axis."""
    unit_signals = torch.eye(size)[None]  # (1, size signals, size)
    return F.interpolate(unit_signals, size=target, mode="linear", align_corners=False)[0].T
