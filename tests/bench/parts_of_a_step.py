"""Whether a step is the same in one part or in many: gradients, weights of classes, and what batch norms make of it.

    python tests/bench/parts_of_a_step.py

Takes a minute on one core. Prints how far the gradient of 8 crops in 2, 4 and 8 passes is from that in one, per task
(in double precision, as convolutions in single precision differ by 1e-5 themselves); how hard a cell of a class with
10 % of the cells pulls against one with 90 %, by batch size; and how far the outputs of a U-Net are from those of
one pass after batch norms saw the same crops in several, with weights held still.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from cytoray_analysis.networks import build_network
from cytoray_analysis.tasks import (
    Classification,
    InstanceSegmentation,
    LabelFree,
    SemanticSegmentation,
    Task,
    Tracking,
)
from cytoray_training.engines.build import build_engine
from cytoray_training.recipe import Training

CROPS = 8
CPU = torch.device("cpu")
Case = tuple[Task, Callable[[], nn.Module], Tensor, Tensor]


def cases() -> dict[str, Case]:
    """Return for each task a network of one layer, and crops that hold from nothing to very much."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(CROPS, 1, 64, 64, generator=generator)
    labels = torch.zeros(CROPS, 64, 64, dtype=torch.int64)
    for crop in range(CROPS):
        for number in range(1, 3 * crop + 1):
            y, x = (int(place) for place in torch.randint(4, 60, (2,), generator=generator))
            labels[crop, y - 4 : y + 4, x - 4 : x + 4] = number
    labels[0, :, :48] = -1
    stain = torch.rand(images.shape, generator=generator) * torch.arange(1.0, CROPS + 1).view(-1, 1, 1, 1)
    stain[0, :, :, :48] = torch.nan
    links = torch.randint(0, 2, (CROPS, 2, 64), generator=generator)
    links[:, 1], links[2, 0, 8:] = -1, -1
    links[1, 1, :2] = 1
    classes, counts = ("a", "b", "c"), (60, 10, 10)
    kinds = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2])
    flat = partial(nn.Linear, 64 * 64, 3)
    pixelwise = {outputs: partial(nn.Conv2d, 1, outputs, 3, padding=1) for outputs in (1, 2, 3)}
    features = torch.rand(CROPS, 3, 64, generator=generator)
    balanced = Classification(classes=classes, counts=counts, class_weights="balanced")
    return {
        "segmentation": (InstanceSegmentation(small_weight=2.0), pixelwise[3], images, labels),
        "semantic segmentation": (SemanticSegmentation(), pixelwise[2], images, labels.clamp(max=1)),
        "label-free, l1": (LabelFree(), pixelwise[1], images, stain),
        "label-free, l1 and ms_ssim": (LabelFree(loss={"l1": 1.0, "ms_ssim": 1.0}), pixelwise[1], images, stain),
        "tracking": (Tracking(), partial(nn.Conv1d, 3, 2, 1), features, links),
        "classes": (Classification(classes=classes), flat, images.flatten(1), kinds),
        "classes, balanced weights": (balanced, flat, images.flatten(1), kinds),
    }


def gradient(case: Case, passes: int) -> Tensor:
    """Return the gradient of a step in so many passes, of all weights as one vector."""
    task, layer, images, truth = case
    torch.manual_seed(0)
    settings = Training(engine="torch", precision="fp32", batch_size=CROPS, accumulate=passes)
    engine = build_engine(layer().double(), task.loss, settings, crops=CROPS // passes, device=CPU)
    parts = [
        (some.double(), task.encode(true))
        for some, true in zip(torch.chunk(images, passes), torch.chunk(truth, passes), strict=True)
    ]
    part = engine.part(parts)
    for some, target in parts:
        part(engine.network(some), target).backward()  # type: ignore[no-untyped-call]
    return torch.cat([p.grad.flatten() for p in engine.network.parameters() if p.grad is not None])


def rare_pull(size: int) -> float:
    """Return how hard a cell of a class of 10 % pulls over one of 90 %, in batches of `size`."""
    task = Classification(classes=("common", "rare"), counts=(90, 10), class_weights="balanced")
    truth = (torch.rand(6400, generator=torch.Generator().manual_seed(0)) < 0.1).long()
    outputs = torch.zeros(len(truth), 2, requires_grad=True)
    for some, classes in zip(torch.split(outputs, size), torch.split(truth, size), strict=True):
        (task.loss(some, classes) * size).backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    pull = outputs.grad[:, 0].abs()
    return float(pull[truth == 1].mean() / pull[truth == 0].mean())


def outputs_after(passes: int, steps: int = 90) -> Tensor:
    """Return what a U-Net answers whose batch norms have seen 8 crops a step in so many passes."""
    task = InstanceSegmentation()
    torch.manual_seed(0)
    network = build_network("unet", {"inputs": 1, "outputs": 3, "widths": [8, 16]})
    settings = Training(engine="torch", precision="fp32", batch_size=CROPS, accumulate=passes)
    engine = build_engine(network, task.loss, settings, crops=CROPS // passes, device=CPU)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        brightness = torch.rand(CROPS, 1, 1, 1, generator=generator)
        images = torch.rand(CROPS, 1, 32, 32, generator=generator) * 0.2 + brightness
        target = task.encode((images[:, 0] > 0.6).long())
        parts = zip(torch.chunk(images, passes), torch.chunk(target, passes), strict=True)
        engine.step(list(parts), 1e-12)
    with torch.no_grad():
        answers: Tensor = engine.network.eval()(images)
    return answers


def main() -> None:
    """Print it all."""
    torch.set_num_threads(1)
    for name, case in cases().items():
        whole = gradient(case, 1)
        off = {n: float((gradient(case, n) - whole).norm() / whole.norm()) for n in (2, 4, 8)}
        print(f"{name:28s} gradient off by", "  ".join(f"{value:.0e} in {n} passes" for n, value in off.items()))
    for size in (32, 8, 2, 1):
        print(f"batches of {size:2d}: a cell of the rare class pulls {rare_pull(size):.2f} times as hard")
    whole = outputs_after(1)
    for passes in (2, 4, 8):
        off_by = float((outputs_after(passes) - whole).norm() / whole.norm())
        print(
            f"batch norms, {CROPS // passes} crops at a time: outputs differ by {off_by:.0%} from one pass of {CROPS}"
        )


if __name__ == "__main__":
    main()
