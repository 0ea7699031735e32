"""The training loop: epochs, steps, validation, checkpoint, early stop. Knows neither Ray nor DeepSpeed.

Runs the same in one process, under ``torchrun``, and in a Ray Train worker.
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
from cytoray_training.adamw import WHOLE
from cytoray_training.batch_norm import apart, takes_statistics
from cytoray_training.batches import Prefetcher, Preparing, Sampler, fewest_crops
from cytoray_training.cache import Source
from cytoray_training.checkpoint import Checkpoint, Journal
from cytoray_training.diagnosis.facts import Failure, Spent, Unscored, Validation
from cytoray_training.diagnosis.origin import find_origin
from cytoray_training.diagnosis.record import Record
from cytoray_training.engine import Engine, Step, build_engine, rank, world_size
from cytoray_training.kept_images import KeptImages
from cytoray_training.plan import Plan
from cytoray_training.reporter import Reporter
from cytoray_training.schedule import learning_rate_at, progress_of
from cytoray_training.source import open_source
from cytoray_training.transfer import take_over
from cytoray_training.validation import validate

SECONDS_BETWEEN_PROGRESS = 0.5


def train(plan: Plan, reporter: Reporter, *, device: torch.device) -> Journal:
    """Train to the end, from the newest checkpoint where there is one.

    Every worker calls it, after the process group was made.

    Parameters
    ----------
    plan
        What to train on what.
    reporter
        Where checkpoints go and come from.
    device
        Of this worker.

    Returns
    -------
    Journal
        Where the training stands: finished, unless the reporter asked it to stop.

    Raises
    ------
    UntrainableError
        The loss or the gradient is no number any more.
    """
    source = open_source(
        plan, progress=lambda done, total: reporter.progress({"stage": "decoding", "done": done, "total": total})
    )
    return _Training(plan, source, reporter, device).run()


@dataclass
class _Tally:
    """What an epoch has accumulated since this process began it."""

    start: float = field(default_factory=time.perf_counter)
    crops: int = 0
    waited: float = 0.0
    network: float = 0.0


class _Training:
    def __init__(self, plan: Plan, source: Source, reporter: Reporter, device: torch.device) -> None:
        self.plan, self.source, self.reporter, self.device = plan, source, reporter, device
        self.settings = plan.recipe.training
        self.began = time.perf_counter()
        self.told = 0.0
        checkpoint = reporter.latest()
        self.journal = checkpoint.journal if checkpoint else Journal(seed=self.settings.seed)
        self.elapsed_before = self.journal.elapsed
        self.best: dict[str, Tensor] | None = checkpoint.best if checkpoint else None
        self.engine = _engine(plan, device, checkpoint)
        self.stopped = False
        self.saved = self.journal.step if checkpoint else -1
        self.done = self._progress()
        self.record = Record(plan, reporter, norm_crops=self._norm_crops())
        if rank() == 0:
            reporter.progress({"stage": "workers", "workers": world_size()})
        self.sampler = self._sampler()
        self.images = KeptImages(plan.chosen_task.arguments)

    def run(self) -> Journal:
        per_epoch, total = self.settings.steps_per_epoch, self.settings.total_steps
        finished = self.journal.finished
        with Prefetcher(self.sampler, range(self.journal.step, total), threads=self._threads()) as prepared:
            batches = iter(prepared)
            while not finished and not self.stopped:
                tally = _Tally()
                prepared_before = replace(self.sampler.spent)
                waited_before = prepared.waited
                remaining = (self.journal.epoch + 1) * per_epoch - self.journal.step
                for passes in islice(batches, remaining):
                    self._step(passes, tally)
                    if self.done >= 1.0 or self._is_stopped():
                        break
                if self._is_stopped():
                    break
                tally.waited = prepared.waited - waited_before
                finished = self._end_epoch(tally, prepared_before)
        if self.stopped and not finished:
            self.record.ended("stop")
            if self.journal.step != self.saved:
                self._save({})
        return self.journal

    def _is_stopped(self) -> bool:
        """Whether a step has found out that the training is to stop."""
        return self.stopped

    def _threads(self) -> int:
        """Return how many threads prepare crops: beside an accelerator all cores, of which the network needs none."""
        return 1 if self.device.type == "cpu" else self.plan.recipe.scale.cpus_per_worker

    def _step(self, passes: list[tuple[Tensor, Tensor]], tally: _Tally) -> None:
        rate = learning_rate_at(self.done, self.settings.learning_rate, self.settings.warmup)
        # Dropout and the like draw from here; so nothing random depends on where the training was interrupted.
        seed = (self.settings.seed << 32) + self.journal.step * world_size() + rank()
        torch.manual_seed(seed)
        began = time.perf_counter()
        on_device = [(x.to(self.device), y.to(self.device)) for x, y in passes]
        if self.journal.step % self.record.period:
            step = self.engine.step(on_device, rate)
        else:
            step = self.record.probed_step(self.engine, on_device, rate, self.journal.step, seed)
        tally.network += time.perf_counter() - began
        if not math.isfinite(step.gradient_norm):
            self._fail(step, on_device, seed)
        tally.crops += self.settings.batch_size
        self.record.step(self.journal.step, step, rate)
        loss = step.loss * self.engine.share(passes)  # so that the mean over workers is that over all crops
        sums = _added(self.journal.sums, {"loss": loss, "gradient_norm": step.gradient_norm, "steps": 1.0})
        self.journal = replace(self.journal, step=self.journal.step + 1, sums=sums)
        self.done = self._progress()
        self._tell(step, rate, tally)
        every = self.settings.checkpoint_every
        if every and self.journal.step % every == 0 and self.journal.step % self.settings.steps_per_epoch:
            self._save({"loss": step.loss})

    def _fail(self, step: Step, passes: list[tuple[Tensor, Tensor]], seed: int) -> NoReturn:
        """Find out where numbers stopped being numbers, write it down, and end the training."""
        torch.manual_seed(seed)
        part = self.engine.part(passes)
        with apart(self.engine.network):
            what, layer = find_origin(self.engine.network, part, passes, self.engine.precision)
        self.record.failure(Failure(self.journal.step, self.journal.epoch, step.loss, step.gradient_norm, what, layer))
        raise UntrainableError(
            f"step {self.journal.step} (epoch {self.journal.epoch}): the gradient is {step.gradient_norm}, "
            f"the loss {step.loss}" + (f"; it began in {layer} ({what})" if layer else ""),
            field="training.learning_rate",
            hint="lower training.learning_rate or training.gradient_clip, or use precision: fp32",
        )

    def _end_epoch(self, tally: _Tally, prepared_before: Preparing) -> bool:
        """Validate when it is time, save, and return whether the training has ended."""
        ended = time.perf_counter()
        seconds = ended - tally.start
        self._share_sums()
        settings, journal = self.settings, self.journal
        last = self.done >= 1.0
        metrics = {
            **{name: journal.sums[name] / journal.sums["steps"] for name in ("loss", "gradient_norm")},
            "learning_rate": learning_rate_at(self.done, settings.learning_rate, settings.warmup),
            "images_per_second": tally.crops / seconds,
            "wait_fraction": tally.waited / seconds,
        }
        stale, best = journal.stale, journal.best
        if last or (journal.epoch + 1) % settings.validate_every == 0:
            average = self.engine.average()
            found = validate(
                self.plan, self.source, average, str(self.device), images=self.images, stopping=self.reporter.stopping
            )
            if found is None:  # the epoch ends when it is gone on with, by the validation that was given up
                self.stopped = True
                return False
            scores, training_scores = found
            metrics |= scores
            metric = self.plan.metric
            score = scores.get(metric, math.nan)  # such as the precision of a network that finds nothing yet
            if math.isnan(score):
                numbers = tuple(name for name, value in scores.items() if not math.isnan(value))
                self.record.unscored(Unscored(journal.epoch, "nan" if metric in scores else "missing", numbers))
            else:
                known = None if training_scores is None else training_scores.get(metric)
                self.record.validation(Validation(journal.epoch, score, known))
            goodness = metric_named(metric).goodness
            good, before = goodness(score), goodness(best[metric]) if best else -math.inf
            stale = 0 if good > before else stale + 1  # what is no number is never better
            if good >= before:  # of equals the later, which has seen more
                self.best, best = average, {**scores, "epoch": float(journal.epoch)}
        metrics |= {"epoch": float(journal.epoch), "elapsed": self._elapsed()}
        prepared = self.sampler.spent
        self.record.spent(
            Spent(
                journal.epoch,
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
            done = journal.step >= settings.total_steps
            self.record.ended("epochs" if done else "minutes" if last else "early stopping")
        self.journal = replace(
            journal,
            epoch=journal.epoch + 1,
            stale=stale,
            best=best,
            finished=finished,
            ended=datetime.now(UTC).isoformat(timespec="seconds") if finished else "",
            history=(*journal.history, metrics),
            sums={},
        )
        if rank() == 0:
            self.reporter.progress({"stage": "epoch", **metrics})
        self._save(metrics)
        return self.journal.finished

    def _save(self, metrics: dict[str, float]) -> None:
        self.record.flush()
        self._share_sums()
        self.journal = replace(self.journal, elapsed=self._elapsed())
        state = self.engine.state()
        mine = Checkpoint(self.journal, state, self.best) if rank() == 0 else None
        self.reporter.report(metrics, mine)
        self.saved = self.journal.step

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
            rank=rank(),
            world=world_size(),
        )

    def _norm_crops(self) -> int | None:
        """Return how many crops the statistics of batch norms are of, at least; None without batch norms."""
        if not takes_statistics(self.engine.network):
            return None
        together = self.settings.batch_norm == "synchronised"
        world = world_size()
        return fewest_crops(self.settings.batch_size, world, self.plan.recipe.passes(world), together=together)

    def _elapsed(self) -> float:
        return self.elapsed_before + time.perf_counter() - self.began

    def _progress(self) -> float:
        elapsed, stopped = self._elapsed(), self.reporter.stopping() if rank() == 0 else False
        if world_size() > 1:
            # Clocks differ, and workers that disagree about the end would wait for each other for ever.
            agreed = torch.tensor([elapsed, float(stopped)], dtype=torch.float64, device=self.device)
            distributed.broadcast(agreed, src=0)
            elapsed, stopped = float(agreed[0]), bool(agreed[1])
        self.stopped = stopped
        return progress_of(self.journal.step, self.settings.total_steps, elapsed, self.settings.minutes)

    def _share_sums(self) -> None:
        """Replace what this worker has summed up by the mean over workers, so that one journal speaks for all."""
        if world_size() > 1 and self.journal.sums:
            names = list(self.journal.sums)
            means = torch.tensor([self.journal.sums[name] for name in names], dtype=torch.float64, device=self.device)
            distributed.all_reduce(means)
            self.journal = replace(self.journal, sums=dict(zip(names, (means / world_size()).tolist(), strict=True)))

    def _tell(self, step: Step, rate: float, tally: _Tally) -> None:
        now = time.perf_counter()
        if rank() or now - self.told < SECONDS_BETWEEN_PROGRESS:
            return
        self.told = now
        self.reporter.progress(
            {
                "stage": "training",
                "epoch": self.journal.epoch,
                "step": self.journal.step,
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
