"""Let a model write on from a prompt."""

import argparse

from training.command import count

EXAMPLES = """\
examples:
  workbench generate runs/tiny --prompt "Once upon a time" --tokens 120
  workbench generate runs/tiny@512 --prompt "The dog" --temperature 0      its first choice each time
  workbench generate runs/tiny --prompt "Lily" --top-k 40 --top-p 0.9 --seed 3 --samples 5"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", help="the run folder, or run@step")
    parser.add_argument("--prompt", default="Once upon a time", help="how the text begins")
    parser.add_argument(
        "--tokens", type=count, default=100, metavar="N", help="tokens to write (default: 100)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.8, metavar="T", help="0: the likeliest (default: 0.8)"
    )
    parser.add_argument("--top-k", type=count, metavar="K", help="draw among the K likeliest tokens")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="draw among the fewest tokens that make up P"
    )
    parser.add_argument(
        "--seed", type=count, default=0, metavar="N", help="the same seed writes the same text"
    )
    parser.add_argument("--samples", type=count, default=1, metavar="N", help="how many texts")


def run(args: argparse.Namespace) -> int:
    """Print the texts; returns the exit code."""
    from workbench.errors import InputError

    if not args.prompt.strip():
        raise InputError(
            '--prompt is empty; give the model some text to go on from, such as "Once upon a time".'
        )
    for name in ("tokens", "samples"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} must be at least 1; found {getattr(args, name)}.")
    import sys

    from workbench.runs.run import load
    from workbench.stats import derive

    model = load(args.run).model
    room = model.config.n_ctx - len(model.to_tokens(args.prompt, truncate=True)[0])
    if 0 < room < args.tokens:
        print(f"The context of {model.config.n_ctx} tokens leaves room for {room}.", file=sys.stderr)
    for index in range(args.samples):
        text = model.generate(
            args.prompt,
            max_new_tokens=args.tokens,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            seed=args.seed if index == 0 else derive(args.seed, "generate", index),
        )
        print(("\n" if index else "") + str(text))
    return 0
