"""Class prompts that begin at clusters of masks, once, and the same in any number of processes."""

import json

import pytest
import torch

from pixelclip.engine import Trainer, prompt_initialization
from pixelclip.engine.prompt_initialization import (
    InitializePrompts,
    collect_mask_features,
    fit_prompts,
)
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.kmeans import best_kmeans
from tests.conftest import make_batch
from tests.reliability import small_training
from tests.reliability.test_processes import run_group

WARM = ("MODEL.PIXELCLIP.PROMPT_INITIALIZATION", "kmeans")
FEW = ("MODEL.PIXELCLIP.PROMPT_INITIALIZATION_MASKS", 40)


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return PixelCLIP(tiny_config).train()


def groups_of_features(model, per_group=30):
    """Unit features (N, d) about K well separated directions, of prompts that exist."""
    torch.manual_seed(1)
    other = torch.randn_like(model.class_prompts.tokens)
    with torch.no_grad():
        saved = model.class_prompts.tokens.clone()
        model.class_prompts.tokens.copy_(other)
        directions = model.class_prompts(model.text_encoder)
        model.class_prompts.tokens.copy_(saved)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return directions.repeat_interleave(per_group, dim=0)


def test_prompts_are_fitted_to_the_clusters(model):
    features = groups_of_features(model)
    before = {n: p.clone() for n, p in model.named_parameters()}
    agreement = fit_prompts(model, features, seed=3)
    assert agreement > 0.9
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"class_prompts.tokens"}
    assert all(p.grad is None for p in model.parameters())


def test_masks_are_clustered_by_their_direction_from_the_mean(model, monkeypatch):
    found = []

    def record(*arguments):
        found.append(best_kmeans(*arguments))
        return found[-1]

    monkeypatch.setattr(prompt_initialization, "best_kmeans", record)
    count = len(model.class_prompts.tokens)
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(24, 24, generator=generator)).Q
    radii = torch.rand(40, generator=generator) * 0.5 + 0.02  # clusters of their own, if plain
    deviations = radii[:, None, None] * directions[None, :count]  # (40, K, 24)
    deviations = deviations - deviations.mean(dim=(0, 1))
    features = torch.nn.functional.normalize((deviations + directions[-1]).flatten(0, 1), dim=-1)
    fit_prompts(model, features, seed=3)
    clusters = found[0].view(40, count)  # (40*K,) -> (40, K)
    largest = [torch.bincount(column).max().item() for column in clusters.T]
    assert min(largest) > 30, "masks of a direction share a cluster"
    assert len(clusters.mode(dim=0).values.unique()) == count


def test_the_same_seed_gives_the_same_prompts(model):
    features = groups_of_features(model)
    start = model.class_prompts.tokens.detach().clone()
    results = []
    for _ in range(2):
        model.class_prompts.tokens.data.copy_(start)
        torch.rand(3)  # the global generator has no influence
        fit_prompts(model, features, seed=3)
        results.append(model.class_prompts.tokens.detach().clone())
    assert torch.equal(*results)


def test_features_are_those_of_the_first_masks(model):
    batches = [make_batch(seed=seed) for seed in range(4)]
    features = collect_mask_features(model, batches, 12)
    expected = [model.encode_masks(batch).features for batch in batches[:2]]
    expected = torch.nn.functional.normalize(torch.cat(expected), dim=-1)
    torch.testing.assert_close(features, expected)
    assert model.teacher.training
    small = torch.zeros(32, 32, dtype=torch.bool)
    small[:2, :5] = True  # 10 of 1024 pixels
    batches[0][0]["masks"][0] = small
    torch.testing.assert_close(collect_mask_features(model, batches, 11), expected[1:])
    with pytest.raises(ValueError, match="no mask to cluster"):
        collect_mask_features(model, [make_batch(masks_per_image=0)] * 1000, 12)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("PROMPT_INITIALIZATION", "means", "PROMPT_INITIALIZATION is 'means'"),
        ("PROMPT_INITIALIZATION_MASKS", 0, "at least one"),
        ("CLUSTER_EMBEDDINGS", "free_vectors", "'free_vectors'"),
        ("ASSIGNMENT", "none", "not 'prompts', 'none'"),
    ],
)
def test_what_cannot_be_initialized_is_refused(tiny_config, key, value, problem):
    tiny_config.merge_from_list(WARM)
    tiny_config.MODEL.PIXELCLIP[key] = value
    with pytest.raises(ValueError, match=problem):
        InitializePrompts(tiny_config)


def test_a_training_starts_from_them_and_a_resumed_one_goes_on(train_config, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "pixelclip.engine.prompt_initialization.fit_prompts",
        lambda model, features, seed: calls.append(len(features)) or 1.0,
    )
    train_config.DATASETS.TEST = ()
    train_config.merge_from_list([*WARM, *FEW])
    for max_iter in (2, 4):
        train_config.SOLVER.MAX_ITER = max_iter
        trainer = Trainer(train_config)
        trainer.resume_or_load(resume=True)
        trainer.train()
    assert len(calls) == 1
    assert calls[0] >= 40
    train_config.merge_from_list([WARM[0], "random"])
    trainer = Trainer(train_config)
    trainer.train()
    assert len(calls) == 1


def prompts_rank(rank, port, folder, processes):
    small_training.speak_to(folder / f"rank_{rank}.txt")
    if processes > 1:
        small_training.join_group(rank, processes, port)
    still = ("SOLVER.MAX_ITER", 1, "SOLVER.BASE_LR", 1e-12, "SOLVER.BASE_LR_END", 1e-12)
    overrides = (*WARM, *FEW, *still)
    cfg = small_training.make_config(folder, folder / f"{processes}", overrides)
    trainer = small_training.train(cfg)
    tokens = trainer.checkpointer.model.state_dict()["class_prompts.tokens"]
    (folder / f"{processes}_{rank}.json").write_text(json.dumps(tokens.tolist()))


def test_two_processes_come_to_the_prompts_of_one(tmp_path):
    small_training.prepare(tmp_path)
    codes = run_group(prompts_rank, tmp_path, 2)
    assert codes == [0, 0], (tmp_path / "rank_0.txt").read_text()
    alone = small_training.CONTEXT.Process(target=prompts_rank, args=(0, 0, tmp_path, 1))
    alone.start()
    alone.join(600)
    results = [
        torch.tensor(json.loads((tmp_path / f"{name}.json").read_text()))
        for name in ("1_0", "2_0", "2_1")
    ]
    assert torch.equal(results[1], results[2])
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-3)
