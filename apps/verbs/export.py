"""Write a run as a folder that Hugging Face's transformers loads."""

import argparse
from pathlib import Path

EXAMPLES = """\
examples:
  workbench export runs/tiny models/tiny
  workbench export runs/tiny@512 models/tiny-512 --family gpt2

The folder gets config.json, model.safetensors, tokenizer.json and tokenizer_config.json, and loads with
AutoModelForCausalLM or AutoModelForMaskedLM and AutoTokenizer. Without --family the one that can hold the
model is taken; if there is none, the message names the fields that each refuses."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument("folder", help="the folder to make")
    parser.add_argument(
        "--family",
        default="auto",
        metavar="NAME",
        help="gpt2, gpt_neo, llama, bert or roberta",
    )


def run(args: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from workbench.console import clean
    from workbench.runs.foreign import export

    made = export(args.run, Path(args.folder), args.family)
    size = sum(file.stat().st_size for file in made.path.iterdir())
    auto = "MaskedLM" if made.config.objective == "mlm" else "CausalLM"
    print(
        f"{clean(made.path)}: {clean(args.run)} as {made.family}, {made.config.n_params:,} parameters, "
        f"{size / 1e6:,.1f} MB. Load it: AutoModelFor{auto}.from_pretrained({str(made.path)!r})"
    )
    return 0
