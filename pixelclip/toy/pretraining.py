"""Pretrain the tiny CLIP on captioned pictures with CLIP's contrastive loss, and nothing else."""

import json
import logging
import math
import multiprocessing
import time
from dataclasses import asdict, dataclass
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
from pixelclip.toy.web_pictures import PICTURE_SIDE, make_web_picture
from pixelclip.utils.atomic_write import atomic_writer

logger = logging.getLogger(__name__)

ARCHITECTURE = "toy"

# The logit scale must not exceed CLIP's limit.
_MAX_LOGIT_SCALE = math.log(100)

# Share of the training at whose end all patches are seen.
_WITHOUT_PATCH_DROPOUT = 0.15


@dataclass(frozen=True)
class PretrainingSettings:
    """Settings of a pretraining.

    Attributes:
        num_pictures: how many web pictures there are.
        steps: number of optimizer steps.
        batch_size: pictures in a step.
        learning_rate: AdamW's, at its highest.
        weight_decay: AdamW's, on matrices and convolutions.
        warmup_steps: steps of linear warm-up; then a cosine to zero.
        patch_dropout: share of the patches that a picture loses (FLIP), but for the end.
        seed: chooses pictures, weights and order.
    """

    num_pictures: int = 100_000
    steps: int = 9_000
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.1
    warmup_steps: int = 300
    patch_dropout: float = 0.5
    seed: int = 1


class WebPictures:
    """Drawn pictures with the token ids of their captions.

    Args:
        pixels: (N, 48, 48, 3) uint8.
        token_ids: (N, context length) int64.
    """

    def __init__(self, pixels: NDArray[np.uint8], token_ids: Tensor) -> None:
        self.pixels = pixels
        self.token_ids = token_ids

    def batch(self, seed: int, step: int, size: int) -> tuple[Tensor, Tensor]:
        """Normalised images (size, 3, 48, 48), half of them mirrored, and token ids of a step."""
        rng = np.random.default_rng((seed, step))
        indices = rng.choice(len(self.pixels), size, replace=False)
        images = normalise(self.pixels[indices])
        mirrored = torch.from_numpy(rng.random(size) < 0.5)
        images[mirrored] = images[mirrored].flip(-1)
        return images, self.token_ids[torch.from_numpy(indices)]


def normalise(pixels: NDArray[np.uint8]) -> Tensor:
    """Images (n, H, W, 3) uint8 as CLIP's image encoder takes them: (n, 3, H, W) float32."""
    mean, std = torch.tensor(CLIP_PIXEL_MEAN), torch.tensor(CLIP_PIXEL_STD)
    return ((torch.from_numpy(pixels).float() - mean) / std).permute(0, 3, 1, 2).contiguous()


def draw_web_pictures(seed: int, count: int, num_processes: int) -> WebPictures:
    """Draw pictures 0 to ``count`` - 1 of a seed in several processes."""
    pixels = np.empty((count, PICTURE_SIDE, PICTURE_SIDE, 3), np.uint8)
    captions = [""] * count
    with multiprocessing.get_context("spawn").Pool(num_processes) as pool:
        drawn = pool.imap(_Draw(seed), range(count), chunksize=64)
        for index, picture in enumerate(tqdm(drawn, "drawing", count, unit="picture")):
            pixels[index], captions[index] = picture
    return WebPictures(pixels, load_tokenizer(ARCHITECTURE)(captions))


@dataclass(frozen=True)
class _Draw:
    """Drawing as something that can be sent to another process."""

    seed: int

    def __call__(self, index: int) -> tuple[NDArray[np.uint8], str]:
        return make_web_picture(self.seed, index)[:2]


class Pretraining:
    """A pretraining of the tiny CLIP; the same settings give the same weights on one machine.

    Args:
        settings: see :class:`PretrainingSettings`.
        pictures: what it learns from.
    """

    def __init__(self, settings: PretrainingSettings, pictures: WebPictures) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.pictures = pictures
        self.step = 0
        self.seconds = 0.0
        self.clip = load_clip(ARCHITECTURE, "").train()
        self.text_encoder = TextEncoder(self.clip, load_tokenizer(ARCHITECTURE)).requires_grad_()
        self.optimizer = _build_optimizer(self.clip, settings)
        self.loss = ClipLoss()

    def run_step(self) -> float:
        """Make one step and return its loss."""
        start = time.perf_counter()
        torch.manual_seed(_step_seed(self.settings.seed, self.step))
        self._set_schedule()
        images, token_ids = self.pictures.batch(
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
            self.clip.logit_scale.clamp_(0, _MAX_LOGIT_SCALE)
        self.step += 1
        self.seconds += time.perf_counter() - start
        return loss.item()

    def _set_schedule(self) -> None:
        settings = self.settings
        warmup = min(1.0, (self.step + 1) / settings.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / settings.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * warmup * cosine
        sees_all = self.step >= (1 - _WITHOUT_PATCH_DROPOUT) * settings.steps
        dropout = 0.0 if sees_all else settings.patch_dropout
        self.clip.visual.patch_dropout = PatchDropout(dropout) if dropout else nn.Identity()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed pretraining needs."""
        return {
            "clip": self.clip.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "settings": asdict(self.settings),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises:
            ValueError: it is of other settings.
        """
        if state["settings"] != asdict(self.settings):
            raise ValueError(
                f"The checkpoint was made with {state['settings']}, and asked for are "
                f"{asdict(self.settings)}: give the same settings, or another output folder."
            )
        self.clip.load_state_dict(state["clip"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]


def pretrain(
    settings: PretrainingSettings, output: Path, num_processes: int, checkpoint_period: int = 500
) -> Path:
    """Pretrain the tiny CLIP, or continue a pretraining that was cut short.

    Args:
        settings: see :class:`PretrainingSettings`.
        output: folder of ``checkpoint.pth``, ``losses.jsonl``, and at the end of
            ``toy_clip.safetensors`` (float16) and ``toy_clip_training.json`` (settings, figures,
            duration).
        num_processes: how many processes draw pictures.
        checkpoint_period: steps between checkpoints.

    Returns:
        Path of the weights.

    Raises:
        ValueError: the folder holds a checkpoint of other settings.
    """
    output.mkdir(parents=True, exist_ok=True)
    pictures = draw_web_pictures(settings.seed, settings.num_pictures, num_processes)
    pretraining = Pretraining(settings, pictures)
    checkpoint = output / "checkpoint.pth"
    if checkpoint.exists():
        pretraining.load_state_dict(torch.load(checkpoint, weights_only=True))
    losses = _read_losses(output / "losses.jsonl", pretraining.step)
    progress = tqdm(total=settings.steps, initial=pretraining.step, unit="step")
    with progress:
        while pretraining.step < settings.steps:
            losses.append(pretraining.run_step())
            progress.update()
            progress.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
            if pretraining.step % checkpoint_period == 0 or pretraining.step == settings.steps:
                _save(pretraining, losses, output)
    return _export(pretraining, losses, output)


def _build_optimizer(clip: nn.Module, settings: PretrainingSettings) -> torch.optim.AdamW:
    matrices = [p for p in clip.parameters() if p.ndim >= 2]
    others = [p for p in clip.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def _read_losses(path: Path, count: int) -> list[float]:
    if count == 0:
        return []
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()[:count]]


def _save(pretraining: Pretraining, losses: list[float], output: Path) -> None:
    # The losses first: a checkpoint never knows more steps than they do.
    with atomic_writer(output / "losses.jsonl") as file:
        for step, loss in enumerate(losses):
            file.write(json.dumps({"step": step, "loss": loss}).encode() + b"\n")
    with atomic_writer(output / "checkpoint.pth") as file:
        torch.save(pretraining.state_dict(), file)


def _export(pretraining: Pretraining, losses: list[float], output: Path) -> Path:
    weights = {
        name: value.half().contiguous() for name, value in pretraining.clip.state_dict().items()
    }
    path = output / "toy_clip.safetensors"
    with atomic_writer(path) as file:
        file.write(save(weights))
    figures = {
        "settings": asdict(pretraining.settings),
        "minutes": round(pretraining.seconds / 60, 1),
        "loss_first_100_steps": float(np.mean(losses[:100])),
        "loss_last_100_steps": float(np.mean(losses[-100:])),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
    }
    with atomic_writer(output / "toy_clip_training.json") as file:
        file.write(json.dumps(figures, indent=2).encode())
    return path
