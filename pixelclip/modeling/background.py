"""The background class of a vocabulary: everything that none of the other names is.

Shapes: C classes, R >= 1 background words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# No cosine is below it, so that a background of this score never wins.
NO_THRESHOLD = -1.0


@dataclass(frozen=True)
class Background:
    """What a pixel must be to count as background.

    Args:
        threshold: a pixel whose best similarity (a cosine) is below it is background; -1 for none.
        words: a pixel that resembles one of these more than every class is background. Without
            words and threshold, the class's own name is the only word.
    """

    threshold: float = NO_THRESHOLD
    words: tuple[str, ...] = ()

    def names(self, class_names: Sequence[str], index: int) -> list[str]:
        """The names to embed: the other classes in order, then the background words."""
        words = list(self.words)
        if not words and self.threshold <= NO_THRESHOLD:
            words = [class_names[index]]
        return [*class_names[:index], *class_names[index + 1 :], *words]

    def merge(self, scores: Tensor, num_classes: int, index: int) -> Tensor:
        """Scores per class (..., C), out of the scores of :meth:`names` (..., C - 1 + R)."""
        others, words = scores[..., : num_classes - 1], scores[..., num_classes - 1 :]
        threshold = torch.full_like(scores[..., :1], self.threshold)
        background = torch.cat([threshold, words], dim=-1).amax(dim=-1, keepdim=True)  # (..., 1)
        return torch.cat([others[..., :index], background, others[..., index:]], dim=-1)
