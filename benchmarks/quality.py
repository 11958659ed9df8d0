"""What a budget buys: our training beside a GPT-Neo trained by Hugging Face's Trainer.

Same corpus, tokenizer, batches, shape, peak learning rate and schedule; each gets `--minutes` of
training on the same threads. Then both are read by the same evaluation: validation loss, bits a
byte, BLiMP. `python -m benchmarks.quality --data ../shared/data/TinyStories --minutes 10`.

`--precision STEPS` compares bf16 with float32 after so many steps instead.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def material_of(source: str | None, shape: str, **train: Any) -> Any:
    """Settings, tokenizer and packed tokens, as `workbench train` makes them."""
    from training.material import prepare
    from workbench.runs.config import resolve

    assignments = [f"train.{name}={json.dumps(value)}" for name, value in train.items()]
    if source is not None:
        assignments.append(f"data.source={json.dumps(source)}")
    return prepare(resolve(preset=shape, assignments=assignments))


def judged(model: Any, material: Any, pairs: str | None, limit: int | None) -> dict[str, float]:
    """Loss on the whole validation split, bits a byte, and BLiMP."""
    from training.evaluate import evaluate
    from workbench.data.batches import eval_batches
    from workbench.evals.blimp import blimp

    batches = eval_batches(material.packed.validation, 16, model.config.n_ctx)
    found = evaluate(model.eval(), batches)
    assert found is not None
    scores = blimp(model, pairs, limit=limit, tokenizer=material.tokenizer).overall
    return {
        "loss": found.loss,
        "bits_per_byte": found.bits_per_byte or float("nan"),
        "blimp_paradigms": scores.paradigms.accuracy,
        "blimp_phenomena": scores.phenomena.accuracy,
    }


def train_ours(material: Any, folder: Path) -> tuple[Any, dict[str, float]]:
    """`workbench train`, from its settings to its last checkpoint."""
    import workbench as wb
    from training.session import train

    began = time.perf_counter()
    train(material.settings, folder)
    run = wb.load(folder)
    state = {"seconds": time.perf_counter() - began, "tokens": run.step * material.settings.tokens_per_step}
    return run.model, state


class Windows(torch.utils.data.Dataset):
    """The same windows in the same order as our batches, one row an item."""

    def __init__(self, material: Any) -> None:
        from workbench.data.batches import Batches

        settings = material.settings
        self.size = settings.train.batch_size
        self.batches = Batches(
            material.packed.train, seed=settings.train.seed, batch_size=self.size, n_ctx=settings.model.n_ctx
        )

    def __len__(self) -> int:
        return 10**8

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.batches.batch(index // self.size).tokens[index % self.size]
        return {"input_ids": row, "labels": row}


def gpt_neo(config: Any) -> Any:
    """A GPT-Neo of the same shape; its local windows are as long as the context, so all is global."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    return GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=config.d_vocab, max_position_embeddings=config.n_ctx, hidden_size=config.d_model,
            num_layers=config.n_layers, num_heads=config.n_heads, intermediate_size=config.mlp_width,
            attention_types=[[["global"], config.n_layers]], embed_dropout=0.0, resid_dropout=0.0,
            attention_dropout=0.0, use_cache=False, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip


def train_theirs(material: Any, minutes: float) -> tuple[Any, dict[str, float]]:
    """The Trainer for so many minutes: steps are set from a short trial, in the faster precision."""
    from transformers import Trainer, TrainingArguments

    settings = material.settings

    def fit(steps: int, bf16: bool) -> tuple[Any, float]:
        torch.manual_seed(settings.train.seed)
        model = gpt_neo(settings.model)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder, max_steps=steps, per_device_train_batch_size=settings.train.batch_size,
                learning_rate=settings.train.lr, lr_scheduler_type="cosine",
                warmup_steps=max(1, int(settings.train.warmup * steps)),
                weight_decay=settings.train.weight_decay, adam_beta2=settings.train.beta2,
                max_grad_norm=settings.train.clip, optim="adamw_torch_fused", bf16=bf16, use_cpu=True,
                save_strategy="no", report_to=[], logging_steps=10**9, disable_tqdm=True,
                train_sampling_strategy="sequential",
            )  # fmt: skip
            trainer = Trainer(model=model, args=arguments, train_dataset=Windows(material))
            began = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - began
            return trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False), seconds

    pace = {bf16: min(fit(20, bf16)[1] for _ in range(2)) / 20 for bf16 in (False, True)}
    bf16 = pace[True] < pace[False]
    steps = max(1, int(minutes * 60 / pace[bf16]))
    model, seconds = fit(steps, bf16)
    return model, {"seconds": seconds, "tokens": steps * settings.tokens_per_step, "bf16": float(bf16)}


@torch.no_grad()
def opened(theirs: Any, config: Any, tokenizer: Any) -> Any:
    """Their weights in our model, so that both are judged by the same code; the logits must agree."""
    from workbench.model.transformer import HookedTransformer

    config = dataclasses.replace(
        config, qkv_bias=False, attention_scale=1.0, activation="gelu_tanh", objective=None
    )
    model: Any = HookedTransformer(config, tokenizer).eval()
    stack = theirs.transformer
    model.embed.W_E.copy_(stack.wte.weight)
    model.pos_embed.W_pos.copy_(stack.wpe.weight)
    pairs = [(model.ln_final, stack.ln_f)]
    for block, layer in zip(model.blocks, stack.h, strict=True):
        attention = layer.attn.attention
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        block.attn.qkv_weight.copy_(torch.cat([projection.weight for projection in projections]))
        block.attn.out_weight.copy_(attention.out_proj.weight)
        block.attn.out_bias.copy_(attention.out_proj.bias)
        block.mlp.in_weight.copy_(layer.mlp.c_fc.weight)
        block.mlp.b_in.copy_(layer.mlp.c_fc.bias)
        block.mlp.out_weight.copy_(layer.mlp.c_proj.weight)
        block.mlp.b_out.copy_(layer.mlp.c_proj.bias)
        pairs += [(block.ln1, layer.ln_1), (block.ln2, layer.ln_2)]
    for norm, other in pairs:
        norm.w.copy_(other.weight)
        norm.b.copy_(other.bias)
    tokens = torch.randint(4, config.d_vocab, (2, config.n_ctx))
    torch.testing.assert_close(model(tokens), theirs.eval()(tokens).logits, rtol=1e-3, atol=1e-3)
    return model


def compare(source: str | None, pairs: str | None, shape: str, minutes: float, limit: int | None) -> dict:
    """Both trainings and both judgements; printed side by side."""
    material = material_of(source, shape, minutes=minutes)
    with tempfile.TemporaryDirectory() as folder:
        model, ours = train_ours(material, Path(folder) / "ours")
        ours |= judged(model, material, pairs, limit)
    theirs_model, theirs = train_theirs(material, minutes)
    theirs |= judged(
        opened(theirs_model, material.settings.model, material.tokenizer), material, pairs, limit
    )
    print(f"\n{shape}, {minutes:g} minutes each   {'workbench':>12s}{'GPT-Neo, Trainer':>20s}")
    for key in ("tokens", "loss", "bits_per_byte", "blimp_paradigms", "blimp_phenomena"):
        shown = "{:,.0f}" if key == "tokens" else "{:.3f}"
        print(f"  {key:24s}{shown.format(ours[key]):>14s}{shown.format(theirs[key]):>20s}")
    return {"ours": ours, "theirs": theirs}


def precision(source: str | None, shape: str, steps: int, pairs: str | None) -> dict[str, float]:
    """Validation loss after `steps` steps in float32 and in bf16, from the same seed."""
    losses = {}
    for dtype in ("float32", "bfloat16"):
        material = material_of(source, shape, steps=steps, dtype=dtype)
        with tempfile.TemporaryDirectory() as folder:
            model, _ = train_ours(material, Path(folder) / dtype)
            losses[dtype] = judged(model, material, pairs, 10)["loss"]
    ratio = losses["bfloat16"] / losses["float32"]
    print(
        f"{shape}, {steps} steps: float32 {losses['float32']:.4f}, bf16 {losses['bfloat16']:.4f}, "
        f"ratio {ratio:.4f}"
    )
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="corpus; the embedded stories if not given")
    parser.add_argument("--pairs", help="folder of minimal pairs; the embedded ones if not given")
    parser.add_argument("--shape", default="tiny")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--limit", type=int, help="pairs of each paradigm")
    parser.add_argument("--precision", type=int, metavar="STEPS")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.precision:
        precision(args.data, args.shape, args.precision, args.pairs)
    else:
        compare(args.data, args.pairs, args.shape, args.minutes, args.limit)


if __name__ == "__main__":
    main()
