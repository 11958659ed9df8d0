"""Alignment is exact: against a count of bytes that knows nothing of offsets, and on tokenizers of other kinds."""

import numpy as np
import pytest
from awkward_sentences import awkward

from probes.align import align
from probes.examples import Document, Item
from workbench.data.embedded.stories import stories
from workbench.data.tokenizer import _wrap, plain_encoder, train_tokenizer
from workbench.errors import ConfigError, DataError

SENTENCES = awkward()


@pytest.fixture(scope="module")
def byte_level():
    """Few merges; the usual; and one that has learned the awkward sentences, with tokens such as `."`."""
    texts = [text for text, _ in SENTENCES]
    return {
        "bytes": train_tokenizer(["a"], 260),
        "stories": train_tokenizer(stories(300), 800),
        "awkward": train_tokenizer(texts * 3 + stories(20), 1500),
    }


def other_tokenizers():
    """Offsets that leave the space out, a normalizer that changes lengths, and SentencePiece's spaces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    texts = [text for text, _ in SENTENCES] * 5 + stories(50)
    made = {}
    word_piece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    word_piece.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    word_piece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[UNK]", "[CLS]", "[SEP]"]
    word_piece.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
    )
    made["word pieces"] = _wrap(word_piece, {"bos_token": "[CLS]", "eos_token": "[SEP]"})
    meta = Tokenizer(models.BPE(unk_token="<unk>"))
    meta.pre_tokenizer = pre_tokenizers.Metaspace()
    meta.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>"], show_progress=False)
    )
    made["metaspace"] = _wrap(meta, {"bos_token": "<s>"})
    return made


def documents(sentences=SENTENCES):
    """Each word's label is its number, so that rows can be told apart."""
    number = 0
    for at, (text, spans) in enumerate(sentences):
        items = [Item((span,), float(number + k), text[slice(*span)]) for k, span in enumerate(spans)]
        number += len(spans)
        yield Document(text, f"sentence {at}", tuple(items))


def by_bytes(tokenizer, text, span):
    """First and last token of a span, by the bytes that the tokens stand for."""
    encoder, table = plain_encoder(tokenizer), _byte_of_letter()
    return span_by_bytes(encoder, table, text, span)


def span_by_bytes(encoder, table, text, span):
    ids = encoder.encode(text, add_special_tokens=False).ids
    pieces = [bytes(table[letter] for letter in encoder.id_to_token(index)) for index in ids]
    assert b"".join(pieces).decode() == text
    token_of_byte = np.repeat(np.arange(len(ids)), [len(piece) for piece in pieces])
    low, high = (len(text[:at].encode()) for at in span)
    return token_of_byte[low], token_of_byte[high - 1]


def _byte_of_letter():
    """GPT-2's table: printable bytes are themselves, the others letters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


def test_there_are_200_sentences_of_every_kind():
    texts = [text for text, _ in SENTENCES]
    assert len(set(texts)) >= 195
    assert len(texts) == 200
    for part in (
        "n't",
        "n’t",
        '."',
        "“",
        "😀",
        "👩‍👩‍👧‍👦",
        "日本",
        "\t",
        "\n",
        "\xa0",
        "<eos>",
        "<|endoftext|>",
        "e\u0301",
    ):
        assert any(part in text for text in texts), part
    assert all(
        text[slice(*span)].strip() == text[slice(*span)] != "" for text, spans in SENTENCES for span in spans
    )


@pytest.mark.parametrize("name", ["bytes", "stories", "awkward"])
def test_exact_on_awkward_sentences(byte_level, name):
    tokenizer = byte_level[name]
    aligned = align(documents(), tokenizer, 2000)
    assert aligned.counts["dropped"] == aligned.counts["cut"] == 0
    expected, taken, number = {}, set(), 0
    encoder, table = plain_encoder(tokenizer), _byte_of_letter()
    for at, (text, spans) in enumerate(SENTENCES):
        for span in spans:
            places = span_by_bytes(encoder, table, text, span)
            if (at, places) not in taken:
                taken.add((at, places))
                expected[number] = (at, *places)
            number += 1
    found = {
        int(label): (int(window), int(first) - 1, int(last) - 1)
        for label, window, first, last in zip(
            aligned.label, aligned.window, aligned.first[:, 0], aligned.last[:, 0], strict=True
        )
    }
    assert found == expected
    assert aligned.counts["labels"] == number == len(aligned) + aligned.counts["merged"]
    assert all(window[0] == tokenizer.bos_token_id for window in aligned.tokens)


def test_words_of_many_tokens_are_there(byte_level):
    aligned = align(documents(), byte_level["stories"], 2000)
    lengths = (aligned.last - aligned.first)[:, 0] + 1
    assert lengths.max() >= 30
    assert (lengths == 1).sum() > 300
    assert align(documents(), byte_level["awkward"], 2000).counts["merged"] > 0


@pytest.mark.parametrize("name", ["word pieces", "metaspace"])
def test_other_kinds_of_tokenizers(name):
    tokenizer = other_tokenizers()[name]
    encoder = plain_encoder(tokenizer)
    aligned = align(documents(), tokenizer, 2000, max_dropped=0.03)
    spans = [(at, text, span) for at, (text, found) in enumerate(SENTENCES) for span in found]
    offsets = [encoder.encode(text, add_special_tokens=False).offsets for text, _ in SENTENCES]
    for label, window, first, last in zip(
        aligned.label, aligned.window, aligned.first[:, 0] - 1, aligned.last[:, 0] - 1, strict=True
    ):
        at, text, (start, end) = spans[int(label)]
        assert at == window
        letters = set(range(start, end))
        holds = [bool(letters & set(range(*place))) for place in offsets[at]]
        assert holds.index(True) == first, (text, start, end)
        assert len(holds) - 1 - holds[::-1].index(True) == last, (text, start, end)
    counts = aligned.counts
    assert len(aligned) + counts["merged"] + counts["dropped"] == counts["labels"] == len(spans)
    assert len(aligned) > 0.8 * len(spans)


def test_two_spans_an_item(byte_level):
    text = "The cat that ran saw a dog."
    items = (Item(((4, 7), (17, 20)), "nsubj", "cat"), Item(((23, 26), (17, 20)), "obj", "dog")) * 2
    one, other = Document(text, "a", items[:2]), Document("A dog ran. " + text, "b", ())
    moved = Document(
        other.text,
        "b",
        tuple(
            Item(tuple((s + 11, e + 11) for s, e in item.spans), item.label, item.word) for item in items[:2]
        ),
    )
    aligned = align([one, moved], byte_level["stories"], 100)
    assert aligned.first.shape == aligned.last.shape == (4, 2)
    for row in range(4):
        document = (one, moved)[aligned.group[row]]
        item = document.items[row % 2]
        for at, span in enumerate(item.spans):
            places = by_bytes(byte_level["stories"], document.text, span)
            assert (aligned.first[row, at] - 1, aligned.last[row, at] - 1) == places
    assert aligned.classes == ("nsubj", "obj")
    assert aligned.words == ("cat", "dog")


def test_a_long_document_is_split_at_its_sentences(byte_level):
    tokenizer = byte_level["stories"]
    text = "Lily saw a cat. “Is it yours?” she said. Max was happy!\nThey ran home. " * 6
    words = [Item((span,), float(at), "w") for at, span in enumerate(_words(text))]
    aligned = align([Document(text, "story", tuple(words))], tokenizer, 40)
    assert len(aligned.tokens) > 3
    assert aligned.counts["cut"] == aligned.counts["dropped"] == 0
    assert len(aligned) == len(words)
    joined = [index for window in aligned.tokens for index in window[1:]]
    assert joined == plain_encoder(tokenizer).encode(text, add_special_tokens=False).ids
    for window in aligned.tokens:
        assert len(window) <= 40
        assert window[0] == tokenizer.bos_token_id
        assert tokenizer.decode(window[1:]).rstrip()[-1] in ".!”"
    for row in range(len(aligned)):
        ids = aligned.tokens[aligned.window[row]][aligned.first[row, 0] : aligned.last[row, 0] + 1]
        assert text[slice(*words[row].spans[0])] in tokenizer.decode(ids)
    assert (aligned.group == 0).all()
    assert (aligned.position == sorted(aligned.position)).all()


def test_a_sentence_longer_than_the_context_is_cut_and_counted(byte_level):
    text = "Short one. " + "very " * 60 + "long. Then an end."
    words = _words(text)
    items = tuple(Item((span,), float(at), "w") for at, span in enumerate(words))
    aligned = align([Document(text, "story", items)], byte_level["stories"], 30)
    assert all(len(window) <= 30 for window in aligned.tokens)
    assert aligned.counts["cut"] == len(words) - len(aligned) > 20
    assert "labels lie past the context" in aligned.dropped[0]
    kept = [text[slice(*items[int(label)].spans[0])] for label in aligned.label]
    assert kept[:2] == ["Short", "one"]
    assert kept[-3:] == ["Then", "an", "end"]


def test_a_pair_in_two_windows_is_cut(byte_level):
    text = "A cat ran away from us. " * 5
    far = Item(((2, 5), (len(text) - 5, len(text) - 2)), 3.0, "cat")
    near = Item(((2, 5), (6, 9)), 1.0, "cat")
    one = Document(text, "a", (far, near))
    two = Document("A cat ran.", "b", (Item(((2, 5), (6, 9)), 2.0, "cat"),))
    aligned = align([one, two], byte_level["stories"], 20)
    assert aligned.label.tolist() == [1.0, 2.0]
    assert aligned.counts["cut"] == 1


def _words(text):
    import re

    return [match.span() for match in re.finditer(r"\w+", text)]


def test_masked_models_read_an_end(byte_level):
    tokenizer = byte_level["stories"]
    aligned = align(documents(SENTENCES[:3]), tokenizer, 100, masked=True)
    assert all(window[-1] == tokenizer.eos_token_id for window in aligned.tokens)


def test_documents_are_read_no_further_than_asked(byte_level):
    read = []

    def many():
        for document in documents(SENTENCES * 100):
            read.append(document)
            yield document

    aligned = align(many(), byte_level["stories"], 200, max_rows=50)
    assert 50 <= len(aligned) < 80
    assert len(read) <= 1000


def class_documents(labels, n=1):
    for at, label in enumerate(labels):
        yield Document("A cat ran home.", f"g{at}", tuple(Item(((2, 5),), label, "cat") for _ in range(n)))


def test_a_task_with_one_class_is_refused(byte_level):
    with pytest.raises(DataError, match=r"one class, 'noun'.*nothing to predict"):
        align(class_documents(["noun"] * 5), byte_level["stories"], 50)
    with pytest.raises(DataError, match="one class, 'noun', and 1 of one member"):
        align(class_documents(["noun"] * 5 + ["verb"]), byte_level["stories"], 50)
    with pytest.raises(DataError, match="Every label is 3: there is nothing to predict"):
        align(class_documents([3.0] * 5), byte_level["stories"], 50)


def test_a_class_with_one_member_is_left_out_and_listed(byte_level):
    aligned = align(class_documents(["a", "b", "rare", "a", "b"]), byte_level["stories"], 50)
    assert aligned.classes == ("a", "b")
    assert aligned.label.tolist() == [0, 1, 0, 1]
    assert aligned.group.tolist() == [0, 1, 3, 4]
    assert aligned.counts["single"] == 1
    assert aligned.dropped == ["class 'rare' has one member, which no split can teach and test: left out"]


@pytest.mark.parametrize("span", [(-1, 3), (3, 3), (5, 2), (0, 16), (40, 50)])
def test_spans_outside_the_text_are_refused(byte_level, span):
    bad = Document("A cat ran home.", "story 7", (Item((span,), "x", "w"),))
    with pytest.raises(DataError, match=rf"story 7: span {span[0]}:{span[1]} of label 'x' .*15 characters"):
        align([bad], byte_level["stories"], 50)


def test_labels_that_do_not_align_are_counted_listed_and_refused(byte_level):
    good = list(class_documents(["a", "b"] * 100))
    blank = Document("A  cat  ran.", "blank", (Item(((6, 7),), "a", "w"),))
    tokenizer = other_tokenizers()["word pieces"]  # has no tokens for white space
    aligned = align([*good, blank], tokenizer, 50)
    assert aligned.counts["dropped"] == 1
    assert aligned.dropped == ["blank: '' (a): no token holds it"]
    with pytest.raises(
        DataError, match=r"3 of 203 labels do not align with the tokens \(1\.5%, at most 1% may\): blank"
    ):
        align([*good, blank, blank, blank], tokenizer, 50)


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([], "gave no labels"),
        ([Document("A cat.", "a", ())], "gave no labels"),
        ([Document("A \ud800 cat.", "odd", (Item(((0, 1),), "x", "w"),))], "odd: its text is no Unicode text"),
        ([Document("A cat.", "a", (Item(((0, 1),), "x", "w"), Item(((0, 1), (2, 3)), "x", "w")))], "spans"),
        ([Document("A cat.", "a", (Item(((0, 1),), "x", "w"),)), Document("A cat.", "b", (Item(((0, 1),), 1.0, "w"),))], "text and numbers mixed"),
        ([Document("A cat.", "bad", (Item(((0, 1),), float("nan"), "w"), Item(((2, 5),), 1.0, "w")))], "bad: a label that is no finite number"),
    ],
)  # fmt: skip
def test_other_refusals(byte_level, documents, words):
    with pytest.raises(DataError, match=words):
        align(documents, byte_level["stories"], 50)


def test_settings_that_cannot_be(byte_level):
    for bad, words in (({"n_ctx": 1}, "no room"), ({"n_ctx": 9, "max_rows": 0}, "max_rows=0")):
        with pytest.raises(ConfigError, match=words):
            align(class_documents("ab"), byte_level["stories"], **bad)


def test_everything_past_the_context(byte_level):
    text = "very " * 50 + "far"
    bad = Document(text, "a", (Item(((len(text) - 3, len(text)),), 1.0, "w"),))
    with pytest.raises(DataError, match="No label is left: 1 lie past the context of 5 tokens"):
        align([bad], byte_level["stories"], 5)


def test_fingerprint_follows_what_is_read(byte_level):
    one, again, shifted = (align(documents(SENTENCES[:n]), byte_level["stories"], 100) for n in (5, 5, 6))
    assert one.fingerprint == again.fingerprint != shifted.fingerprint
