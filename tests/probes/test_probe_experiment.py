"""One call gives every control, and no number that is not that of a probe on other groups."""

import dataclasses

import numpy as np
import pytest
import torch

from probes import probe
from probes import result as names
from probes.examples import Document, Item, Task
from probes.experiment import find_source
from probes.intervals import paired, ratios
from probes.saved import kept, list_results
from workbench.errors import ConfigError, DataError, InputError, RunError
from workbench.runs.run import load

pytestmark = pytest.mark.usefixtures("unchecked", "one_penalty")
QUICK = dict(tokens=1200, compression=False)


@pytest.fixture(scope="module")
def found(probed_runs, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("probes.fits.Job.penalty", lambda job: 10.0)
        yield probe([str(probed_runs / "one@0"), str(probed_runs / "one")], "pos", save=False, **QUICK)


def test_every_control_is_there(found):
    table = found.table
    assert found.titles[0].endswith("one@0")
    for part in found.parts:
        mine = table[(table.run == part.run) & (table.step == part.step)]
        assert set(mine[mine.source == "none"].probe) == {"majority", "word", "position"}
        hooks = {"hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"}
        for labels in ("task", "shuffled", "control task"):
            assert set(mine[(mine.source == "model") & (mine.labels == labels)].hook) == hooks
        assert set(mine[mine.source == "untrained"].hook) == hooks - {"hook_embed"}
    assert (table.seeds == 3).all()
    assert ((table.low <= table.score) & (table.score <= table.high)).all()
    known = table[(table.source == "model") & (table.labels == "task")]
    assert known.selectivity.notna().all()
    assert known.held.notna().all()
    assert table[table.labels != "task"].selectivity.isna().all()


def test_scores_are_ratios_of_the_cells(found):
    cells = found.cells
    row = found.table[(found.table.source == "model") & (found.table.labels == "task")].iloc[1]
    mine = cells[(cells.run == row.run) & (cells.step == row.step) & (cells.hook == row.hook)]
    mine = mine[(mine.source == "model") & (mine.labels == "task")]
    assert row.n == mine.n.sum()
    assert row.score == pytest.approx((mine.score * mine.n).sum() / mine.n.sum())
    assert found.confusion_matrix(row.hook, title=found.titles[0]).sum() == row.n
    right = np.trace(found.confusion_matrix(row.hook, title=found.titles[0]))
    assert right / row.n == pytest.approx(row.score)


def test_differences_are_paired(found):
    best = found.best()
    gap = found.difference({"hook": best["hook"]}, {"hook": "hook_embed"})
    embedding = found.table[(found.table.hook == "hook_embed") & (found.table.labels == "task")].iloc[0]
    assert gap.value == pytest.approx(best["score"] - embedding.score)
    assert gap.low <= gap.value <= gap.high
    same = found.difference({"hook": best["hook"]}, {"hook": best["hook"]})
    assert (same.value, same.low, same.high) == (0, 0, 0)
    over = found.difference({"title": found.titles[1], "hook": "hook_embed"}, {"hook": "hook_embed"})
    assert np.isfinite([over.low, over.high]).all()
    with pytest.raises(InputError, match="no probe of"):
        found.difference({"hook": "nonsense"}, {"hook": "hook_embed"})
    with pytest.raises(InputError, match="was not probed"):
        found.part("runs/other")


def test_paired_intervals_are_narrower_and_cover():
    """Two scores that move together: the paired interval is narrow, and holds the true difference 19 times of 20."""
    random = np.random.default_rng(0)
    held, widths = [], []
    for _ in range(60):
        hard = random.normal(0, 1, 200)
        a = (random.normal(hard, 0.3, (10, 200)) > -0.3).sum(0)
        b = (random.normal(hard, 0.3, (10, 200)) > 0).sum(0)
        gap = paired(a.astype(float), np.full(200, 10.0), b.astype(float), np.full(200, 10.0))
        score, low, high, _ = ratios(np.stack([a, b]).astype(float), np.full((2, 200), 10.0))
        widths.append((gap.high - gap.low) / (high - low).sum())
        held.append(gap.low <= 0.1132 <= gap.high)  # Phi(0.3 / s) - Phi(0), s = sqrt(1.09)
        assert gap.value == pytest.approx(score[0] - score[1])
    assert np.mean(widths) < 0.4
    assert 0.85 <= np.mean(held) <= 1.0


def _word_task(letters=False):
    """The label is the word itself, or nothing that any model could know."""
    words = ["cat", "dog", "tree", "ball"]

    def documents(source=None, *, limit=None, seed=0):
        random = np.random.default_rng(seed)
        for index in range(120):
            chosen = [words[at] for at in random.integers(0, 4, 6)]
            text, items = "", []
            for word in chosen:
                start = len(text) + bool(text)
                text = f"{text} {word}".strip()
                label = str(random.integers(0, 2)) if letters else word
                items.append(Item(((start, start + len(word)),), label, word))
            yield Document(text, f"s{index}", tuple(items))

    return Task("words", "the word itself", "classes", "embedded", documents, "sentence")


def test_what_is_planted_is_found_and_what_is_random_is_not(probed_runs):
    run = load(probed_runs / "one")
    known = probe(run, _word_task(), save=False, compression=False)
    embed = known.table[(known.table.hook == "hook_embed") & (known.table.labels == "task")].iloc[0]
    assert embed.score >= 0.99
    shuffled = known.table[(known.table.hook == "hook_embed") & (known.table.labels == "shuffled")].iloc[0]
    assert shuffled.score < 0.45
    unknown = probe(run, _word_task(letters=True), save=False, compression=False)
    rows = unknown.table[(unknown.table.source == "model") & (unknown.table.labels == "task")]
    assert (rows.low < 0.55).all()
    assert (rows.high > 0.45).all()


def test_no_group_is_on_both_sides_and_only_test_rows_count(found):
    for part in found.parts:
        assert part.gained.shape == part.of.shape == (len(part.cells), len(part.groups))
        assert np.array_equal(part.of.sum(1), part.cells.n.to_numpy(float))
        assert (part.gained <= part.of).all()


def test_results_are_kept_with_the_weights(probed_runs, monkeypatch):
    name = str(probed_runs / "two")
    first = probe(name, "subject_number", **QUICK)
    run = load(name)
    folders = list((run.path / "probes").glob("subject_number-*/step-000008"))
    assert len(folders) == 1
    monkeypatch.setattr("probes.experiment.measure", lambda *_: pytest.fail("measured again"))
    again = probe(name, "subject_number", **QUICK)
    assert again.table.equals(first.table) or np.allclose(again.table.score, first.table.score)
    assert (again.table.low - first.table.low).abs().max() < 1e-6
    listed = list_results(run.path, 8, again.parts[0].weights)
    assert [one.task for one in listed] == ["subject_number"]
    assert listed[0].classes == first.classes
    assert list_results(run.path, 8, "0" * 64) == []
    monkeypatch.undo()
    file = folders[0] / "sums.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert list_results(run.path, 8, again.parts[0].weights) == []
    assert kept(run, {"task": "x", "format": 2}) is None
    third = probe(name, "subject_number", **QUICK)
    assert np.allclose(third.table.score, first.table.score)
    assert len(list_results(run.path, 8, third.parts[0].weights)) == 1


def test_a_stop_keeps_finished_runs(probed_runs):
    names_of = [str(probed_runs / "one@0"), str(probed_runs / "one@8")]

    def stop(run, what, done, total):
        if run.endswith("@8") and what == "fitting":
            raise KeyboardInterrupt

    wish = dict(tokens=1200, compression=False, untrained=False)
    with pytest.raises(KeyboardInterrupt):
        probe(names_of, "pos", tell=stop, **wish)
    seen = []
    probe(names_of, "pos", tell=lambda run, what, done, total: seen.append((run[-2:], what, done)), **wish)
    assert {run for run, *_ in seen} == {"@8"}
    assert not any(what == "reading" for _, what, _ in seen)


def test_heads_and_pairs_of_words(probed_runs):
    by_head = probe(str(probed_runs / "two"), "pos", hooks="z", save=False, untrained=False, **QUICK)
    rows = by_head.table[(by_head.table.source == "model") & (by_head.table.labels == "task")]
    assert sorted(rows["head"].dropna()) == [0, 1, 2, 3]
    best = by_head.best()
    assert by_head.confusion_matrix().sum() == best["n"]
    pairs = probe(str(probed_runs / "two"), "dependency", save=False, untrained=False, **QUICK)
    assert len(pairs.classes) > 3


def test_masked_and_other_shapes(tmp_path):
    import page_runs

    words = page_runs.tokenizer()
    shapes = {"masked": dict(attention="bidirectional", n_layers=1), "mlps": dict(layout="mm")}
    for name, fields in shapes.items():
        run = page_runs.make_run(tmp_path / name, words, steps=(8,), **fields)
        assert probe(str(run), "pos", save=False, untrained=False, **QUICK).best()["score"] > 0.2


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        (dict(hooks="resid_pst"), InputError, "Did you mean 'resid_post'"),
        (dict(seeds=0), ConfigError, "seeds must be 1 or more"),
        (dict(seeds=[1, 1]), ConfigError, "different"),
        (dict(token="all"), ConfigError, "none of first, last, mean"),
        (dict(probe="logstic"), ConfigError, "Did you mean 'logistic'"),
        (dict(probe="structural"), ConfigError, "this task takes logistic"),
        (dict(task="poss"), DataError, "Did you mean 'pos'"),
        (dict(by="story"), ConfigError, "'group' or by 'word'"),
        (dict(tokens=1), DataError, "training, development and test need one each"),
        (dict(runs="runs/nowhere"), RunError, "nowhere"),
        (dict(runs=[]), ConfigError, "no run was named"),
    ],
)
def test_mistakes_are_told_before_anything_long(probed_runs, wish, error, words):
    wish = dict(runs=str(probed_runs / "two"), task="pos", save=False) | QUICK | wish
    with pytest.raises(error, match=words):
        probe(wish.pop("runs"), wish.pop("task"), **wish)


def test_sources_in_a_folder_of_corpora(tmp_path):
    (tmp_path / "ud_x").mkdir()
    (tmp_path / "ud_x" / "a.conllu").write_text("")
    (tmp_path / "blimp").mkdir()
    assert find_source(str(tmp_path), "ud") == str(tmp_path / "ud_x")
    assert find_source(str(tmp_path / "ud_x"), "ud") == str(tmp_path / "ud_x")
    assert find_source(str(tmp_path), "blimp") == str(tmp_path / "blimp")
    with pytest.raises(DataError, match="holds no stories"):
        find_source(str(tmp_path), "stories")
    assert find_source(None, "ud") is None
    assert find_source("nyu-mll/blimp", "blimp") == "nyu-mll/blimp"
    with pytest.raises(DataError, match="holds no treebank"):
        find_source(str(tmp_path / "blimp"), "ud")


def test_untrained_copy_is_read_once_for_all_checkpoints(probed_runs):
    seen = []
    probe(
        [str(probed_runs / "one@0"), str(probed_runs / "one@8")], "pos", save=False, tokens=1300, seeds=1,
        compression=False, tell=lambda run, what, done, total: seen.append((run[-2:], what)),
    )  # fmt: skip
    assert ("@8", "reading") in seen
    read = {run for run, what in seen if what == "reading untrained"}
    assert len(read) == 2 or read == {"@0"}  # page_runs gives each checkpoint another seed


def test_results_are_frozen_and_named(found):
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.task = "other"
    assert (names.TASK, names.SHUFFLED, names.CONTROL) == ("task", "shuffled", "control task")
    assert torch.is_grad_enabled()
