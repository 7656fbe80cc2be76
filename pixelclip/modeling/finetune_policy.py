"""Which parameters of CLIP's image encoder train."""

from pixelclip.modeling.image_encoder import DenseImageEncoder

FINETUNE_POLICIES = ("attention", "full", "none")


def apply_finetune_policy(encoder: DenseImageEncoder, policy: str) -> None:
    """Set ``requires_grad`` of the image encoder's parameters in place.

    ``"attention"``: the attention modules and the positional embedding (the published ViT);
    ``"full"``: everything (the published ConvNeXt); ``"none"``: nothing.

    Raises:
        ValueError: the policy is unknown, or ``"attention"`` is asked of an encoder without any.
    """
    if policy not in FINETUNE_POLICIES:
        raise ValueError(
            f"MODEL.CLIP.FINETUNE is {policy!r}; it must be one of {', '.join(FINETUNE_POLICIES)}."
        )
    trainable = 0
    for name, parameter in encoder.named_parameters():
        trains = policy == "full" or (policy == "attention" and _is_attention(name))
        parameter.requires_grad_(trains)
        trainable += trains
    if policy == "attention" and not trainable:
        raise ValueError(
            "MODEL.CLIP.FINETUNE is 'attention', and this image encoder has no attention modules: "
            "use 'full' for a ConvNeXt."
        )


def _is_attention(name: str) -> bool:
    return ".attn." in name or name.endswith("positional_embedding")
