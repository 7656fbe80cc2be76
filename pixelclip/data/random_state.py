"""Random numbers that are a function of a key instead of history."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_state_from(*key: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators from ``key`` inside the block.

    Afterwards they go on as if nothing had happened. With the same key (non-negative integers) the
    block sees the same random numbers in every process and at any time.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state()
    seeds = [int(seed) for seed in np.random.SeedSequence(key).generate_state(3)]
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    # torch.manual_seed would reseed the GPUs as well.
    torch.default_generator.manual_seed(seeds[2])
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
