"""Weights in and out of a model, each once."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.model.block import share_weights
from workbench.model.config import ModelConfig
from workbench.model.counting import refuse_too_large

if TYPE_CHECKING:
    _Model = Any  # the rest of HookedTransformer
else:
    _Model = object


class StoredWeights(_Model):
    """Mixed into `HookedTransformer`."""

    @classmethod
    def from_weights(cls, config: ModelConfig, tensors: Mapping[str, Tensor], tokenizer: Any = None) -> Any:
        """A model that takes `tensors` as its weights, without a copy and without initialising any.

        Args:
            config: the shape.
            tensors: by name, as `state_dict()` gives them; all of one type.
            tokenizer: given to the model.

        Raises:
            ConfigError: the model does not fit into memory.
            RuntimeError: a tensor missing, left over, or of another shape.
        """
        refuse_too_large(config)
        with torch.device("meta"):
            model = cls(config, tokenizer)
        model.load_state_dict(tensors, assign=True)
        if config.sharing != "none":
            share_weights(model.blocks, config.sharing)
        return model

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As torch's; weights that several layers share appear once, under the first layer's name."""
        state = super().state_dict(*args, **kwargs)
        if self.config.sharing != "none":
            own = {name for name, _ in self.named_parameters(prefix=kwargs.get("prefix", "").rstrip("."))}
            for name in set(state) - own:
                del state[name]
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's, for what `state_dict` gives."""
        full = dict(state_dict)
        if self.config.sharing != "none":
            first = {id(parameter): name for name, parameter in self.named_parameters()}
            for name, parameter in self.named_parameters(remove_duplicate=False):
                owner = first[id(parameter)]
                if name != owner and owner in state_dict:
                    full[name] = state_dict[owner]
        return super().load_state_dict(full, strict, assign)
