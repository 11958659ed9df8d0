"""The tokenizer: any text survives, specials are not spelled into being, the same input gives the same bytes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.foreign_tokenizers import KINDS
from workbench.data.tokenizer import (
    corpus_tokenizer,
    load_tokenizer,
    plain_encoder,
    save_tokenizer,
    token_bytes,
    token_text,
    token_texts,
    tokenizer_hash,
    tokenizer_json,
    train_tokenizer,
)
from workbench.errors import ConfigError, DataError

AWKWARD = [
    "Once upon a time",
    "",
    " ",
    "  two  spaces  ",
    "\n\n\r\n\t",
    "nul \x00 byte",
    "naïve café — “quoted”",
    "😀 family 👩‍👩‍👧 flag 🇳🇱",
    "\u202eright to left\u202c",
    "<eos><bos><pad><mask>",
    "<|endoftext|>",
    "\ufeffbom",
    "Ġ is the space of the byte alphabet, Ċ its newline",
]
texts = st.text() | st.lists(
    st.sampled_from(
        ["<eos>", "<bos>", "<mask>", "<pad>", "<|endoftext|>", " ", "\n", "Lily", "é", "😀", "\x00"]
    )
).map("".join)


def test_special_tokens_have_their_places(little_tokenizer):
    tokenizer = little_tokenizer
    assert [
        tokenizer.pad_token_id,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.mask_token_id,
    ] == [0, 1, 2, 3]
    assert [tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token, tokenizer.mask_token] == [
        "<pad>",
        "<bos>",
        "<eos>",
        "<mask>",
    ]
    assert tokenizer.padding_side == "right"
    assert len(tokenizer) == 600


def test_nothing_is_added_to_a_text(little_tokenizer):
    ids = little_tokenizer("Once upon a time")["input_ids"]
    assert not set(ids) & {0, 1, 2, 3}
    assert little_tokenizer.encode("Once upon a time") == ids
    assert (
        little_tokenizer("x y", add_special_tokens=True)["input_ids"]
        == little_tokenizer("x y", add_special_tokens=False)["input_ids"]
    )


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_survive(little_tokenizer, text):
    ids = plain_encoder(little_tokenizer).encode(text, add_special_tokens=False).ids
    assert not set(ids) & {0, 1, 2, 3}
    assert little_tokenizer.decode(ids) == text
    assert little_tokenizer.decode(ids, skip_special_tokens=True) == text


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_any_text_survives_and_its_bytes_add_up(little_tokenizer, text):
    ids = plain_encoder(little_tokenizer).encode(text, add_special_tokens=False).ids
    assert little_tokenizer.decode(ids) == text
    assert token_bytes(little_tokenizer)[ids].sum() == len(text.encode())
    assert not set(ids) & {0, 1, 2, 3}


def test_a_call_reads_specials_and_the_plain_encoder_does_not(little_tokenizer):
    """The positive control: the same letters are special in a prompt."""
    assert 2 in little_tokenizer("a <eos> b")["input_ids"]
    assert 2 not in plain_encoder(little_tokenizer).encode("a <eos> b", add_special_tokens=False).ids
    assert 2 in little_tokenizer("a <eos> b")["input_ids"]


def test_every_byte_is_in_the_vocabulary():
    tokenizer = train_tokenizer(["only ascii here"], 260)
    assert len(tokenizer) == 260
    sizes = token_bytes(tokenizer)
    assert (sizes[:4] == 0).all()
    assert (sizes[4:] == 1).all()
    everything = "".join(map(chr, range(0x250))) + "\U0001f600"
    assert (
        tokenizer.decode(plain_encoder(tokenizer).encode(everything, add_special_tokens=False).ids)
        == everything
    )


def test_training_is_deterministic_and_order_of_blocks_is_the_texts(little):
    one = train_tokenizer(little.train, 500)
    again = train_tokenizer(iter(little.train), 500)
    assert tokenizer_hash(one) == tokenizer_hash(again)
    assert one.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    assert tokenizer_hash(train_tokenizer(little.train, 499)) != tokenizer_hash(one)


def test_long_corpora_are_sampled_evenly():
    texts = [f"alpha{i // 100} " * 3 for i in range(1000)]
    sampled = train_tokenizer(texts, 400, max_texts=50)
    assert tokenizer_hash(sampled) == tokenizer_hash(train_tokenizer(texts, 400, max_texts=50))
    vocabulary = sampled.get_vocab()
    assert "Ġalpha" in vocabulary
    assert len(train_tokenizer(iter(texts), 400, max_texts=50)) == len(train_tokenizer(texts[:50], 400))


def test_a_small_corpus_gives_a_small_vocabulary():
    tokenizer = train_tokenizer(["the cat sat", "the cat ran"], 5_000)
    assert 260 < len(tokenizer) < 300


@pytest.mark.parametrize("size", [0, 4, 259, -1])
def test_too_small_a_vocabulary_is_refused(size):
    with pytest.raises(
        ConfigError, match=rf"a vocabulary of {size} is too small: 4 special tokens and 256 bytes make 260"
    ):
        train_tokenizer(["text"], size)


def test_no_text_is_refused():
    with pytest.raises(DataError, match="cannot be trained on no text"):
        train_tokenizer([], 300)


def test_saved_and_loaded_is_the_same(little_tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    save_tokenizer(little_tokenizer, path)
    first = path.read_bytes()
    loaded = load_tokenizer(tmp_path)
    loaded(
        ["a", "b c d"], padding=True, truncation=True, max_length=2
    )  # leaves settings behind in the object
    assert tokenizer_hash(loaded) == tokenizer_hash(little_tokenizer)
    save_tokenizer(loaded, path)
    assert path.read_bytes() == first
    assert loaded.bos_token_id == 1
    assert loaded.mask_token_id == 3
    text = "Lily saw 😀\n\nand <eos>."
    assert loaded(text)["input_ids"] == little_tokenizer(text)["input_ids"]


def test_transformers_opens_the_file(little_tokenizer, tmp_path):
    save_tokenizer(little_tokenizer, tmp_path / "tokenizer.json")
    plain = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert plain("Lily and Tom.")["input_ids"] == little_tokenizer("Lily and Tom.")["input_ids"]


def test_the_hash_sees_every_change(little_tokenizer, tmp_path):
    save_tokenizer(little_tokenizer, tmp_path / "a.json")
    value = json.loads((tmp_path / "a.json").read_text())
    value["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "b.json").write_text(json.dumps(value))
    value = json.loads((tmp_path / "a.json").read_text())
    value["model"]["merges"] = value["model"]["merges"][:-1]
    (tmp_path / "c.json").write_text(json.dumps(value))
    assert len({tokenizer_hash(load_tokenizer(tmp_path / f"{name}.json")) for name in "abc"}) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", "is not a tokenizer.json"),
        (b"{}", "is not a tokenizer.json"),
        (b"[1, 2", "is not a tokenizer.json"),
        (b"\xff\xfe", "cannot be read as a tokenizer"),
        (b'{"model": {"type": "Nothing"}}', "is not a tokenizer.json"),
    ],
)
def test_what_is_no_tokenizer_is_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        load_tokenizer(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_other_peoples_names_of_special_tokens(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.BPE(vocab={"<|endoftext|>": 0, "a": 1}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == 0
    assert tokenizer.mask_token_id is None
    assert token_bytes(tokenizer).tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_texts_of_tokens_join_to_the_decoded_text(kind, little, tmp_path):
    KINDS[kind](little.train[:60]).save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    text = 'The café cat  said, "Hello, Zoë!"\nThey don\'t 日本 play 😀.'
    rng = np.random.default_rng(0)
    rows = [
        tokenizer.encode(text, add_special_tokens=False),
        [tokenizer.bos_token_id, *tokenizer.encode("a b")],
    ]
    rows += rng.integers(len(tokenizer) + 3, size=(40, 30)).tolist()  # invalid bytes and unknown ids, too
    for ids in rows:
        texts = token_texts(tokenizer, ids)
        assert len(texts) == len(ids)
        assert "".join(texts) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert token_texts(tokenizer, []) == []


def test_spaces_of_tokens(little, tmp_path):
    found = {}
    for kind in KINDS:
        KINDS[kind](little.train[:60]).save(str(tmp_path / "tokenizer.json"))
        tokenizer = load_tokenizer(tmp_path)
        ids = tokenizer.encode("the cat was", add_special_tokens=False)
        found[kind] = token_texts(tokenizer, ids), token_text(tokenizer, ids[-1])
    for kind in ("llama", "unigram", "wordpiece", "wordlevel", "byte-level"):
        assert "".join(found[kind][0]) == "the cat was", kind
        assert (found[kind][0][-1], found[kind][1]) == (" was", " was"), kind


@pytest.mark.parametrize(
    ("kind", "cls", "model_type", "field", "value"),
    [
        *(
            ("wordpiece", cls, "bert", *setting)
            for cls in ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", None)
            for setting in (("do_lower_case", False), ("do_lower_case", True), ("strip_accents", False))
        ),
        *(
            ("byte-level", cls, model_type, "add_prefix_space", value)
            for cls, model_type in (("GPT2Tokenizer", "gpt2"), ("RobertaTokenizer", "roberta"))
            for value in (True, False)
        ),
        ("byte-level with a space in front", "GPT2Tokenizer", "gpt2", "add_prefix_space", False),
        ("byte-level with a space in front", "PreTrainedTokenizerFast", "gpt2", "add_prefix_space", False),
        ("llama", "LlamaTokenizer", "llama", "add_prefix_space", False),
        ("llama", "LlamaTokenizer", "llama", "add_prefix_space", True),
    ],
)
def test_settings_are_applied_as_transformers_does(kind, cls, model_type, field, value, little, tmp_path):
    from transformers import AutoTokenizer

    KINDS[kind](little.train[:60]).save(str(tmp_path / "tokenizer.json"))
    settings = {field: value} | ({"do_lower_case": True} if field == "strip_accents" else {})
    config = settings | ({} if cls is None else {"tokenizer_class": cls})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    ours, theirs = load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Once THE café was", "the cat"):
        ids = ours.encode(text, add_special_tokens=False)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ids) == theirs.decode(ids)
    final = tmp_path / "run"
    final.mkdir()
    (final / "tokenizer.json").write_text(tokenizer_json(tmp_path / "tokenizer.json"))
    assert tokenizer_hash(load_tokenizer(final)) == tokenizer_hash(ours)


def test_a_setting_that_cannot_be_applied_is_refused(little, tmp_path):
    KINDS["wordlevel"](little.train[:60]).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    with pytest.raises(
        DataError, match=r"tokenizer_config\.json sets add_prefix_space, which tokenizer\.json"
    ):
        load_tokenizer(tmp_path)


def test_a_corpus_tokenizer_is_remembered(little, tmp_path, monkeypatch):
    import workbench.data.tokenizer as module

    trained = []
    original = module.train_tokenizer
    monkeypatch.setattr(module, "train_tokenizer", lambda *args: trained.append(args[1]) or original(*args))
    first = corpus_tokenizer(little.train, 400, little.fingerprint, tmp_path)
    again = corpus_tokenizer(little.train, 400, little.fingerprint, tmp_path)
    assert tokenizer_hash(first) == tokenizer_hash(again)
    assert trained == [400]
    corpus_tokenizer(little.train, 400, "another", tmp_path)
    corpus_tokenizer(little.train, 401, little.fingerprint, tmp_path)
    assert trained == [400, 400, 401]
    for file in tmp_path.rglob("*.json"):
        file.write_text("damaged")
    assert tokenizer_hash(
        corpus_tokenizer(little.train, 400, little.fingerprint, tmp_path)
    ) == tokenizer_hash(first)


def test_real_stories_survive(real, real_tokenizer):
    assert len(real_tokenizer) == 10_000
    encoder, sizes = plain_encoder(real_tokenizer), token_bytes(real_tokenizer)
    for story in [*real.train[:: len(real.train) // 150], *real.validation[:50]]:
        ids = encoder.encode(story, add_special_tokens=False).ids
        assert real_tokenizer.decode(ids) == story
        assert sizes[np.array(ids)].sum() == len(story.encode())
