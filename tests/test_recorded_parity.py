"""Stage-by-stage figures of the tiny models with made-up weights, guarded without large files.

The figures in ``recorded_parity.json`` were recorded with this project's code on the day on which
it agreed with the golden numbers of the published implementation (``test_golden_parity.py``), so
that a later change which breaks the parity is seen where those numbers are absent. To record them
anew after a change that is meant: ``python -m tests.test_recorded_parity``.
"""

import json
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelclip import PixelCLIP
from pixelclip.meta_arch import cosine_maps
from pixelclip.modeling.target_merging import merge_masks
from pixelclip.modeling.training_masks import gather_training_masks

from .conftest import TINY_CONVNEXT, TINY_VIT, make_tiny_config, remove_stochastic_depth
from .modeling.test_losses import loss_by_gathering

RECORDED = Path(__file__).with_name("recorded_parity.json")
NAMES = ["sky", "sofa, couch", "traffic light"]


def fill_with_made_up_numbers(model):
    """Weights that depend on names and shapes only; RandomState's numbers never change."""
    for name, tensor in model.state_dict().items():
        numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tensor.shape)
        if name.endswith((".weight", ".gamma")) and tensor.dim() == 1:
            numbers = 1 + 0.1 * numbers
        elif tensor.dim() > 1:
            numbers = numbers / np.sqrt(np.prod(tensor.shape[1:]))
        tensor.copy_(torch.from_numpy(0.5 * numbers))


def made_up_batch():
    generator = np.random.RandomState(0)
    batch = []
    for count in (5, 0, 3):
        images = generator.randint(0, 256, (2, 3, 48, 56)).astype(np.uint8)
        masks = np.zeros((count, 32, 32), bool)
        for mask in masks:
            top, left = generator.randint(0, 20, 2)
            mask[top : top + 12, left : left + 9] = True
        image, strong = torch.from_numpy(images)
        batch.append({"image": image, "image_strong": strong, "masks": torch.from_numpy(masks)})
    return batch


def summarise(tensor):
    """Mean, root mean square and five entries spread over the tensor."""
    flat = tensor.detach().double().flatten()
    picked = flat[torch.linspace(0, len(flat) - 1, 5).long()]
    return [flat.mean().item(), flat.square().mean().sqrt().item(), *picked.tolist()]


def figures_of(config):
    model = PixelCLIP(make_tiny_config(config)).train()
    remove_stochastic_depth(model)
    fill_with_made_up_numbers(model)
    batch = made_up_batch()
    loss = model(batch)["loss_masks"]
    loss.backward()
    gradients = [p.grad for p in model.image_encoder.parameters() if p.requires_grad]
    masks, image_index = gather_training_masks(batch, model.mask_resolution, model.device)
    weak = model.preprocess([x["image"] for x in batch])
    strong = model.preprocess([x["image_strong"] for x in batch])
    clusters = model.class_prompts(model.text_encoder)
    scores = model.score_masks(model.teacher(weak), masks, image_index, clusters)
    assignment = model.assign_masks(scores)
    maps = cosine_maps(model.image_encoder(strong), clusters)
    logits = model.mask_decoder(maps.flatten(0, 1)[:, None])
    logits = logits.unflatten(0, maps.shape[:2]).squeeze(2)  # (B, K, 4h, 4w)
    targets = merge_masks(masks, image_index, assignment, len(batch), len(clusters))
    model.eval().set_vocabulary(NAMES)
    inputs = {"image": batch[0]["image"], "height": 30, "width": 40}
    return {
        "teacher features": summarise(model.teacher(weak)),
        "student features": summarise(model.image_encoder(strong)),
        "cluster embeddings": summarise(clusters),
        "assignment": assignment.tolist(),
        "mask logits": summarise(logits),
        "loss": [loss.item(), loss_by_gathering(logits, targets.float()).item()],
        "prompt gradients": summarise(model.class_prompts.tokens.grad),
        "encoder gradients": summarise(torch.cat([g.flatten() for g in gradients])),
        "text classifier": summarise(model.text_classifier),
        "sem_seg": summarise(model([inputs])[0]["sem_seg"]),
    }


@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_figures_are_the_recorded_ones(request, kind):
    figures = figures_of(request.getfixturevalue(f"tiny_{kind}_json"))
    recorded = json.loads(RECORDED.read_text())[kind]
    assert figures["assignment"] == recorded["assignment"]
    for stage, expected in recorded.items():
        scale = max(abs(x) for x in expected)
        assert figures[stage] == pytest.approx(expected, rel=1e-3, abs=1e-4 * scale), stage


def record():
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, config in (("vit", TINY_VIT), ("convnext", TINY_CONVNEXT)):
            path = Path(folder) / f"{kind}.json"
            path.write_text(json.dumps(config))
            figures[kind] = figures_of(str(path))
    RECORDED.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    record()
