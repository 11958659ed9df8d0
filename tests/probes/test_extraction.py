"""Extraction gives what `run_with_cache` gives, once, whole, and no more than the budget."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from planted_corpus import random_corpus
from small_models import build

from probes.activations import blocks as blocks_module
from probes.activations import extraction
from probes.activations.extraction import extract
from probes.activations.hooks import SHORT, find_hooks
from probes.activations.shards import BUDGET
from workbench.errors import ConfigError, DataError, InputError

ALL = ["hook_embed", "resid_post", "z", "neurons"]


@pytest.fixture(scope="module")
def model():
    return build().float()


@pytest.fixture(scope="module")
def corpus(model):
    return random_corpus(model.config.d_vocab)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(blocks_module, "TOKENS_PER_SHARD", 64)
    monkeypatch.setattr(blocks_module, "TOKENS_PER_FORWARD", 48)


def by_hand(model, corpus, hook, token):
    """Each row alone, by `run_with_cache` on its own window."""
    rows = []
    for window, first, last in zip(corpus.window, corpus.first, corpus.last, strict=True):
        _, cache = model.run_with_cache(torch.tensor([corpus.tokens[window]]), names_filter=hook)
        x = cache[hook][0].flatten(1)
        spans = []
        for begin, end in zip(first, last, strict=True):
            spans.append({"first": x[begin], "last": x[end], "mean": x[begin : end + 1].mean(0)}[token])
        rows.append(torch.cat(spans))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("token", "spans"), [("first", 2), ("last", 1), ("last", 2), ("mean", 1), ("mean", 2)]
)
def test_it_is_what_run_with_cache_gives(model, tmp_path, small_shards, token, spans, unchecked):
    corpus = random_corpus(model.config.d_vocab, windows=12, spans=spans)
    found = extract(model, corpus, ALL, token=token, folder=tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) >= 2
    for hook in found.hooks:
        expected = by_hand(model, corpus, hook, token)
        # float16 keeps 11 bits; the batch moves float32's last bits.
        torch.testing.assert_close(found[hook].float(), expected, rtol=2**-10, atol=1e-5)
    z = "blocks.1.attn.hook_z"
    heads = found[z].view(len(corpus.window), spans, model.config.n_heads, -1)
    assert torch.equal(found.head(z, 2), heads[:, :, 2].flatten(1))
    some = np.array([5, 0, 7])
    assert torch.equal(found.rows(z, some), found[z][some])


@pytest.mark.parametrize("name", ["bert-like", "llama-like", "default / layout=mam", "elc-like"])
def test_other_shapes(name, tmp_path, small_shards, unchecked):
    from small_models import VARIANTS

    other = build(**VARIANTS[name]).float()
    corpus = random_corpus(other.config.d_vocab, windows=12)
    found = extract(other, corpus, "resid_post", folder=tmp_path)
    for hook in found.hooks:
        torch.testing.assert_close(
            found[hook].float(), by_hand(other, corpus, hook, "last"), rtol=2**-10, atol=1e-4
        )


def test_what_is_there_is_not_read_again(model, corpus, tmp_path, small_shards):
    once = extract(model, corpus, ["hook_embed", "blocks.0.hook_resid_post"], folder=tmp_path)
    assert once.read > 0
    again = extract(model, corpus, "blocks.0.hook_resid_post", folder=tmp_path)
    assert again.read == 0
    assert torch.equal(once["blocks.0.hook_resid_post"], again["blocks.0.hook_resid_post"])
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    more = extract(model, corpus, "resid_post", folder=tmp_path)
    assert more.hooks == ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    assert (
        before.items() <= {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}.items()
    )
    other = random_corpus(model.config.d_vocab, seed=1)
    assert extract(model, other, "blocks.0.hook_resid_post", folder=tmp_path).read > 0
    assert extract(model, corpus, "blocks.0.hook_resid_post", token="first", folder=tmp_path).read > 0
    copy = extract(model, corpus, "blocks.0.hook_resid_post", untrained=True, folder=tmp_path)
    assert not torch.equal(copy["blocks.0.hook_resid_post"], once["blocks.0.hook_resid_post"])


def test_a_missing_or_damaged_shard_is_read_again(model, corpus, tmp_path, small_shards):
    once = extract(model, corpus, "resid_post", folder=tmp_path)
    expected = {hook: once[hook] for hook in once.hooks}
    files = sorted(tmp_path.rglob("*.safetensors"))
    files[1].unlink()
    data = bytearray(files[2].read_bytes())
    data[-3] ^= 0x40
    for file, damaged in ((files[2], data), (files[3], b"")):
        file.unlink()  # not cut short in place: `once` has it open
        file.write_bytes(damaged)
    again = extract(model, corpus, "resid_post", folder=tmp_path)
    assert 0 < again.read <= 3 * 64 + 3 * 20
    for hook in once.hooks:
        torch.testing.assert_close(expected[hook], again[hook], rtol=2**-10, atol=1e-5)
    assert extract(model, corpus, "resid_post", folder=tmp_path).read == 0


def _slow_child(folder, corpus, started):
    torch.set_num_threads(1)
    extract(
        build().float(),
        corpus,
        "resid_post",
        folder=folder,
        progress=lambda *_: (started.set(), time.sleep(0.05)),
    )


def test_a_kill_loses_one_shard_and_two_at_once_agree(model, tmp_path, small_shards, corpus):
    context = multiprocessing.get_context("fork")
    torch.set_num_threads(1)  # a forked child must not wait for threads that it does not have
    started = context.Event()
    child = context.Process(target=_slow_child, args=(tmp_path, corpus, started))
    child.start()
    while len(list(tmp_path.rglob("0*.safetensors"))) < 3:
        assert child.is_alive()
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    whole = len(list(tmp_path.rglob("0*.safetensors")))
    total = blocks_module.Blocks(corpus).tokens
    pair = [context.Process(target=_slow_child, args=(tmp_path, corpus, context.Event())) for _ in range(2)]
    for one in pair:
        one.start()
    for one in pair:
        one.join(60)
    assert [one.exitcode for one in pair] == [0, 0]
    left = extract(model, corpus, "resid_post", folder=tmp_path)
    assert left.read == 0
    assert whole >= 3
    assert total > 64 * whole
    fresh = extract(model, corpus, "resid_post", folder=tmp_path / "fresh")
    for hook in fresh.hooks:
        torch.testing.assert_close(left[hook], fresh[hook], rtol=2**-10, atol=1e-5)


def test_ctrl_c_keeps_finished_shards(model, corpus, tmp_path, small_shards):
    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(model, corpus, "resid_post", folder=tmp_path, progress=stop)
    total = blocks_module.Blocks(corpus).tokens
    left = extract(model, corpus, "resid_post", folder=tmp_path)
    assert left.read <= total / 2 + 64 + 20


def test_the_budget_is_kept_and_the_oldest_makes_room(model, corpus, tmp_path):
    rows, width = len(corpus.window), model.config.d_model
    one = 2 * rows * width
    with pytest.raises(DataError, match="budget is 100 bytes"):
        extract(model, corpus, "hook_embed", folder=tmp_path, budget=100)
    folders = []
    for seed in range(4):
        other = random_corpus(model.config.d_vocab, seed=seed)
        folders.append(extract(model, other, "hook_embed", folder=tmp_path, budget=3 * one + 6000).folder)
        os.utime(folders[-1] / "corpus.json", (seed, seed))
    assert not folders[0].exists()
    assert folders[-1].exists()
    kept = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert kept <= 3 * one + 6000 + one  # random corpora differ a little in size


def test_readers_keep_what_was_removed(model, corpus, tmp_path):
    found = extract(model, corpus, "hook_embed", folder=tmp_path)
    expected = found["hook_embed"].clone()
    other = random_corpus(model.config.d_vocab, seed=5)
    extract(model, other, "hook_embed", folder=tmp_path, budget=2 * len(other.window) * 40)
    assert not found.folder.exists()
    assert torch.equal(found["hook_embed"], expected)


def test_large_numbers_are_clipped_and_none_refused(corpus, tmp_path):
    big = build().float()
    with torch.no_grad():
        big.embed.W_E *= 1e7
    found = extract(big, corpus, "hook_embed", folder=tmp_path)
    assert found.clipped > 0
    assert torch.isfinite(found["hook_embed"]).all()
    with torch.no_grad():
        big.embed.W_E.fill_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        extract(big, corpus, "hook_embed", folder=tmp_path)


def test_hooks_by_name_pattern_and_short_name(model):
    assert find_hooks(model, "resid_post") == ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    assert find_hooks(model, "blocks.*.attn.hook_z,hook_embed")[0] == "hook_embed"
    assert len(find_hooks(model, ["z", "blocks.*.attn.hook_z"])) == 2
    for name in SHORT:
        assert find_hooks(model, name)
    with pytest.raises(InputError, match="Did you mean 'resid_post'"):
        find_hooks(model, "resid_pst")
    with pytest.raises(InputError, match="each pair of tokens"):
        find_hooks(model, "blocks.*.attn.hook_pattern")
    with pytest.raises(InputError, match="no hook was named"):
        find_hooks(model, ",")
    everything = find_hooks(model, "*")
    extraction.widths_of(model, everything)


def test_mistakes(model, corpus, tmp_path):
    with pytest.raises(ConfigError, match="none of first, last, mean"):
        extract(model, corpus, token="middle", folder=tmp_path)
    wrong = random_corpus(model.config.d_vocab, longest=60)
    with pytest.raises(InputError, match="the context is 24"):
        extract(model, wrong, folder=tmp_path)
    wrong = random_corpus(500)
    with pytest.raises(InputError, match="the vocabulary has 61"):
        extract(model, wrong, folder=tmp_path)
    corpus.window[0], kept = 10**6, corpus.window[0]
    with pytest.raises(InputError, match="name windows up to 1000000"):
        extract(model, corpus, folder=tmp_path)
    corpus.window[0] = kept
    assert BUDGET == 8 * 2**30


def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch, unchecked):
    from benchmarks.neurons import _in_use

    monkeypatch.setattr(blocks_module, "TOKENS_PER_SHARD", 512)
    model = build(d_model=256, n_heads=4).float()
    used = []
    corpus = random_corpus(61, windows=2400, seed=2)
    extract(model, corpus, "resid_post", folder=tmp_path, progress=lambda *_: used.append(_in_use()))
    early, late = max(used[: len(used) // 4]), max(used[len(used) // 2 :])
    features = 2 * len(corpus.window) * 2 * 256 / 2**20
    assert features > 3
    assert late - early < 0.2 * features
