"""What every task must keep to; the test class of each task inherits it."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from cytoray_analysis.kinds import task_kind
from cytoray_analysis.tasks import Task, get_task


class TaskConformance(ABC):
    """Give a name, arguments, a batch of truths with something unknown in it, and an item with a perfect answer."""

    name: str
    arguments: ClassVar[dict[str, Any]]

    @abstractmethod
    def truths(self) -> Tensor:
        """Return a batch as ``encode`` takes it."""

    @abstractmethod
    def unknown(self) -> Tensor:
        """Return the same batch with everything unknown."""

    def outputs(self, truths: Tensor) -> Tensor:
        """Return random outputs of a network for the batch."""
        spatial = truths.shape[2:] if self.task().output.truth in ("image", "lineage") else truths.shape[1:]
        generator = torch.Generator().manual_seed(0)
        return torch.randn(len(truths), self.task().output.channels, *spatial, generator=generator)

    @abstractmethod
    def items(self) -> tuple[list[Any], list[Any]]:
        """Return perfect answers and their truths, as ``score`` takes them."""

    def task(self) -> Task:
        """Build the task as a bundle does."""
        return get_task(self.name, json.loads(json.dumps(self.arguments)))

    def test_the_class_says_what_truth_it_needs(self) -> None:
        kind, output = task_kind(self.name), self.task().output
        assert (kind.per, kind.truth) == (output.per, output.truth)

    def test_the_loss_is_a_finite_scalar_that_a_step_lowers(self) -> None:
        task, truths = self.task(), self.truths()
        target = task.encode(truths)
        outputs = self.outputs(truths).requires_grad_()
        before = task.loss(outputs, target)
        assert before.ndim == 0
        assert math.isfinite(float(before.detach()))
        before.backward()  # type: ignore[no-untyped-call]
        assert outputs.grad is not None
        assert torch.isfinite(outputs.grad).all()
        step = 0.05 / float(outputs.grad.abs().max().clamp(min=1e-12))
        assert task.loss(outputs.detach() - step * outputs.grad, target) < before

    def test_the_losses_of_parts_of_a_batch_and_their_gradients_add_up_to_those_of_the_batch(self) -> None:
        task, target = self.task(), self.task().encode(self.truths())
        whole, parts = (self.outputs(self.truths()).requires_grad_() for _ in range(2))
        loss = task.loss(whole, target)
        loss.backward()  # type: ignore[no-untyped-call]
        amounts = task.loss.amounts(target)
        each = torch.stack([task.loss.amounts(one) for one in torch.split(target, 1)])
        torch.testing.assert_close(amounts, each.sum(0))
        crops = zip(torch.split(parts, 1), torch.split(target, 1), strict=True)
        pieces = [task.loss(outputs, one, of=amounts) for outputs, one in crops]
        torch.stack(pieces).sum().backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(torch.stack(pieces).sum(), loss)
        torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-5, atol=1e-7)

    def test_what_is_unknown_teaches_nothing(self) -> None:
        task, truths = self.task(), self.unknown()
        outputs = self.outputs(truths).requires_grad_()
        loss = task.loss(outputs, task.encode(truths))
        assert math.isfinite(float(loss.detach()))
        loss.backward()  # type: ignore[no-untyped-call]
        assert outputs.grad is not None
        assert float(outputs.grad.abs().max()) == pytest.approx(0.0, abs=1e-9)

    def test_metrics_have_names_before_anything_is_scored(self) -> None:
        answers, truths = self.items()
        assert set(self.task().score(answers, truths)) <= set(self.task().output.metrics)

    def test_nothing_has_no_score(self) -> None:
        assert self.task().score([], []) == {}

    def test_a_perfect_answer_has_the_best_score(self) -> None:
        scores = self.task().score(*self.items())
        assert next(iter(scores.values())) == pytest.approx(1.0, abs=1e-6)
        assert all(np.isfinite(value) for name, value in scores.items() if name != "psnr")

    def test_decode_parameters_are_numbers_that_a_bundle_can_hold(self) -> None:
        defaults = self.task().output.defaults()
        assert json.loads(json.dumps(defaults)) == defaults
