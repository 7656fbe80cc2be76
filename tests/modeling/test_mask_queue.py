"""Earlier masks share the clusters with a batch's."""

import pytest
import torch

from pixelclip import PixelCLIP
from pixelclip.modeling.mask_queue import MaskQueue, share_clusters
from pixelclip.modeling.sinkhorn import MaskAssignment, sinkhorn


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_newest_are_kept_first():
    queue, rows = MaskQueue(5, 3), random(8, 3)
    assert queue.stored.shape == (0, 3)
    queue.push(rows[:3])
    assert torch.equal(queue.stored, rows[:3])
    queue.push(rows[3:6])
    assert torch.equal(queue.stored, torch.cat([rows[3:6], rows[:2]]))
    queue.push(rows[:0])
    assert len(queue.stored) == 5
    queue.push(rows)
    assert torch.equal(queue.stored, rows[:5])


def test_clusters_are_shared_with_the_queue_and_without_it_as_published():
    assignment, clusters = MaskAssignment("sinkhorn", 10.0), random(4, 6, seed=1)
    masks, earlier = random(5, 6, seed=2), random(20, 6, seed=3)
    logits = assignment.logits(masks, clusters)
    assert torch.equal(share_clusters(assignment, None, logits, masks, clusters), sinkhorn(logits))
    queue = MaskQueue(20, 6)
    queue.push(earlier)
    found = share_clusters(assignment, queue, logits, masks, clusters)
    both = torch.cat([logits, assignment.logits(earlier, clusters)])
    assert torch.equal(found, sinkhorn(both)[:5])
    assert torch.equal(queue.stored[:5], masks)


def test_masks_of_one_kind_in_a_batch_need_not_be_spread_over_all_clusters():
    """Half the masks are of each of two kinds; a batch has one kind only."""
    clusters = torch.eye(2, 6)
    kinds = clusters.repeat_interleave(16, dim=0) + 0.05 * random(32, 6)
    assignment = MaskAssignment("sinkhorn", 10.0, 20)
    batch = kinds[:8]
    logits = assignment.logits(batch, clusters)
    alone = share_clusters(assignment, None, logits, batch, clusters)
    queue = MaskQueue(24, 6)
    queue.push(kinds[8:])
    together = share_clusters(assignment, queue, logits, batch, clusters)
    assert alone.argmax(dim=1).sum() > 0, "Sinkhorn shares a batch of one kind evenly"
    assert together.argmax(dim=1).tolist() == [0] * 8


@pytest.mark.parametrize(("size", "assignment"), [(-1, "sinkhorn"), (10, "argmax"), (10, "none")])
def test_sizes_that_make_no_sense_are_refused(tiny_config, size, assignment):
    node = tiny_config.MODEL.PIXELCLIP
    node.QUEUE_SIZE, node.ASSIGNMENT = size, assignment
    with pytest.raises(ValueError, match="QUEUE_SIZE"):
        PixelCLIP(tiny_config)
