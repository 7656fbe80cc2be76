"""Stage-by-stage results of tiny models with made-up weights, compared without large files.

The results in ``recorded_parity.json`` were recorded with this project's code while it agreed with
the golden numbers of the published implementation (``test_golden_parity.py``), so that a later
change that breaks the parity is noticed where those numbers are absent. To record them again after
an intended change: ``python -m tests.test_recorded_parity``.
"""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from pixelclip import PixelCLIP
from pixelclip.modeling.mask_pooling import pool_masks
from pixelclip.modeling.targets import merge_masks
from pixelclip.modeling.text_classifier import cosine_maps

from .conftest import make_tiny_config
from .made_up_model import (
    RESOLUTIONS,
    fill_with_made_up_numbers,
    made_up_batch,
    write_clip_config,
)
from .modeling.test_losses import loss_by_gathering

RECORDED = Path(__file__).with_name("recorded_parity.json")
NAMES = ["sky", "sofa, couch", "traffic light"]


def summarize(tensor):
    """Mean, root mean square and five entries spread over the tensor."""
    flat = tensor.detach().double().flatten()
    picked = flat[torch.linspace(0, len(flat) - 1, 5).long()]
    return [flat.mean().item(), flat.square().mean().sqrt().item(), *picked.tolist()]


def results_of(kind, folder):
    config = make_tiny_config(write_clip_config(folder, kind))
    config.MODEL.CLIP.RESOLUTION = RESOLUTIONS[kind]
    model = PixelCLIP(config).train()
    fill_with_made_up_numbers(model)
    batch = made_up_batch((5, 0, 3))
    loss = model(batch)["loss_masks"]
    loss.backward()
    gradients = [p.grad for p in model.image_encoder.parameters() if p.requires_grad]
    masks, image_index = model.training_masks(batch, model.device)
    weak = model.preprocess([x["image"] for x in batch])
    strong = model.preprocess([x["image_strong"] for x in batch])
    clusters = model.class_prompts(model.text_encoder)
    mask_features = pool_masks(model.teacher(weak), masks, image_index)
    scores = model.assignment.logits(mask_features, clusters)
    assignment = model.assignment.probabilities(scores).argmax(dim=1)
    maps = cosine_maps(model.image_encoder(strong), clusters)
    logits = model.mask_decoder(maps.flatten(0, 1)[:, None])
    logits = logits.unflatten(0, maps.shape[:2]).squeeze(2)  # (B, K, 4h, 4w)
    targets = merge_masks(masks, image_index, assignment, len(batch), len(clusters))
    model.eval().set_vocabulary(NAMES)
    inputs = {"image": batch[0]["image"], "height": 30, "width": 40}
    return {
        "teacher features": summarize(model.teacher(weak)),
        "student features": summarize(model.image_encoder(strong)),
        "cluster embeddings": summarize(clusters),
        "mask scores": summarize(scores),
        "assignment": assignment.tolist(),
        "mask logits": summarize(logits),
        "loss": [loss.item(), loss_by_gathering(logits, targets.float()).item()],
        "prompt gradients": summarize(model.class_prompts.tokens.grad),
        "encoder gradients": summarize(torch.cat([g.flatten() for g in gradients])),
        "text classifier": summarize(model.text_classifier.features),
        "sem_seg": summarize(model([inputs])[0]["sem_seg"]),
    }


@pytest.mark.parametrize("kind", RESOLUTIONS)
def test_results_are_the_recorded_ones(kind, tmp_path):
    results = results_of(kind, tmp_path)
    recorded = json.loads(RECORDED.read_text())[kind]
    assert results["assignment"] == recorded["assignment"]
    for stage, expected in recorded.items():
        scale = max(abs(x) for x in expected)
        assert results[stage] == pytest.approx(expected, rel=1e-3, abs=1e-4 * scale), stage


def record():
    with tempfile.TemporaryDirectory() as folder:
        results = {kind: results_of(kind, Path(folder)) for kind in RESOLUTIONS}
    RECORDED.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    record()
