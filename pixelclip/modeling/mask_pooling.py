"""Mean of upsampled dense features inside masks, without upsampling them.

Shapes: B images, N masks of (Mh, Mw), feature grid h x w, d channels.

Bilinear upsampling is linear and separable: upsampled = U_h @ features @ U_w^T for each channel.
The mean of the upsampled map inside a mask is therefore the mean of the small map weighted by
U_h^T @ mask @ U_w, an (h, w) weight map per mask; no (Mh, Mw, d) tensor is needed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelclip.data.masks import split_by_image


def pool_masks(features: Tensor, masks: Tensor, image_index: Tensor) -> Tensor:
    """Mean feature of each mask, features taken as bilinearly upsampled to the masks' resolution.

    In float32, under autocast too. Source: paper section 3.2.

    Args:
        features: (B, h, w, d) float.
        masks: (N, Mh, Mw) bool, none of them empty.
        image_index: (N,) int64, the image in 0..B-1 that each mask belongs to, ascending;
            on the host.

    Returns:
        (N, d) float32.
    """
    with torch.autocast(features.device.type, enabled=False):
        return _pool(features.float(), masks, image_index)


def _pool(features: Tensor, masks: Tensor, image_index: Tensor) -> Tensor:
    batch, rows, columns, dim = features.shape
    up_rows, up_columns = _upsampling_matrices((rows, columns), masks)
    flat_features = features.reshape(batch, rows * columns, dim)  # (B, h*w, d)
    per_image = split_by_image(masks, image_index, batch)
    pooled = []
    # Image by image, so that only one image's masks are held as floats at a time.
    for image_masks, image_features in zip(per_image, flat_features, strict=True):
        pixels = image_masks.float()
        weights = up_rows.T @ pixels @ up_columns  # (n, h, w)
        area = pixels.sum(dim=(1, 2))[:, None]  # (n, 1)
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
    up_rows, up_columns = (m.to(masks.dtype) for m in _upsampling_matrices(grid, masks))
    return up_rows.T @ masks @ up_columns


def _upsampling_matrices(grid: Sequence[int], masks: Tensor) -> list[Tensor]:
    """Matrices (Mh, h) and (Mw, w) float32 that resize a grid to masks (N, Mh, Mw)."""
    sizes = zip(grid, masks.shape[1:], strict=True)
    return [upsampling_matrix(*sides, device=masks.device) for sides in sizes]


def upsampling_matrix(size: int, target: int, device: torch.device | None = None) -> Tensor:
    """The (target, size) float32 matrix of bilinear resizing along one axis."""
    unit_signals = torch.eye(size, device=device)[None]  # (1, size signals, size)
    return F.interpolate(unit_signals, size=target, mode="linear", align_corners=False)[0].T
