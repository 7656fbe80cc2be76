import json

import numpy as np
import pytest
import torch
from open_clip.transformer import PatchDropout
from torch import nn

from pixelclip.modeling.clip_loader import load_clip, load_tokenizer
from pixelclip.toy import pretraining as module
from pixelclip.toy.captioned_images import make_captioned_image
from pixelclip.toy.pretraining import (
    CaptionedImages,
    Pretraining,
    PretrainingSettings,
    draw_captioned_images,
    normalize_pixels,
    pretrain,
)

SETTINGS = PretrainingSettings(num_images=12, steps=4, batch_size=4, warmup_steps=2)


@pytest.fixture(scope="module")
def captioned():
    drawn = [make_captioned_image(SETTINGS.seed, index) for index in range(SETTINGS.num_images)]
    pixels = np.stack([image.pixels for image in drawn])
    return CaptionedImages(pixels, load_tokenizer("toy")([image.caption for image in drawn]))


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_the_same_settings_give_the_same_weights_bit_for_bit(captioned):
    losses, weights = [], []
    for noise in (3, 7):
        pretraining = Pretraining(SETTINGS, captioned)
        torch.rand(noise)  # random numbers drawn elsewhere have no influence
        losses.append([pretraining.run_step() for _ in range(3)])
        weights.append(pretraining.clip.state_dict())
    assert losses[0] == losses[1]
    assert_same_weights(*weights)
    other = Pretraining(PretrainingSettings(**{**vars(SETTINGS), "seed": 2}), captioned)
    assert other.run_step() != losses[0][0]


def test_a_resumed_pretraining_equals_an_uninterrupted_one(captioned):
    whole = Pretraining(SETTINGS, captioned)
    losses = [whole.run_step() for _ in range(4)]
    first = Pretraining(SETTINGS, captioned)
    for _ in range(2):
        first.run_step()
    second = Pretraining(SETTINGS, captioned)
    second.load_state_dict(first.state_dict())
    assert [second.run_step() for _ in range(2)] == losses[2:]
    assert_same_weights(whole.clip.state_dict(), second.clip.state_dict())


def test_all_parameters_of_the_clip_are_trained(captioned):
    pretraining = Pretraining(SETTINGS, captioned)
    before = {name: p.clone() for name, p in pretraining.clip.named_parameters()}
    for _ in range(2):
        pretraining.run_step()
    same = [n for n, p in pretraining.clip.named_parameters() if torch.equal(p, before[n])]
    assert not same


def test_a_checkpoint_of_other_settings_is_refused(captioned):
    state = Pretraining(SETTINGS, captioned).state_dict()
    other = Pretraining(PretrainingSettings(num_images=12, steps=5, batch_size=4), captioned)
    with pytest.raises(ValueError, match=r"'steps': 4.*'steps': 5.*another output folder"):
        other.load_state_dict(state)


def test_all_patches_are_kept_at_the_end(captioned):
    pretraining = Pretraining(SETTINGS, captioned)
    pretraining.run_step()
    assert isinstance(pretraining.clip.visual.patch_dropout, PatchDropout)
    longer = PretrainingSettings(**{**vars(SETTINGS), "steps": 20})
    pretraining = Pretraining(longer, captioned)
    pretraining.losses = [0.0] * 17
    pretraining.run_step()
    assert isinstance(pretraining.clip.visual.patch_dropout, nn.Identity)


def test_batches_follow_from_seed_and_step(captioned):
    images, ids = captioned.batch(1, 0, 5)
    again, _ = captioned.batch(1, 0, 5)
    other, _ = captioned.batch(1, 1, 5)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert images.shape == (5, 3, 48, 48)
    assert ids.shape[0] == 5
    everything = normalize_pixels(captioned.pixels)
    for image, caption in zip(images, ids, strict=True):
        matches = [
            index
            for index, original in enumerate(everything)
            if torch.equal(image, original) or torch.equal(image.flip(-1), original)
        ]
        assert len(matches) == 1
        assert torch.equal(captioned.token_ids[matches[0]], caption)


@pytest.fixture
def drawn_before(captioned, monkeypatch):
    monkeypatch.setattr(module, "draw_captioned_images", lambda *_: captioned)


def test_pretraining_writes_weights_that_load(drawn_before, tmp_path):
    path = pretrain(SETTINGS, tmp_path / "out", 1)
    clip = load_clip("toy", str(path))
    assert clip.visual.proj.dtype == torch.float32
    record = json.loads((tmp_path / "out" / "toy_clip_training.json").read_text())
    assert record["settings"] == vars(SETTINGS)
    state = torch.load(tmp_path / "out" / "checkpoint.pth", weights_only=True)
    assert len(state["losses"]) == 4
    assert record["loss_first_100_steps"] == pytest.approx(np.mean(state["losses"]))
    assert path.stat().st_size < 6e6, "small enough to be in the package"


def test_an_interrupted_pretraining_resumes(drawn_before, tmp_path, monkeypatch):
    whole = pretrain(SETTINGS, tmp_path / "whole", 1, checkpoint_period=2)
    run_step, steps = Pretraining.run_step, []

    def run_step_until_killed(self):
        steps.append(self.step)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return run_step(self)

    monkeypatch.setattr(Pretraining, "run_step", run_step_until_killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(SETTINGS, tmp_path / "interrupted", 1, checkpoint_period=2)
    resumed = pretrain(SETTINGS, tmp_path / "interrupted", 1, checkpoint_period=2)
    assert steps == [0, 1, 2, 3, 2, 3]
    assert resumed.read_bytes() == whole.read_bytes()
    with pytest.raises(ValueError, match="another output folder"):
        pretrain(PretrainingSettings(steps=9), tmp_path / "interrupted", 1)


@pytest.mark.slow
def test_several_processes_draw_the_same_images(captioned):
    drawn = draw_captioned_images(SETTINGS.seed, SETTINGS.num_images, 2)
    assert np.array_equal(drawn.pixels, captioned.pixels)
    assert torch.equal(drawn.token_ids, captioned.token_ids)
