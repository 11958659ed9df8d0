"""Packing: what goes in comes out, the cache is keyed by everything, and is whole or absent."""

import errno
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench.data.packing as packing
from workbench.data.corpus import Corpus, open_corpus
from workbench.data.packing import MANIFEST, dump_manifest, open_packed, pack, verify
from workbench.data.tokenizer import plain_encoder, token_bytes, train_tokenizer
from workbench.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]


def corpus_of(train, validation, fingerprint="f"):
    return Corpus("made", "made", fingerprint, train, validation)


def faults(scenario, folder, *more):
    script = Path(__file__).with_name("packing_faults.py")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script), scenario, str(folder), *more],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_story_lies_between_bos_and_eos(little, little_tokenizer, little_packed):
    encoder = plain_encoder(little_tokenizer)
    for stories, split in (
        (little.train, little_packed.train),
        (little.validation, little_packed.validation),
    ):
        assert split.n_stories == len(stories)
        assert split.n_tokens == sum(len(shard) for shard in split.shards)
        assert split.n_bytes == sum(len(story.encode()) for story in stories)
        for index, story in enumerate(stories):
            ids = encoder.encode(story, add_special_tokens=False).ids
            assert split.story(index).tolist() == [1, *ids, 2]
        assert token_bytes(little_tokenizer)[split.read(0, split.n_tokens)].sum() == split.n_bytes


@settings(max_examples=25, deadline=None)
@given(
    stories=st.lists(
        st.text(min_size=1) | st.sampled_from(["<eos>", "a<bos>b", "<|endoftext|>", "<mask> <pad>"]),
        min_size=2,
        max_size=12,
    )
)
def test_any_stories_come_out_as_they_went_in(little_tokenizer, tmp_path_factory, stories):
    packed = pack(corpus_of(stories[1:], stories[:1]), little_tokenizer, 8, tmp_path_factory.mktemp("any"))
    for index, story in enumerate(stories[1:]):
        tokens = packed.train.story(index)
        assert (tokens[0], tokens[-1]) == (1, 2)
        assert not set(tokens[1:-1].tolist()) & {0, 1, 2, 3}
        assert little_tokenizer.decode(tokens[1:-1]) == story


@pytest.mark.parametrize("size", [7, 50, 64])
def test_shards_are_one_stream(little, little_tokenizer, little_packed, tmp_path, monkeypatch, size):
    monkeypatch.setattr(packing, "SHARD_TOKENS", size * 100)
    packed = pack(little, little_tokenizer, 32, tmp_path)
    whole, split = little_packed.train, packed.train
    assert len(split.shards) > 1
    assert {len(shard) for shard in split.shards[:-1]} == {size * 100}
    starts = np.array([0, 1, size * 100 - 3, size * 100, split.n_tokens - 5, split.n_tokens // 2])
    assert (split.windows(starts, 20) == whole.windows(starts, 20)).all()
    assert (split.read(0, split.n_tokens) == whole.read(0, whole.n_tokens)).all()
    assert verify(packed) == len(split.shards) + len(packed.validation.shards) + 3


def test_the_stream_is_a_ring(make_split):
    split = make_split([5, 7, 4], shard=6)
    stream = np.concatenate(split.shards)
    assert split.read(14, 5).tolist() == [*stream[14:], *stream[:3]]
    assert split.read(30, 40).tolist() == np.tile(stream, 5)[30:70].tolist()


def test_large_vocabularies_take_four_bytes(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["<bos>", "<eos>", *(f"w{i}" for i in range(70_000))])}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>")
    packed = pack(corpus_of(["w69999 w1"], ["w65535"]), tokenizer, 4, tmp_path)
    assert packed.manifest["dtype"] == "<u4"
    assert packed.train.story(0).tolist() == [0, 70_001, 3, 1]
    assert packed.validation.story(0).tolist() == [0, 65_537, 1]
    assert packed.train.pad_id is None


def test_small_vocabularies_take_two_bytes(little_packed):
    assert little_packed.manifest["dtype"] == "<u2"
    assert (little_packed.folder / "train-00000.bin").stat().st_size == 2 * little_packed.train.n_tokens


def test_a_tokenizer_without_bos_or_eos_is_refused(little, little_tokenizer, tmp_path):
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=plain_encoder(little_tokenizer))
    with pytest.raises(DataError, match="the tokenizer has no bos_token"):
        pack(little, bare, 32, tmp_path)
    with pytest.raises(ConfigError, match="n_ctx must be 1 or more, not 0"):
        pack(little, little_tokenizer, 0, tmp_path)


def test_the_second_call_opens_what_the_first_made(little, little_tokenizer, tmp_path, monkeypatch):
    first = pack(little, little_tokenizer, 32, tmp_path)
    monkeypatch.setattr(packing, "_build", lambda *_: pytest.fail("packed again"))
    again = pack(little, little_tokenizer, 32, tmp_path)
    assert again.key == first.key
    assert again.data_card() == first.data_card()


@pytest.mark.figure
def test_anything_changed_is_packed_anew(little, little_tokenizer, tmp_path, monkeypatch, trials):
    anew = trials(10, "ingredients changed: packed anew")
    keys = {pack(little, little_tokenizer, 32, tmp_path).key}
    changes = [
        lambda: pack(replace(little, fingerprint="another"), little_tokenizer, 32, tmp_path),
        lambda: pack(little, train_tokenizer(little.train, 599), 32, tmp_path),
        lambda: pack(little, little_tokenizer, 33, tmp_path),
        lambda: pack(open_corpus(n_stories=300, seed=1), little_tokenizer, 32, tmp_path),
        lambda: pack(open_corpus(n_stories=300, limit=299), little_tokenizer, 32, tmp_path),
    ]
    tales = [f"Story {number} of a cat that sat.<|endoftext|>" for number in range(300)]
    revisions = {
        "first": tales,
        "a letter": [*tales[:-1], tales[-1].replace("cat", "bat")],
        "one more": [*tales, "One more.<|endoftext|>"],
        "another order": [*tales[1:], tales[0]],
        "one fewer": tales[:-1],
    }
    for stories in revisions.values():

        def revised(stories=stories):
            (tmp_path / "tales.txt").write_text("".join(stories))
            return pack(open_corpus(tmp_path / "tales.txt"), little_tokenizer, 32, tmp_path)

        changes.append(revised)
    # The same file, with another share of it held out.
    changes.append(lambda: pack(open_corpus(tmp_path / "tales.txt", seed=1), little_tokenizer, 32, tmp_path))
    for change in changes:
        with anew.one():
            before = len(keys)
            keys.add(change().key)
            assert len(keys) == before + 1
    monkeypatch.setattr(packing, "PACKER_VERSION", 999)
    keys.add(pack(little, little_tokenizer, 32, tmp_path).key)
    assert len(keys) == 13
    assert len(list((tmp_path / "packed").glob("[!.]*"))) == 13


def test_the_cache_folder_is_the_environments(little, little_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "there"))
    assert pack(little, little_tokenizer, 32).folder.parent == tmp_path / "there" / "packed"


def test_the_card_says_what_was_packed(little, little_packed):
    card = little_packed.data_card()
    assert card["name"] == card["source"] == "embedded"
    assert card["fingerprint"] == little.fingerprint
    assert card["n_ctx"] == 32
    assert card["train"]["stories"] == 300
    assert card["train"]["tokens"] == little_packed.train.n_tokens
    assert card["train"]["longest_story"] == np.diff(little_packed.train.offsets).max()
    assert json.loads(json.dumps(card)) == card


@pytest.mark.figure
def test_verify_finds_every_byte_flip(little, little_tokenizer, tmp_path, trials):
    flips = trials(10, "byte flips found by verify")
    packed = pack(little, little_tokenizer, 32, tmp_path)
    files = sorted(packed.folder.iterdir())
    assert verify(packed) == len(files) == 5
    rng, found = random.Random(0), 0
    for _ in range(200):
        path = rng.choice(files)
        data = bytearray(path.read_bytes())
        place = rng.randrange(len(data))
        original, data[place] = data[place], data[place] ^ (1 << rng.randrange(8))
        path.write_bytes(data)
        with flips.one(), pytest.raises(DataError, match=path.name):
            verify(packed)
        found += 1
        data[place] = original
        path.write_bytes(data)
    assert found == 200
    assert verify(packed) == 5


def test_truncated_or_missing_files_are_packed_anew(little, little_tokenizer, tmp_path):
    packed = pack(little, little_tokenizer, 32, tmp_path)
    for name in [path.name for path in packed.folder.iterdir()]:
        path = packed.folder / name
        whole = path.read_bytes()
        for damage in (
            lambda p: p.unlink(),
            lambda p, w=whole: p.write_bytes(w[:-1]),
            lambda p: p.write_bytes(b""),
        ):
            damage(path)
            with pytest.raises(DataError, match=name):
                open_packed(packed.folder)
            assert verify(pack(little, little_tokenizer, 32, tmp_path)) == 5
            assert path.read_bytes() == whole
    assert not list((tmp_path / "packed").glob(".*.tmp"))


def test_a_forged_manifest_is_refused(little, little_tokenizer, tmp_path):
    packed = pack(little, little_tokenizer, 32, tmp_path)
    manifest = json.loads((packed.folder / MANIFEST).read_text())
    manifest["ingredients"]["n_ctx"] = 64
    (packed.folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    with pytest.raises(DataError, match="its checksum does not match"):
        open_packed(packed.folder)
    (packed.folder / MANIFEST).write_text(dump_manifest(manifest))
    assert open_packed(packed.folder).n_ctx == 64


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_leaves_nothing(little, little_tokenizer, tmp_path, monkeypatch, number):
    def write(self, tokens):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(packing._ShardWriter, "write", write)
    with pytest.raises(
        DataError,
        match=r"^cannot pack embedded in .*packed: the disk is full; free some space, or choose another place with WORKBENCH_CACHE\.$",
    ):
        pack(little, little_tokenizer, 32, tmp_path)
    assert [path.name for path in (tmp_path / "packed").iterdir() if not path.name.endswith(".lock")] == []


def test_a_cache_that_is_a_file_is_one_line(little, little_tokenizer, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(DataError, match="a file is in the way of that folder"):
        pack(little, little_tokenizer, 32, tmp_path / "cache")


def test_full_disk_for_real(tmp_path):
    """Files may not grow past a limit: packing, and reading stories in, each end with one line and leave nothing."""
    found = faults("full", tmp_path)
    for place in ("packing", "manifest"):
        assert found[place]["code"] == 3
        assert "cannot pack embedded" in found[place]["message"]
        assert "the disk is full" in found[place]["message"]
        assert found[place]["left"] == []
        assert found[place]["whole"] == 0
    assert found["reading"]["code"] == 3
    assert "the disk of the data sets' cache is full" in found["reading"]["message"]
    assert "\n" not in found["reading"]["message"]
    assert found["arrow"] == []


def test_killed_at_any_moment_the_cache_is_whole_or_absent(tmp_path):
    """At each of the system calls that commit something, and at 6 random moments."""
    found = faults("kills", tmp_path, "6")
    assert found["killed"] >= 14
    assert found["whole"] >= 1


@pytest.mark.torture
def test_killed_at_fifty_random_moments(tmp_path, trials):
    """And at each call that commits something: never half is taken for whole, and the next call makes it."""
    kills = trials(10, "data preparation killed")
    found = faults("kills", tmp_path, "50")
    kills.add(found["killed"], found["killed"])  # the script itself fails at the first that does not survive
    assert found["killed"] >= 50


def test_two_at_once_both_end_well(tmp_path):
    found = faults("race", tmp_path)
    for way in ("locked", "unlocked"):
        assert all(round == {"codes": [0, 0, 0, 0], "same": True, "left": []} for round in found[way]), found


def test_real_stories(real, real_packed, real_tokenizer):
    assert real_packed.train.n_stories == 20_400
    assert real_packed.validation.n_stories == 737
    assert 3_900_000 < real_packed.train.n_tokens < 4_300_000
    assert 4.0 < real_packed.train.bytes_per_token < 4.3
    assert real_packed.train.n_bytes == 16_574_350
    sizes = token_bytes(real_tokenizer)
    assert sizes[real_packed.train.read(0, real_packed.train.n_tokens)].sum() == real_packed.train.n_bytes
    for index in range(0, 20_400, 102):
        assert real_tokenizer.decode(real_packed.train.story(index)[1:-1]) == real.train[index]
    assert verify(real_packed) == 5
