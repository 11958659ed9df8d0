"""Heads and neurons: what the page shows is what the library says, and it says something in every state."""

import json
import time
from pathlib import Path

import numpy as np
import page_runs
import pandas as pd
import pytest
import torch
from page_runs import HOSTILE_TEXT
from seen import check, said

import workbench as wb
from apps.answers import ablate, background, catalogue, heads, neurons, sources
from apps.answers.wanted import Wanted
from apps.charts.head_map import head_map
from apps.charts.histogram import histogram
from apps.charts.score_intervals import score_intervals
from apps.look import markup
from apps.look.palette import palette
from apps.look.passages import Shown, passages, words
from workbench.data.embedded.stories import stories
from workbench.interp.ablation import ablated
from workbench.interp.attribution import attribute_pair
from workbench.interp.head_circuits import copying_scores, ov_circuit, qk_circuit, top_pairs
from workbench.interp.heads import find_names, head_scores, name_ids, punctuation_ids, unigram_counts
from workbench.interp.neurons.card import neuron_card, passage_frame
from workbench.interp.neurons.examples import neuron_examples
from workbench.interp.neurons.tokens import promoted_tokens
from workbench.interp.texts import story_rows

pytestmark = pytest.mark.usefixtures("unchecked")

GOOD, BAD = "The cats near the tree like the ball.", "The cats near the tree likes the ball."
FEW, TOKENS = 6, 400
LIGHT = palette("light")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(heads, "STORIES", (FEW, 2 * FEW))
    for answer in (heads._unigram, heads._circuits):  # another file's test may have filled them
        answer.clear()
    monkeypatch.setattr(neurons, "TOKENS", (TOKENS, 2 * TOKENS))
    monkeypatch.setattr(neurons, "HELD_OUT", 4)
    monkeypatch.setattr("workbench.interp.texts.STORIES", 4)
    ablate._reference.clear()


@pytest.fixture
def opened(runs) -> catalogue.Opened:
    return catalogue.open_checkpoint(runs / "scored", None)


@pytest.fixture
def wanted() -> Wanted:
    return Wanted(GOOD, BAD)


def settled(test):
    """The page when all that it waits for is there."""
    end = time.monotonic() + 60
    while any(not work.done for work in background.works()._known.values()):
        assert time.monotonic() < end
        time.sleep(0.05)
    test.run()
    check(test)
    return test


def scored_by_the_library(opened, count=FEW):
    texts = stories(count, split="validation")
    rows = story_rows(opened.tokenizer, texts, opened.model.config.n_ctx, end=False)
    return head_scores(
        opened.model,
        rows,
        punctuation=punctuation_ids(opened.tokenizer),
        names=name_ids(opened.tokenizer, find_names(texts)),
        unigram=unigram_counts(rows, opened.model.config.d_vocab),
    )


def test_the_scores_are_those_of_the_library(opened):
    found, want = heads.measure_scores(opened, FEW), scored_by_the_library(opened)
    frame = found.to_frame()
    pd.testing.assert_frame_equal(frame, want.to_frame())
    assert heads.score_values(frame, "previous")["L1H2"] == want.of("previous")[1, 2]
    assert heads.classes(frame)["L1H2"] == want.classes[1, 2]
    assert set(frame.score) <= set(heads.SCORES)
    card = heads.card(frame, opened.model.config, "L1H2")
    mine = card[card.score != "copying"]
    assert mine.baseline.tolist() == want.baseline[:, 1, 2].tolist()
    assert mine.excess.tolist() == want.excess[:, 1, 2].tolist()
    assert card[card.score == "copying"].value.item() == want.copying[1, 2]
    assert card[card.score == "copying"].baseline.item() == want.copying_untrained.max()


def test_alibis_heads_have_a_baseline_of_their_own(tmp_path):
    run = page_runs.make_run(tmp_path / "a", page_runs.tokenizer(), steps=(8,), positions="alibi")
    opened = catalogue.open_checkpoint(run, None)
    found = scored_by_the_library(opened)
    card = heads.card(found.to_frame(), opened.model.config, "L0H1")
    assert card.baseline[:-1].tolist() == found.baseline[:, 0, 1].tolist()
    assert len(set(found.baseline[0, 0])) > 1


def test_effects_on_the_pair(opened, wanted):
    found = attribute_pair(opened.model, GOOD, BAD)
    direct = heads.effects(opened, wanted, "pair")
    values = {part.label: value for part, value in zip(found.components, found.whole, strict=True)}
    assert direct == {label: values[label] for label in heads.head_labels(opened.model.config)}
    off = heads.effects(opened, wanted, "off")
    with ablated(opened.model, "L1H3"):
        without = attribute_pair(opened.model, GOOD, BAD).difference
    assert off["L1H3"] == pytest.approx(found.difference - without, abs=1e-4)
    assert not opened.model.has_listeners()


def test_effects_on_the_paradigm(opened, runs):
    source = sources.sources(sources.saved_results(runs / "scored"), 8)[0]
    uid = next(iter(sources.paradigms(source)))
    frame = sources.pair_set(source).paradigms[uid]
    some = Wanted(frame[0].sentence_good, frame[0].sentence_bad, source=source, uid=uid)
    found = heads.effects(opened, some, "paradigm")
    pairs = frame[: heads.paradigm_effects.FEW]
    each = [attribute_pair(opened.model, one.sentence_good, one.sentence_bad) for one in pairs[:3]]
    assert set(found) == set(heads.head_labels(opened.model.config))
    if len(pairs) <= 3:
        at = [part.label for part in each[0].components].index("L0H0")
        assert found["L0H0"] == pytest.approx(np.mean([one.whole[at] for one in each]), abs=1e-5)


def test_the_phenomenon_comes_from_the_summary(opened, runs, monkeypatch):
    source = sources.sources(sources.saved_results(runs / "scored"), 8)[0]
    frame = pd.DataFrame(
        {
            "method": ["direct", "direct", "ablate", "direct", "direct"],
            "paradigm": ["p", "q", "p", "r", "p"],
            "phenomenon": ["x", "x", "x", "y", "x"],
            "component": ["L0H0", "L0H0", "L0H0", "L0H0", "L0 MLP"],
            "kind": ["head", "head", "head", "head", "mlp"],
            "n": 5, "effect": [1.0, 2.0, 4.0, 8.0, 16.0], "pairs": source.key,
        }
    )  # fmt: skip
    monkeypatch.setattr(
        heads.summaries, "table", lambda opened, name: frame if name == "components" else None
    )
    some = Wanted(GOOD, BAD, source=source, uid="q")
    assert heads.effects(opened, some, "phenomenon") == {"L0H0": 1.5}
    assert heads.phenomenon_rows(opened, some, "phenomenon_off") is None  # q was not measured so
    assert heads.phenomenon_rows(opened, Wanted(GOOD, BAD), "phenomenon") is None
    frame["pairs"] = "others"
    assert heads.phenomenon_rows(opened, some, "phenomenon") is None


def test_circuits_and_attention(opened, wanted):
    texts = stories(heads.STORIES[-1], split="validation")
    rows = story_rows(opened.tokenizer, texts, opened.model.config.n_ctx, end=False)
    among = np.flatnonzero(unigram_counts(rows, opened.model.config.d_vocab) >= 5)
    found = heads.circuits(opened, "L1H0")
    for name, circuit in (("OV", ov_circuit), ("QK", qk_circuit)):
        want = top_pairs(
            circuit(opened.model, "L1H0"), heads.PAIRS_SHOWN, among=among, tokenizer=opened.tokenizer
        )
        assert found[found.circuit == name]["value"].tolist() == want.values.tolist()
        assert found[found.circuit == name].row_token.tolist() == list(want.row_labels)
    assert heads.copying(opened)["L1H2"] == copying_scores(opened.model)[1, 2]
    readings = heads.text_readings(opened, "Tom saw a cat.")
    table = heads.attention_frame(opened, readings, "L1H2")
    ids = torch.tensor([readings[0].ids])
    _, cache = opened.model.run_with_cache(ids)
    pattern = cache["blocks.1.attn.hook_pattern"][0, 2]
    for row in table.sample(10, random_state=0).itertuples():
        assert row.attention == pytest.approx(float(pattern[row.query, row.key]), abs=1e-6)
    assert table.groupby("query").attention.sum().to_numpy() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("text", "told"), [(" ", "write some text"), ("cat " * 100, "context is 64")])
def test_texts_that_no_head_can_read(opened, text, told):
    with pytest.raises(wb.errors.InputError, match=told):
        heads.text_readings(opened, text)


def test_neurons_of_the_pair(opened, wanted):
    found = neurons.strongest(opened, wanted, None)
    assert found is not None
    whole = attribute_pair(opened.model, GOOD, BAD, neurons=True)
    values = {part.label: value for part, value in zip(whole.components, whole.whole, strict=True)}
    assert found.whole.tolist() == [values[name] for name in found.neuron]
    assert (found.whole.abs().diff().dropna() <= 0).all()
    assert len(found) == 2 * opened.model.config.mlp_width
    label = found.neuron[0]
    with ablated(opened.model, label):
        without = attribute_pair(opened.model, GOOD, BAD).difference
    assert neurons.off_on_pair(opened, wanted, label).without == pytest.approx(without, abs=1e-4)
    text = neurons.strongest(opened, None, "Tom saw a cat.")
    assert text is not None
    assert len(text) == len(found)
    assert neurons.strongest(opened, None, None) is None


def test_a_neurons_card_is_the_librarys(opened):
    work = neurons.begin_examples(opened, 1, TOKENS)
    assert work.wait(60)
    assert work.error is None
    examples = neuron_examples(opened.model, stories(100, split="train"), layers=[1], tokens=TOKENS)
    text = stories(4, split="validation")
    card = neuron_card(opened.model, "L1N7", stories=text, examples=examples, labels=False)
    shown = neurons.passages(opened, "L1N7", TOKENS)
    pd.testing.assert_frame_equal(passage_frame(shown), card.to_frame())
    found = neurons.known_examples(opened, 1, TOKENS)
    assert found is not None
    assert neurons.figures(found, "L1N7") == (card.mean, card.std, card.active, card.max, card.tokens)
    assert neurons.histogram(found, "L1N7").tokens.sum() == card.tokens
    assert neurons.promoted(opened, "L1N7") == promoted_tokens(opened.model, 1, 7, neurons.NAMED)
    sharp = neurons.sharpest(found)
    mine = sharp[sharp.neuron == "L1N7"].iloc[0]
    assert mine.peak == pytest.approx((card.max - card.mean) / card.std)
    loss = neurons.measure_loss(opened, "L1N7")
    again = wb.ablation_effect(
        opened.model, "L1N7", how="mean", text=text, reference=stories(4, split="train"), measure=("loss",)
    )
    assert loss.loss_intervals == again.loss_intervals
    assert neurons.rate(opened, 1)


def test_a_neuron_along_a_row(opened):
    ids = heads.text_readings(opened, "Tom saw a cat.")[0].ids
    _, cache = opened.model.run_with_cache(torch.tensor([ids]))
    assert neurons.along(opened, ids, "L1N7") == pytest.approx(
        cache["blocks.1.mlp.hook_post"][0, :, 7].numpy(), abs=1e-6
    )


def test_labels(opened):
    found = neurons.measure_labels(opened, 0, stories_read=30)
    table = neurons.labelled(found)
    assert len(table) == opened.model.config.mlp_width
    held = table.label.notna()
    assert held.sum() == found.passed.sum()
    assert not held.diff().fillna(False).astype(bool)[1:].any() or held.is_monotonic_decreasing


def test_the_finder_without_a_click(page, runs):
    test = settled(page(runs, page="heads"))
    assert not test.error
    assert test.selectbox(key="score").value == "pair"
    opened = catalogue.open_checkpoint(runs / "scored", None)
    want = scored_by_the_library(opened)
    label = test.selectbox(key="head").value
    layer, head = int(label[1]), int(label[3])
    shown = {metric.label: metric.value for metric in test.metric}
    assert shown[f"{label}: class"] == want.classes[layer, head]
    assert shown["Copying"] == markup.number(float(want.copying[layer, head]))
    for name in want.names:
        assert (
            name in test.selectbox(key="score").options
            or heads.SCORES[name].title in test.selectbox(key="score").options
        )
    test.selectbox(key="score").set_value("previous").run()
    check(test)
    values = want.of("previous")
    layer, head = np.unravel_index(values.argmax(), values.shape)
    assert test.selectbox(key="head").value == f"L{layer}H{head}"
    assert f"reach {want.scores.untrained_high[want.index('previous')].max():.3f}" in said(test).replace(
        "\\", ""
    )


def test_the_address_brings_the_head_back(page, runs):
    asked = {"page": "heads", "score": "sink", "head": "L1H2", "headon": "text", "headtext": "Tom saw a cat."}
    test = settled(page(runs, **asked))
    assert test.selectbox(key="head").value == "L1H2"
    assert test.selectbox(key="score").value == "sink"
    assert test.text_area(key="headtext").value == "Tom saw a cat."
    for key, value in asked.items():
        assert test.query_params[key] in (value, [value])
    test.text_area(key="headtext").set_value(" ").run()
    check(test)
    assert "write some text" in said(test, "error")
    assert "Circuits" in said(test, "subheader")


def test_the_address_brings_the_neuron_back(page, runs):
    test = settled(page(runs, page="heads", units="neurons", neuron="L1N37", nkind="random"))
    assert test.session_state["neuron"] == "L1N37"
    assert "Neuron L1N37" in said(test, "subheader")
    assert test.query_params["neuron"] in ("L1N37", ["L1N37"])
    test.number_input(key="nunit").set_value(12).run()
    settled(test)
    assert test.session_state["neuron"] == "L1N12"
    test.selectbox(key="nlayer").set_value(0).run()
    settled(test)
    assert test.query_params["neuron"] in ("L0N12", ["L0N12"])
    for sort in ("peak", "label"):
        test.segmented_control(key="nsort").set_value(sort).run()
        check(test)
    test.button(key="measure-loss").click().run()
    settled(test)
    assert "Loss without it" in [metric.label for metric in test.metric]


@pytest.mark.parametrize("query", [
    {"head": "L9H9", "score": "../x"}, {"head": "L0 MLP"}, {"units": "x", "scored": "1e9"},
    {"units": "neurons", "neuron": "L0N99999"}, {"units": "neurons", "neuron": "<b>", "ntokens": "-1"},
    {"units": "neurons", "neuron": "", "nsort": "/etc/passwd", "nkind": "\x00"},
    {"score": "phenomenon"}, {"headon": "left", "headtext": HOSTILE_TEXT},
])  # fmt: skip
def test_a_hostile_address(page, runs, query):
    test = settled(page(runs, page="heads", **query))
    assert not test.error
    if query.get("neuron"):
        assert "There is no neuron" in said(page(runs, page="heads", **query), "info")


@pytest.mark.parametrize(("run", "query"), [
    ("masked", {}), ("masked", {"units": "neurons"}), ("plain", {"units": "neurons", "look": "text", "text": "a"}),
    ("plain", {"look": "text", "text": HOSTILE_TEXT}), ("scored", {"look": "sentences", "good": "a", "bad": "a"}),
    ("scored", {"units": "neurons", "look": "text", "text": "word " * 300}),
])  # fmt: skip
def test_other_models_and_texts(page, runs, run, query):
    test = settled(page(runs, page="heads", run=run, **query))
    long = len(query.get("text", "")) > 500 or query.get("good") == "a"
    assert len(test.error) == long
    assert said(test, "subheader")


def test_models_that_lack_a_part(page, tmp_path):
    tokens = page_runs.tokenizer()
    page_runs.make_run(tmp_path / "deaf", tokens, steps=(8,), layout="mm")
    page_runs.make_run(tmp_path / "bare", tokens, steps=(8,), layout="aa", positions="rotary")
    assert "no attention" in said(page(tmp_path, page="heads", run="deaf"))
    assert "Neuron L" in said(settled(page(tmp_path, page="heads", run="deaf", units="neurons")), "subheader")
    assert "no MLPs" in said(page(tmp_path, page="heads", run="bare", units="neurons"))
    test = settled(page(tmp_path, page="heads", run="bare"))
    assert "turns queries and keys by their positions" in said(test)


def test_work_goes_on_beside_the_page_and_can_be_ended():
    works = background.Works(2)
    ticks = []

    def long(tick):
        for share in range(1000):
            ticks.append(share)
            tick(share / 1000)
            time.sleep(0.01)

    work = works.begin("a", long)
    assert works.begin("a", long) is work
    assert not work.wait(0.1)
    works.cancel("a")
    assert work.wait(5)
    assert isinstance(work.error, background.CancelledError)
    assert len(ticks) < 900
    assert works.get("a") is None
    fails = works.begin("b", lambda tick: heads.text_readings(None, ""))  # type: ignore[arg-type]
    assert fails.wait(5)
    assert fails.error is not None
    for name in "cd":
        assert works.begin(name, lambda tick: 7).wait(5)
    assert works.get("b") is None
    assert works.get("d").result == 7
    works.cancel("nothing")


def test_passages_stay_text():
    lines = [Shown(HOSTILE_TEXT, [HOSTILE_TEXT, " <b>", "\n", ""], [1.0, -2.0, float("nan"), 0.0], 0)]
    page = (
        passages(lines, 1.0, LIGHT)
        + words([(HOSTILE_TEXT, 1.0)])
        + markup.amounts([(HOSTILE_TEXT, 0.5, "<i>")])
    )
    for tag in ("<img", "<b>", "<i>", "</script"):
        assert tag not in page
    assert passages([], 0.0, LIGHT)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("count", [1, 4, 16])
def test_the_charts_are_vega_lite(signed, count):
    rows = [
        {"layer": f"L{a}", "head": b, "component": f"L{a}H{b}", "value": v, "kind": "x"}
        for a in range(2) for b in range(count) for v in [0.1 * b if b else float("nan")]
    ]  # fmt: skip
    spec = head_map(rows, LIGHT, "L0H0", 0.0, signed).to_dict()
    assert spec["layer"]
    assert (len(spec["layer"]) == 4) == (count <= 13)
    frame = pd.DataFrame({"title": ["a", "b"], "value": [0.2, np.nan], "low": [0.1, 0.0], "high": [0.3, 1.0],
                          "uniform": 0.1, "baseline": 0.15, "excess": [0.1, 0.0]})  # fmt: skip
    assert json.dumps(score_intervals(frame, LIGHT).to_dict())
    bins = pd.DataFrame({"low": [-np.inf, 0.0], "high": [0.0, 0.5], "tokens": [3, 0]})
    assert json.dumps(histogram(bins, LIGHT).to_dict())


def test_no_figure_of_a_run_is_mixed_with_another(runs):
    one, other = (catalogue.open_checkpoint(Path(runs) / "scored", step) for step in (0, 8))
    assert not heads.circuits(one, "L0H0").equals(heads.circuits(other, "L0H0"))


def test_files_of_runs_with_long_names_keep_apart():
    from streamlit.testing.v1 import AppTest

    def script():
        import pandas as pd

        from apps.frame.downloads import downloads

        for end in ("scores", "circuits"):
            downloads("a" * 200 + end, pd.DataFrame({"a": [1]}))

    assert not AppTest.from_function(script).run().exception
