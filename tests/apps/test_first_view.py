"""What stands on the first page before the model is read: the saved numbers are those worked out anew."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apps.answers import catalogue, explain, opening, sources
from workbench.interp.summary import SummaryOptions, make_summary, opening_pair, save_summary
from workbench.runs.run import load

pytestmark = pytest.mark.usefixtures("unchecked")
WITHOUT_TORCH = """
import sys
from apps.answers import catalogue, opening, sources
from apps.pages.explain import first
from apps.entry import page
from workbench.runs.zoo import family_folder
opened = catalogue.open_checkpoint(family_folder() / sys.argv[1], None)
known = sources.sources(sources.saved_results(opened.run.path), opened.run.step)
embedded = next(source for source in known if source.key == "embedded")
uid, pair_id = opening.opening_pair(opened, embedded)
found = opening.first_look(opened, embedded, uid, pair_id)
assert found.columns and found.subject.components and found.difference
print("torch" in sys.modules, "transformer_lens" in sys.modules, opened.is_loaded)
"""


@pytest.fixture(scope="module")
def summarised(runs, tmp_path_factory) -> Path:
    """A scored run with its summary."""
    folder = tmp_path_factory.mktemp("first") / "scored"
    shutil.copytree(runs / "scored", folder)
    run = load(folder)
    save_summary(make_summary(run, SummaryOptions(limit=1, methods=("direct",), stories=2)), folder)
    return folder


def parts(folder: Path):
    opened = catalogue.open_checkpoint(folder, None)
    source = sources.sources(sources.saved_results(folder), opened.run.step)[0]
    uid, pair_id = opening.opening_pair(opened, source)
    return opened, source, uid, pair_id


def test_the_saved_numbers_are_those_worked_out_anew(summarised):
    opened, source, uid, pair_id = parts(summarised)
    found = opening.first_look(opened, source, uid, pair_id)
    row = sources.scored_pairs(source).query("paradigm == @uid and pair_id == @pair_id").iloc[0]
    pair = explain.explain_pair(opened, row.sentence_good, row.sentence_bad, *sources.protocol_of(source))
    assert found.difference == pytest.approx(pair.difference, abs=1e-6)
    assert found.columns == explain.columns(pair)
    whole = explain.pair_subject(pair, "k")
    assert found.subject.components == whole.components
    saved, own = found.subject.views[0], whole.views[0]
    np.testing.assert_allclose(saved.values, own.values, atol=1e-6)
    assert saved.total == pytest.approx(own.total, abs=1e-6)
    assert (saved.label, saved.total_name, saved.token) == (own.label, own.total_name, own.token)
    assert explain.top(found.subject, saved.values) == explain.top(whole, own.values)


def test_nothing_is_known_of_other_pairs_and_other_weights(summarised, tmp_path):
    opened, source, uid, pair_id = parts(summarised)
    assert opening.first_look(opened, source, uid, pair_id + 1) is None
    assert opening.first_look(opened, source, f"{uid}x", pair_id) is None
    for file in ("opening_tokens.parquet", "opening_parts.parquet"):
        other = tmp_path / file / "scored"
        shutil.copytree(summarised, other)
        (next((other / "explain").iterdir()) / file).write_bytes(b"")
        found = opening.first_look(catalogue.open_checkpoint(other, None), source, uid, pair_id)
        assert (found is None) == (file == "opening_parts.parquet")
        assert found is None or found.columns == []


def test_it_is_drawn_and_then_the_page(page, summarised):
    test = page(summarised.parent)
    texts = [each.proto.body for each in test.get("html")]
    assert sum('class="wb-verdict"' in text for text in texts) == 1, "the early view went"
    assert sum('class="wb-map"' in text for text in texts) == 1


def test_the_family_needs_no_torch_for_it():
    code = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "tiny-4h"], capture_output=True, text=True, timeout=120
    )
    assert code.stdout.split() == ["False", "False", "False"], code.stderr[-2000:]


def test_it_opens_on_a_pair_that_differs_in_one_token_where_there_is_one(summarised):
    run = load(summarised)
    frame = sources.scored_pairs(parts(summarised)[1])
    found = opening_pair(run.model, run.tokenizer, frame)
    good, bad = found.pair.good.ids, found.pair.bad.ids
    assert len(good) == len(bad)
    differ = int((good != bad).sum())
    mistakes = frame[(frame.correct < 0.5) & (frame.tokens_good == frame.tokens_bad)]
    accuracy = frame.groupby("paradigm").correct.transform("mean")
    tokens = [
        [run.tokenizer.encode(text) for text in (row.sentence_good, row.sentence_bad)]
        for row in mistakes[accuracy[mistakes.index] > 0.5].itertuples()
    ]
    there = any(
        sum(a != b for a, b in zip(*pair, strict=True)) == 1
        for pair in tokens
        if len(pair[0]) == len(pair[1])
    )
    assert there, "the test has nothing to find"
    assert differ == 1
