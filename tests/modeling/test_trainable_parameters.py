import pytest

from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.image_encoder import DenseImageEncoder
from pixelclip.modeling.trainable_parameters import apply_finetune_policy


def trainable(encoder):
    return {name for name, p in encoder.named_parameters() if p.requires_grad}


def test_attention_trains_attention_and_positions_only(tiny_vit_json):
    encoder = DenseImageEncoder(load_clip(tiny_vit_json, "").visual)
    apply_finetune_policy(encoder, "attention")
    names = trainable(encoder)
    assert "visual.positional_embedding" in names
    assert len(names) == 1 + 3 * 4  # in and out projection with biases in three blocks
    assert all("attn" in n or "positional" in n for n in names)


def test_full_and_none(tiny_convnext_json):
    encoder = DenseImageEncoder(load_clip(tiny_convnext_json, "").visual)
    apply_finetune_policy(encoder, "full")
    assert len(trainable(encoder)) == len(list(encoder.parameters()))
    apply_finetune_policy(encoder, "none")
    assert not trainable(encoder)


def test_bad_policies_are_refused(tiny_convnext_json):
    encoder = DenseImageEncoder(load_clip(tiny_convnext_json, "").visual)
    with pytest.raises(ValueError, match="'atention'.*attention, full, none"):
        apply_finetune_policy(encoder, "atention")
    with pytest.raises(ValueError, match="use 'full'"):
        apply_finetune_policy(encoder, "attention")
