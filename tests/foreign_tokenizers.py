"""Small tokenizers of the kinds that imported models have."""

from collections.abc import Callable, Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIALS = ["<unk>", "<s>", "</s>"]


def llama(texts: Iterable[str], **trainer: Any) -> Tokenizer:
    """SentencePiece's BPE with byte fallback, as Llama has it."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    words = [word for text in texts for word in text.split()]
    specials = SPECIALS + [f"<0x{byte:02X}>" for byte in range(256)]
    options: dict[str, Any] = {"vocab_size": 700, "limit_alphabet": 60, **trainer}
    backend.train_from_iterator(
        words, trainers.BpeTrainer(special_tokens=specials, show_progress=False, **options)
    )
    return backend


def unigram(texts: Iterable[str]) -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.train_from_iterator(
        texts,
        trainers.UnigramTrainer(
            vocab_size=300, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False
        ),
    )
    return backend


def wordpiece(texts: Iterable[str], lowercase: bool = True) -> Tokenizer:
    """BERT's."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=500, special_tokens=specials, show_progress=False)
    )
    return backend


def wordlevel(texts: Iterable[str]) -> Tokenizer:
    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(
        texts, trainers.WordLevelTrainer(special_tokens=SPECIALS, show_progress=False)
    )
    return backend


def byte_level(texts: Iterable[str], decoder: bool = True, prefix_space: bool = False) -> Tokenizer:
    """GPT-2's."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    if decoder:
        backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=SPECIALS,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return backend


KINDS: dict[str, Callable[[Iterable[str]], Tokenizer]] = {
    "llama": llama,
    "unigram": unigram,
    "wordpiece": wordpiece,
    "wordlevel": wordlevel,
    "byte-level": byte_level,
    "byte-level without decoder": lambda texts: byte_level(texts, decoder=False),
    "byte-level with a space in front": lambda texts: byte_level(texts, prefix_space=True),
}
