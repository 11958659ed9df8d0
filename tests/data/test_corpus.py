"""Corpora from every kind of source: the same stories give the same corpus; what is wrong is said in one line."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.data.corpus import Stories, open_corpus
from workbench.errors import ConfigError, DataError

STORIES = [f"Story {i}: once upon a time,\nthere was a cat 😀 number {i}." for i in range(250)]


def write_txt(path, stories):
    path.write_text("\n<|endoftext|>\n".join(stories) + "\n<|endoftext|>\n", encoding="utf-8")


def write_jsonl(path, stories, column="text"):
    path.write_text(
        "".join(json.dumps({"id": i, column: s}) + "\n" for i, s in enumerate(stories)), encoding="utf-8"
    )


def write_parquet(path, stories, column="text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": list(range(len(stories))), column: stories}), path)


WRITERS = {"txt": write_txt, "jsonl": write_jsonl, "parquet": write_parquet}


@pytest.fixture
def opened(tmp_path):
    return lambda source, **kw: open_corpus(str(source), cache=tmp_path / "cache", **kw)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_gives_its_stories(tmp_path, opened, kind):
    WRITERS[kind](tmp_path / f"tales.{kind}", STORIES)
    corpus = opened(tmp_path / f"tales.{kind}")
    assert corpus.name == "tales"
    assert corpus.source == str(tmp_path / f"tales.{kind}")
    assert sorted([*corpus.train, *corpus.validation]) == sorted(STORIES)
    assert len(corpus.validation) == 2
    assert corpus.held_out == "seeded share"
    assert corpus.blank == 0
    assert not list(tmp_path.rglob("*.incomplete"))


def test_the_same_stories_have_one_fingerprint_whatever_they_lie_in(tmp_path, opened):
    prints = set()
    for kind, write in WRITERS.items():
        write(tmp_path / f"tales.{kind}", STORIES)
        prints.add(opened(tmp_path / f"tales.{kind}").fingerprint)
    assert len(prints) == 1


def test_where_a_story_ends_is_part_of_the_fingerprint(tmp_path, opened):
    write_jsonl(tmp_path / "a.jsonl", ["ab", "c"] * 2 + ["x", "y"])
    write_jsonl(tmp_path / "b.jsonl", ["a", "bc"] * 2 + ["x", "y"])
    one, other = opened(tmp_path / "a.jsonl", seed=1), opened(tmp_path / "b.jsonl", seed=1)
    assert "".join(one.train) == "".join(other.train)
    assert one.validation[:] == other.validation[:]
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("kind", WRITERS)
def test_a_changed_file_is_read_anew_even_with_its_old_date(tmp_path, opened, kind):
    path = tmp_path / f"tales.{kind}"
    WRITERS[kind](path, STORIES)
    before, times = opened(path), path.stat()
    WRITERS[kind](path, [*STORIES[:-1], STORIES[-1].replace("cat", "dog")])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = opened(path)
    assert before.fingerprint != after.fingerprint
    assert any("dog" in story for story in [*after.train, *after.validation])


def test_a_folder_in_hub_layout(tmp_path, opened):
    write_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet", STORIES[:200])
    write_parquet(tmp_path / "hub" / "data" / "validation-00000-of-00001.parquet", STORIES[200:])
    corpus = opened(tmp_path / "hub")
    assert list(corpus.train) == STORIES[:200]
    assert list(corpus.validation) == STORIES[200:]
    assert corpus.held_out == "validation"
    assert corpus.name == "hub"


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_folder_of_plain_files(tmp_path, opened, kind):
    (tmp_path / "tales").mkdir()
    WRITERS[kind](tmp_path / "tales" / f"train.{kind}", STORIES[:200])
    WRITERS[kind](tmp_path / "tales" / f"test.{kind}", STORIES[200:])
    corpus = opened(tmp_path / "tales")
    assert list(corpus.train) == STORIES[:200]
    assert list(corpus.validation) == STORIES[200:]
    assert corpus.held_out == "test"


def test_another_column(tmp_path, opened):
    write_parquet(tmp_path / "tales.parquet", STORIES, column="story")
    write_jsonl(tmp_path / "tales.jsonl", STORIES, column="story")
    for kind in ("parquet", "jsonl"):
        corpus = opened(tmp_path / f"tales.{kind}", column="story")
        assert len(corpus.train) == 248
        assert corpus.column == "story"


def test_embedded_stories():
    corpus = open_corpus(n_stories=50, seed=3)
    same = open_corpus("embedded", n_stories=50, seed=3)
    assert len(corpus.train) == 50
    assert len(corpus.validation) == 1
    assert not set(corpus.train) & set(corpus.validation)
    assert corpus == same
    assert corpus.fingerprint != open_corpus(n_stories=50, seed=4).fingerprint
    assert corpus.fingerprint != open_corpus(n_stories=51, seed=3).fingerprint
    limited = open_corpus(n_stories=50, seed=3, limit=10)
    assert list(limited.train) == list(corpus.train[:10])


def test_the_held_out_share_depends_on_the_seed_alone(tmp_path, opened):
    write_txt(tmp_path / "tales.txt", STORIES)
    first, again = opened(tmp_path / "tales.txt", seed=1), opened(tmp_path / "tales.txt", seed=1)
    other = opened(tmp_path / "tales.txt", seed=2)
    assert list(first.validation) == list(again.validation)
    assert first.fingerprint == again.fingerprint
    assert list(first.validation) != list(other.validation)
    assert first.fingerprint != other.fingerprint


def test_a_duplicate_trains_and_never_validates(tmp_path, opened):
    stories = [story for i, story in enumerate(STORIES) for _ in range(1 if i % 50 == 0 else 2)]
    write_jsonl(tmp_path / "tales.jsonl", stories)
    for seed in range(8):
        corpus = opened(tmp_path / "tales.jsonl", seed=seed)
        assert len(corpus.validation) == 4
        assert not set(corpus.train) & set(corpus.validation)
        assert all(STORIES.index(story) % 50 == 0 for story in corpus.validation)


def test_limits(tmp_path, opened):
    write_txt(tmp_path / "tales.txt", STORIES)
    whole, part = opened(tmp_path / "tales.txt"), opened(tmp_path / "tales.txt", limit=7)
    assert list(part.train) == whole.train[:7]
    assert list(part.validation) == list(whole.validation)
    assert part.fingerprint != whole.fingerprint
    with pytest.raises(ConfigError, match="limit must be 1 or more, not 0"):
        opened(tmp_path / "tales.txt", limit=0)


def test_blank_stories_are_left_out_and_counted(tmp_path, opened):
    write_jsonl(tmp_path / "tales.jsonl", ["", "a cat", " \n\t", "a dog", "\u00a0"])
    corpus = opened(tmp_path / "tales.jsonl")
    assert sorted([*corpus.train, *corpus.validation]) == ["a cat", "a dog"]
    assert corpus.blank == 3


def test_separators_across_read_blocks_and_windows_newlines(tmp_path, opened):
    stories = ["x" * (2**20 - 5), "y" * 30, "z\nz", "é" * 2**19]
    data = "<|endoftext|>".join(stories).encode("utf-8-sig").replace(b"\n", b"\r\n")
    (tmp_path / "tales.txt").write_bytes(data)
    corpus = opened(tmp_path / "tales.txt")
    assert sorted([*corpus.train, *corpus.validation]) == sorted(stories)


def test_a_text_without_separators_is_refused_before_it_fills_the_memory(tmp_path, opened, monkeypatch):
    monkeypatch.setattr("workbench.data.sources.LONGEST_STORY", 2**20)
    (tmp_path / "novel.txt").write_text("word " * 2**20)
    with pytest.raises(
        DataError, match=r"novel\.txt: no <\|endoftext\|> in 2,097,152 characters; put it between stories"
    ):
        opened(tmp_path / "novel.txt")


def test_stories_behave_as_a_list():
    texts = [f"s{i}" for i in range(100)]
    column = pa.chunked_array([texts[:10], texts[10:11], [], texts[11:]])
    for rows in (np.arange(100), np.arange(0, 100, 3), np.array([0, 50, 99]), np.arange(20, 60)):
        stories, truth = Stories(column, rows), [texts[row] for row in rows]
        assert list(stories) == truth
        assert len(stories) == len(truth)
        assert stories[0] == truth[0]
        assert stories[-1] == truth[-1]
        for part in (slice(3), slice(1, 40, 7), slice(None, None, -2), slice(90, 300), slice(-4, None)):
            assert stories[part] == truth[part]
        with pytest.raises(IndexError):
            stories[len(truth)]


def test_real_stories(real):
    assert real.name == "TinyStories"
    assert (len(real.train), len(real.validation)) == (20_400, 737)
    assert real.held_out == "validation"
    assert real.blank == 0
    assert all(real.train[i].strip() for i in range(0, 20_400, 500))


def test_a_corpus_is_frozen(little):
    with pytest.raises(AttributeError):
        little.name = "other"
    assert replace(little, name="other").fingerprint == little.fingerprint


BAD_FILES = {
    "empty.txt": (b"", "empty.txt holds no stories"),
    "blank.txt": (b" \n<|endoftext|>\n \n", "blank.txt holds no stories"),
    "one.txt": (
        b"just one story",
        "one.txt holds one story: at least one more is needed for validation; in a .txt file put <|endoftext|> between stories",
    ),
    "twice.txt": (b"a<|endoftext|>a<|endoftext|>b<|endoftext|>b", "2 different stories, each more than once"),
    "latin.txt": (
        "a\ncaf\xe9 au lait".encode("latin1"),
        "not UTF-8 text: byte 0xe9 at position 5 (line 2); convert it first",
    ),
    "utf16.txt": (
        "hello".encode("utf-16"),
        "utf16.txt is UTF-16 text; convert it to UTF-8 first, such as with iconv -f UTF-16 -t UTF-8",
    ),
    "cut.txt": ("ab é".encode()[:-1], "not UTF-8 text: byte 0xc3 at position 3 (line 1)"),
    "empty.jsonl": (b"", "empty.jsonl holds no stories"),
    "blank.jsonl": (b'{"text": " "}\n{"text": ""}\n', "holds no stories, only 2 blank ones"),
    "lines.jsonl": (b"\n\n", "lines.jsonl holds no stories"),
    "number.jsonl": (b'{"text": "a"}\n\n{"text": 3}\n', "line 3: 'text' is int, not text"),
    "null.jsonl": (b'{"text": "a"}\n{"text": null}\n', "line 2: 'text' is null, not text"),
    "list.jsonl": (b'{"text": ["a"]}\n', "line 1: 'text' is list, not text"),
    "column.jsonl": (
        b'{"txt": "a", "id": 1}\n',
        "line 1: no column 'text'; it has txt, id. Did you mean 'txt'?",
    ),
    "broken.jsonl": (b'{"text": "a"}\n{"text":\n', "line 2: not JSON (Expecting value)"),
    "array.jsonl": (b'[{"text": "a"}]\n', "line 1: a list, not an object such as"),
    "surrogate.jsonl": (b'{"text": "a\\ud800"}\n', "line 1: 'text' holds half a surrogate pair"),
    "deep.jsonl": (b"[" * 100_000, "line 1: not JSON (nested too deeply)"),
    "latin.jsonl": (b'{"text": "\xe9"}\n', "not UTF-8 text: byte 0xe9 at position 10 (line 1)"),
    "junk.parquet": (b"not parquet at all", "junk.parquet cannot be read: Parquet magic bytes not found"),
    "empty.parquet": (b"", "empty.parquet holds no stories: it is empty"),
    "table.csv": (b"text\na\n", "a corpus file ends in .txt, .jsonl, .ndjson, .parquet, not in .csv"),
    "stories": (b"a", "not in nothing"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_in_one_line(tmp_path, opened, name):
    content, words = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        opened(tmp_path / name)
    message = str(error.value)
    assert words in message
    assert name in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(tmp_path))
    assert not list(tmp_path.rglob("*.incomplete"))
    if ", line " in message:
        assert not list((tmp_path / "cache").rglob("*.arrow")), "half-read stories stayed in the cache"


BAD_TABLES = {
    "column": (
        {"story": ["a"], "texts": ["b"]},
        "has no column 'text'; it has story, texts. Did you mean 'texts'?",
    ),
    "far": ({"x": ["a"]}, "has no column 'text'; it has x. Name the column that holds the stories."),
    "integers": ({"text": [1, 2]}, "column 'text' of the train split holds int64, not text"),
    "bytes": ({"text": [b"a", b"b"]}, "holds binary, not text"),
    "nulls": ({"text": ["a", None, "b", None]}, "is null in 2 rows, the first of them row 2"),
    "rows": ({"text": pa.array([], pa.string())}, "holds no stories: it has no rows"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
@pytest.mark.parametrize("folder", [False, True])
def test_bad_tables_are_refused_in_one_line(tmp_path, opened, name, folder):
    columns, words = BAD_TABLES[name]
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "data" / "train.parquet")
    with pytest.raises(DataError) as error:
        opened(tmp_path / "data" if folder else tmp_path / "data" / "train.parquet")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no data; put .parquet, .jsonl or .txt files into it"),
        ({"a.bin": b"\0\1", "b.xyz": b"?"}, "holds no data"),
        ({"README.md": b"# nothing else"}, "holds no data"),
        ({"a.png": b"\x89PNG"}, "holds no stories that can be read (its files look like imagefolder)"),
        ({"a.tar": b"0" * 512}, "holds no stories that can be read (its files look like webdataset)"),
        ({"a.pkl": b"\x80\x04."}, "holds no data"),
        ({"README.md": b"---\nconfigs: [\n---\n", "a.txt": b"a<|endoftext|>b"}, "cannot be read"),
        (
            {
                "README.md": b'---\nconfigs:\n- config_name: x\n  data_files: "https://example.com/a.parquet"\n---\n'
            },
            "names data elsewhere (https://example.com/a.parquet)",
        ),
        ({"dataset_dict.json": b"{}"}, "was written by save_to_disk; write it with to_parquet"),
        (
            {"train.jsonl": b'{"text": "a"}\n', "validation.parquet": b"PAR1"},
            "Couldn't infer the same data file format",
        ),
        ({"first.txt": b"", "second.txt": b""}, "holds no stories"),
    ],
)
def test_bad_folders_are_refused_in_one_line(tmp_path, opened, files, words):
    (tmp_path / "junk").mkdir()
    for name, content in files.items():
        (tmp_path / "junk" / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        opened(tmp_path / "junk")
    assert words in str(error.value)
    assert "junk" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_path_names_its_neighbour(tmp_path, opened):
    write_txt(tmp_path / "tales.txt", STORIES)
    with pytest.raises(DataError, match=r"tails\.txt does not exist\. Did you mean 'tales\.txt'\?"):
        opened(tmp_path / "tails.txt")
    with pytest.raises(
        DataError,
        match=r"Give a file \(\.txt, \.jsonl, \.ndjson, \.parquet\), a folder, or a name of the hub",
    ):
        opened(tmp_path / "nowhere" / "x")
    with pytest.raises(DataError, match=r"data/x\.txt does not exist"):
        opened("data/x.txt")


@pytest.mark.parametrize("source", ["", " ", "a\0b", "a\nb", "x" * 5000])
def test_what_is_no_name_is_refused(opened, source):
    with pytest.raises(DataError, match=r"is neither a path nor a hub name\.$"):
        opened(source)


def test_a_name_too_long_for_the_disk_is_refused(opened):
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        opened("x" * 300 + ".txt")


def test_pipes_and_unreadable_files_are_refused_at_once(tmp_path, opened, monkeypatch):
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match="is neither a file nor a folder"):
        opened(tmp_path / "pipe.txt")
    write_txt(tmp_path / "tales.txt", STORIES)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(args[0]))

    monkeypatch.setattr("workbench.data.sources.open", refuse, raising=False)
    with pytest.raises(DataError, match=r"tales\.txt cannot be read: Permission denied\."):
        opened(tmp_path / "tales.txt")


def test_a_folder_does_not_need_its_cache_after_a_move(tmp_path, opened):
    """The Arrow copy goes by contents: the same files elsewhere are the same corpus."""
    write_parquet(tmp_path / "a" / "train.parquet", STORIES)
    first = opened(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert opened(tmp_path / "b").fingerprint == first.fingerprint
