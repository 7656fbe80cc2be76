import dataclasses
import json

import numpy as np
import pytest

from pixelclip.data.sa1b_writing import FoundMask, write_sa1b_annotation
from pixelclip.mask_generation.generators import GeneratorChoice
from pixelclip.mask_generation.summary import Outcome, read_outcome, summarize
from tests.data.sa1b_files import random_masks


@pytest.mark.parametrize("count", [0, 1, 5])
def test_coverage_is_the_share_of_the_union(tmp_path, count):
    masks = random_masks(1, count, 30, 47).astype(bool) if count else np.zeros((0, 30, 47), bool)
    path = tmp_path / "a.json"
    write_sa1b_annotation(path, "a.jpg", (30, 47), [FoundMask(mask) for mask in masks])
    outcome = read_outcome(path)
    assert outcome.num_masks == count
    assert outcome.coverage == pytest.approx(masks.any(axis=0).mean())


def test_figures_are_over_the_photographs_that_could_be_read():
    outcomes = [
        Outcome(4, 0.5),
        Outcome(1, 1.0, was_finished=True),
        Outcome(problem="x.jpg is empty"),
        Outcome(0, 0.0),
    ]
    summary = summarize(outcomes, GeneratorChoice())
    counts = (summary.photographs, summary.finished_before, summary.without_masks)
    assert counts == (4, 1, 1)
    assert summary.masks_per_photograph == {
        "mean": pytest.approx(5 / 3), "least": 0.0, "median": 1.0, "most": 4.0
    }  # fmt: skip
    assert summary.coverage == pytest.approx(0.5)
    assert "skipped: x.jpg is empty\n4 photographs (1 were finished before), 1 of" in str(summary)
    stored = json.loads(json.dumps(dataclasses.asdict(summary)))
    assert stored["generator"]["name"] == "superpixels"
    assert stored["skipped"] == ["x.jpg is empty"]


def test_nothing_read_gives_zeros():
    summary = summarize([Outcome(problem="broken")], GeneratorChoice())
    assert (summary.coverage, summary.masks_per_photograph["most"]) == (0, 0)
