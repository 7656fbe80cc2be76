"""The encoders and the decoder compile as a whole, once for all batches."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from pixelclip import PixelCLIP

from ..conftest import make_batch, remove_stochastic_depth

pytestmark = pytest.mark.slow  # compiling takes ten seconds


def test_whole_graphs_that_do_not_depend_on_the_number_of_masks(tiny_config_of_each):
    torch.manual_seed(0)
    model = PixelCLIP(tiny_config_of_each).train()
    remove_stochastic_depth(model)
    compiled = copy.deepcopy(model)
    torch._dynamo.reset()
    counters = []
    for module in (
        compiled.image_encoder,
        compiled.teacher.image_encoder,
        compiled.class_prompts,  # with the text encoder, which it calls
        compiled.mask_decoder,
    ):
        counters.append(CompileCounterWithBackend("aot_eager"))
        module.compile(backend=counters[-1], fullgraph=True)
    for masks in (3, 7, 0):
        losses = [one(make_batch(2, masks))["loss_masks"] for one in (model, compiled)]
        torch.testing.assert_close(losses[1], losses[0])
        losses[1].backward()
        assert [counter.frame_count for counter in counters] == [1, 1, 1, 1]
