"""The training loop: batch(step) -> loss -> update -> metrics.jsonl and checkpoints.

At each step, in this order: a `train` row, the checkpoint, the evaluation, the sample; each only where
it is due. What is due depends on the step alone, so a run that was interrupted anywhere, the first
batch, an evaluation or a save included, goes on to the same bytes.
"""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

import workbench
from training.config import RunSettings
from training.evaluate import IGNORE, evaluate, sample
from training.optim import AdamW
from training.progress import Progress, clock, short
from training.schedule import Budget, checkpoint_due, lr_share
from training.tracking import Record
from workbench.data.tokenizer import token_bytes
from workbench.errors import RunError
from workbench.model.compiled import compiled_loss
from workbench.runs.checkpoint import (
    checkpoint_folder,
    checkpoint_steps,
    delete_checkpoint,
    drop_optimizer,
    read_state,
    save_checkpoint,
)
from workbench.seeds import derive

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
    ) -> None:
        self.run, self.settings, self.model = run, settings, model
        self.record, self.progress, self.stopping = record, progress, stopping
        self._batches, self._validation, self._validation_tokens = batches, validation, validation_tokens
        self._tokenizer_hash = tokenizer_hash
        chosen = settings.train
        self.budget = Budget.of(chosen.steps, chosen.tokens, chosen.minutes, settings.tokens_per_step)
        self.optimizer = AdamW(
            model.named_parameters(),
            betas=(chosen.beta1, chosen.beta2),
            eps=chosen.eps,
            weight_decay=chosen.weight_decay,
            clip=chosen.clip,
            dtype=getattr(torch, chosen.dtype),
        )
        self._sizes = torch.zeros(settings.model.d_vocab, dtype=torch.long)
        lengths = torch.from_numpy(token_bytes(model.tokenizer))
        self._sizes[: len(lengths)] = lengths
        self._loss: Callable[..., torch.Tensor] = compiled_loss(model) if chosen.compile else model.loss
        self.step = 0
        self.seconds = 0.0
        self.flags: list[str] = []
        self._losses: list[float] = []  # since the last `train` row
        self._saved: set[int] = set()  # steps whose checkpoint is known to be whole
        self._speed = 0.0
        self._marked = (0, 0.0)  # step and seconds at the last `timings` row

    def restore(self, state: dict[str, Any], optimizer_state: dict[str, torch.Tensor]) -> None:
        """Go on from a checkpoint whose weights the model holds."""
        self.optimizer.load_state(optimizer_state)
        self.step, self.seconds = state["step"], state["seconds_trained"]
        self.flags = list(state["flags"])
        self._losses = list(state["losses"])
        self._saved = {self.step}
        self._marked = (self.step, self.seconds)

    def fit(self) -> bool:
        """Train until the budget is used or a signal comes.

        Returns:
            Whether the run is finished; if not, it was saved where it stands.

        Raises:
            RunError: a loss or gradient that is not finite, before the update; or a full disk.
        """
        self.model.train()
        if self.settings.train.compile and not self._done():
            self._forward_backward(self.step)  # compiling is not training time
            self.optimizer.zero_grad()
        self._observe()
        while not self._done() and not self.stopping():
            self._update()
            self._observe()
        self.model.eval()
        if self._done() and self.record.ended(self.step, bool(self.settings.train.sample_tokens)):
            return True
        self._save(planned=False)
        return False

    def _done(self) -> bool:
        return self.budget.done(self.step, self.seconds)

    def _update(self) -> None:
        """One step: forward and backward passes, then the optimiser."""
        chosen = self.settings.train
        began = time.perf_counter()
        assert chosen.lr is not None
        # The first update of a run limited by steps is number 1 of n, so that its rate is not 0.
        ahead = self.step + 1 if self.budget.steps is not None else self.step
        lr = chosen.lr * lr_share(self.budget.progress(ahead, self.seconds), chosen.warmup, chosen.lr_end)
        loss = self._forward_backward(self.step)
        if not math.isfinite(loss):
            raise self._not_finite("loss", loss)
        norm = self.optimizer.step(lr)
        if not math.isfinite(norm):
            raise self._not_finite("gradient's norm", norm)
        self.optimizer.zero_grad()
        self.step += 1
        self._losses.append(loss)
        self.seconds += time.perf_counter() - began
        if self.step % chosen.log_every == 0 or self._done():
            self._log(lr, norm)
        if self.progress.due():
            self._draw(loss)

    def _forward_backward(self, step: int) -> float:
        """Gradients of step's batches; returns their mean loss over all scored tokens."""
        chosen = self.settings.train
        if self.settings.model.dropout:
            torch.manual_seed(derive(chosen.seed, "dropout", step))
        if chosen.accumulate == 1:
            batch = self._batches.batch(step)
            loss = self._loss(batch.tokens, batch.targets, batch.segments)
            value = loss.item()
            if math.isfinite(value):
                loss.backward()
            return value
        parts = [self._batches.batch(step * chosen.accumulate + part) for part in range(chosen.accumulate)]
        counts = [int((batch.targets != IGNORE).sum()) for batch in parts]
        total = 0.0
        for batch, count in zip(parts, counts, strict=True):
            loss = self._loss(batch.tokens, batch.targets, batch.segments) * (count / max(1, sum(counts)))
            total += loss.item()
            if not math.isfinite(total):
                break
            loss.backward()
            self.optimizer.gather()
        return total

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

    def _log(self, lr: float, norm: float) -> None:
        mean = math.fsum(self._losses) / len(self._losses)
        self._losses = []
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
        chosen, last = self.settings.train, self._done()
        if last or checkpoint_due(self.step, chosen.checkpoint_every):
            self._save(planned=True)
        if not (last or self.step % chosen.eval_every == 0):
            return
        if not self.record.has("eval", self.step, final=last):
            found = evaluate(
                self.model,
                self._validation(chosen.final_eval_tokens if last else chosen.eval_tokens),
                self._sizes,
                stop=self.stopping,
                tick=self._draw_evaluation if last else lambda tokens: None,
            )
            if found is None:
                return
            self._report(found, last)
        if chosen.sample_tokens and not self.record.has("sample", self.step) and not self.stopping():
            made = sample(
                self.model,
                self.model.tokenizer,
                next(iter(self._validation(self.settings.model.n_ctx))),
                chosen.sample_prompt,
                chosen.sample_tokens,
                derive(chosen.seed, "sample", self.step),
            )
            self.record.write("sample", self.step, **made)

    def _report(self, found: Any, last: bool) -> None:
        numbers = {
            "split": "validation",
            "loss": found.loss,
            "perplexity": found.perplexity,
            "accuracy": found.accuracy,
            "bits_per_byte": found.bits_per_byte,
            "tokens": found.tokens,
        }
        self.record.write("eval", self.step, **numbers, final=last)
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

    def _save(self, planned: bool) -> None:
        """Write the checkpoint of this step, unless it is there; then thin out older ones."""
        if self.step in self._saved:
            if planned:
                self._thin_out()  # a kill may have come between saving and thinning out
            return
        self.record.sync()
        state = {
            "step": self.step,
            "tokens_seen": self.step * self.settings.tokens_per_step,
            "seconds_trained": self.seconds,
            "seed": self.settings.train.seed,
            "planned": planned,
            "flags": self.flags,
            "losses": self._losses,
            "tokenizer": self._tokenizer_hash,
            "versions": {"workbench": workbench.__version__, "torch": torch.__version__},
        }
        save_checkpoint(self.run, self.model, self.optimizer.state(), state, self.optimizer.weights())
        self._saved.add(self.step)
        self._thin_out()

    def _thin_out(self) -> None:
        """Of the planned checkpoints all but the last few lose the optimiser's state; of those that
        interruptions left only the newest stays, and only until a planned one follows."""
        keep, every = self.settings.train.keep_optimizer, self.settings.train.checkpoint_every
        steps = [step for step in checkpoint_steps(self.run) if step <= self.step]
        planned = [step for step in steps if checkpoint_due(step, every) or self._is_planned(step)]
        for step in planned[: -keep or None] if keep else []:
            drop_optimizer(self.run, step)
        for step in steps[:-1]:
            if step not in planned:
                delete_checkpoint(self.run, step)

    def _is_planned(self, step: int) -> bool:
        try:
            return read_state(checkpoint_folder(self.run, step)).get("planned", True)
        except RunError:
            return True  # damaged: left for its owner to look at
