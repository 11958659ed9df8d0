"""A hand-built agreement head: the number of the first noun, written where the verb is read off.

The residual stream is [token | position | number]. One head looks from everywhere at the first noun of the sentence,
and writes +1 if it is singular and -1 if it is plural into the last dimension; the unembedding reads only that: it
adds `GAIN` to singular verbs and takes it from plural ones. All other heads and all MLPs are zero. In a sentence
without a noun so far the head looks at the first place, which has no number.
"""

import torch

from workbench.data.pairs import Pair, PairSet
from workbench.model.config import ModelConfig
from workbench.model.transformer import HookedTransformer

NOUNS = {"cat": "cats", "dog": "dogs", "girl": "girls", "tree": "trees"}
VERBS = {"sleeps": "sleep", "runs": "run", "sings": "sing"}
WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "the", "near", "."]
WORDS += [word for pair in (*NOUNS.items(), *VERBS.items()) for word in pair]
PLACES, SHARP, GAIN = 16, 60.0, 4.0


def tokenizer():
    """One token a word; texts begin with <bos> where a protocol asks for it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


def config(n_layers: int = 2, n_heads: int = 3, **fields) -> ModelConfig:
    """Of the planted model, and of an untrained one beside it."""
    return ModelConfig(
        n_layers=n_layers, d_model=len(WORDS) + PLACES + 1, n_heads=n_heads, d_head=2, d_mlp=5, d_vocab=len(WORDS),
        n_ctx=PLACES, norm="none", qkv_bias=False, out_bias=False, attention_scale=1.0, tied=False, **fields,
    )  # fmt: skip


def planted_agreement(layer: int = 1, head: int = 2, **fields) -> HookedTransformer:
    """The model in float64, with its tokenizer: head `L{layer}H{head}` is all there is to find."""
    model = HookedTransformer(config(**fields), tokenizer()).double().eval()
    token, place, number = (
        slice(len(WORDS)),
        slice(len(WORDS), len(WORDS) + PLACES),
        len(WORDS) + PLACES,
    )
    nouns = {word: sign for pair in NOUNS.items() for word, sign in zip(pair, (1.0, -1.0), strict=True)}
    verbs = {word: sign for pair in VERBS.items() for word, sign in zip(pair, (1.0, -1.0), strict=True)}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.W_E[:, token] = torch.eye(len(WORDS))
        model.pos_embed.W_pos[:, place] = torch.eye(PLACES)
        for word, sign in verbs.items():
            model.unembed_weight[WORDS.index(word), number] = GAIN * sign
        attn = model.blocks[layer].attn
        attn.W_Q[head, token, 0] = SHARP  # every token asks for the same
        attn.W_K[head, place, 0] = -torch.arange(PLACES, dtype=torch.float64)  # the earliest
        for word, sign in nouns.items():
            attn.W_K[head, WORDS.index(word), 0] = PLACES  # noun
            attn.W_V[head, WORDS.index(word), 0] = sign
        attn.W_O[head, 0, number] = 1.0
    return model


def untrained(seed: int = 0, **fields) -> HookedTransformer:
    """The same shape with random weights, in float64, with the tokenizer."""
    return HookedTransformer(config(**fields, init_std=0.2, seed=seed), tokenizer()).double().eval()


def pairs() -> PairSet:
    """`verb`: the verbs differ, "the cat near the trees sleeps ." against "... sleep ."; `subject`: the nouns differ,
    so that something can flow from one sentence into the other: "the cat sleeps ." against "the cats sleeps ."."""
    verb, subject = [], []
    for nouns in NOUNS.items():
        for other in NOUNS.values():
            for verbs in VERBS.items():
                for number in (0, 1):
                    start = f"the {nouns[number]} near the {other}"
                    verb.append((f"{start} {verbs[number]} .", f"{start} {verbs[1 - number]} ."))
                    subject.append(
                        (
                            f"the {nouns[number]} near the {other} {verbs[number]} .",
                            f"the {nouns[1 - number]} near the {other} {verbs[number]} .",
                        )
                    )
    paradigms = {
        uid: tuple(Pair(good, bad, uid, "agreement", index) for index, (good, bad) in enumerate(rows))
        for uid, rows in (("subject", subject), ("verb", verb))
    }
    return PairSet("planted", "folder", paradigms)
