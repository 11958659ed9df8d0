"""Imported once by the server that forks the tests' child processes, so that each starts in milliseconds."""

import pyarrow.compute
import pydantic
import safetensors.torch
import small_runs
import tokenizers
import transformers
import yaml

import training.loop
import training.session
import workbench.data.batches
import workbench.data.corpus
import workbench.data.embedded.stories
import workbench.data.packing
import workbench.model.transformer

WARM = [
    pyarrow.compute.utf8_length,  # type: ignore[attr-defined]
    pydantic.TypeAdapter,
    safetensors.torch.load,
    tokenizers.Tokenizer,
    transformers.PreTrainedTokenizerFast,
    yaml.safe_load,
    small_runs.small,
    training.loop.Trainer,
    training.session.train,
    workbench.data.batches.Batches,
    workbench.data.corpus.open_corpus,
    workbench.data.embedded.stories.stories,
    workbench.data.packing.pack,
    workbench.model.transformer.HookedTransformer,
]
