"""Every kind of probe through the experiment, tasks of numbers and distances, and what is hardly a task."""

import numpy as np
import pytest

from probes import probe
from probes.examples import Document, Item, Task
from probes.fits import OF_KIND, Job, find_probe
from probes.fitting.penalty import GRID
from probes.used import causal_name, pairs_of, refuse_causal
from workbench.errors import ConfigError
from workbench.runs.run import load

pytestmark = pytest.mark.usefixtures("unchecked", "one_penalty")
FAST = dict(save=False, untrained=False, compression=False, seeds=2, hooks="blocks.0.hook_resid_post")
CHOSEN = Job.penalty
WORDS = ["cat", "dog", "tree", "ball"]


@pytest.fixture(scope="module")
def run(probed_runs):
    return load(probed_runs / "two")


def sentences(label, spans=1, kind="classes", count=30):
    """Sentences of six words; `label(words, at)` is what is predicted at each."""

    def documents(source=None, *, limit=None, seed=0):
        random = np.random.default_rng(seed)
        for index in range(count):
            chosen = [WORDS[at] for at in random.integers(0, len(WORDS), 6)]
            starts = np.cumsum([0, *(len(word) + 1 for word in chosen[:-1])]).tolist()
            places = [(start, start + len(word)) for start, word in zip(starts, chosen, strict=True)]
            items = []
            for at in range(spans - 1, 6):
                mine = tuple(places[at - back] for back in range(spans))
                items.append(Item(mine, label(chosen, at), chosen[at]))
            yield Document(" ".join(chosen), f"s{index}", tuple(items))

    return Task("made", "made", kind, "embedded", documents, "sentence", n_spans=spans)


@pytest.fixture
def quick_networks(monkeypatch):
    """A handful of steps, for probes that are trained and not solved."""
    import probes.fitting.adam as adam

    monkeypatch.setattr(adam.Schedule.__init__, "__defaults__", (2, 256, 1e-2, 40, 0))


@pytest.mark.parametrize("kind", [kind for kind in OF_KIND["classes"] if kind != "logistic"])
def test_probes_of_classes(run, kind, quick_networks):
    spans = 2 if kind == "bilinear" else 1
    found = probe(run, sentences(lambda words, at: words[at], spans), probe=kind, **FAST)
    assert found.best()["score"] > (0.6 if kind in ("mlp", "bilinear") else 0.9)
    assert found.settings["probe"] == kind
    assert ("k" in found.settings) == (kind == "sparse")


@pytest.mark.parametrize("kind", ["ridge", pytest.param("mlp", marks=pytest.mark.torture)])
def test_probes_of_numbers(run, kind, quick_networks):
    task = sentences(lambda words, at: float(WORDS.index(words[at])), kind="number")
    found = probe(run, task, probe=kind, **FAST)
    assert found.measure == "R²"
    rows = found.table[(found.table.source == "model") & (found.table.labels == "task")]
    assert rows.score.max() > (0.95 if kind == "ridge" else 0.3)
    shuffled = found.table[found.table.labels == "shuffled"]
    assert shuffled.score.max() < 0.1
    assert found.classes == ()
    figure = found.plot()
    assert figure.axes[0].get_ylabel().startswith("R²")


@pytest.mark.parametrize("kind", ["structural", pytest.param("ridge", marks=pytest.mark.torture)])
def test_probes_of_distances(run, kind, quick_networks):
    """The distance is 0 between equal words and 1 between others: any map that is not 0 tells it."""
    task = sentences(lambda words, at: float(words[at] != words[at - 1]), 2, "distance")
    found = probe(run, task, probe=kind, **FAST)
    assert found.measure == "rank correlation"
    embed = found.table[found.table.hook == "hook_embed"].set_index("labels").score
    assert embed["task"] > (embed["shuffled"] + 0.5 if kind == "structural" else -1)
    assert abs(embed["shuffled"]) < 0.3
    majority = found.table[found.table.probe == "majority"].score.iloc[0]
    assert majority == 0


def test_a_control_task_of_one_word_type(run):
    """All labels of the control task are the same: nothing can be learned, and the rest is measured all the same."""
    task = sentences(lambda words, at: words[at - 1])
    alike = Task("alike", "", "classes", "embedded", lambda *a, **k: _one_word(task), "sentence")
    found = probe(run, alike, **FAST)
    control = found.table[(found.table.labels == "control task") & (found.table.source == "model")]
    assert (control.score == 1).all()
    assert found.best()["score"] > 0.2


def _one_word(task):
    for document in task.documents():
        yield Document(
            document.text, document.group, tuple(Item(one.spans, one.label, "x") for one in document.items)
        )


def test_the_penalty_is_chosen_once_for_task_and_controls(run, monkeypatch):
    monkeypatch.setattr(Job, "penalty", CHOSEN)
    found = probe(run, sentences(lambda words, at: words[at], count=20), **FAST | dict(seeds=1))
    chosen = found.cells[found.cells.source == "model"]
    assert set(chosen.penalty) <= set(GRID)
    assert (chosen.groupby("hook").penalty.nunique() == 1).all()


def test_few_groups(run):
    found = probe(run, sentences(lambda words, at: words[at], count=4), **FAST)
    assert len(found.parts[0].groups) >= 1


def test_compression_is_that_of_the_labels(run):
    wish = FAST | dict(compression=True, seeds=1)
    known = probe(run, sentences(lambda words, at: words[at]), **wish).best()
    random = np.random.default_rng(123)
    unknown = probe(run, sentences(lambda words, at: WORDS[random.integers(0, 4)]), **wish).best()
    assert known["compression"] > 2
    assert unknown["compression"] < 1.02


def test_by_word(run):
    """No word of the test part was taught: what is the word itself is not known, by anyone."""
    found = probe(run, "subject_number", tokens=3000, by="word", **FAST)
    word = found.table[found.table.probe == "word"].iloc[0]
    majority = found.table[found.table.probe == "majority"].iloc[0]
    assert word.score == pytest.approx(majority.score)


def test_which_probe_learns_what():
    assert find_probe(None, "number") == "ridge"
    with pytest.raises(ConfigError, match="reads two words"):
        find_probe("bilinear", "classes", 1)
    with pytest.raises(ConfigError, match="does not learn number labels"):
        find_probe("sparse", "number")


def test_causal_part_refuses_early_and_names_files(tmp_path):
    pairs = sentences(lambda words, at: "x", 2)
    with pytest.raises(ConfigError, match="pairs of words"):
        refuse_causal(pairs, True, None)
    with pytest.raises(ConfigError, match="predicts numbers"):
        refuse_causal(sentences(lambda words, at: 1.0, kind="number"), False, ("a", "b"))
    refuse_causal(pairs, False, None)
    assert pairs_of(None) is None
    assert pairs_of(str(tmp_path)) is None
    (tmp_path / "blimp").mkdir()
    assert pairs_of(str(tmp_path)) == str(tmp_path / "blimp")

    class Made:
        run = "runs/<b>x</b>@8"

    assert causal_name(Made()) == "erasure-runs--b-x--b--8"


def test_a_folder_that_cannot_be_written_costs_only_the_copy(run, monkeypatch):
    def full(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("probes.experiment.keep", full)
    found = probe(run, sentences(lambda words, at: words[at]), **FAST | dict(save=True, again=True))
    assert any("could not be kept" in note for note in found.notes)
