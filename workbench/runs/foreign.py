"""Import and export of runs in the layout of Hugging Face model folders, and copies of runs."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import workbench
from workbench.data.tokenizer import (
    SPECIAL_FILES,
    SPECIALS,
    load_tokenizer,
    save_tokenizer,
    tokenizer_hash,
    tokenizer_json,
    tokenizer_text,
    vocabulary_size,
)
from workbench.errors import DataError, RunError
from workbench.io import new_folder, write_bytes, write_json
from workbench.model.config import ModelConfig
from workbench.model.hf import FAMILIES, as_family, read_config
from workbench.runs import folder
from workbench.runs.card import write_card
from workbench.runs.checkpoint import save_checkpoint
from workbench.runs.run import ModelLike, Run, load, open_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from workbench.model.transformer import HookedTransformer

FINE_TUNING_LR = 5e-5
"""Peak learning rate of an imported run under `resume` (Devlin et al. 2019, appendix A.3)."""


@dataclasses.dataclass(frozen=True)
class Converted:
    """The outcome of an import or export."""

    path: Path
    family: str
    config: ModelConfig
    tokenizer: "PreTrainedTokenizerFast"
    notes: tuple[str, ...] = ()


def import_run(source: Path, run: Path) -> Converted:
    """Create a run from a folder with config.json, model.safetensors and tokenizer.json.

    The only checkpoint is step 0. tokenizer.json is copied with the files that name its special tokens,
    changed only where tokenizer_config.json overrides it. The run is created atomically.

    Args:
        source: the folder.
        run: the run folder to create.

    Raises:
        RunError: the run exists, a file is missing or damaged, or the weights do not fit.
        ConfigError: an unsupported setting, or a model larger than memory.
        DataError: no tokenizer, or one with larger ids than the model has rows.
    """
    from workbench.model.transformer import HookedTransformer

    source, run = Path(source), Path(run)
    folder.check_free(run)
    family, config = read_config(source)
    file = source / folder.TOKENIZER
    tokenizer = load_tokenizer(file)
    largest = vocabulary_size(tokenizer) - 1
    if largest >= config.d_vocab:
        raise DataError(
            f"{file} has ids up to {largest:,} and the model a vocabulary of {config.d_vocab:,}; "
            "it is not this model's tokenizer."
        )
    model = HookedTransformer.from_folder(source, tokenizer)
    files: dict[str, bytes | Path] = {folder.TOKENIZER: tokenizer_json(file).encode()}
    files |= {name: source / name for name in SPECIAL_FILES if (source / name).is_file()}
    origin = {"imported_from": str(source.absolute()), "family": family.title}
    data = f"{family.title} imported from {source}"
    _create(run, model, tokenizer, files, source.absolute().name, data, origin)
    needed = ["bos_token", "eos_token"] + (["mask_token"] if config.objective == "mlm" else [])
    lacking = [role for role in needed if getattr(tokenizer, role) is None]
    notes = tuple(f"its tokenizer has no {role.removesuffix('_token').upper()} token" for role in lacking)
    return Converted(run, family.title, config, tokenizer, notes)


def copy_run(name: str | os.PathLike[str], run: Path) -> Run:
    """Create a run that starts from the weights of another, such as a shipped one.

    Like an imported run it starts at step 0, in float32, with a fresh optimiser; `resume` continues it with
    the batch size of the original and a tenth of its learning rate.

    Args:
        name: the run, or run@step; `zoo/tiny-4h`.
        run: the run folder to create.

    Raises:
        RunError: no such run, or `run` exists.
    """
    source, run = load(name), Path(run)
    folder.check_free(run)
    train = folder.read_config(source.path).get("train") or {}
    kept = {key: train[key] for key in ("batch_size", "accumulate", "threads") if train.get(key)}
    rate = float(f"{train['lr'] / 10:.2g}") if train.get("lr") else FINE_TUNING_LR
    tokenizer_file = folder.tokenizer_file(source.path)
    sources = (tokenizer_file, *(tokenizer_file.parent / name for name in SPECIAL_FILES))
    files: dict[str, bytes | Path] = {file.name: file for file in sources if file.is_file()}
    origin = {"imported_from": str(source), "family": "workbench"}
    data = f"weights of {source}"
    _create(run, source.model, source.tokenizer, files, source.name, data, origin, {"lr": rate, **kept})
    return load(run)


def _create(
    run: Path,
    model: "HookedTransformer",
    tokenizer: "PreTrainedTokenizerFast",
    files: dict[str, bytes | Path],
    name: str,
    data: str,
    origin: dict[str, str],
    train: dict[str, Any] | None = None,
) -> None:
    """Create a run with the weights as checkpoint step 0, atomically.

    Args:
        run: the folder.
        model: its weights are stored in float32.
        tokenizer: of the model.
        files: the tokenizer's files, by name: contents, or a file to copy.
        name: of the data card.
        data: `data.source` of config.yaml.
        origin: goes into the data card and the checkpoint's state.
        train: `train` of config.yaml, over the defaults for fine-tuning.
    """
    import torch

    state = {
        "step": 0, "tokens_seen": 0, "seconds_trained": 0.0, "seed": 0, "planned": True, "flags": [],
        "losses": [], "tokenizer": tokenizer_hash(tokenizer),
        "versions": {"workbench": workbench.__version__, "torch": torch.__version__}, **origin,
    }  # fmt: skip
    config = {
        "model": model.config.to_dict(),
        "data": {"source": data},
        "train": {"dtype": "float32", "lr": FINE_TUNING_LR, **(train or {})},
    }
    try:
        with new_folder(run, keep=_refuse_existing) as temporary:
            for file, content in files.items():
                write_bytes(temporary / file, content.read_bytes() if isinstance(content, Path) else content)
            write_json(temporary / folder.DATA_CARD, {"name": name, **origin})
            folder.write_config(temporary, config)
            try:
                save_checkpoint(temporary, model, {}, state)
            except RunError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise RunError(str(error).replace(str(temporary), str(run))) from None
    except OSError as error:
        raise RunError(f"the run {run} cannot be created: {error.strerror or error}.") from None
    write_card(run)


def save_run(
    model: "HookedTransformer",
    path: str | os.PathLike[str],
    tokenizer: "PreTrainedTokenizerFast | None" = None,
) -> Run:
    """Write a model made in Python as a run, so that every command and page opens it.

    Args:
        model: the model; its weights are stored in float32 as checkpoint step 0.
        path: the run folder to create.
        tokenizer: the model's own if not set.

    Raises:
        RunError: the folder exists, or the model has no tokenizer.
    """
    run, tokenizer = Path(path), tokenizer or model.tokenizer
    if tokenizer is None:
        raise RunError("the model has no tokenizer, which a run needs; pass tokenizer=...")
    folder.check_free(run)
    origin = {"imported_from": "Python", "family": "workbench"}
    files: dict[str, bytes | Path] = {folder.TOKENIZER: tokenizer_text(tokenizer).encode()}
    _create(run, model, tokenizer, files, "Python", "a model saved from Python", origin)
    return load(run)


def export(model: ModelLike, target: str | os.PathLike[str], family: str = "auto") -> Converted:
    """Write a model as a folder that the Auto classes of transformers load.

    Args:
        model: a run, a run's name (`run@step`), or a model with a tokenizer.
        target: the folder to create: config.json, model.safetensors, tokenizer.json, tokenizer_config.json.
        family: a key of `FAMILIES`; `auto` chooses one that can represent the model.

    Raises:
        RunError: no such run, `target` exists, or the model has no tokenizer.
        ConfigError: no family, or not this one, can represent the model; the message names the fields.
    """
    from safetensors.torch import save_file

    run, network, tokenizer = open_model(model)
    target, config = Path(target), network.config
    if tokenizer is None:
        raise RunError("the model has no tokenizer, which an exported folder needs; set model.tokenizer.")
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise RunError(f"{target} exists; choose a new folder.")
    settings, tensors = as_family(config, network.state_dict(), tokenizer, family)
    if settings["pad_token_id"] != tokenizer.pad_token_id:
        file = folder.tokenizer_file(run.path) if run else "the tokenizer"
        raise RunError(
            f"{file} has no padding token, and RoBERTa "
            "counts its positions from that token's id; export to RoBERTa needs one."
        )
    try:
        with new_folder(target, keep=_refuse_existing) as made:
            write_json(made / "config.json", settings)
            whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
            save_file(whole, made / "model.safetensors", metadata={"format": "pt"})
            shutil.copymode(made / "config.json", made / "model.safetensors")  # safetensors: owner only
            if run is None:
                save_tokenizer(tokenizer, made / folder.TOKENIZER)
            source = run.path if run else made
            _write_tokenizer(
                source, tokenizer, config, run is not None and "imported_from" in run.data_card, made
            )
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror or error}.") from None
    return Converted(target, FAMILIES[settings["model_type"]].title, config, tokenizer)


def _write_tokenizer(
    source: Path, tokenizer: "PreTrainedTokenizerFast", config: ModelConfig, imported: bool, made: Path
) -> None:
    """Write the tokenizer of the run folder `source`.

    A trained one gets a template that adds BOS (and EOS for a masked model), as in training; an imported one
    is copied unchanged.
    """
    text = folder.tokenizer_file(source).read_bytes()
    if not imported and tokenizer.bos_token is not None:
        text = _with_specials(text, tokenizer, config.objective == "mlm")
    write_bytes(made / folder.TOKENIZER, text)
    kept = [name for name in SPECIAL_FILES if (source / name).is_file()]
    for name in kept:
        write_bytes(made / name, (source / name).read_bytes())
    if SPECIAL_FILES[0] in kept:
        return
    roles = {role: token for role in SPECIALS if (token := getattr(tokenizer, role)) is not None}
    if config.objective == "mlm":
        aliases = {"cls_token": "bos_token", "sep_token": "eos_token"}
        roles |= {role: roles[other] for role, other in aliases.items() if other in roles}
    write_json(
        made / SPECIAL_FILES[0],
        {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.n_ctx,
            "padding_side": "right", "clean_up_tokenization_spaces": False, **roles,
        },
    )  # fmt: skip


def _with_specials(text: bytes, tokenizer: "PreTrainedTokenizerFast", both: bool) -> bytes:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    backend = Tokenizer.from_str(json.dumps({**json.loads(text), "post_processor": None}))
    before, after = str(tokenizer.bos_token), f" {tokenizer.eos_token}" if both else ""
    known = [(token, tokenizer.convert_tokens_to_ids(token)) for token in {before, after.strip()} - {""}]
    backend.post_processor = TemplateProcessing(
        single=f"{before} $A{after}", pair=f"{before} $A{after} $B:1{after and after + ':1'}",
        special_tokens=sorted(known),
    )  # fmt: skip
    return (backend.to_str(pretty=True) + "\n").encode()


def _refuse_existing(path: Path) -> bool:
    raise RunError(f"{path} was created by another process in the meantime; choose another name.")
