"""A CLIP's weights under the names of transformers' ``CLIPModel``, and back under open_clip's.

``CLIPModel`` has separate query, key and value layers, and keeps projections transposed.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

# Beginnings of names, open_clip's and transformers'.
_STARTS = (
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.proj", "visual_projection.weight"),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("token_embedding.", "text_model.embeddings.token_embedding."),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.", "text_model.final_layer_norm."),
    ("text_projection", "text_projection.weight"),
)
# Parts of a block.
_PARTS = (
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.out_proj.", ".self_attn.out_proj."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
_TRANSPOSED = ("visual.proj", "text_projection")
_JOINT = ".attn.in_proj_"
_SEPARATE = (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj.")


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of open_clip's CLIP; what has no place in transformers keeps its name."""
    renamed = {}
    for name, tensor in weights.items():
        new = _replace(name, _STARTS, _PARTS)
        if name in _TRANSPOSED:
            renamed[new] = tensor.T.contiguous()
        elif _JOINT in name:
            for part, third in zip(_SEPARATE, tensor.chunk(3), strict=True):
                renamed[new.replace(_JOINT, part)] = third.clone()
        else:
            renamed[new] = tensor
    return renamed


def is_from_transformers(weights: Mapping[str, Tensor]) -> bool:
    """Whether weights have the names of transformers' CLIP."""
    return "vision_model.embeddings.class_embedding" in weights


def from_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of transformers' CLIP to open_clip's.

    Raises:
        KeyError: a block has a query layer, and no key or value layer.
    """
    starts, parts = (tuple((b, a) for a, b in pairs) for pairs in (_STARTS, _PARTS))
    query, *key_and_value = _SEPARATE
    renamed = {}
    for name, tensor in weights.items():
        new = _replace(name, starts, parts)
        if query in name:
            all_three = [weights[name.replace(query, part)] for part in _SEPARATE]
            renamed[new.replace(query, _JOINT)] = torch.cat(all_three)
        elif not any(part in name for part in (*key_and_value, "position_ids")):
            renamed[new] = tensor.T.contiguous() if new in _TRANSPOSED else tensor
    return renamed


def _replace(
    name: str, starts: tuple[tuple[str, str], ...], parts: tuple[tuple[str, str], ...]
) -> str:
    before, after = next((pair for pair in starts if name.startswith(pair[0])), ("", ""))
    name = after + name.removeprefix(before)
    for before, after in parts:
        name = name.replace(before, after)
    return name
