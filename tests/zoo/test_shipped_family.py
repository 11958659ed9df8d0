"""The family that really ships."""

import os
import re
from pathlib import Path

import pytest
import torch

import workbench as wb
from workbench.interp.texts import row_nats, text_batches
from workbench.runs import zoo as shipped
from workbench.zoo.paragraph import paragraph
from workbench.zoo.table import check_manifest, family_bytes, family_facts, seeds_of_middle

FAMILY = Path(wb.__file__).parent / "zoo" / "family"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
LIMIT = 24_000_000
WANTED = {
    "tiny-4h", "tiny-4h-s1", "tiny-4h-s2", "tiny-1h", "tiny-2h", "tiny-8h", "tiny-1l", "tiny-2l", "tiny-w32",
    "tiny-w128", "tiny-attn", "tiny-bert",
}  # fmt: skip
MEMBERS = sorted(path.name for path in FAMILY.glob("*") if (path / "config.yaml").is_file())

pytestmark = pytest.mark.skipif(not MEMBERS, reason="no family lies in workbench/zoo/family yet")


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    monkeypatch.delenv(shipped.PLACE, raising=False)


def test_it_is_whole_and_small():
    check_manifest()
    assert family_bytes() <= LIMIT
    facts = family_facts()
    assert set(facts["members"]) >= WANTED
    assert facts["middle"] == "tiny-4h"
    assert len(seeds_of_middle()) >= 3
    assert max(len(wb.load(f"zoo/{name}").checkpoints) for name in MEMBERS) >= 12


@pytest.mark.parametrize("name", MEMBERS)
def test_each_member_reads_stories(name, unchecked):
    run = wb.load(f"zoo/{name}")
    assert run.model.dtype == torch.float32
    assert len(run.tokenizer) == run.model.config.d_vocab == 4096
    batches = text_batches(run, list(wb.stories(5)))
    mean = sum(float(row_nats(run.model, batch).sum()) for batch in batches) / sum(
        int(batch.counts.sum()) for batch in batches
    )
    assert 0 < mean < 8.3  # a uniform guess over the vocabulary
    scores = run.blimp()
    assert scores["source"] == "blimp"
    assert scores["overall"]["n"] == 67_000
    assert 0.45 < scores["mean_over_paradigms"]["accuracy"] < 0.9
    card = (run.path / "README.md").read_text()
    for words in ("command", "machine", "torch", "tokens seen", "time of training", "float16", "BLiMP"):
        assert words in card, words


def test_no_folder_of_another_machine_is_named():
    for file in FAMILY.rglob("*"):
        if file.suffix in (".json", ".jsonl", ".yaml", ".md"):
            assert not re.search(r"/(tmp|work|home|root|mnt)/", file.read_text()), file


@pytest.mark.skipif(not DATA.is_dir(), reason="the real corpora are not in ../shared/data")
def test_no_sentence_of_the_corpora_is_in_any_file():
    """metrics.jsonl may hold a causal model's own writing; it is searched for BLiMP all the same."""
    from workbench.data.corpus import open_corpus
    from workbench.data.pairs import open_pairs

    pairs = [*open_pairs(str(DATA / "blimp")).pairs, *open_pairs(str(DATA / "blimp_supplement")).pairs]
    sentences = {text for pair in pairs for text in (pair.sentence_good, pair.sentence_bad) if len(text) > 20}
    corpus = open_corpus(str(DATA / "TinyStories"))
    stories = {
        part.strip()
        for text in [*corpus.train, *corpus.validation]
        for part in re.split(r"(?<=[.!?])\s+", text)
    }
    stories = {text for text in stories if len(text) > 40}
    assert len(sentences) > 100_000
    assert len(stories) > 100_000
    known, both = _by_start(sentences), _by_start(sentences | stories)
    for file in FAMILY.rglob("*"):
        if file.is_file():
            seen = known if file.name == "metrics.jsonl" else both
            assert not _found(file.read_bytes(), seen), file


def _by_start(sentences: set[str]) -> dict[str, list[str]]:
    starts: dict[str, list[str]] = {}
    for sentence in sentences:
        starts.setdefault(sentence[:20], []).append(sentence)
    return starts


def _found(data: bytes, starts: dict[str, list[str]]) -> str | None:
    """A sentence that stands in a file: in any run of 20 printable letters, by its first 20, then whole."""
    for run in re.findall(rb"[^\x00-\x1f]{20,}", data):
        text = run.decode("utf-8", "replace")
        for place in range(len(text) - 19):
            for sentence in starts.get(text[place : place + 20], ()):
                if text.startswith(sentence, place):
                    return sentence
    return None


def test_sentences_would_be_found():
    long = "Once upon a time there was a sentence of many words."
    data = b"\x00\xff" * 100 + long.encode()
    assert _found(data, _by_start({long})) == long
    assert _found(data[:-1], _by_start({long})) is None


def test_the_readme_has_the_paragraph_that_the_files_give():
    readme = (FAMILY.parents[2] / "README.md").read_text()
    if "A family ships" not in readme:
        pytest.skip("README.md says nothing of the family yet")
    assert all(line in readme for line in paragraph().splitlines() if line)


def test_it_is_the_one_that_the_names_mean():
    assert os.environ.get(shipped.PLACE) is None
    assert shipped.family_folder() == FAMILY
