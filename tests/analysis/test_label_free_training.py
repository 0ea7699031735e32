"""A small network learns a stain from a plane, from a stack, and in a volume, and knows where it errs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cytoray_analysis.images import read_image
from cytoray_analysis.networks import UNet
from cytoray_analysis.tasks.label_free import LabelFree

NEURONS = Path(__file__).parents[2] / "../shared/data/labelfree/isl_condition_b_single_fov"


def fields(kind: str, seed: int, count: int = 8, side: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Return light (B, C, spatial…) and a stain (B, 1, spatial…) that is the dark blobs of the light, squared."""
    rng = np.random.default_rng(seed)
    shape = (side, side) if kind != "volume" else (8, side // 2, side // 2)
    rough = torch.from_numpy(rng.standard_normal((count, 1, *shape))).float()
    pool = torch.nn.functional.avg_pool2d if kind != "volume" else torch.nn.functional.avg_pool3d
    blobs = pool(rough, 5, stride=1, padding=2) * 6
    planes = 3 if kind == "stack" else 1
    light = torch.cat([blobs * -(0.5 + plane / 2) for plane in range(planes)], dim=1)
    return light + 0.1 * torch.randn(light.shape), 700 + 300 * blobs.clamp(min=0) ** 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plane", "stack", "volume"])
def test_it_learns(kind: str) -> None:
    torch.manual_seed(0)
    dimensions = 3 if kind == "volume" else 2
    light, stain = fields(kind, 0)
    task = LabelFree(
        dimensions=dimensions,
        offset=[float(stain.mean())],
        scale=[1 / float(stain.std())],
        loss={"mse": 1.0, "l1": 0.5},
        uncertainty=True,
    )
    network = UNet(dimensions=dimensions, inputs=light.shape[1], outputs=task.output.channels, widths=(16, 16))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    target = task.encode(stain)
    for _ in range(100):
        optimizer.zero_grad()
        task.loss(network(light), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    unseen, truth = fields(kind, 1)
    with torch.inference_mode():
        outputs = network.eval()(unseen).numpy()
    answers = [task.decode(output, task.output.defaults()).values for output in outputs]
    scores = task.score(answers, list(truth.numpy()))
    assert scores["pearson"] > (0.9 if dimensions == 2 else 0.8)
    assert scores["nrmse"] < 0.6
    # Errors are larger where it says that they are.
    error = np.abs(np.stack(answers)[:, 0] - truth.numpy()[:, 0])
    deviation = np.stack(answers)[:, 1]
    sure = deviation < np.median(deviation)
    assert error[sure].mean() < error[~sure].mean()
    assert 0.4 < scores["coverage68"] < 0.95


@pytest.mark.slow
@pytest.mark.skipif(not NEURONS.is_dir(), reason=f"{NEURONS} is not here")
def test_two_planes_of_neurons_are_learned_by_heart_in_three_stains() -> None:
    torch.manual_seed(0)
    names = ("DAPI", "MAP2", "NFH")
    part = (slice(400, 496), slice(400, 496))
    phase = read_image(NEURONS / "phase_z04_z08.tif").read()[:, *part].astype(np.float32)
    stains = np.stack([read_image(NEURONS / f"fluorescence/{name}.tif").read()[part] for name in names])
    light = torch.from_numpy((phase - phase.mean()) / phase.std())[None]
    truth = torch.from_numpy(stains.astype(np.float32))[None]
    column = truth.flatten(2)[0]
    task = LabelFree(
        channels=names, offset=column.mean(1).tolist(), scale=(1 / column.std(1)).tolist(), loss={"mse": 1.0}
    )
    network = UNet(inputs=2, outputs=3, widths=(32, 32))
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(network(light), task.encode(truth)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.inference_mode():
        answer = task.decode(network(light)[0].numpy(), {}).values
    scores = task.score([answer], [truth[0].numpy()])
    assert min(scores[f"pearson/{name}"] for name in names) > 0.7
