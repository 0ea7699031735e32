"""The training loop: epochs, steps, validation, checkpoint, early stopping. Uses neither Ray nor DeepSpeed.

It runs in one process, under ``torchrun``, and in a Ray Train worker.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import NoReturn

import torch
from torch import Tensor, distributed

from cytoray_analysis.errors import UntrainableError
from cytoray_analysis.networks import build_network
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_training.data.batches import Prefetcher, Preparing, Sampler, fewest_crops
from cytoray_training.data.cache import Source
from cytoray_training.data.kept_images import KeptImages
from cytoray_training.data.source import open_source
from cytoray_training.diagnosis.facts import Failure, Spent, Unscored, Validation
from cytoray_training.diagnosis.origin import find_origin
from cytoray_training.diagnosis.record import FactRecorder
from cytoray_training.engines.adamw import WHOLE
from cytoray_training.engines.batch_norm import apart, takes_statistics
from cytoray_training.engines.build import build_engine
from cytoray_training.engines.engine import Engine, Step, rank, world_size
from cytoray_training.engines.schedule import learning_rate_at, progress_of
from cytoray_training.plan.image_kinds import kinds_of_files
from cytoray_training.plan.plan import Plan
from cytoray_training.plan.transfer import take_over
from cytoray_training.run.checkpoint import Checkpoint, TrainingProgress
from cytoray_training.run.reporter import Reporter
from cytoray_training.run.validation import validate

SECONDS_BETWEEN_PROGRESS = 0.5


def train(plan: Plan, reporter: Reporter, *, device: torch.device) -> TrainingProgress:
    """Train to the end, from the newest checkpoint if there is one.

    Every worker must call it, after the process group is initialised.

    Parameters
    ----------
    plan
        Recipe and data.
    reporter
        Stores and returns checkpoints.
    device
        Of this worker.

    Returns
    -------
    TrainingProgress
        The progress: finished, unless the reporter requested a stop.

    Raises
    ------
    UntrainableError
        The loss or the gradient became NaN or infinite.
    """
    source = open_source(
        plan, progress=lambda done, total: reporter.progress({"stage": "decoding", "done": done, "total": total})
    )
    return _Training(plan, source, reporter, device).run()


@dataclass
class _Tally:
    """Sums of the current epoch since this process started it."""

    start: float = field(default_factory=time.perf_counter)
    crops: int = 0
    waited: float = 0.0
    network: float = 0.0


class _Training:
    def __init__(self, plan: Plan, source: Source, reporter: Reporter, device: torch.device) -> None:
        self.plan, self.source, self.reporter, self.device = plan, source, reporter, device
        self.settings = plan.recipe.training
        self.began = time.perf_counter()
        self.last_progress = 0.0
        checkpoint = reporter.latest()
        self.progress = checkpoint.progress if checkpoint else TrainingProgress(seed=self.settings.seed)
        self.elapsed_before = self.progress.elapsed
        self.best: dict[str, Tensor] | None = checkpoint.best if checkpoint else None
        self.engine = _engine(plan, device, checkpoint)
        self.stopped = False
        self.saved = self.progress.step if checkpoint else -1
        self.done = self._share_done()
        self.recorder = FactRecorder(plan, reporter, norm_crops=self._norm_crops())
        if rank() == 0:
            reporter.progress({"stage": "workers", "workers": world_size()})
        self.sampler = self._sampler()
        self.images = KeptImages(plan.chosen_task.arguments)

    def run(self) -> TrainingProgress:
        per_epoch, total = self.settings.steps_per_epoch, self.settings.total_steps
        finished = self.progress.finished
        with Prefetcher(self.sampler, range(self.progress.step, total), threads=self._threads()) as prepared:
            batches = iter(prepared)
            while not finished and not self.stopped:
                tally = _Tally()
                prepared_before = replace(self.sampler.spent)
                waited_before = prepared.waited
                remaining = (self.progress.epoch + 1) * per_epoch - self.progress.step
                for passes in islice(batches, remaining):
                    self._step(passes, tally)
                    if self.done >= 1.0 or self._is_stopped():
                        break
                if self._is_stopped():
                    break
                tally.waited = prepared.waited - waited_before
                finished = self._end_epoch(tally, prepared_before)
        if self.stopped and not finished:
            self.recorder.ended("stop")
            if self.progress.step != self.saved:
                self._save({})
        return self.progress

    def _is_stopped(self) -> bool:
        """Whether a step found a stop request."""
        return self.stopped

    def _threads(self) -> int:
        """Return the number of threads that prepare crops: with an accelerator, all cores."""
        return 1 if self.device.type == "cpu" else self.plan.recipe.scale.cpus_per_worker

    def _step(self, passes: list[tuple[Tensor, Tensor]], tally: _Tally) -> None:
        rate = learning_rate_at(self.done, self.settings.learning_rate, self.settings.warmup)
        # The seed of dropout and similar layers; random numbers do not depend on interruptions.
        seed = (self.settings.seed << 32) + self.progress.step * world_size() + rank()
        torch.manual_seed(seed)
        began = time.perf_counter()
        on_device = [(x.to(self.device), y.to(self.device)) for x, y in passes]
        if self.progress.step % self.recorder.period:
            step = self.engine.step(on_device, rate)
        else:
            step = self.recorder.probed_step(self.engine, on_device, rate, self.progress.step, seed)
        tally.network += time.perf_counter() - began
        if not math.isfinite(step.gradient_norm):
            self._fail(step, on_device, seed)
        tally.crops += self.settings.batch_size
        self.recorder.step(self.progress.step, step, rate)
        loss = step.loss * self.engine.share(passes)  # so that the mean over workers is the mean over all crops
        sums = _added(self.progress.sums, {"loss": loss, "gradient_norm": step.gradient_norm, "steps": 1.0})
        self.progress = replace(self.progress, step=self.progress.step + 1, sums=sums)
        self.done = self._share_done()
        self._tell(step, rate, tally)
        every = self.settings.checkpoint_every
        if every and self.progress.step % every == 0 and self.progress.step % self.settings.steps_per_epoch:
            self._save({"loss": step.loss})

    def _fail(self, step: Step, passes: list[tuple[Tensor, Tensor]], seed: int) -> NoReturn:
        """Locate where a value became NaN or infinite, record it, and end the training run."""
        torch.manual_seed(seed)
        part = self.engine.part(passes)
        with apart(self.engine.network):
            what, layer = find_origin(self.engine.network, part, passes, self.engine.precision)
        self.recorder.failure(
            Failure(self.progress.step, self.progress.epoch, step.loss, step.gradient_norm, what, layer)
        )
        raise UntrainableError(
            f"step {self.progress.step} (epoch {self.progress.epoch}): the gradient is {step.gradient_norm}, "
            f"the loss {step.loss}" + (f"; the first such value is in {layer} ({what})" if layer else ""),
            field="training.learning_rate",
            hint="decrease training.learning_rate or training.gradient_clip, or use training.precision: fp32",
        )

    def _end_epoch(self, tally: _Tally, prepared_before: Preparing) -> bool:
        """Validate if due, save, and return whether the training run has ended."""
        ended = time.perf_counter()
        seconds = ended - tally.start
        self._share_sums()
        settings, progress = self.settings, self.progress
        last = self.done >= 1.0
        metrics = {
            **{name: progress.sums[name] / progress.sums["steps"] for name in ("loss", "gradient_norm")},
            "learning_rate": learning_rate_at(self.done, settings.learning_rate, settings.warmup),
            "images_per_second": tally.crops / seconds,
            "wait_fraction": tally.waited / seconds,
        }
        stale, best = progress.stale, progress.best
        if last or (progress.epoch + 1) % settings.validate_every == 0:
            average = self.engine.average()
            found = validate(
                self.plan, self.source, average, str(self.device), images=self.images, stopping=self.reporter.stopping
            )
            if found is None:  # after a restart, the epoch ends with the validation that was interrupted
                self.stopped = True
                return False
            scores, training_scores = found
            metrics |= scores
            metric = self.plan.metric
            score = scores.get(metric, math.nan)  # such as the precision of a network that does not find any object yet
            if math.isnan(score):
                numbers = tuple(name for name, value in scores.items() if not math.isnan(value))
                self.recorder.unscored(Unscored(progress.epoch, "nan" if metric in scores else "missing", numbers))
            else:
                known = None if training_scores is None else training_scores.get(metric)
                self.recorder.validation(Validation(progress.epoch, score, known))
            goodness = metric_named(metric).goodness
            good, before = goodness(score), goodness(best[metric]) if best else -math.inf
            stale = 0 if good > before else stale + 1  # NaN is never better
            if good >= before:  # of equal ones the later, which trained for longer
                self.best, best = average, {**scores, "epoch": float(progress.epoch)}
        metrics |= {"epoch": float(progress.epoch), "elapsed": self._elapsed()}
        prepared = self.sampler.spent
        self.recorder.spent(
            Spent(
                progress.epoch,
                waited=tally.waited,
                network=tally.network,
                read=prepared.read - prepared_before.read,
                augment=prepared.augment - prepared_before.augment,
                encode=prepared.encode - prepared_before.encode,
                validation=time.perf_counter() - ended,
            )
        )
        patience = settings.early_stopping
        finished = last or (patience is not None and stale >= patience)
        if finished:
            done = progress.step >= settings.total_steps
            self.recorder.ended("epochs" if done else "minutes" if last else "early stopping")
        self.progress = replace(
            progress,
            epoch=progress.epoch + 1,
            stale=stale,
            best=best,
            finished=finished,
            ended=datetime.now(UTC).isoformat(timespec="seconds") if finished else "",
            history=(*progress.history, metrics),
            sums={},
        )
        if rank() == 0:
            self.reporter.progress({"stage": "epoch", **metrics})
        self._save(metrics)
        return self.progress.finished

    def _save(self, metrics: dict[str, float]) -> None:
        self.recorder.flush()
        self._share_sums()
        self.progress = replace(self.progress, elapsed=self._elapsed())
        state = self.engine.state()
        mine = Checkpoint(self.progress, state, self.best) if rank() == 0 else None
        self.reporter.report(metrics, mine)
        self.saved = self.progress.step

    def _sampler(self) -> Sampler:
        return Sampler(
            source=self.source,
            examples=self.plan.examples,
            crop=self.plan.crop,
            batch=self.settings.batch_size,
            accumulate=self.plan.recipe.passes(world_size()),
            seed=self.settings.seed,
            augmentation=self.plan.recipe.augmentation,
            encode=self.plan.task.encode,
            balance=self.plan.recipe.data.balance,
            kinds=kinds_of_files(self.plan.dataset, self.plan.recipe),
            shares=self.plan.recipe.data.shares,
            rank=rank(),
            world=world_size(),
        )

    def _norm_crops(self) -> int | None:
        """Return the minimum number of crops in the statistics of batch norms; None without batch norms."""
        if not takes_statistics(self.engine.network):
            return None
        together = self.settings.batch_norm == "synchronised"
        world = world_size()
        return fewest_crops(self.settings.batch_size, world, self.plan.recipe.passes(world), together=together)

    def _elapsed(self) -> float:
        return self.elapsed_before + time.perf_counter() - self.began

    def _share_done(self) -> float:
        elapsed, stopped = self._elapsed(), self.reporter.stopping() if rank() == 0 else False
        if world_size() > 1:
            # Clocks differ, and workers that disagree about the end would wait for each other forever.
            agreed = torch.tensor([elapsed, float(stopped)], dtype=torch.float64, device=self.device)
            distributed.broadcast(agreed, src=0)
            elapsed, stopped = float(agreed[0]), bool(agreed[1])
        self.stopped = stopped
        return progress_of(self.progress.step, self.settings.total_steps, elapsed, self.settings.minutes)

    def _share_sums(self) -> None:
        """Replace the sums of this worker by the mean over workers, which is the same on all."""
        if world_size() > 1 and self.progress.sums:
            names = list(self.progress.sums)
            means = torch.tensor([self.progress.sums[name] for name in names], dtype=torch.float64, device=self.device)
            distributed.all_reduce(means)
            self.progress = replace(self.progress, sums=dict(zip(names, (means / world_size()).tolist(), strict=True)))

    def _tell(self, step: Step, rate: float, tally: _Tally) -> None:
        now = time.perf_counter()
        if rank() or now - self.last_progress < SECONDS_BETWEEN_PROGRESS:
            return
        self.last_progress = now
        self.reporter.progress(
            {
                "stage": "training",
                "epoch": self.progress.epoch,
                "step": self.progress.step,
                "progress": self.done,
                "loss": step.loss,
                "gradient_norm": step.gradient_norm,
                "learning_rate": rate,
                "images_per_second": tally.crops / (now - tally.start),
                "elapsed": self._elapsed(),
            }
        )


def _engine(plan: Plan, device: torch.device, checkpoint: Checkpoint | None) -> Engine:
    recipe = plan.recipe
    torch.manual_seed(recipe.training.seed)
    network = build_network(plan.network.name, plan.network.arguments)
    return build_engine(
        network,
        plan.task.loss,
        recipe.training,
        crops=recipe.crops_per_pass,
        passes=recipe.passes(world_size()),
        device=device,
        state=checkpoint.state if checkpoint else None,
        trunk=take_over(plan.start, network) if plan.start else WHOLE,
    )


def _added(sums: dict[str, float], values: dict[str, float]) -> dict[str, float]:
    return {name: sums.get(name, 0.0) + value for name, value in values.items()}
