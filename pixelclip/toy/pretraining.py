"""Pretrain the tiny CLIP on captioned images with CLIP's contrastive loss, and nothing else."""

import json
import math
import multiprocessing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.loss import ClipLoss
from open_clip.transformer import PatchDropout
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from pixelclip.config import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD
from pixelclip.modeling.clip_loader import load_clip, load_tokenizer
from pixelclip.modeling.text_encoder import TextEncoder
from pixelclip.toy.captioned_images import IMAGE_SIDE, make_captioned_image
from pixelclip.utils.atomic_write import atomic_writer, write_text

ARCHITECTURE = "toy"

# Last fraction of the training, in which all patches are kept.
_WITHOUT_PATCH_DROPOUT = 0.15


@dataclass(frozen=True)
class PretrainingSettings:
    """Settings of a pretraining."""

    num_images: int = 100_000  # captioned images in all
    steps: int = 9_000
    batch_size: int = 128
    learning_rate: float = 1.5e-3  # AdamW's, at its highest
    weight_decay: float = 0.1  # AdamW's, on matrices and convolutions
    warmup_steps: int = 300  # linear; then a cosine to zero
    patch_dropout: float = 0.5  # fraction of the patches that an image loses (FLIP)
    seed: int = 1  # chooses images, weights and order


@dataclass(frozen=True)
class CaptionedImages:
    """Images (N, 48, 48, 3) uint8 with their captions' token ids (N, context length) int64."""

    pixels: NDArray[np.uint8]
    token_ids: Tensor

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Normalized images (size, 3, 48, 48), half of them flipped, and token ids of a step."""
        rng = np.random.default_rng((seed, step))
        indices = rng.choice(len(self.pixels), size, replace=False)
        images = normalize_pixels(self.pixels[indices])
        flipped = torch.from_numpy(rng.random(size) < 0.5)
        images[flipped] = images[flipped].flip(-1)
        return images, self.token_ids[torch.from_numpy(indices)]


def normalize_pixels(pixels: NDArray[np.uint8]) -> Tensor:
    """Images (n, H, W, 3) uint8 as CLIP's image encoder takes them: (n, 3, H, W) float32."""
    mean, std = torch.tensor(CLIP_PIXEL_MEAN), torch.tensor(CLIP_PIXEL_STD)
    return ((torch.from_numpy(pixels).float() - mean) / std).permute(0, 3, 1, 2).contiguous()


def draw_captioned_images(seed: int, count: int, num_processes: int) -> CaptionedImages:
    """Draw images 0 to ``count`` - 1 of a seed in several processes."""
    pixels = np.empty((count, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    captions = [""] * count
    with multiprocessing.get_context("spawn").Pool(num_processes) as pool:
        drawn = pool.imap(partial(make_captioned_image, seed), range(count), chunksize=64)
        for index, image in enumerate(tqdm(drawn, "drawing", count, unit="image")):
            pixels[index], captions[index], _ = image
    return CaptionedImages(pixels, load_tokenizer(ARCHITECTURE)(captions))


class Pretraining:
    """A pretraining of the tiny CLIP; the same settings give the same weights on one machine."""

    def __init__(self, settings: PretrainingSettings, images: CaptionedImages) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.images = settings, images
        self.losses: list[float] = []
        self.clip = load_clip(ARCHITECTURE, "").train()
        self.text_encoder = TextEncoder(self.clip, load_tokenizer(ARCHITECTURE)).requires_grad_()
        self.optimizer = _build_optimizer(self.clip, settings)
        self.loss = ClipLoss()

    @property
    def step(self) -> int:
        """Number of steps made."""
        return len(self.losses)

    def run_step(self) -> float:
        """Make one step and return its loss."""
        seed = np.random.SeedSequence((self.settings.seed, self.step)).generate_state(1)
        torch.manual_seed(int(seed[0]))
        self._set_schedule()
        images, token_ids = self.images.batch(
            self.settings.seed, self.step, self.settings.batch_size
        )
        loss = self.loss(
            F.normalize(self.clip.encode_image(images), dim=-1),
            F.normalize(self.text_encoder(token_ids), dim=-1),
            self.clip.logit_scale.exp(),
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            self.clip.logit_scale.clamp_(0, math.log(100))  # CLIP's limit
        self.losses.append(loss.item())
        return self.losses[-1]

    def _set_schedule(self) -> None:
        settings = self.settings
        warmup = min(1.0, (self.step + 1) / settings.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / settings.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * warmup * cosine
        keeps_all = self.step >= (1 - _WITHOUT_PATCH_DROPOUT) * settings.steps
        dropout = nn.Identity() if keeps_all else PatchDropout(settings.patch_dropout)
        self.clip.visual.patch_dropout = dropout

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed pretraining needs."""
        return {
            "clip": self.clip.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
            "settings": asdict(self.settings),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises:
            ValueError: it belongs to other settings.
        """
        if state["settings"] != asdict(self.settings):
            raise ValueError(
                f"The checkpoint was made with {state['settings']}, but {asdict(self.settings)} "
                "was asked for: give the same settings, or another output folder."
            )
        self.clip.load_state_dict(state["clip"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses = list(state["losses"])


def pretrain(
    settings: PretrainingSettings, output: Path, num_processes: int, checkpoint_period: int = 500
) -> Path:
    """Pretrain the tiny CLIP, or continue an interrupted pretraining.

    Args:
        output: folder of ``checkpoint.pth``, and at the end of ``toy_clip.safetensors`` (float16)
            and ``toy_clip_training.json`` (settings, losses, versions).
        checkpoint_period: steps between checkpoints.

    Returns the path of the weights.

    Raises:
        ValueError: the folder holds a checkpoint of other settings.
    """
    output.mkdir(parents=True, exist_ok=True)
    images = draw_captioned_images(settings.seed, settings.num_images, num_processes)
    pretraining = Pretraining(settings, images)
    checkpoint = output / "checkpoint.pth"
    if checkpoint.exists():
        pretraining.load_state_dict(torch.load(checkpoint, weights_only=True))
    with tqdm(total=settings.steps, initial=pretraining.step, unit="step") as progress:
        while pretraining.step < settings.steps:
            pretraining.run_step()
            progress.update()
            progress.set_postfix(loss=f"{np.mean(pretraining.losses[-50:]):.3f}")
            if pretraining.step % checkpoint_period == 0 or pretraining.step == settings.steps:
                with atomic_writer(checkpoint) as file:
                    torch.save(pretraining.state_dict(), file)
    return _export(pretraining, output)


def _build_optimizer(clip: nn.Module, settings: PretrainingSettings) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [
        {"params": [p for p in clip.parameters() if p.ndim >= 2]},
        {"params": [p for p in clip.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, settings.learning_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay
    )


def _export(pretraining: Pretraining, output: Path) -> Path:
    weights, losses = pretraining.clip.state_dict(), pretraining.losses
    path = output / "toy_clip.safetensors"
    with atomic_writer(path) as file:
        file.write(save({name: value.half().contiguous() for name, value in weights.items()}))
    record = {
        "settings": asdict(pretraining.settings),
        "loss_first_100_steps": float(np.mean(losses[:100])),
        "loss_last_100_steps": float(np.mean(losses[-100:])),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
    }
    write_text(output / "toy_clip_training.json", json.dumps(record, indent=2))
    return path
