"""The random numbers of a training iteration, as a function of seed, iteration and process."""

import numpy as np
import torch


def seed_iteration(seed: int, iteration: int, rank: int) -> None:
    """Seed torch's generators on all devices for one iteration of one process."""
    sequence = np.random.SeedSequence((seed, iteration, rank))
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))
