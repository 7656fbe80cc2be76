"""Features of recent masks, with which a small batch's masks share the clusters."""

from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from pixelclip.modeling.sinkhorn import MaskAssignment
from pixelclip.utils.distributed import all_gather_uneven


class MaskQueue(nn.Module):
    """The latest mask features of all processes, the newest first.

    Sinkhorn balances clusters over all masks that it sees. With a queue it sees as many as a large
    batch has, whatever the batch: the queue's masks take their share of the clusters again, and
    only the batch's own assignment is used.

    Args:
        size: number of features, at least 1.
        embedding_dim: d.
    """

    features: Tensor
    length: Tensor

    def __init__(self, size: int, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(size, embedding_dim))
        self.register_buffer("length", torch.zeros((), dtype=torch.int64))
        self._known_length: int | None = 0
        self.register_load_state_dict_post_hook(_forget_length)

    @property
    def stored(self) -> Tensor:
        """The features (n, d) that are in the queue."""
        if self._known_length is None:
            self._known_length = int(self.length)  # the host waits for a GPU
        return self.features[: self._known_length]

    @torch.no_grad()
    def push(self, features: Tensor) -> None:
        """Add features (N, d); the oldest ones leave a full queue."""
        size = len(self.features)
        kept = torch.cat([features.to(self.features), self.stored])[:size]
        self.features[: len(kept)] = kept
        self.length.fill_(len(kept))
        self._known_length = len(kept)


def _forget_length(queue: MaskQueue, _incompatible_keys: Any) -> None:
    queue._known_length = None


@torch.no_grad()
def share_clusters(
    assignment: MaskAssignment,
    queue: MaskQueue | None,
    logits: Tensor,
    features: Tensor,
    cluster_embeddings: Tensor,
) -> Tensor:
    """Soft assignment (n, K) of the masks of all processes, together with those of a queue.

    Every process must call it; the masks are in the queue then.

    Args:
        assignment: says how masks get their clusters.
        queue: of earlier masks; None for none.
        logits: (n, K), of the masks of all processes.
        features: (N, d), of this process's own masks.
        cluster_embeddings: (K, d).
    """
    if queue is None:
        return assignment.probabilities(logits)
    earlier = assignment.logits(queue.stored, cluster_embeddings)
    queue.push(all_gather_uneven(features, queue.length).rows)
    return assignment.probabilities(torch.cat([logits, earlier]))[: len(logits)]


def build_mask_queue(cfg: CfgNode, embedding_dim: int) -> MaskQueue | None:
    """Build what ``MODEL.PIXELCLIP.QUEUE_SIZE`` says; None for 0.

    Raises:
        ValueError: a negative size, or one where nothing balances the clusters.
    """
    node = cfg.MODEL.PIXELCLIP
    if node.QUEUE_SIZE < 0 or (node.QUEUE_SIZE and node.ASSIGNMENT != "sinkhorn"):
        raise ValueError(
            f"MODEL.PIXELCLIP.QUEUE_SIZE is {node.QUEUE_SIZE}; expected at least 0, and 0 unless "
            f"MODEL.PIXELCLIP.ASSIGNMENT, {node.ASSIGNMENT!r}, is 'sinkhorn'."
        )
    return MaskQueue(node.QUEUE_SIZE, embedding_dim) if node.QUEUE_SIZE else None
