"""Does a device compute what the CPU computes, and a number format or option what float32 does?

Models have random weights. Each stage gets the inputs that it has in a step on the CPU, so that
differences do not add up. Where formats are compared, masks have fixed clusters: rounding may move
a mask between two clusters that suit it equally, after which nothing is comparable.
"""

import copy
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip.analysis.checks import Line, Verdict, attempt, skipped
from pixelclip.analysis.profiling import Stage
from pixelclip.analysis.speed import Configuration
from pixelclip.analysis.speed_workloads import inference_stages, model_stages
from pixelclip.engine.solver import build_optimizer
from pixelclip.engine.training_step import TrainingStep
from pixelclip.modeling.kmeans import kmeans
from pixelclip.modeling.sinkhorn import MaskAssignment

# Of a stage: the largest difference of a value, as a share of the largest value; the norm of a
# gradient's difference, as a share of its norm (rounding turns single ReLUs on or off); the share
# of labels and other integers that differ.
_VALUES, _GRADIENT, _INTEGERS = 1e-4, 1e-2, 1e-3
# Of a step: the relative difference of the loss, and that of the gradient, as above.
_FORMATS = {"TF32": (0.005, 0.05), "bfloat16": (0.01, 0.2), "float16": (0.005, 0.05)}
_MASKS = (7, 3)  # of the images of a batch
_WORDS = ["sky", "sofa, couch", "traffic light", "tree", "road"]
_SEED = 0
# The loss, and the gradient of each part of the model that trains.
Step = tuple[float, dict[str, Tensor]]


class StageCall(NamedTuple):
    """A call of a stage's function, which can be repeated on any device."""

    stage: Stage
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]


class Outcome(NamedTuple):
    """What a call has computed: tensors, and gradients of its inputs and parameters."""

    values: list[Tensor]
    gradients: list[Tensor]


def check_stages(models: Mapping[str, Configuration], device: str) -> Iterator[Line]:
    """Compare each stage of training and inference, and a whole step, on the CPU and a device."""
    with set_tf32(False):
        for name, configuration in models.items():
            calls = record_stages(load_small(configuration, "cpu"))
            for stage in dict.fromkeys(call.stage[2] for call in calls):
                of_stage = [call for call in calls if call.stage[2] == stage]
                yield attempt(f"{name}, {stage}", compare_calls, of_stage, device)
            steps = [load_small(configuration, where) for where in ("cpu", device)]
            what = f"{name}, loss and gradient of a step"
            yield attempt(what, _compare_steps, *steps, (_VALUES, _GRADIENT))
        yield attempt("k-means", _compare_kmeans, device)


def check_formats(models: Mapping[str, Configuration], device: str) -> Iterator[Line]:
    """Compare a step in each number format with one in float32, on the same device."""
    for name, configuration in models.items():
        cfg = load_small(configuration, device)
        for number_format, limits in _FORMATS.items():
            what = f"{name}, {number_format}"
            if device == "cpu" and number_format != "bfloat16":
                yield skipped(what, "needs a GPU")
                continue
            yield attempt(what, _compare_steps, cfg, cfg, limits, {"number_format": number_format})


def check_options(models: Mapping[str, Configuration], device: str) -> Iterator[Line]:
    """Compare a step with each option and without, on the same device."""
    limits = _VALUES, _GRADIENT
    with set_tf32(False):
        for name, configuration in models.items():
            cfg = load_small(configuration, device)
            yield attempt(f"{name}, fused AdamW", _compare_optimizers, cfg)
            checkpointing = _with(cfg, "MODEL.CLIP.ACTIVATION_CHECKPOINTING", True)
            what = f"{name}, activation checkpointing"
            yield attempt(what, _compare_steps, cfg, checkpointing, limits)
            what = f"{name}, a batch in two parts"
            yield attempt(what, _compare_steps, cfg, cfg, limits, {"parts": 2})


def check_compilation(configuration: Configuration, device: str) -> Iterator[Line]:
    """Compare a compiled step with one that is not, on the same device."""
    if not any(map(shutil.which, ("c++", "g++", "gcc", "clang"))):
        yield skipped("torch.compile", "needs a C++ compiler")
        return
    cfg = load_small(configuration, device)
    with set_tf32(False):
        compiled = _with(cfg, "MODEL.COMPILE", True)
        yield attempt("torch.compile", _compare_steps, cfg, compiled, (_VALUES, _GRADIENT))


def load_small(configuration: Configuration, device: str) -> CfgNode:
    """A configuration on a device, without data sets."""
    cfg = configuration.load()
    cfg.MODEL.DEVICE = device
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    return cfg


def _with(cfg: CfgNode, key: str, value: Any) -> CfgNode:
    cfg = cfg.clone()
    cfg.merge_from_list([key, value])
    return cfg


@contextmanager
def set_tf32(is_allowed: bool) -> Iterator[None]:
    """With or without TF32, in which float32 factors have 10 bits, inside the block."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def build_small(cfg: CfgNode) -> Any:
    """A model with the same random weights every time, without stochastic depth."""
    torch.manual_seed(_SEED)
    return remove_stochastic_depth(build_model(cfg))


def remove_stochastic_depth(model: Any) -> Any:
    """Let a model compute the same each time, in training too; returns it."""
    model.image_encoder.eval()
    model.teacher.eval()
    return model


def make_batch(cfg: CfgNode, mask_counts: Sequence[int], seed: int = _SEED) -> list[dict[str, Any]]:
    """Random training inputs: smooth images, and one with so many rectangles as masks for each."""
    generator = torch.Generator().manual_seed(seed)
    height, width = cfg.MODEL.PIXELCLIP.MASK_RESOLUTION
    batch = []
    for count in mask_counts:
        coarse = torch.rand(2, 3, 12, 12, generator=generator) * 255
        size = [side * 5 // 4 for side in cfg.MODEL.CLIP.RESOLUTION]
        image, strong = F.interpolate(coarse, size, mode="bilinear").byte()
        masks = torch.zeros(count, height, width, dtype=torch.bool)
        corners = torch.rand(count, 2, generator=generator) * 0.6
        for mask, (y, x) in zip(masks, corners.tolist(), strict=True):
            top, left = int(y * height), int(x * width)
            mask[top : top + height // 3, left : left + width // 4] = True
        batch.append({"image": image, "image_strong": strong, "masks": masks})
    return batch


def record_stages(cfg: CfgNode) -> list[StageCall]:
    """The calls of all stages in a training forward and in the labeling of an image, on the CPU."""
    model = build_small(cfg)
    batch = make_batch(cfg, _MASKS)
    model.training = True
    calls = _record(model_stages(model), lambda: model(batch))
    model.eval().set_vocabulary(_WORDS)
    inputs = [{"image": batch[0]["image"], "height": 60, "width": 90}]
    return calls + _record(inference_stages(model), lambda: model.segment_labels(inputs))


def _record(stages: Sequence[Stage], run: Callable[[], object]) -> list[StageCall]:
    calls: list[StageCall] = []

    def recording(stage: Stage, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            calls.append(StageCall(stage, arguments, keywords))
            return function(*arguments, **keywords)

        return call

    with ExitStack() as stack:
        for stage in stages:
            function = recording(stage, getattr(stage[0], stage[1]))
            stack.enter_context(patch.object(stage[0], stage[1], function))
        run()
    return calls


def compare_calls(calls: Sequence[StageCall], device: str) -> Verdict:
    """Do calls on the CPU and on a device give the same values and gradients?"""
    found: dict[str, list[float]] = {"values": [], "gradients": [], "integers": []}
    for call in calls:
        expected, actual = repeat_call(call, "cpu"), repeat_call(call, device)
        for one, other in zip(expected.values, actual.values, strict=True):
            if one.is_floating_point():
                found["values"].append(_largest_difference(one, other))
            elif one.numel():
                found["integers"].append((other.cpu() != one).double().mean().item())
        for one, other in zip(expected.gradients, actual.gradients, strict=True):
            found["gradients"].append(relative_norm(one, other))
    values, gradients, integers = map(worst, found.values())
    is_good = values <= _VALUES and gradients <= _GRADIENT and integers <= _INTEGERS
    text = f"values within {values:.0e}, gradients {gradients:.0e}, integers {integers:.0e}"
    return Verdict(is_good, text, {"differences": found})


def repeat_call(call: StageCall, device: str) -> Outcome:
    """Call a stage again with copies of all that it works on, on a device."""
    owner, attribute, _ = call.stage
    copies = _Copies(device)
    function = getattr(copies.take(owner), attribute)
    arguments, keywords = copies.take(list(call.arguments)), copies.take(dict(call.keywords))
    output = function(*arguments, **keywords)
    values = list(_find_tensors(output))
    if not values:  # the stage changes its owner
        values = [p.detach().clone() for p in copies.take(owner).parameters()]
    results = [value for value in values if value.requires_grad]
    gradients = _differentiate(results, copies.inputs) if results else []
    return Outcome([value.detach() for value in values], gradients)


class _Copies:
    """Copies of anything on a device; the same one of the same thing. ``inputs`` have gradients."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._modules: dict[int, nn.Module] = {}
        self.inputs: list[Tensor] = []

    def take(self, thing: Any) -> Any:
        if isinstance(thing, torch.device):
            return torch.device(self._device)
        if isinstance(thing, nn.Module):
            return self._take_module(thing)
        if isinstance(thing, Tensor):
            return self._take_tensor(thing)
        if isinstance(thing, dict):
            return {key: self.take(value) for key, value in thing.items()}
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            return type(thing)(*map(self.take, thing))
        if isinstance(thing, list | tuple):
            return type(thing)(map(self.take, thing))
        return self._take_object(thing) if _may_hold_tensors(thing) else thing

    def _take_object(self, thing: Any) -> Any:
        twin = copy.copy(thing)
        vars(twin).update({name: self.take(value) for name, value in vars(thing).items()})
        return twin

    def _take_module(self, module: nn.Module) -> nn.Module:
        if id(module) not in self._modules:
            moved = copy.deepcopy(module).to(self._device)
            self._modules[id(module)] = moved
            self.inputs += [p for p in moved.parameters() if p.requires_grad]
        return self._modules[id(module)]

    def _take_tensor(self, tensor: Tensor) -> Tensor:
        moved = tensor.detach().to(self._device, copy=True)
        if moved.is_floating_point():
            self.inputs.append(moved.requires_grad_())
        return moved


def _may_hold_tensors(thing: Any) -> bool:
    """Whether it is an object of ours, such as the text classifier, which is not a module."""
    is_ours = type(thing).__module__.startswith("pixelclip.")
    return is_ours and hasattr(thing, "__dict__") and not isinstance(thing, Enum)


def _find_tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _find_tensors(part)


def _differentiate(results: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a random weighting of the results, of the inputs that they depend on."""
    generator = torch.Generator().manual_seed(_SEED)
    weights = [torch.randn(r.shape, generator=generator).to(r) for r in results]
    found = torch.autograd.grad(results, list(inputs), weights, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def _largest_difference(expected: Tensor, actual: Tensor) -> float:
    if not expected.numel():
        return 0.0
    scale = expected.abs().max().clamp(min=1e-12)
    return ((actual.cpu() - expected).abs().max() / scale).item()


def worst(differences: Iterable[float]) -> float:
    """The largest difference, NaN where one is; 0 of none."""
    return torch.tensor([0.0, *differences]).max().item()


def relative_norm(expected: Tensor, actual: Tensor) -> float:
    """Norm of the difference of two tensors, as a share of the first one's."""
    return ((actual.cpu() - expected).norm() / expected.norm().clamp(min=1e-12)).item()


def _compare_steps(
    cfg: CfgNode, other: CfgNode, limits: tuple[float, float], options: Mapping[str, Any] = {}
) -> Verdict:
    loss, gradient = take_step(cfg)
    other_loss, other_gradient = take_step(other, **options)
    losses = abs(other_loss - loss) / abs(loss)
    gradients = {part: relative_norm(gradient[part], other_gradient[part]) for part in gradient}
    largest = worst(gradients.values())
    text = f"loss {loss:.4f} within {losses:.0e}, gradients {largest:.0e}"
    is_good = losses <= limits[0] and largest <= limits[1]
    return Verdict(is_good, text, {"loss": losses, "gradients": gradients})


def take_step(cfg: CfgNode, number_format: str = "float32", parts: int = 1) -> Step:
    """Loss and gradients, on the CPU, of the same batch every time."""
    model = build_small(cfg)
    precision = number_format if number_format in ("bfloat16", "float16") else None
    step = TrainingStep(model, [], build_optimizer(cfg, model), precision, parts)
    model.train()
    remove_stochastic_depth(model)
    fixed_clusters = patch.object(MaskAssignment, "probabilities", _deal_out)
    with set_tf32(number_format == "TF32"), fixed_clusters:
        while True:
            losses = step.compute_gradients(make_batch(cfg, _MASKS + _MASKS[::-1]))
            scale = step.grad_scaler.get_scale()
            gradients = {part: g / scale for part, g in read_gradients(model).items()}
            if scale <= 1 or all(gradient.isfinite().all() for gradient in gradients.values()):
                return losses["loss_masks"].item(), gradients
            step.grad_scaler.update(scale / 16)  # as a training finds it in its first steps


def read_gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradient of each part of a model that has one, flat and on the CPU."""
    gradients = {}
    for name, part in model.named_children():
        found = [p.grad.flatten() for p in part.parameters() if p.grad is not None]
        if found:
            gradients[name] = torch.cat(found).float().cpu()
    return gradients


def _deal_out(_: MaskAssignment, logits: Tensor) -> Tensor:
    """In the place of Sinkhorn's probabilities: one cluster after the other."""
    # The same ones in both halves of a batch of masks, which may be clustered separately.
    clusters = torch.arange(len(logits), device=logits.device) % sum(_MASKS) % logits.shape[1]
    return F.one_hot(clusters, logits.shape[1]).float()


def _compare_optimizers(cfg: CfgNode) -> Verdict:
    plain, _ = _optimize(cfg, False)
    fused, is_fused = _optimize(cfg, True)
    difference = relative_norm(plain, fused)
    text = f"change of the parameters within {difference:.0e}"
    if not is_fused:
        text = f"torch {torch.__version__} has none for this device"
    return Verdict(is_fused and difference <= 1e-3, text, {"difference": difference})


def _optimize(cfg: CfgNode, fused: bool) -> tuple[Tensor, bool]:
    """What two steps along random gradients change, and whether they were fused."""
    model = build_small(cfg)
    optimizer = build_optimizer(cfg, model)
    if not fused:
        for group in optimizer.param_groups:
            group["fused"] = False
    parameters = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    torch.manual_seed(_SEED)
    for _ in range(2):
        for parameter in parameters:
            # In the layout of the parameter, as backward passes make it.
            parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
        optimizer.step()
    changes = [(p.detach() - b).flatten() for p, b in zip(parameters, before, strict=True)]
    return torch.cat(changes).cpu(), bool(optimizer.defaults["fused"])


def _compare_kmeans(device: str) -> Verdict:
    generator = torch.Generator().manual_seed(_SEED)
    # Groups far from each other: no feature lies between two clusters.
    centers = 10 * torch.randn(9, 12, generator=generator)
    groups = centers[torch.arange(600) % 9].view(3, 200, 12)  # (600, 12) -> (3, 200, 12)
    features = groups + 0.1 * torch.randn(3, 200, 12, generator=generator)
    on_cpu, on_device = (kmeans(features.to(where), 9, [1, 2, 3]) for where in ("cpu", device))
    share = (on_device.assignment.cpu() != on_cpu.assignment).float().mean().item()
    return Verdict(share == 0, f"{share:.1%} of the points in other clusters")
