"""Conversion of models from and to Hugging Face's families (one file each) and TransformerLens.

Another family is one more file and one more entry in `FAMILIES`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.errors import ConfigError, InputError, RunError, WorkbenchError, nearest
from workbench.model.config import ModelConfig, check_fits_memory
from workbench.model.hf.bert import BERT
from workbench.model.hf.bridge import to_bridge
from workbench.model.hf.family import (
    CONFIG,
    MODEL_FOLDER,
    Family,
    read_object,
    read_weights,
    to_ours,
    to_theirs,
)
from workbench.model.hf.gpt2 import GPT2
from workbench.model.hf.gpt_neo import GPT_NEO
from workbench.model.hf.llama import LLAMA
from workbench.model.hf.roberta import ROBERTA
from workbench.stats import derive

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from workbench.model.tl import TransformerLensModel

__all__ = [
    "FAMILIES", "Family", "as_family", "check_model", "family_for", "read_config", "read_hf", "read_weights",
    "to_bridge", "to_hf",
]  # fmt: skip

FAMILIES: dict[str, Family] = {family.model_type: family for family in (GPT2, GPT_NEO, LLAMA, BERT, ROBERTA)}
"""By their name in config.json."""


def read_hf(model: "PreTrainedModel") -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return the configuration and a copy of the weights of a model of transformers, as our state dict.

    Raises:
        InputError: a model of an unknown family.
        ConfigError: a setting that `ModelConfig` cannot represent.
        RunError: weights that do not fit.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in FAMILIES:
        hint = nearest(kind, FAMILIES) if kind else f"Choose from: {', '.join(FAMILIES)}."
        raise InputError(f"{type(model).__name__} (model_type {kind!r}) is not a supported family. {hint}")
    family = FAMILIES[kind]
    config = family.config_of(model.config.to_dict())
    tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    theirs = {tensor.data_ptr() for tensor in tensors.values()}
    ours = to_ours(family, config, tensors, type(model).__name__, None)
    return config, {name: t.clone() if t.data_ptr() in theirs else t for name, t in ours.items()}


def to_hf(model: "TransformerLensModel", family: str = "auto") -> "PreTrainedModel":
    """Convert to a model of transformers: copies of the weights, in eval mode.

    Args:
        model: ours.
        family: a key of `FAMILIES`; `auto` for the first that can hold it.

    Raises:
        ConfigError: no family, or not this one, can hold it; the message names the fields.
    """
    import transformers

    settings, tensors = as_family(model.config, model.state_dict(), model.tokenizer, family)
    shape = transformers.AutoConfig.for_model(**settings)
    converted = getattr(transformers, settings["architectures"][0])(shape).to(model.device, model.dtype)
    left = converted.load_state_dict(tensors, strict=False)
    assert not left.unexpected_keys, left.unexpected_keys
    assert set(left.missing_keys) <= set(converted.all_tied_weights_keys), left.missing_keys
    return converted.eval()


def as_family(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    tokenizer: "PreTrainedTokenizerFast | None" = None,
    family: str = "auto",
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config.json and the tensors of a model in a family.

    Args:
        config: ours.
        weights: our state dict.
        tokenizer: the ids of its special tokens go into config.json.
        family: a key of `FAMILIES`; `auto` for the first that can hold it.

    Raises:
        ConfigError: as `family_for`.
    """
    target = family_for(config, family)
    roles = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {role: getattr(tokenizer, role, None) for role in roles}
    arranged = target.arrange(config, ids["pad_token_id"])
    tensors = to_theirs(target, arranged, target.move(config, arranged, dict(weights)))
    return {**ids, **target.settings_of(arranged)}, tensors


def family_for(config: ModelConfig, family: str = "auto") -> Family:
    """Return the family of that name, or the first that can hold a configuration.

    Raises:
        ConfigError: no such family, or none that can hold it; the message gives the reasons, those of the
            nearest family first.
    """
    if family != "auto":
        if family not in FAMILIES:
            raise ConfigError(f"no family is called {family!r}. {nearest(family, FAMILIES)}")
        FAMILIES[family].settings_of(config)
        return FAMILIES[family]
    refused = {name: candidate.refusals(config) for name, candidate in FAMILIES.items()}
    for name, sentences in refused.items():
        if not sentences:
            return FAMILIES[name]
    best, *others = sorted(
        refused,
        key=lambda name: (FAMILIES[name].constants["objective"] != config.objective, len(refused[name])),
    )
    rest = "; ".join(f"{FAMILIES[name].title}: {_fields(refused[name])}" for name in others)
    why = " ".join(refused[best])
    raise ConfigError(f"no family can hold this model. {why} The others refuse {rest}.")


def _fields(sentences: list[str]) -> str:
    return ", ".join(sentence.partition(" ")[0].removeprefix("model.") for sentence in sentences)


def read_config(folder: Path) -> tuple[Family, ModelConfig]:
    """Return the family and configuration that a folder's config.json describes.

    Raises:
        RunError: the folder or its config.json is missing or damaged, or of an unknown family.
        ConfigError: a setting that `ModelConfig` cannot represent, or a model larger than this machine's
            memory.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise RunError(f"{folder} {found}; {MODEL_FOLDER}.")
    file = folder / CONFIG
    settings = read_object(file)
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        hint = nearest(kind, FAMILIES) if kind else f"Choose from: {', '.join(FAMILIES)}."
        raise RunError(f"{file}: model_type is {kind!r}, which is not a supported family. {hint}")
    try:
        config = FAMILIES[kind].config_of(settings)
        check_fits_memory(config)
    except WorkbenchError as error:
        raise ConfigError(f"{file}: {error}") from None
    return FAMILIES[kind], config


CHECKED_TOKENS, CHECKED_LOGITS = 4, 512
"""Enough for a pattern; few of both cost one pass over the weights."""


@torch.no_grad()
def check_model(model: "TransformerLensModel", where: str) -> None:
    """Check a converted model with one short forward pass.

    A model whose hooks are in the wrong place still gives an answer, so the check is causal (after nnterp,
    https://github.com/Butanium/nnterp): attention rows must sum to 1, and changing the patterns through their
    hooks must change the logits. It runs three equal rows, the last with changed patterns. The difference of
    the first two and the size of the logits give the rounding, which the change must exceed by far.

    Args:
        model: in eval mode.
        where: prefix of messages.

    Raises:
        RunError: an attention row does not sum to 1, logits are not finite, or the patterns do not matter.
    """
    names = [name for name in model.hook_dict if name.endswith("attn.hook_pattern")]
    length = min(CHECKED_TOKENS, model.config.n_ctx)
    random = torch.Generator().manual_seed(derive(model.config.seed, "self-check"))
    tokens = torch.randint(0, model.config.d_vocab, (1, length), generator=random)
    tokens = tokens.expand(3, -1).to(model.device)
    sums: dict[str, Tensor] = {}

    def change(tensor: Tensor, *, hook: Any) -> Tensor:
        """Make each query of the last row attend to the first key only."""
        sums[hook.name] = tensor.sum(-1)
        pattern = tensor.clone()
        pattern[2], pattern[2, ..., 0] = 0.0, 1.0
        return pattern

    for name in names:
        model.hook_dict[name].add_hook(change)
    try:
        last = model.residual(tokens, attention_mask=torch.ones_like(tokens))[:, -1]
    finally:
        model.reset_hooks()
    logits = last @ model.readout_weight[:CHECKED_LOGITS].T
    if not bool(logits.isfinite().all()):
        raise RunError(f"{where}: the logits of {length} tokens are not finite; the weights are damaged.")
    for name in names:
        # A sum of a few probabilities is rounded by about 1e-7 in float32, 1e-2 in bfloat16.
        allowed = 16 * torch.finfo(model.dtype).eps
        if name not in sums or float((sums[name] - 1).abs().max()) > allowed:
            raise RunError(
                f"{where}: the rows of {name} do not sum to 1; the model does not fit its weights."
            )
    rounding, changed = ((logits[0] - logits[row]).abs().max() for row in (1, 2))
    floor = 16 * torch.finfo(model.dtype).eps * logits.abs().max()
    if names and length > 1 and not bool(changed > 10 * rounding + floor):
        raise RunError(f"{where}: changing the attention patterns does not change the logits.")
