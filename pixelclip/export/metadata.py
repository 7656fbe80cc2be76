"""What whoever runs an exported file has to know, inside the file."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pixelclip.meta_arch import PixelCLIP


def describe_export(
    model: PixelCLIP, kind: str, test_sizes: tuple[int, int], class_names: Sequence[str] = ()
) -> dict[str, Any]:
    """Preprocessing, sizes and classes of an exported model.

    Args:
        model: that is exported.
        kind: "encoder" or "classifier".
        test_sizes: ``INPUT.MIN_SIZE_TEST`` and ``.MAX_SIZE_TEST`` in pixels.
        class_names: of the classifier's scores, in order; none where they are the user's.

    Returns:
        ``resolution`` (height, width), ``pixel_mean`` and ``pixel_std`` are applied inside the
        file; ``channel_order``, ``value_range`` and ``short_side`` / ``long_side`` (in pixels; the
        size of a test image before the file sees it) are left to its user.
    """
    return {
        "kind": kind,
        "channel_order": "RGB",
        "value_range": [0, 255],
        "short_side": test_sizes[0],
        "long_side": test_sizes[1],
        "resolution": list(model.clip_resolution),
        "pixel_mean": model.pixel_mean.flatten().tolist(),
        "pixel_std": model.pixel_std.flatten().tolist(),
        "stride": model.image_encoder.stride,
        "embedding_dim": model.image_encoder.embedding_dim,
        "class_names": list(class_names),
    }


def to_strings(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Each value as JSON, for formats that hold nothing but texts."""
    return {key: json.dumps(value) for key, value in metadata.items()}


def from_strings(texts: Mapping[str, str]) -> dict[str, Any]:
    """What :func:`to_strings` was given."""
    return {key: json.loads(text) for key, text in texts.items()}
