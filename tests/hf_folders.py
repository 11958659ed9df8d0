"""Folders as they are on the hub: a tiny random model of each family with a tokenizer of its family's kind."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from hf_models import Case
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from workbench.data.embedded.stories import stories

N_CTX = 40

SPECIALS = {
    "gpt2": ("<|endoftext|>",),
    "gpt_neo": ("<|endoftext|>",),
    "llama": ("<unk>", "<s>", "</s>"),
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
}

SETTINGS: dict[str, dict[str, Any]] = {
    "gpt2": {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
             "unk_token": "<|endoftext|>", "model_max_length": N_CTX},
    "gpt_neo": {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
                "unk_token": {"__type": "AddedToken", "content": "<|endoftext|>", "lstrip": False,
                              "normalized": True, "rstrip": False, "single_word": False}},
    "llama": {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
              "unk_token": "<unk>"},
    "bert": {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "pad_token": "[PAD]", "cls_token": "[CLS]",
             "sep_token": "[SEP]", "mask_token": "[MASK]", "unk_token": "[UNK]"},
    "roberta": {"tokenizer_class": "RobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>",
                "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"},
}  # fmt: skip

ROLES = {
    "gpt2": {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": None,
        "mask_token": None,
    },
    "gpt_neo": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": None},
    "llama": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": None},
    "bert": {"bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"},
    "roberta": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"},
}
"""What each tokenizer's special tokens are to us."""


@cache
def tokenizer_text(family: str) -> str:
    """A tokenizer.json of the family's kind, trained on embedded stories."""
    specials = list(SPECIALS[family])
    options = dict(vocab_size=400, special_tokens=specials, show_progress=False)
    ids = {token: index for index, token in enumerate(specials)}
    if family == "bert":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(**options)
    else:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), **options)
    made.train_from_iterator(stories(80), trainer)
    if family in ("bert", "roberta"):
        before, after = ("[CLS]", "[SEP]") if family == "bert" else ("<s>", "</s>")
        made.post_processor = processors.TemplateProcessing(
            single=f"{before} $A {after}", special_tokens=[(token, ids[token]) for token in (before, after)]
        )
    elif family == "llama":
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    else:
        made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made.to_str()


class _Sized(Case):
    """A case with some settings replaced."""

    def __init__(self, family: str, number: int, replaced: dict[str, Any]) -> None:
        super().__init__(family, number)
        object.__setattr__(self, "replaced", replaced)

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | self.replaced  # type: ignore[attr-defined]


def make_folder(path: Path, family: str, number: int = 0, **settings: Any) -> Path:
    """The family's model, written by transformers, with tokenizer.json and tokenizer_config.json."""
    transformers.utils.logging.disable_progress_bar()
    _Sized(family, number, sizes(family) | settings).model(torch.float32).save_pretrained(path)
    (path / "tokenizer.json").write_text(tokenizer_text(family), encoding="utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps(SETTINGS[family]), encoding="utf-8")
    return path


def sizes(family: str) -> dict[str, Any]:
    """Settings that fit the family's tokenizer."""
    size = Tokenizer.from_str(tokenizer_text(family)).get_vocab_size()
    if family == "gpt2":
        return {"vocab_size": size, "n_positions": N_CTX}
    pad = {"bert": {"pad_token_id": 0}, "roberta": {"pad_token_id": 1}}.get(family, {})
    return {"vocab_size": size, "max_position_embeddings": N_CTX + 2 * (family == "roberta"), **pad}


def edit_settings(folder: Path, **changes: Any) -> None:
    """Change settings of a folder's config.json; None takes one away."""
    file = folder / "config.json"
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def edit_tensors(folder: Path, **changes: Any) -> None:
    """Change tensors of a folder's model.safetensors (dots written as two underscores); None takes one away."""
    from safetensors.torch import load_file

    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: t.contiguous() for name, t in tensors.items() if t is not None}, file)
