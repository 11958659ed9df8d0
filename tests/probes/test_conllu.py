"""CoNLL-U: multiword tokens, empty nodes, spaces, trees; and files that are none."""

import gzip

import pytest

from probes.conllu import read_conllu, read_treebank
from probes.tasks import TASKS
from workbench.errors import DataError


def rows(*words):
    """CoNLL-U lines of `id form upos head deprel misc` with spaces for tabs."""
    lines = []
    for word in words:
        index, form, upos, head, deprel, misc = (*word.split(), "_")[:6]
        lines.append(
            "\t".join([index, form.replace("~", " "), form, upos, "_", "_", head, deprel, "_", misc])
        )
    return "\n".join(lines) + "\n\n"


PLAIN = rows("1 I PRON 3 nsubj", "2 do AUX 3 aux", "3 run VERB 0 root SpaceAfter=No", "4 . PUNCT 3 punct")
CONTRACTED = "# sent_id = s2\n# text = I don't run.\n" + rows(
    "1 I PRON 4 nsubj", "2-3 don't _ _ _", "2 do AUX 4 aux", "3 n't PART 4 advmod", "4 run VERB 0 root SpaceAfter=No",
    "5 . PUNCT 4 punct",
)  # fmt: skip
FUSED = rows("1 va VERB 0 root", "2-3 du _ _ _", "2 de ADP 4 case", "3 le DET 4 det", "4 parc NOUN 1 obl")
EMPTY = rows(
    "1 Max PROPN 2 nsubj", "2 ran VERB 0 root", "3 and CCONJ 4 cc", "3.1 ran VERB _ _", "4 Mia PROPN 2 conj"
)
EMPTY_FIRST = rows("0.1 nobody PRON _ _", "1 Run VERB 0 root")


def read(tmp_path, text, name="a.conllu"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    return list(read_conllu(path))


def spelt(sentence):
    return [sentence.text[word.start : word.end] if word.start >= 0 else None for word in sentence.words]


@pytest.mark.parametrize("name", ["a.conllu", "a.conllu.gz"])
def test_words_and_text(tmp_path, name):
    one, two = read(tmp_path, PLAIN + CONTRACTED, name)
    assert one.text == "I do run."
    assert spelt(one) == ["I", "do", "run", "."]
    assert two.name == "s2"
    assert two.text == "I don't run."
    assert spelt(two) == ["I", "do", "n't", "run", "."]
    assert [word.head for word in two.words] == [4, 4, 4, 0, 4]


def test_multiword_tokens_without_letters_of_their_own(tmp_path):
    (one,) = read(tmp_path, FUSED)
    assert one.text == "va du parc"
    assert spelt(one) == ["va", None, None, "parc"]
    (tmp_path / "f.conllu").write_text(FUSED)
    (document,) = TASKS["pos"].documents(tmp_path / "f.conllu")
    assert [item.label for item in document.items] == ["VERB", "NOUN"]
    (document,) = TASKS["dependency"].documents(tmp_path / "f.conllu")
    assert [(item.label, item.spans) for item in document.items] == [("obl", ((6, 10), (0, 2)))]


def test_empty_nodes_are_passed_over(tmp_path):
    one, two = read(tmp_path, EMPTY + EMPTY_FIRST)
    assert spelt(one) == ["Max", "ran", "and", "Mia"]
    assert one.depths() == [1, 0, 2, 1]
    assert two.text == "Run"


def test_a_form_with_spaces_and_a_text_with_more(tmp_path):
    (one,) = read(
        tmp_path,
        "# text = pay  10 000 \u2009now\n"
        + rows("1 pay VERB 0 root", "2 10~000 NUM 1 obj", "3 now ADV 1 advmod"),
    )
    assert spelt(one) == ["pay", "10 000", "now"]
    assert one.text == "pay  10 000 \u2009now"


def test_a_text_that_has_not_the_words_is_rebuilt(tmp_path):
    (one,) = read(tmp_path, "# text = something else\n" + PLAIN)
    assert one.text == "I do run."
    (one,) = read(tmp_path, "# text = I really do run.\n" + PLAIN)
    assert one.text == "I do run."


def test_windows_line_ends_a_mark_and_no_last_empty_line(tmp_path):
    (one,) = read(tmp_path, "\ufeff" + PLAIN.rstrip("\n").replace("\n", "\r\n"))
    assert spelt(one) == ["I", "do", "run", "."]


def test_depths_and_circles(tmp_path):
    (one,) = read(tmp_path, PLAIN)
    assert one.depths() == [1, 1, 0, 1]
    (two,) = read(tmp_path, rows("1 a X 2 dep", "2 b X 3 dep", "3 c X 1 dep"))
    with pytest.raises(DataError, match=r"a\.conllu:1: its heads form a circle"):
        two.depths()
    with pytest.raises(DataError, match="circle"):
        list(TASKS["tree_distance"].documents(tmp_path / "a.conllu"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1\tI\tI\n", r"line 1: 3 columns where CoNLL-U has 10"),
        (rows("2 I PRON 0 root"), "line 1: word 2 where word 1 is due"),
        (rows("1 I PRON 0 root", "3 am AUX 1 cop"), "line 2: word 3 where word 2 is due"),
        (rows("1 I PRON 9 root"), "line 1: head '9' of word 1 is no other word of the 1"),
        (rows("1 I PRON 1 root"), "head '1' of word 1"),
        (rows("1 I PRON -1 root"), "head '-1'"),
        (rows("1 I PRON ½ root"), "head '½'"),
        (rows("1 I PRON _ root"), "head '_'"),
        (rows("x I PRON 0 root"), "'x' is neither word, range"),
        (
            rows("1 I PRON 0 root", "2-9 don't _ _ _", "2 do AUX 1 aux"),
            "a range ends at word 9, after the last",
        ),
        (rows("1 I PRON 0 root", "1-2 don't _ _ _"), "no range of words after word 1"),
        ("# text = nothing\n\n" + PLAIN, "line 2: a sentence without words"),
        (rows("1.1 I PRON _ _"), "without words"),
        ("", "holds no sentences"),
        ("# only a comment", "holds no sentences"),
        ("x" * 2**20, "line 1: over 1,048,576 bytes"),
    ],
)
def test_what_is_no_treebank(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, text)


def test_bytes_that_are_no_treebank(tmp_path):
    (tmp_path / "latin.conllu").write_bytes(PLAIN.encode() + "café".encode("latin1"))
    with pytest.raises(DataError, match=r"latin\.conllu, line 6: not UTF-8 \(byte 4\)"):
        list(read_conllu(tmp_path / "latin.conllu"))
    (tmp_path / "text.conllu.gz").write_text(PLAIN)
    with pytest.raises(DataError, match=r"text\.conllu\.gz cannot be read past line 0"):
        list(read_conllu(tmp_path / "text.conllu.gz"))
    whole = gzip.compress((PLAIN * 2000).encode())
    (tmp_path / "half.conllu.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half\.conllu\.gz cannot be read past line"):
        list(read_conllu(tmp_path / "half.conllu.gz"))


def test_folders(tmp_path):
    with pytest.raises(DataError, match=r"holds no treebank: no \.conllu or \.conllu\.gz file"):
        list(read_treebank(tmp_path))
    (tmp_path / "b.conllu").write_text(PLAIN)
    (tmp_path / "a.conllu.gz").write_bytes(gzip.compress(CONTRACTED.encode()))
    (tmp_path / "notes.txt").write_text("no treebank")
    assert [one.text for one in read_treebank(tmp_path)] == ["I don't run.", "I do run."]
    assert len(list(read_treebank(tmp_path, limit=1))) == 1
    with pytest.raises(DataError, match=r"No treebank at .*bb\.conllu\. Did you mean 'b\.conllu'\?"):
        list(read_treebank(tmp_path / "bb.conllu"))


def test_english_ewt(real_data):
    folder = real_data / "ud_english_ewt"
    if not folder.is_dir():
        pytest.skip("UD English EWT is absent")
    file = next(folder.glob("*dev*"))
    sentences = list(read_conllu(file))
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    assert len(sentences) == sum(line.startswith("# sent_id") for line in lines) > 1000
    assert sum(len(one.words) for one in sentences) == sum(
        line.partition("\t")[0].isdecimal() for line in lines
    )
    assert [one.text for one in sentences] == [line[9:] for line in lines if line.startswith("# text = ")]
    for one in sentences:
        assert all(one.text[word.start : word.end] == word.form for word in one.words)
        assert one.depths().count(0) == 1
