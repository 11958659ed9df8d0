"""Make a run of a Hugging Face model, to look at it with everything that looks at runs."""

import argparse
from pathlib import Path

EXAMPLES = """\
examples:
  workbench import models/gpt2 runs/gpt2
  workbench blimp runs/gpt2
  workbench resume runs/gpt2 --data stories.txt --minutes 10      fine-tune it

The folder holds config.json, model.safetensors (or its parts and their index) and tokenizer.json of a GPT-2,
GPT-Neo, Llama, BERT or RoBERTa. Nothing is downloaded, and no pickle is opened. A model checks itself when it
is read: its attention rows must sum to 1, and changing them through their hooks must change its logits."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("folder", help="the folder of the Hugging Face model")
    parser.add_argument("run", help="the run folder to make")


def run(args: argparse.Namespace) -> int:
    """Import; returns the exit code."""
    import sys

    from workbench.console import clean
    from workbench.model.hf.family import weight_files
    from workbench.runs.foreign import import_run

    source = Path(args.folder)
    if sys.stderr.isatty() and source.is_dir():
        size = sum(file.stat().st_size for file in weight_files(source))
        print(f"Reading {clean(source)} ({size / 1e6:,.0f} MB) ...", file=sys.stderr)
    made = import_run(source, Path(args.run))
    c = made.config
    print(
        f"{clean(made.path)}: {made.family}, {c.n_params:,} parameters, {c.n_layers} layers, "
        f"d_model {c.d_model}, {c.n_heads} heads, vocabulary {c.d_vocab:,}, context {c.n_ctx}. "
        f"It passed its check. Look at it: workbench show {clean(made.path)}"
    )
    for note in made.notes:
        print(f"Note: {clean(note)}.")
    return 0
