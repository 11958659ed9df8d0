"""The counts of a corpus against counts made by hand, and the table of `workbench data`."""

import json

import pytest

from apps.commands.training import data
from workbench.command import run_command
from workbench.data.corpus import Corpus
from workbench.data.packing import pack
from workbench.data.report import corpus_report
from workbench.data.tokenizer import train_tokenizer
from workbench.errors import ConfigError, DataError


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`workbench data` with the given words, its caches in a temporary folder; gives what it printed."""
    import datasets

    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words):
        assert run_command(data, "workbench data", [str(word) for word in words]) == 0
        return capsys.readouterr().out

    return call


def test_counts_by_hand(tmp_path):
    train = ["The cat sat.", "the  CAT, sat!", "A dog ran.", "A dog ran.", "é"]
    validation = ["The cat sat.", "the cat sat", "A bird flew far away.", "..."]
    corpus = Corpus("made", "made", "f", train, validation, blank=2)
    tokenizer = train_tokenizer(["no merges"], 260)
    packed = pack(corpus, tokenizer, 13, tmp_path)
    report = corpus_report(corpus, tokenizer, packed)
    sizes = [len(story.encode()) for story in train]
    assert report.train.stories == 5
    assert report.train.words == 3 + 3 + 3 + 3 + 1
    assert report.train.bytes == sum(sizes)
    assert report.train.tokens == sum(sizes) + 2 * 5
    assert report.train.bytes_per_token == 1.0
    assert report.train.longest_story == 16
    assert report.train.over_n_ctx == 2 / 5
    assert report.train.repeats == 1
    assert report.train.vocabulary_used == len({byte for story in train for byte in story.encode()}) + 2
    assert (report.overlap_exact, report.overlap_near) == (1, 2)
    assert report.blank == 2
    assert report.to_frame().loc["stories"].tolist() == [5, 4]
    assert json.loads(json.dumps(report.to_dict()))["train"]["words"] == 13


def test_real_stories_do_not_overlap(real, real_tokenizer, real_packed):
    report = corpus_report(real, real_tokenizer, real_packed)
    assert (report.overlap_exact, report.overlap_near) == (0, 0)
    assert (report.train.repeats, report.validation.repeats) == (0, 0)
    assert (report.train.stories, report.validation.stories) == (20_400, 737)
    assert 3_250_000 < report.train.words < 3_350_000
    assert report.train.bytes == 16_574_350
    assert 8_500 < report.train.vocabulary_used < 10_000
    assert report.train.longest_story < 1_100


def test_the_verb_prints_the_counts(tmp_path, run):
    stories = [f"Tom [bold]saw[/bold] {i} red cats. " * 5 for i in range(120)]
    (tmp_path / "tales.jsonl").write_text("".join(json.dumps({"text": story}) + "\n" for story in stories))
    out = run("--data", tmp_path / "tales.jsonl", "--vocab", 300, "--n-ctx", 64, "--verify")
    assert "tales · vocabulary 300 · context 64" in out
    for words in (
        "119",
        "bytes per token",
        "0 exact, 0 up to case and punctuation",
        "a seeded sample",
        "5 files verified",
    ):
        assert words in out
    assert (tmp_path / "cache" / "packed").is_dir()
    limited = run("--data", tmp_path / "tales.jsonl", "--vocab", 300, "--limit", 7)
    assert " 7 " in limited
    assert "files verified" not in limited


def test_the_verb_says_when_a_corpus_supports_fewer_tokens(tmp_path, run):
    (tmp_path / "tales.txt").write_text("a cat<|endoftext|>a dog<|endoftext|>")
    out = run("--data", tmp_path / "tales.txt", "--vocab", 5000)
    assert "; 5,000 were requested" in out


def test_the_verb_shows_overlap(tmp_path, run):
    (tmp_path / "tales").mkdir()
    for name, stories in (("train", ["A cat.", "A dog."]), ("validation", ["a cat", "A cow."])):
        (tmp_path / "tales" / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": s}) + "\n" for s in stories)
        )
    out = run("--data", tmp_path / "tales", "--vocab", 260)
    assert "0 exact, 1 up to case and punctuation" in out
    assert "validation is the source's split validation" in out


def test_the_verbs_mistakes_are_one_line(tmp_path, run):
    with pytest.raises(DataError, match="does not exist"):
        run("--data", tmp_path / "nothing.txt")
    (tmp_path / "tales.txt").write_text("a cat<|endoftext|>a dog")
    with pytest.raises(ConfigError, match="a vocabulary of 10 is too small"):
        run("--data", tmp_path / "tales.txt", "--vocab", 10)
    with pytest.raises(DataError, match=r"t\.json does not exist"):
        run("--data", tmp_path / "tales.txt", "--tokenizer", tmp_path / "t.json")
