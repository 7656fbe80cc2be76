import pytest
import torch

from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def clip(tiny_vit_json):
    torch.manual_seed(2)
    return load_clip(tiny_vit_json, "")


def test_equals_open_clip_for_texts_of_all_lengths(clip):
    encoder = TextEncoder(clip)
    texts = ["a", "a photo of a dog", "word " * 75, ""]
    ids = encoder.tokenize(texts)
    torch.testing.assert_close(encoder(ids), clip.encode_text(ids), atol=1e-5, rtol=1e-4)


def test_does_not_train_but_lets_gradients_through(clip):
    encoder = TextEncoder(clip)
    assert not any(p.requires_grad for p in encoder.parameters())
    ids = encoder.tokenize(["a red house", "sky"])
    embeddings = encoder.embed_tokens(ids).requires_grad_()
    encoder.encode_embeddings(embeddings, ids.argmax(dim=1)).sum().backward()
    # The end token of "sky" stands at position 2: nothing behind it matters.
    assert embeddings.grad[1, :3].abs().sum() > 0
    assert embeddings.grad[1, 3:].abs().sum() == 0


def test_text_longer_than_the_context_is_refused(clip):
    with pytest.raises(ValueError, match="context of 75 tokens"):
        TextEncoder(clip).tokenize(["short", "word " * 76])


def test_continuations_of_a_prefix_equal_the_whole_texts(clip):
    encoder = TextEncoder(clip)
    ids = encoder.tokenize(["a photo of a red car", "a photo of a blue sky"])
    end = int(ids[0].argmax())
    embeddings = encoder.embed_tokens(ids[:, : end + 1]).requires_grad_()
    whole = encoder.encode_embeddings(embeddings, ids.argmax(dim=1))
    shared = encoder.encode_continuations(embeddings[0, :5].detach(), embeddings[:, 5:])
    torch.testing.assert_close(shared, whole, atol=1e-6, rtol=1e-5)
    gradients = [torch.autograd.grad(x.square().sum(), embeddings)[0] for x in (shared, whole)]
    torch.testing.assert_close(gradients[0][:, 5:], gradients[1][:, 5:], atol=1e-5, rtol=1e-4)


def test_text_towers_of_another_kind_are_refused(clip, monkeypatch):
    monkeypatch.setattr(clip, "attn_mask", None)
    with pytest.raises(ValueError, match="not causal.*ViT-B-16-quickgelu"):
        TextEncoder(clip)
