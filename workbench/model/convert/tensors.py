"""A family's tensors as ours, and ours as the family's. What does not fit is named."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from workbench.errors import RunError
from workbench.model.config import ModelConfig
from workbench.model.convert.family import Family

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def to_ours(
    family: Family, config: ModelConfig, tensors: Mapping[str, Tensor], where: str, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """The tensors of a family's file as a state dict of ours. Nothing is copied that can be used as it is.

    Args:
        family: whose names they have.
        config: from `family.config_of`.
        tensors: by name, with or without the family's prefix.
        where: begins the messages, such as the file's path.
        dtype: what all become; None leaves them.

    Raises:
        RunError: a tensor is missing, left over, of the wrong shape or type, or holds NaN or infinity.
    """
    pairs = list(family.pairs(config))
    wanted = {name: shape for pair in pairs for name, shape in pair.parts.items()}
    copies = family.copies(config)
    found = _named(family, tensors, wanted.keys() | copies.keys(), where)
    for second, first in copies.items():
        if second not in found:
            continue
        copy = found.pop(second)
        if first not in found:
            found[first] = copy
        elif config.tied and not torch.equal(copy, found[first]):
            raise RunError(
                f"{where}: {second} differs from {first}, and tie_word_embeddings says that they are one; "
                "set it to false in config.json if they are two."
            )
    for name, shape in wanted.items():
        if name not in found:
            raise RunError(f"{where}: the tensor {name} {list(shape)} is missing.")
        _check(found[name], name, shape, where)
    extra = sorted(found.keys() - wanted.keys())
    if extra:
        shape = list(found[extra[0]].shape)
        raise RunError(f"{where}: the tensor {extra[0]} {shape} has no place in {family.title}.")
    ours = {}
    for pair in pairs:
        parts = [found[name] if dtype is None else found[name].to(dtype) for name in pair.parts]
        value = torch.cat(parts) if len(parts) > 1 else parts[0]
        ours[pair.ours] = value.T.contiguous() if pair.transposed else value.contiguous()
    return ours


def to_theirs(family: Family, config: ModelConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of ours under the family's names. Nothing is copied that can be used as it is.

    Args:
        family: one that can hold `config`.
        config: the model's.
        ours: its state dict.
    """
    theirs: dict[str, Tensor] = {}
    for pair in family.pairs(config):
        value = ours[pair.ours].detach()
        if isinstance(pair.theirs, str):
            theirs[pair.theirs] = value.T if pair.transposed else value
        else:
            theirs |= zip(pair.theirs, value.split(pair.rows), strict=True)
    if not config.tied:
        theirs |= {second: theirs[first].clone() for second, first in family.copies(config).items()}
    return theirs


def _named(
    family: Family, tensors: Mapping[str, Tensor], expected: set[str], where: str
) -> dict[str, Tensor]:
    """The tensors by their full names, without those that nobody reads."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        # BERT's first files call a norm's gain and bias so.
        full = re.sub(r"LayerNorm\.(gamma|beta)$", lambda m: f"LayerNorm.{_NORM[m[1]]}", name)
        if full not in expected and not re.fullmatch(family.harmless, full):
            full = full if full.startswith(family.prefix) else family.prefix + full
            if full not in expected and not re.fullmatch(family.harmless, full):
                full = name
        if re.fullmatch(family.harmless, full):
            continue
        if full in found:
            raise RunError(f"{where}: the tensor {full} stands twice, with and without its prefix.")
        found[full] = tensor
    return found


_NORM = {"gamma": "weight", "beta": "bias"}


def _check(tensor: Tensor, name: str, shape: tuple[int, ...], where: str) -> None:
    if tuple(tensor.shape) != shape:
        raise RunError(
            f"{where}: the tensor {name} has shape {list(tensor.shape)}; config.json asks for {list(shape)}."
        )
    if tensor.dtype not in _FLOATS:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise RunError(f"{where}: the tensor {name} is {kind}; float16, bfloat16 and float32 are read.")
    # A sum is not finite if an entry is not; a sum alone may overflow.
    if not bool(tensor.sum().isfinite()) and not bool(tensor.isfinite().all()):
        raise RunError(f"{where}: the tensor {name} holds NaN or infinity.")
