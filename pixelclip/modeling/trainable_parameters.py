"""Which parameters of CLIP's image encoder train.

The class prompts and the mask decoder always train; the text encoder and the teacher never do.
"""

from pixelclip.config import FINETUNE_POLICIES, check_choice
from pixelclip.modeling.image_encoder import DenseImageEncoder


def apply_finetune_policy(encoder: DenseImageEncoder, policy: str) -> None:
    """Set ``requires_grad`` of the image encoder's parameters in place.

    ``"attention"``: the attention modules and the positional embedding (the published ViT);
    ``"full"``: everything (the published ConvNeXt); ``"none"``: nothing.

    Raises:
        ValueError: the policy is unknown, or ``"attention"`` is asked of an encoder without any.
    """
    check_choice("MODEL.CLIP.FINETUNE", policy, FINETUNE_POLICIES)
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
