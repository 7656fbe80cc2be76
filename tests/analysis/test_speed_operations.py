import pytest
import torch
from torch.nn import functional as F

from pixelclip.analysis.speed_operations import count_operations, measure_peak
from pixelclip.modeling.clip_loader import load_clip
from pixelclip.modeling.image_encoder import DenseImageEncoder


def test_a_product_and_its_gradients_are_counted():
    left, right = torch.randn(5, 7, requires_grad=True), torch.randn(7, 11, requires_grad=True)
    assert count_operations(lambda: left @ right) == 2 * 5 * 7 * 11
    assert count_operations(lambda: (left @ right).sum().backward()) == 3 * 2 * 5 * 7 * 11


def test_attention_is_counted_forward_and_backward():
    q, k, v = (torch.randn(1, 2, 8, 4, requires_grad=True) for _ in range(3))
    products = 2 * (2 * 8 * 8 * 4)  # two of them, of two heads
    forward = count_operations(lambda: F.scaled_dot_product_attention(q, k, v))
    assert forward == 2 * products
    both = count_operations(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    assert both >= 3 * forward


@pytest.mark.parametrize("grad", [True, False])
def test_an_encoder_is_counted_as_by_hand(tiny_vit_json, grad):
    encoder = DenseImageEncoder(load_clip(tiny_vit_json, "").visual).eval()
    tokens, width, layers, out = 17, 32, 3, 24
    whole = 4 * width * width * tokens + 2 * tokens * tokens * width + 8 * width * width * tokens
    last = 2 * width * width * tokens + 8 * width * width * tokens  # only values and output
    expected = 2 * (3 * 16 * 16 * width * 16 + (layers - 1) * whole + last + 16 * width * out)
    with torch.set_grad_enabled(grad):
        counted = count_operations(lambda: encoder(torch.randn(1, 3, 64, 64)))
    assert counted == pytest.approx(expected, rel=0.1)


def test_the_fast_path_is_as_before_afterwards():
    with pytest.raises(ZeroDivisionError):
        count_operations(lambda: 1 / 0)
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_peak_is_a_rate(monkeypatch):
    monkeypatch.setitem(measure_peak.__globals__["_SIDE"], "cpu", 64)
    assert 1e5 < measure_peak(torch.device("cpu"), torch.float32) < 1e14
