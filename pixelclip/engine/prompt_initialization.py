"""A warm start of the class prompts: fitted to clusters of the first masks' features.

Shapes: N masks, K clusters, d the width of the joint space.
"""

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from pixelclip.config import check_choice
from pixelclip.meta_arch import PixelCLIP
from pixelclip.modeling.kmeans import best_kmeans
from pixelclip.utils.distributed import all_gather_uneven

logger = logging.getLogger(__name__)

PROMPT_INITIALIZATIONS = ("random", "kmeans")

# Smaller masks, as fractions of the image, show too little to say which clusters there are.
_MIN_AREA = 0.01
# The clusters are the tightest of ten clusterings.
_STARTS = 10
# The fit: 100 steps of Adam on the cross entropy of scaled cosines.
_STEPS, _MASKS_PER_STEP, _RATE, _SCALE = 100, 1024, 0.02, 100.0
# Without masks in so many batches, there is nothing to cluster.
_MOST_BATCHES = 1000


class InitializePrompts(HookBase):
    """Fit the prompts before the first iteration, where ``PROMPT_INITIALIZATION`` is "kmeans".

    A resumed training has them in its checkpoint. All processes come to the same prompts, whatever
    their number.

    Args:
        cfg: of the training.

    Raises:
        ValueError: an unknown initialization, or one of what is not prompts.
    """

    def __init__(self, cfg: CfgNode) -> None:
        node = cfg.MODEL.PIXELCLIP
        check_choice(
            "MODEL.PIXELCLIP.PROMPT_INITIALIZATION",
            node.PROMPT_INITIALIZATION,
            PROMPT_INITIALIZATIONS,
        )
        self._is_asked = node.PROMPT_INITIALIZATION == "kmeans"
        if self._is_asked and (
            node.CLUSTER_EMBEDDINGS != "prompts"
            or node.ASSIGNMENT == "none"
            or node.PROMPT_INITIALIZATION_MASKS < 1
        ):
            raise ValueError(
                "MODEL.PIXELCLIP.PROMPT_INITIALIZATION is 'kmeans'; it needs CLUSTER_EMBEDDINGS "
                "'prompts', an ASSIGNMENT to clusters and at least one of "
                f"PROMPT_INITIALIZATION_MASKS, not {node.CLUSTER_EMBEDDINGS!r}, "
                f"{node.ASSIGNMENT!r} and {node.PROMPT_INITIALIZATION_MASKS}."
            )
        self._num_masks = node.PROMPT_INITIALIZATION_MASKS
        self._cfg = cfg

    def before_train(self) -> None:
        """Cluster and fit, unless the training is resumed."""
        if not self._is_asked or self.trainer.start_iter > 0:
            return
        model = self.trainer.model
        model = model.module if isinstance(model, DistributedDataParallel) else model
        # Its own loader: the training's begins with its first batch.
        loader = self.trainer.build_train_loader(self._cfg, self.trainer.seed)
        amp = self._cfg.SOLVER.AMP
        precision = getattr(torch, amp.PRECISION)
        with torch.autocast(model.device.type, dtype=precision, enabled=amp.ENABLED):
            features = collect_mask_features(model, loader, self._num_masks)
        agreement = fit_prompts(model, features, self.trainer.seed)
        logger.info(
            "The class prompts were fitted to %d clusters of %d masks; %.0f%% of the masks are "
            "nearest to their cluster's prompt.",
            len(model.class_prompts.tokens), len(features), 100 * agreement,
        )  # fmt: skip


@torch.no_grad()
def collect_mask_features(
    model: PixelCLIP, batches: Iterable[list[dict[str, Any]]], num_masks: int
) -> Tensor:
    """Unit features (N, d) float32 of the first masks of all processes, at least ``num_masks``.

    Masks of less than 1% of the image are left out.

    Raises:
        ValueError: a thousand batches have not even one mask.
    """
    model.teacher.eval()  # without stochastic depth
    collected: list[Tensor] = []
    is_quiet = not comm.is_main_process()
    with tqdm(total=num_masks, desc="masks for prompts", unit="mask", disable=is_quiet) as progress:
        for batch in itertools.islice(batches, _MOST_BATCHES):
            encoded = model.encode_masks(batch)
            pixels = encoded.masks.sum(dim=(1, 2))  # (n,)
            own = encoded.features[pixels >= _MIN_AREA * encoded.masks[:1].numel()]
            count = torch.zeros((), dtype=torch.int64, device=own.device)  # not used
            rows = all_gather_uneven(own, count).rows
            collected.append(F.normalize(rows.float(), dim=-1))
            progress.update(len(rows))
            if sum(map(len, collected)) >= num_masks:
                break
    model.teacher.train(model.training)
    features = torch.cat(collected)
    if not len(features):
        raise ValueError(f"{_MOST_BATCHES} batches of training images have no mask to cluster.")
    return features


def fit_prompts(model: PixelCLIP, features: Tensor, seed: int) -> float:
    """Fit the class prompts to a k-means clustering of unit features (N, d), centered for it.

    Returns:
        The share of the features that are nearest to their own cluster's prompt.
    """
    prompts: Any = model.class_prompts
    # How far a mask is from the mean of all says little; in which direction, what it shows.
    centered = F.normalize(features - features.mean(dim=0), dim=-1)
    seeds = [(seed + start) % 2**31 for start in range(_STARTS)]
    clusters = best_kmeans(centered, len(prompts.tokens), seeds)  # (N,)
    optimizer = torch.optim.Adam([prompts.tokens], lr=_RATE)
    generator = torch.Generator().manual_seed(seed % 2**31)
    is_quiet = not comm.is_main_process()
    for _ in tqdm(range(_STEPS), "fitting prompts", unit="step", disable=is_quiet):
        chosen = torch.randperm(len(features), generator=generator)[:_MASKS_PER_STEP]
        chosen = chosen.to(features.device)
        loss = F.cross_entropy(_logits(model, features[chosen]), clusters[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prompts.tokens.grad = None
    if comm.get_world_size() > 1:  # they agree but for rounding
        torch.distributed.broadcast(prompts.tokens.data, 0)
    with torch.no_grad():
        return float((_logits(model, features).argmax(dim=1) == clusters).float().mean())


def _logits(model: PixelCLIP, features: Tensor) -> Tensor:
    """Scaled cosines (n, K) of unit features and prompts."""
    embeddings = F.normalize(model.class_prompts(model.text_encoder).float(), dim=-1)  # (K, d)
    return _SCALE * features @ embeddings.T
