"""What the first page and the page of minimal pairs say equals what the library says."""

from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from apps.answers import (
    ablate,
    beside,
    catalogue,
    explain,
    matrix_rows,
    neurons_of_pair,
    paradigm_effects,
    sources,
    summaries,
    switched_off,
)
from workbench.data.embedded.stories import stories
from workbench.data.pairs import PairSet, open_pairs
from workbench.evals.blimp import blimp
from workbench.interp.ablation import ablated, replacement
from workbench.interp.attribution import attribute_pair, attribute_text
from workbench.interp.matrix import component_matrix
from workbench.interp.neurons.tokens import promoted_tokens
from workbench.interp.texts import Reference, default_reference

GOOD, BAD = "The cats near the tree were happy.", "The cats near the tree was happy."
FEW = 12


@pytest.fixture
def opened(runs) -> catalogue.Opened:
    return catalogue.open_checkpoint(runs / "scored", None)


def subject_of(opened, good=GOOD, bad=BAD) -> explain.Subject:
    found = explain.explain_pair(opened, good, bad, "native", "original")
    return explain.pair_subject(found, f"{opened.key}|{good}|{bad}")


@pytest.mark.parametrize("name", ["scored", "masked"])
@pytest.mark.parametrize("label", ["L0H2", "L1 MLP"])
@pytest.mark.parametrize("how", ["zero", "mean"])
def test_a_component_switched_off_is_the_librarys_ablation(runs, name, label, how, unchecked):
    opened = catalogue.open_checkpoint(runs / name, None)
    subject = subject_of(opened)
    whole, here = subject.views[1], subject.views[0]
    found = switched_off.switched_off(opened, subject, whole, label, how)
    run = wb.load(runs / name)
    text = list(stories(100, split="train"))
    given = replacement(run.model, [label], how, text)
    with ablated(run.model, [label], reference=given) as network:
        pair = attribute_pair(network, GOOD, BAD, tokenizer=run.tokenizer)
    assert found.without == pytest.approx(pair.difference, abs=1e-4)
    assert found.effect == pytest.approx(whole.total - pair.difference, abs=1e-4)
    assert abs(found.effect) > 1e-3
    at_place = switched_off.switched_off(opened, subject, here, label, how)
    assert at_place.without == pytest.approx(pair.difference_at_place, abs=1e-4)
    assert not opened.model.has_listeners()


def test_a_text_is_switched_off_at_its_token(opened, unchecked):
    text = explain.explain_text(opened, GOOD)
    subject = explain.text_subject(text, 3, f"{opened.key}|3|{GOOD}")
    found = switched_off.switched_off(opened, subject, subject.views[0], "L0H1", "zero")
    with ablated(opened.model, "L0H1") as network:
        after = attribute_text(network, GOOD, tokenizer=opened.tokenizer)
    assert found.without == pytest.approx(float(after.log_probs[3]), abs=1e-4)
    assert found.effect == pytest.approx(float(text.log_probs[3] - after.log_probs[3]), abs=1e-4)


def test_effects_of_all_components_come_in_their_order(opened, unchecked):
    subject = subject_of(opened)
    found = switched_off.effects(opened, subject, subject.views[1], "zero")
    for component, value in zip(subject.components, found, strict=True):
        if component.kind in ("head", "mlp"):
            alone = switched_off.switched_off(opened, subject, subject.views[1], component.label, "zero")
            assert value == alone.effect
        else:
            assert np.isnan(value)


def test_neurons_of_an_mlp_sum_to_it_and_promote_what_they_promote(opened, unchecked):
    subject = subject_of(opened)
    width = opened.model.config.mlp_width
    for view in subject.views:
        frame = neurons_of_pair.top_neurons(opened, subject, view, 1, count=width)
        index = [component.label for component in subject.components].index("L1 MLP")
        assert frame.nats.sum() == pytest.approx(float(view.values[index]), abs=1e-4)
        assert list(frame.nats.abs()) == sorted(frame.nats.abs(), reverse=True)
    first = frame.neuron[0]
    named = promoted_tokens(opened.model, 1, int(first.removeprefix("L1N")), neurons_of_pair.TOKENS)
    shown = [explain.visible(each.text) for each in named.promoted]
    assert frame.promotes[0].split("  ") == shown


def source_of(opened) -> sources.Source:
    results = sources.saved_results(opened.run.path)
    return sources.sources(results, opened.run.step)[0]


@pytest.mark.parametrize("method", ["direct", "ablate"])
def test_a_paradigm_is_measured_as_the_library_does(opened, method, unchecked):
    source, pairs = source_of(opened), open_pairs(None)
    names = list(pairs.paradigms)[:2]
    paradigm_effects.measure(opened, source, names, method, FEW)
    some = PairSet(pairs.name, pairs.source, {name: pairs.paradigms[name][:FEW] for name in names})
    text = list(stories(100, split="train"))
    matrix = component_matrix(
        opened.run, some, methods=[method], reference=text if method == "ablate" else None
    )
    for name in names:
        assert paradigm_effects.is_measured(opened, source, name, method, FEW)
        mine = paradigm_effects.measured(opened, source, name, method, FEW)
        expected = matrix.to_frame().query("paradigm == @name").reset_index(drop=True)
        found = paradigm_effects.paradigm_frame(opened, source, name, method, FEW)
        np.testing.assert_allclose(found.effect, expected.effect, atol=1e-5)
        np.testing.assert_allclose(found.low, expected.low, atol=1e-5)
        explained, all_ = mine.explained("L0H1", name, method), matrix.explained("L0H1", name, method)
        assert list(explained.pair_id) == list(all_.pair_id)
        assert list(explained.effect) == sorted(explained.effect, reverse=True)
    assert not opened.model.has_listeners()


def test_the_aggregate_is_the_matrix_entry(opened, unchecked):
    source = source_of(opened)
    name = next(iter(open_pairs(None).paradigms))
    found = paradigm_effects.aggregate(opened, source, name, "L1H0")
    assert found is not None
    row = paradigm_effects.measured(opened, source, name).of(name).set_index("component").loc["L1H0"]
    assert (found.effect, found.low, found.high) == (row.effect, row.low, row.high)
    assert found.n == paradigm_effects.FEW
    assert paradigm_effects.aggregate(opened, source, name, "L9H9") is None


def test_phenomena_of_the_matrix_are_means_over_paradigms(opened, unchecked):
    source, pairs = source_of(opened), open_pairs(None)
    kinds = pairs.phenomena()
    kind = max(set(kinds.values()), key=lambda kind: list(kinds.values()).count(kind))
    names = [name for name in kinds if kinds[name] == kind][:3]
    paradigm_effects.measure(opened, source, names, "direct")
    frame = matrix_rows.known(opened, source, names, "direct")
    assert matrix_rows.missing(opened, source, names, "direct") == []
    found = matrix_rows.by_phenomenon(frame, kinds)
    some = PairSet(
        pairs.name, pairs.source, {name: pairs.paradigms[name][: paradigm_effects.FEW] for name in names}
    )
    expected = component_matrix(opened.run, some, methods=["direct"]).phenomena().set_index("component")
    for row in found.itertuples():
        assert row.effect == pytest.approx(expected.effect[row.component], abs=1e-5)
        assert row.low == pytest.approx(expected.low[row.component], abs=1e-5)
        assert row.high == pytest.approx(expected.high[row.component], abs=1e-5)


def test_results_of_two_models_are_joined_by_pair(scored_runs, unchecked):
    first = sources.saved_results(scored_runs / "a")[0]
    second = beside.matching(scored_runs / "b", first)
    assert second is not None
    assert beside.matching(scored_runs / "d", first) is None
    one, other = (sources.read_result(saved).per_pair for saved in (first, second))
    name = str(one.paradigm.iloc[0])
    frame = beside.pairs_of(first, second, name, None)
    assert len(frame) == int((one.paradigm == name).sum())
    assert list(frame.margin) == sorted(frame.margin)
    for row in frame.head(20).itertuples():
        for table, margin in ((one, row.margin), (other, row.margin_b)):
            here = table[(table.paradigm == name) & (table.pair_id == row.pair_id)]
            assert float(here.margin.iloc[0]) == margin
    turned = beside.chosen(frame, "turned")
    assert len(turned) == int(((frame.margin < 0) & (frame.margin_b > 0)).sum())
    assert len(beside.chosen(frame, "wrong")) == int((frame.margin < 0).sum())
    lost = beside.chosen(frame, "lost")
    assert set(lost.pair_id).isdisjoint(turned.pair_id)
    assert len(beside.chosen(frame, "all")) == len(frame)


def test_shares_are_the_results_own(scored_runs, unchecked):
    saved = sources.saved_results(scored_runs / "a")[0]
    columns = [("a", saved), ("b", sources.saved_results(scored_runs / "b")[0])]
    frame = beside.shares(columns, "phenomenon")
    for name, each in columns:
        result = sources.read_result(each)
        mine = frame[frame.model == name].set_index("phenomenon")
        assert mine.accuracy.to_dict() == result.phenomena.accuracy.to_dict()
        assert mine.low.to_dict() == result.phenomena.low.to_dict()
        overall = beside.overall(columns).set_index("model").loc[name]
        assert overall.accuracy == result.overall.paradigms.accuracy
        paradigm = result.paradigms.index[0]
        assert (
            beside.share(each, paradigm)
            == blimp(wb.load(scored_runs / name), paradigms=[paradigm]).overall.micro
        )
    assert beside.share(saved, "none of these") is None


def test_saved_and_measured_effects_are_of_one_kind(monkeypatch, unchecked):
    shipped = Path(wb.__file__).parent / "zoo" / "family" / "tiny-1h"
    opened = catalogue.open_checkpoint(shipped, None)
    found = [each for each in sources.saved_results(shipped) if each.pairs == "blimp"]
    source = next(each for each in sources.sources(found, opened.run.step) if each.key == "blimp")
    kind = paradigm_effects.kind_of(opened, source, "ablate")
    assert kind.saved
    assert (kind.limit, kind.reference) == (50, Reference("embedded", 100))
    assert paradigm_effects.kind_of(opened, source, "direct").reference is None
    saved = summaries.table(opened, "components")
    unrecorded = saved.copy()
    unrecorded.attrs = saved.attrs | {"reference": None}
    monkeypatch.setattr(paradigm_effects, "table", lambda opened, name: unrecorded)
    names = [*unrecorded.paradigm.unique()[:2], "not_in_the_summary"]
    assert matrix_rows.missing(opened, source, names, "ablate") == []
    assert matrix_rows.missing(opened, source, names, "direct") == ["not_in_the_summary"]


def test_explain_and_ablate_take_means_over_one_reference(opened, unchecked):
    labels = tuple(ablate.switches(opened.model.config))
    given = ablate.replacements(opened, labels, "mean")[0]
    means = switched_off.means(opened)
    assert means.values.keys() == given.values.keys()
    assert all(torch.equal(means.values[part], value) for part, value in given.values.items())
    assert given.reference == ablate.reference(opened) == default_reference(opened.run)
