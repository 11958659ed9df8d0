"""The `workbench` command: a module of apps/commands is imported only when one of its commands is used."""

import sys
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword

from training.terminal import guarded
from workbench import __version__
from workbench.errors import ConfigError, nearest

COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "train": {
        "train": ("training", "train a model on stories"),
        "resume": ("training", "continue a run to its end, or for longer"),
        "tune": ("training", "find a learning rate and a batch size before training"),
        "sweep": ("sweep", "train a family of models from one file; continue it, show its state"),
        "data": ("training", "describe a corpus: stories, tokens, bytes per token, overlap of the splits"),
        "presets": ("presets", "list the named shapes and their sizes"),
    },
    "analyse": {
        "list": ("runs", "list the runs of a folder"),
        "show": ("runs", "describe one run: settings, figures, checkpoints, loss curve"),
        "compare": ("runs", "compare the runs of a folder: tables, plots, speed, intervals over seeds"),
        "generate": ("runs", "generate text"),
        "blimp": ("runs", "score a model on minimal pairs"),
        "patch": ("patching", "activation patching: exchange activations between two prompts"),
        "patch-gradient": ("patching", "attribution patching: the same from one gradient, with a check"),
        "patch-paths": ("patching", "path patching: exchange what one component sends to another"),
        "patch-edges": ("patching", "edge attribution patching (EAP, EAP-IG) over all paths"),
        "attribute": (
            "components",
            "direct contributions to a pair, a prompt or a text; logit and tuned lens",
        ),
        "heads": ("components", "what attention heads attend to, compared with an untrained copy"),
        "neurons": ("neurons", "what neurons fire on, write and do; a card of one neuron"),
        "probe": ("probing", "probes of a task in every layer, with controls; families and checkpoints"),
        "ablate": ("components", "ablate heads, MLPs or neurons: loss, pairs, importance, pruning"),
        "scaling": ("scaling", "scaling laws of a family, and the best size for a budget"),
        "circuit": ("components", "components that decide a paradigm, over models and checkpoints"),
        "explain": ("runs", "compute what the explorer shows first: head scores, components, a pair"),
        "study": ("runs", "the TinyStories paper's interpretability study of a run, as one HTML page"),
        "app": ("runs", "open the explorer in the browser"),
    },
    "exchange": {
        "copy": ("runs", "start a run from the weights of another"),
        "import": ("runs", "make a run of a Hugging Face model"),
        "export": ("runs", "write a run as a Hugging Face model"),
    },
    "begin": {
        "demo": ("demo", "train three tiny models, score and compare them, open the explorer"),
    },
}
"""The commands by group: the module of apps/commands that defines each, and its line in the overview."""

EXAMPLES = """\
examples:
  workbench demo
  workbench train --preset tiny --data ../shared/data/TinyStories --minutes 10 --out runs/tiny
  workbench resume runs/tiny --minutes 5
  workbench list runs
  workbench generate runs/tiny --prompt "Once upon a time" --tokens 120
  workbench blimp runs/tiny --data ../shared/data/blimp
  workbench export runs/tiny models/tiny

`workbench COMMAND --help` explains a command.
`runs/tiny@512` is the checkpoint of step 512, `runs/tiny` the last.
`zoo/tiny-4h` is a model that ships; `workbench list zoo` shows them all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (2 after a mistake of the user's)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    modules = {name: module for group in COMMANDS.values() for name, (module, _) in group.items()}
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"workbench {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in modules:
        raise ConfigError(f"there is no command {name!r}. {nearest(name, sorted(modules))}")
    from workbench.command import run_command

    module = import_module(f"apps.commands.{modules[name]}")
    attribute = name.replace("-", "_")
    function = getattr(module, attribute + "_" * (iskeyword(attribute) or attribute == "list"))
    return run_command(function, f"workbench {name}", rest)


def overview() -> str:
    """Return the text of `workbench --help`."""
    lines = ["usage: workbench COMMAND [options]", ""]
    lines += ["Train small language models and take them apart.", ""]
    for group, commands in COMMANDS.items():
        lines.append(f"{group}:")
        lines += [f"  {name:<14} {line}" for name, (_, line) in commands.items()]
        lines.append("")
    return "\n".join([*lines, EXAMPLES])


if __name__ == "__main__":
    sys.exit(main())
