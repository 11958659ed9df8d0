"""The training loop: batch(step) -> loss -> update -> metrics.jsonl and checkpoints.

At each step, in this order: a `train` row, the checkpoint, the evaluation, the sample; each only where
it is due. What is due depends on the step and the rows before it alone, so a run that was interrupted
anywhere, the first batch, an evaluation or a save included, goes on to the same bytes.
"""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

import workbench
from training.averaging import averaged
from training.callbacks import NO_HOOKS, Hooks, TrainingState
from training.distributed import Alone
from training.evaluate import evaluate, sample
from training.optimizers import make_optimizer
from training.schedule import Budget, checkpoint_due
from training.schedules import Shape, lr_share
from training.stopping import EarlyStopping
from training.thinning import thin_out
from training.tracking import Record
from training.updater import Updater
from workbench.console import Progress, clock, short
from workbench.errors import RunError
from workbench.runs.checkpoint import checkpoint_steps, save_checkpoint
from workbench.runs.config import RunSettings
from workbench.stats import derive

LEAK = 0.1
"""A masked model's loss, in nats, under which the answer is probably in the input."""


class Trainer:
    """Trains one model in one run folder, from any step on.

    Args:
        run: the run folder.
        settings: resolved settings (`dtype` is not `auto`).
        model: a `HookedTransformer` with float32 weights and its tokenizer.
        batches: of the training split; `.batch(index)`.
        validation: gives the batches of as many tokens of the validation split, or of all for None.
        validation_tokens: tokens of the whole validation split.
        tokenizer_hash: kept in each checkpoint, so that another tokenizer is noticed.
        record: where rows go.
        progress: the terminal's line.
        stopping: True as soon as the run should save and leave.
        group: the processes that train this model together; only the first one writes.
        hooks: callbacks and the loss of a caller in Python.
    """

    def __init__(
        self,
        run: Path,
        settings: RunSettings,
        model: Any,
        batches: Any,
        validation: Callable[[int | None], Iterable[Any]],
        validation_tokens: int,
        tokenizer_hash: str,
        record: Record,
        progress: Progress,
        stopping: Callable[[], bool],
        group: Alone | None = None,
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self.run, self.settings, self.model = run, settings, model
        self.record, self.progress, self.group = record, progress, group or Alone()
        # Processes leave together: what each has seen is asked where all of them stand at the same place.
        self.stopping = lambda: self.group.any(stopping())
        self._validation, self._validation_tokens = validation, validation_tokens
        self._tokenizer_hash = tokenizer_hash
        chosen = settings.train
        self.budget = Budget.of(chosen.steps, chosen.tokens, chosen.minutes, settings.tokens_per_step)
        self.optimizer = averaged(make_optimizer(model, chosen), chosen)
        self.hooks = hooks
        self.updater = Updater(settings, model, batches, self.optimizer, self.group, hooks.loss)
        self.step = 0
        self.seconds = 0.0
        self.flags: list[str] = []
        self._losses: list[float] = []  # of the last `log_every` updates
        self._latest = (0.0, 0.0)  # learning rate and gradient norm of the last update
        self._early = EarlyStopping(chosen.patience, record.milestones)
        self._saved: set[int] = set()  # steps whose checkpoint is known to be whole
        self._speed = 0.0
        self._marked = (0, 0.0)  # step and seconds at the last `timings` row

    def restore(self, state: dict[str, Any], optimizer_state: dict[str, torch.Tensor]) -> None:
        """Go on from a checkpoint whose weights the model holds."""
        self.optimizer.load_state(optimizer_state)
        self.step, self.seconds = state["step"], state["seconds_trained"]
        self.flags = list(state["flags"])
        self._losses = list(state["losses"])
        self._latest = tuple(state.get("latest", self._latest))
        self._saved = {self.step}
        self._marked = (self.step, self.seconds)

    def extend(self) -> None:
        """Go on past where patience ended the run: a new count of evaluations begins."""
        if self._early.stopped:
            self._write("extend")

    def fit(self) -> bool:
        """Train until the budget is used or a signal comes.

        Returns:
            Whether the run is finished; if not, it was saved where it stands.

        Raises:
            RunError: a loss or gradient that is not finite, before the update; or a full disk.
        """
        self.model.train()
        if not self._done():
            self.updater.prepare(self.step)
        self._observe()
        while not self._done() and not self.stopping():
            self._update()
            self._observe()
        self.model.eval()
        wanted = bool(self.settings.train.sample_tokens)
        # Only the first process writes samples, so only it knows whether the last one is there.
        lacking = self.group.leads and not self.record.ended(self.step, wanted)
        if self._done() and not self.group.any(lacking):
            return True
        self._save(planned=False)
        return False

    def _done(self) -> bool:
        return self._early.stopped or self.budget.done(self.step, self.seconds)

    def _update(self) -> None:
        """One step: forward and backward passes, then the optimiser."""
        chosen = self.settings.train
        began = time.perf_counter()
        assert chosen.lr is not None
        # The first update of a run limited by steps is number 1 of n, so that its rate is not 0.
        ahead = self.step + 1 if self.budget.steps is not None else self.step
        progress = self.budget.progress(ahead, self.seconds)
        lr = chosen.lr * lr_share(progress, Shape.of(chosen), chosen.schedule or "cosine", self._early.losses)
        loss, norm = self.updater(self.step, lr)
        for what, value in (("loss", loss), ("gradient's norm", norm)):
            if not math.isfinite(value):
                raise self._not_finite(what, value)
        self.step += 1
        self._losses = [*self._losses, loss][-chosen.log_every :]
        self._latest = (lr, norm)
        self.seconds += self.group.sum((time.perf_counter() - began) * self.group.leads)[0]
        if self.step % chosen.log_every == 0 or self._done():
            self._log()
        if self.progress.due():
            self._draw(loss)

    def _not_finite(self, what: str, value: float) -> RunError:
        steps = checkpoint_steps(self.run)
        kept = (
            f"the last checkpoint, step {steps[-1]}, is untouched"
            if steps
            else "no checkpoint was written yet"
        )
        return RunError(
            f"step {self.step + 1}: the {what} is {value}; stopped before the update, {kept}. "
            f"Try again with a smaller train.lr than {self.settings.train.lr}, or float32."
        )

    def _write(self, kind: str, **numbers: Any) -> None:
        self.record.write(kind, self.step, **numbers)
        self._early.see({"kind": kind, "step": self.step, **numbers})

    def _log(self) -> None:
        lr, norm = self._latest
        mean = math.fsum(self._losses) / len(self._losses)
        self.record.write(
            "train",
            self.step,
            loss=mean,
            lr=lr,
            grad_norm=norm,
            tokens_seen=self.step * self.settings.tokens_per_step,
            samples_seen=self.step * self.settings.train.batch_size * self.settings.train.accumulate,
        )
        steps, seconds = self.step - self._marked[0], self.seconds - self._marked[1]
        self._speed = steps * self.settings.tokens_per_step / max(seconds, 1e-9)
        self._marked = (self.step, self.seconds)
        self.record.time(self.step, self.seconds, self._speed)
        self._check_leak(mean)
        if self.hooks.callbacks and self.group.leads:
            self._call_back(mean)

    def _call_back(self, mean: float) -> None:
        lr, norm = self._latest
        tokens_seen = self.step * self.settings.tokens_per_step
        state = TrainingState(self.run, self.step, tokens_seen, mean, lr, norm, self.model)
        training = self.model.training
        try:
            numbers = self.hooks.numbers(state)
        finally:
            self.model.train(training)
        if numbers:
            self.record.write("callback", self.step, **numbers)

    def _check_leak(self, loss: float) -> None:
        if self.settings.model.objective != "mlm" or loss >= LEAK or self.flags:
            return
        flag = (
            f"step {self.step}: the masked model's loss is {loss:.3f} nats, under {LEAK}; "
            "the hidden tokens are probably visible in the input."
        )
        self.flags.append(flag)
        self.record.write("flag", self.step, text=flag)
        self.progress.say(f"Warning: {flag}")

    def _draw(self, loss: float) -> None:
        share = self.budget.progress(self.step, self.seconds)
        left = self.budget.seconds_left(self.step, self.seconds)
        parts = [f"step {self.step:,}", f"loss {loss:.3f}"]
        if self._speed:
            parts.append(f"{short(self._speed)} tok/s")
        if left is not None:
            parts.append(f"{clock(left)} left")
        self.progress.update(share, "  ".join(parts))

    def _observe(self) -> None:
        """The checkpoint, the evaluation and the sample that are due after this step."""
        chosen, due = self.settings.train, self.step % self.settings.train.eval_every == 0
        if self._done() or checkpoint_due(self.step, chosen.checkpoint_every):
            self._save(planned=True)
        if not (due or self._done()):
            return
        # With patience, the last step takes part in the comparison, on the same tokens as the others.
        if self._early.watching or not self._done():
            if not self._evaluate(final=False):
                return
            self._judge()
        if self._done():
            self._save(planned=True)
            if not self._evaluate(final=True):
                return
        if not chosen.sample_tokens or self.stopping():
            return
        if self.group.leads and not self.record.has("sample", self.step):
            with self.optimizer.evaluating():
                made = sample(
                    self.model,
                    self.model.tokenizer,
                    next(iter(self._validation(self.settings.model.n_ctx))),
                    chosen.sample_prompt,
                    chosen.sample_tokens,
                    derive(chosen.seed, "sample", self.step),
                )
            self.record.write("sample", self.step, **made)

    def _evaluate(self, final: bool) -> bool:
        """The evaluation of this step, unless it is there; False if a signal cut it short."""
        if self.record.has("eval", self.step, final=final):
            return True
        chosen = self.settings.train
        with self.optimizer.evaluating():
            found = evaluate(
                self.model,
                self._validation(chosen.final_eval_tokens if final else chosen.eval_tokens),
                stop=self.stopping,
                tick=self._draw_evaluation if final else lambda tokens: None,
                group=self.group,
            )
        if found is not None:
            self._report(found, final)
        return found is not None

    def _judge(self) -> None:
        """With patience: keep the checkpoint of the best evaluation, and say why the run ends here."""
        early = self._early
        if not early.watching:
            return
        if early.step == self.step:
            self._save(planned=False, thin=False)
            if not self.record.has("best", self.step):
                self._write("best", loss=early.loss)
            self._thin_out()  # only now the best one before, so that `run@best` is there at any moment
        if not self._done() or self.record.has("stop", self.step):
            return
        if not self.record.has("train", self.step):
            self._log()
        reason = "limit" if self.budget.done(self.step, self.seconds) else "patience"
        best = {} if early.step is None else {"best_step": early.step, "best_loss": early.loss}
        self._write("stop", reason=reason, **best, stale=early.stale)
        if reason == "patience":
            self.progress.say(
                f"step {self.step:,}  ended early: {early.stale} evaluations without a better validation loss"
                + (f"; the best, {early.loss:.3f}, is {self.run.name}@{early.step}" if best else "")
            )

    def _report(self, found: Any, last: bool) -> None:
        numbers = {
            "split": "validation",
            "loss": found.loss,
            "perplexity": found.perplexity,
            "accuracy": found.accuracy,
            "bits_per_byte": found.bits_per_byte,
            "tokens": found.tokens,
        }
        label = self.optimizer.label
        self._write("eval", **numbers, **({} if label == "last" else {"weights": label}), final=last)
        shown = f"step {self.step:,}  validation loss {found.loss:.3f}"
        if found.bits_per_byte is not None:
            shown += f"  {found.bits_per_byte:.3f} bits/byte"
        self.progress.say(f"{shown}  accuracy {found.accuracy:.1%}")

    def _draw_evaluation(self, tokens: int) -> None:
        if self.progress.due():
            whole = min(self.settings.train.final_eval_tokens or math.inf, self._validation_tokens)
            self.progress.update(
                min(1.0, tokens / whole), f"evaluating  {short(tokens)} of {short(whole)} tokens"
            )

    def _save(self, planned: bool, thin: bool = True) -> None:
        """Write the checkpoint of this step, unless it is there; then thin out older ones."""
        if self.step in self._saved:
            if planned:
                self._thin_out()  # a kill may have come between saving and thinning out
            return
        self._saved.add(self.step)
        if not self.group.leads:
            return
        self.record.sync()
        state = {
            "step": self.step,
            "tokens_seen": self.step * self.settings.tokens_per_step,
            "seconds_trained": self.seconds,
            "seed": self.settings.train.seed,
            "planned": planned,
            "weights": self.optimizer.label,
            "flags": self.flags,
            "losses": self._losses,
            "latest": self._latest,
            "tokenizer": self._tokenizer_hash,
            **({"custom_loss": self.hooks.loss_name} if self.hooks.loss else {}),
            "versions": {"workbench": workbench.__version__, "torch": torch.__version__},
        }
        save_checkpoint(self.run, self.model, self.optimizer.state(), state, self.optimizer.weights())
        if thin:
            self._thin_out()

    def _thin_out(self) -> None:
        if self.group.leads:
            best = self._early.step if self._early.watching else None
            thin_out(self.run, self.step, self.settings.train, best)
