"""The `workbench` command: one module of apps/verbs per verb, imported only when it is used."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from typing import NoReturn

from training.terminal import guarded
from workbench import __version__
from workbench.errors import ConfigError, nearest

VERBS: dict[str, dict[str, str]] = {
    "train": {
        "train": "train a model on stories",
        "resume": "go on with a run, to its end or for longer",
        "tune": "find a learning rate and a batch size before a training",
        "sweep": "train a family of models from one file; go on with it, look at its state",
        "data": "look at a corpus: stories, tokens, bytes per token, overlap",
        "presets": "the named shapes and their sizes",
    },
    "look": {
        "list": "all runs of a folder as a table",
        "show": "one run: settings, figures, checkpoints, loss curve",
        "compare": "the runs of a folder: tables, plots, speed, intervals over seeds",
        "generate": "let a model write",
        "blimp": "score a model on minimal pairs",
        "patch": "put activations of one prompt into another: what moves the answer",
        "attribute": "what embedding, heads, MLPs and neurons add to a pair or a text; lenses",
        "heads": "what attention heads look at, beside uniform attention and an untrained copy",
        "neurons": "what neurons fire on, write and do; a card for one",
        "probe": "what each layer knows of a task, beside its controls; families and checkpoints",
        "ablate": "the model without heads, MLPs or neurons: loss, pairs, importance, pruning",
        "scaling": "scaling laws of a family: loss and BLiMP over size, the best size for a budget",
        "circuit": "which components decide a paradigm: over pairs, models and checkpoints; the smallest set",
        "explain": "work out beforehand what the explorer shows first: heads, components, a pair",
        "study": "the TinyStories paper's interpretability study of a run, as one HTML page",
        "app": "open the explorer in the browser",
    },
    "exchange": {
        "copy": "make a run of your own that begins with another's weights",
        "import": "make a run of a Hugging Face model",
        "export": "write a run as a Hugging Face model",
    },
    "begin": {
        "demo": "train a family of three tiny models, score and compare them, open the explorer",
    },
}

EXAMPLES = """\
examples:
  workbench demo
  workbench train --preset tiny --data ../shared/data/TinyStories --minutes 10 --out runs/tiny
  workbench resume runs/tiny --minutes 5
  workbench list runs
  workbench generate runs/tiny --prompt "Once upon a time" --tokens 120
  workbench blimp runs/tiny --data ../shared/data/blimp
  workbench export runs/tiny models/tiny

`workbench VERB --help` explains a verb.
`runs/tiny@512` is the checkpoint of step 512, `runs/tiny` the last.
`zoo/tiny-4h` is a model that ships; `workbench list zoo` shows them all."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest option for an unknown one."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}. See `{self.prog} --help`.")

    def parse_args(self, args=None, namespace=None):  # type: ignore[override]
        """As argparse, but an unknown option is answered with the nearest one."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [
                option for action in self._actions for option in action.option_strings if len(option) > 2
            ]
            word = unknown[0].partition("=")[0]
            hint = nearest(word, options) if word.startswith("-") else f"See `{self.prog} --help`."
            raise ConfigError(f"{self.prog}: there is no argument {word!r} here. {hint}")
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (2 after a mistake of the user's)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    known = {verb for group in VERBS.values() for verb in group}
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"workbench {__version__}")
        return 0
    verb, rest = words[0], words[1:]
    if verb not in known:
        raise ConfigError(f"there is no verb {verb!r}. {nearest(verb, sorted(known))}")
    # A module cannot be called import; it is import_.
    module = import_module(f"apps.verbs.{verb}{'_' if iskeyword(verb) else ''}")
    parser = Parser(
        prog=f"workbench {verb}",
        description=" ".join((module.__doc__ or "").split("\n\n")[0].split()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    return module.run(parser.parse_args(rest))


def overview() -> str:
    """The text of `workbench --help`."""
    lines = ["usage: workbench VERB [options]", "", "Train small language models and take them apart.", ""]
    for group, verbs in VERBS.items():
        lines.append(f"{group}:")
        lines += [f"  {verb:<10} {what}" for verb, what in verbs.items()]
        lines.append("")
    return "\n".join([*lines, EXAMPLES])


if __name__ == "__main__":
    sys.exit(main())
