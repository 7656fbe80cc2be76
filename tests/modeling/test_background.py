import pytest
import torch

from pixelclip.modeling.background import Background

NAMES = ["cat", "background", "dog"]


def test_its_own_name_is_the_only_word_by_default():
    background = Background()
    assert background.names(NAMES, 1) == ["cat", "dog", "background"]
    scores = torch.tensor([0.1, 0.2, 0.3])
    merged = background.merge(scores, 3, 1).tolist()
    assert merged == pytest.approx([0.1, 0.3, 0.2])


def test_the_best_of_several_words_counts():
    background = Background(words=("sky", "wall", "grass"))
    assert background.names(NAMES, 1) == ["cat", "dog", "sky", "wall", "grass"]
    scores = torch.rand(4, 6, 5)
    merged = background.merge(scores, 3, 1)
    assert merged.shape == (4, 6, 3)
    torch.testing.assert_close(merged[..., 1], scores[..., 2:].amax(dim=-1))
    torch.testing.assert_close(merged[..., [0, 2]], scores[..., :2])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_pixel_below_the_threshold_is_background(index):
    background = Background(threshold=0.25)
    names = NAMES[:]
    assert len(background.names(names, index)) == 2
    scores = torch.tensor([[0.2, 0.1], [0.3, 0.26]])  # of two pixels
    labels = background.merge(scores, 3, index).argmax(dim=-1)
    assert labels[0] == index
    assert labels[1] != index


def test_words_and_threshold_together():
    merged = Background(0.25, ("sky",)).merge(torch.tensor([0.1, 0.2, 0.9]), 3, 2)
    assert merged.tolist() == pytest.approx([0.1, 0.2, 0.9])
