"""The command that lists the named shapes."""

from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

if TYPE_CHECKING:
    from workbench.model.config import ModelConfig

LEGEND = """\
decoder: causal attention, next token (clm); encoder: attention both ways, masked tokens (mlm). vocab: BPE,
SentencePiece or WordPiece. d128: factorised. attention: 12x64 is 12 heads 64 wide; 8/4x8 has 4 heads
of keys and values for 8 of queries; 0/256 are windows by layer, 0 for all. FLOPs: of one training token."""

_ACTIVATIONS = {"gelu": "GELU", "gelu_tanh": "GELU", "relu": "ReLU", "silu": "SiLU", "solu": "SoLU"}
_ACTIVATIONS |= {"solu_ln": "SoLU", "prelu": "PReLU"}
_GATED = {"gelu": "GEGLU", "gelu_tanh": "GEGLU", "silu": "SwiGLU", "relu": "ReGLU"}
_SUFFIXES = {"gelu_tanh": " (tanh)", "solu_ln": " + LayerNorm"}


def presets(
    name: Annotated[str | None, Argument(metavar="NAME", help="describe only this one")] = None,
    exact: Annotated[bool, Option("--exact", help="count parameters exactly, part by part")] = False,
    as_json: Annotated[bool, Option("--json", help="print every field and figure as JSON")] = False,
) -> None:
    """List the named shapes, in the columns of tldr-transformers' big table; or describe one of them.

    Any field of a preset can be overridden: `workbench train --preset NAME --set model.FIELD=VALUE`.
    embed(ding) counts the vectors of tokens, positions and token types, other everything else. FLOPs are of
    one training token, forward and backward, at full context. A wide terminal or a pipe gets more columns.

    \b
    examples:
      workbench presets                        all of them
      workbench presets roberta-9m             one of them: every field, its source, how to train it
      workbench presets --exact                exact parameters, part by part
      workbench presets gpt2 --json            for machines
      workbench train --preset small --set model.d_model=192 --set model.d_mlp=768
      workbench train --preset tiny --set model.layout=aaaammmm
    """
    from workbench.errors import ConfigError
    from workbench.model.config import PRESETS, preset

    if exact and as_json:
        raise ConfigError("--exact and --json choose the form of the output; give one of them.")
    shapes = {each: preset(each) for each in ([name] if name else PRESETS)}
    if as_json:
        import json

        found = [_record(each, shape) for each, shape in shapes.items()]
        print(json.dumps(found[0] if name else found, indent=2))
    elif exact:
        _exact(shapes)
    elif name:
        _one(name, shapes[name])
    else:
        _table(shapes)


def _table(shapes: dict[str, "ModelConfig"]) -> None:
    """The long form where it fits, else one for 120 columns."""
    import shutil
    import sys

    from workbench.console import print_table

    header, rows = wide_form(shapes)
    width = sum(max(map(len, column)) + 2 for column in zip(header, *rows, strict=True)) - 2
    if not sys.stdout.isatty() or width <= shutil.get_terminal_size().columns:
        print_table(header, rows, left=8)
        return
    print_table(*compact_form(shapes), left=6)
    print(f"\n{LEGEND}")


def wide_form(shapes: dict[str, "ModelConfig"]) -> tuple[list[str], list[list[str]]]:
    """Header and rows with every column in full."""
    header = [
        "preset",
        "type",
        "objective",
        "tokenizer",
        "vocabulary",
        "embeddings",
        "attention",
        "activation",
    ]
    header += ["parameters", "embedding", "other", "d_model", "layers", "heads", "FLOPs/token"]
    rows = []
    for name, shape in shapes.items():
        total, embedding = shape.n_params, _embedding(shape)
        windows = "/".join(str(window) if window else "all" for window in shape.windows)
        rows.append(
            [
                name, _kind(shape), str(shape.objective), _tokenizer(name), f"{shape.d_vocab:,}",
                _embeddings(shape),
                f"{shape.attention} {_heads(shape)}" + (f" windows {windows}" if windows else ""),
                _activation(shape) + _SUFFIXES.get(shape.activation, ""),
                f"{total:,}", f"{embedding:,}", f"{total - embedding:,}",
                str(shape.d_model), str(shape.n_layers), str(shape.n_heads), brief(shape.flops_per_token),
            ]
        )  # fmt: skip
    return header, rows


def compact_form(shapes: dict[str, "ModelConfig"]) -> tuple[list[str], list[list[str]]]:
    """Header and rows for a terminal of 120 columns; the type tells objective and attention."""
    header = ["preset", "type", "vocab", "embeddings", "attention", "activ."]
    header += ["params", "embed", "other", "d_model", "layers", "FLOPs"]
    initials = {"SentencePiece": "SP", "WordPiece": "WP"}
    rows = []
    for name, shape in shapes.items():
        total, embedding = shape.n_params, _embedding(shape)
        kind = _tokenizer(name)
        rows.append(
            [
                name, _kind(shape), f"{initials.get(kind, kind)} {shape.d_vocab:,}",
                _embeddings(shape).replace("factorised ", "d"),
                " ".join([_heads(shape), "/".join(map(str, shape.windows))]).strip(), _activation(shape),
                brief(total), brief(embedding), brief(total - embedding),
                str(shape.d_model), str(shape.n_layers), brief(shape.flops_per_token),
            ]
        )  # fmt: skip
    return header, rows


def _exact(shapes: dict[str, "ModelConfig"]) -> None:
    """Parameters of each part, beside the published total."""
    from workbench.console import print_table
    from workbench.model.config import SOURCES, count_parameters

    parts = {name: count_parameters(shape) for name, shape in shapes.items()}
    kinds = list(next(iter(parts.values())))
    rows = []
    for name, counts in parts.items():
        published = SOURCES[name].n_params if name in SOURCES else None
        rows.append(
            [
                name,
                f"{sum(counts.values()):,}",
                "–" if published is None else f"{published:,}",
                *(f"{counts[kind]:,}" for kind in kinds),
                f"{shapes[name].flops_per_token:,}",
            ]
        )
    print_table(["preset", "parameters", "published", *kinds, "FLOPs/token"], rows)


def _one(name: str, shape: "ModelConfig") -> None:
    """A preset whole."""
    from textwrap import fill

    from workbench.console import clean
    from workbench.model.config import PRESETS, SOURCES, count_parameters

    source = SOURCES.get(name)
    total = shape.n_params
    print(f"{name}: {_kind(shape)} ({shape.objective}), {total:,} parameters\n")
    lines = {}
    if source is not None:
        lines["source"] = source.citation
        lines["tokenizer"] = f"{source.tokenizer}, {shape.d_vocab:,} tokens"
        if source.n_params is not None:
            lines["published"] = f"{source.n_params:,} parameters"
    counts = count_parameters(shape)
    lines["parameters"] = ", ".join(f"{part} {count:,}" for part, count in counts.items() if count)
    lines["FLOPs"] = f"{shape.flops_per_token:,} for a training token, forward and backward, at full context"
    for label, text in lines.items():
        print(fill(f"  {label:<12}{clean(text)}", 110, subsequent_indent=" " * 14))
    own = PRESETS[name]
    for title, mine in (("set by the preset", True), ("following from these, or the default", False)):
        fields = [
            f"{field}={_plain(value)}" for field, value in shape.to_dict().items() if (field in own) == mine
        ]
        print(f"\n{title}:")
        print(
            fill("  ".join(fields), 110, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        )
    data = "--data roneneldan/TinyStories --minutes 30"
    print(
        f"\ntrain it, as it is or with another field:\n"
        f"  workbench train --preset {name} {data} --out runs/{name}\n"
        f"  workbench train --preset {name} --minutes 30 --set model.mlp_depth=2 --out runs/deeper"
    )


def _record(name: str, shape: "ModelConfig") -> dict[str, Any]:
    from workbench.model.config import SOURCES, count_parameters

    source = SOURCES.get(name)
    return {
        "name": name,
        "type": _kind(shape),
        "source": None if source is None else source.citation,
        "tokenizer": None if source is None else source.tokenizer,
        "published_parameters": None if source is None else source.n_params,
        "parameters": shape.n_params,
        "parts": count_parameters(shape),
        "flops_per_token": shape.flops_per_token,
        "config": shape.to_dict(),
    }


def brief(number: float) -> str:
    """A number in three figures: `0.81k`, `81.2k`, `3.45M`."""
    for unit in "kMGT":
        number /= 1000
        if number < 999.5:
            return f"{number:#.3g}".rstrip(".") + unit
    return f"{number:,.0f}T"


def _plain(value: object) -> str:
    """A value as `--set` takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _kind(shape: "ModelConfig") -> str:
    return "decoder" if shape.attention == "causal" else "encoder"


def _tokenizer(name: str) -> str:
    from workbench.model.config import SOURCES

    return SOURCES[name].tokenizer if name in SOURCES else "–"


def _embedding(shape: "ModelConfig") -> int:
    from workbench.model.config import count_parameters

    return count_parameters(shape)["embedding"]


def _embeddings(shape: "ModelConfig") -> str:
    ends = "tied" if shape.tied else "untied"
    if shape.d_embed is not None:
        ends = f"factorised {shape.d_embed}" + ("" if shape.tied else " untied")
    return f"{ends}, {shape.positions}"


def _heads(shape: "ModelConfig") -> str:
    groups = "" if shape.kv_heads == shape.n_heads else f"/{shape.kv_heads}"
    width = str(shape.d_head) if shape.d_value == shape.d_head else f"{shape.d_head}/{shape.d_value}"
    return f"{shape.n_heads}{groups}x{width}"


def _activation(shape: "ModelConfig") -> str:
    plain = _ACTIVATIONS[shape.activation]
    return _GATED.get(shape.activation, f"{plain} gated") if shape.gated else plain
