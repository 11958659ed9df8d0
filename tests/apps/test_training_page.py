"""Compare and training: its numbers are the library's, and it says what to do in each state of the world."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import page_runs
import pytest

import workbench as wb
from apps.answers import catalogue, checkpoints, comparison, family, history, matching, sources
from apps.answers.remembered import Memory, memory
from apps.frame.told import FAILED
from apps.pages.training import stepwise
from workbench.data.pairs import open_pairs
from workbench.evals.blimp import blimp
from workbench.interp.attribution import attribute_pair
from workbench.interp.matrices import component_family
from workbench.io import write_text
from workbench.scaling.laws import fit_power
from workbench.scaling.points import points_of_runs

GOOD, BAD = "The cats like the ball.", "The cats likes the ball."


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """`one` (three checkpoints, metrics), `two` (another shape), `masked`, and `other` (another tokenizer)."""
    root = tmp_path_factory.mktemp("training") / "runs"
    words = page_runs.tokenizer()
    one = page_runs.make_run(root / "one", words, steps=(0, 4, 8))
    rows = [
        {"kind": "eval", "step": 0, "loss": 6.5, "bits_per_byte": 2.4},
        {"kind": "train", "step": 2, "loss": 5.0},
        {"kind": "train", "step": 4, "loss": float("nan")},
        {"kind": "sample", "step": 4, "text": "x"},
        {"kind": "eval", "step": 8, "loss": 2.5, "bits_per_byte": 0.9, "final": True},
    ]
    write_text(one / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    page_runs.score(one)
    page_runs.make_run(root / "two", words, n_layers=3, n_heads=2, d_model=16, d_mlp=24)
    page_runs.make_run(root / "masked", words, n_layers=1, attention="bidirectional")
    page_runs.make_run(root / "mlps", words, layout="mm")
    from workbench.data.embedded.stories import stories
    from workbench.data.tokenizer import train_tokenizer

    page_runs.make_run(root / "other", train_tokenizer(stories(50), 400), n_layers=1)
    return root


@pytest.fixture
def opened(trained):
    return {
        name: catalogue.open_checkpoint(trained / name, None) for name in ("one", "two", "masked", "mlps")
    }


def words(test) -> str:
    kinds = ("html", "markdown", "caption", "error", "warning", "info", "subheader", "code")
    found = [
        getattr(each, "body", None) or getattr(each, "value", "") for kind in kinds for each in test.get(kind)
    ]
    return "\n".join(map(str, found)).replace("\\", "")


def whole(test) -> None:
    """No part failed."""
    assert not test.exception
    assert FAILED not in words(test)


def test_facts_are_the_runs(opened):
    frame = comparison.fact_rows(opened["one"], opened["two"]).set_index("what")
    assert frame.loc["parameters", "value_a"] == str(opened["one"].model.config.n_params)
    assert frame.loc["blocks", ["A", "B", "differs"]].tolist() == ["2", "3", "≠"]
    assert frame.loc["vocabulary", "differs"] == ""
    assert frame.loc["loss", "A"] == "2.5000 nats a token"
    assert frame.loc["BLiMP", "A"] == "not scored"
    saved = wb.load(opened["one"].run.path).blimp()["mean_over_paradigms"]
    assert float(frame.loc["embedded pairs", "value_a"]) == pytest.approx(saved["accuracy"], abs=1e-4)


def test_facts_are_of_the_checkpoint_that_is_open(trained):
    earlier = catalogue.open_checkpoint(trained / "one", 0)
    facts = comparison.facts(earlier)
    assert facts["loss"][1] == 6.5
    assert facts["checkpoint"][1] == 0
    assert comparison.facts(catalogue.open_checkpoint(trained / "one", 4))["loss"][1] is None
    assert facts["embedded pairs"][0] == "not scored"


def test_the_ranking_is_the_librarys(opened, monkeypatch):
    monkeypatch.setattr(comparison, "PAIRS", 10)
    paradigm = next(iter(wb.embedded_pairs()))
    source = sources.sources([], 8)[0]
    both = [comparison.paradigm_parts(opened[name], name, source, paradigm) for name in ("one", "two")]
    runs = [wb.load(opened[name].run.path) for name in ("one", "two")]
    theirs = component_family(runs, paradigms=[paradigm], limit=comparison.PAIRS, methods=("direct",))
    table, counts = theirs.to_frame(), theirs.counts().set_index("run")
    for parts in both:
        mine = comparison.ranked(parts)
        expected = table[table.run == parts.name]
        assert list(mine.component[1:]) == list(expected.component)
        np.testing.assert_allclose(mine.cumulative[1:], expected.cumulative, atol=1e-6)
        assert comparison.carriers(mine) == counts.loc[parts.name, ["for 50 %", "for 90 %"]].tolist()


def test_the_depth_map_holds_each_head_and_mlp_once_and_tiles_the_depth(opened):
    for name in ("one", "two", "mlps"):
        parts = comparison.pair_parts(opened[name], name, GOOD, BAD, "native", "original")
        rows = comparison.depth_rows(parts)
        config = opened[name].model.config
        found = attribute_pair(opened[name].model, GOOD, BAD)
        known = {part.label: value for part, value in zip(found.components, found.whole, strict=True)}
        assert all(row["nats"] == pytest.approx(known[row["component"]]) for row in rows)
        assert {row["component"] for row in rows} == {
            part.label for part in found.components if part.kind in ("head", "mlp")
        }
        assert min(row["top"] for row in rows) == 0
        assert max(row["bottom"] for row in rows) == 1
        assert all(row["bottom"] - row["top"] == pytest.approx(1 / config.n_layers) for row in rows)


def test_heads_of_one_model_match_themselves_and_permuted_ones_are_found(opened):
    one = opened["one"]
    same = matching.match_heads(one, one, True)
    assert all(row == column for row, column in same.pairs)
    assert same.matched == pytest.approx(1)
    assert same.at_random < same.matched
    assert same.untrained < 0.9
    order = np.random.default_rng(0).permutation(len(same.first))
    found = matching.best_pairs(same.similarity[:, order])
    assert all(order[column] == row for row, column in found)


def test_matching_takes_any_two_shapes_and_its_intervals_hold_the_value(opened):
    found = matching.match_heads(opened["one"], opened["two"], False)
    assert found.similarity.shape == (8, 6)
    assert len(found.pairs) == 6
    assert len({row for row, _ in found.pairs}) == len({column for _, column in found.pairs}) == 6
    frame = found.to_frame()
    assert (frame.low <= frame.similarity + 1e-9).all()
    assert (frame.high >= frame.similarity - 1e-9).all()
    assert list(frame.similarity) == sorted(frame.similarity, reverse=True)


def test_equal_attention_is_like_nothing_and_the_mask_alone_makes_no_likeness():
    causal = np.tril(np.ones((5, 5)))
    uniform = causal / causal.sum(-1, keepdims=True)
    previous = np.eye(5, k=-1) + np.diag([1, 0, 0, 0, 0])
    flat = matching.centred(np.stack([uniform, previous]))
    assert np.abs(flat[0]).max() < 1e-12
    assert np.abs(flat[1]).max() > 0.5


def test_the_past_of_a_pair_is_what_each_checkpoint_says(trained, opened):
    for step in (0, 4, 8):
        run = wb.load(f"{trained / 'one'}@{step}")
        found = attribute_pair(run.model, GOOD, BAD)
        then = history.pair_at(opened["one"], step, GOOD, BAD, "native", "original")
        assert then.difference == pytest.approx(found.difference)
        np.testing.assert_allclose(then.whole, found.whole, atol=1e-6)


def test_the_past_of_a_paradigm_is_the_mean_over_its_pairs(trained, opened, monkeypatch):
    monkeypatch.setattr(comparison, "PAIRS", 4)
    paradigm, pairs = next(iter(wb.embedded_pairs().items()))
    then = history.paradigm_at(opened["one"], 4, sources.sources([], 8)[0], paradigm)
    run = wb.load(f"{trained / 'one'}@4")
    found = [attribute_pair(run.model, each.sentence_good, each.sentence_bad) for each in pairs[:4]]
    assert then.pairs == 4
    assert then.difference == pytest.approx(np.mean([each.difference for each in found]), abs=1e-5)
    np.testing.assert_allclose(then.whole, np.mean([each.whole for each in found], axis=0), atol=1e-5)


def test_scores_of_a_checkpoint_are_the_librarys(trained, opened, monkeypatch):
    few = open_pairs(None).select(None, 5)
    monkeypatch.setattr(sources, "embedded", lambda: few)
    frame = history.score_at(opened["one"], 4).set_index("phenomenon")
    run = wb.load(f"{trained / 'one'}@4")
    result = blimp(run, few)
    assert frame.loc[history.ALL, "accuracy"] == result.overall.paradigms.accuracy
    assert frame.accuracy[result.phenomena.index].tolist() == result.phenomena.accuracy.tolist()


def test_head_scores_of_a_checkpoint_are_the_librarys(opened, monkeypatch):
    monkeypatch.setattr(history, "STORIES", 2)
    monkeypatch.setattr(history, "REPEATS", 2)
    frame = history.heads_at(opened["one"], 8)
    model = opened["one"].model
    bos = model.tokenizer.bos_token_id
    texts = [[bos, *model.tokenizer(text)["input_ids"]][:64] for text in wb.stories(2, split="validation")]
    assert texts[0].count(bos) == 1
    scores = wb.head_scores(model, texts, untrained=False, repeats=2)
    mine = frame[frame.score == "induction"].set_index("component").value
    assert mine["L1H2"] == pytest.approx(scores.of("induction")[1, 2])
    assert "induction" not in set(history.heads_at(opened["masked"], 8).score)


def test_losses_leave_out_what_is_no_number(trained, tmp_path):
    frame = history.losses(trained / "one")
    assert frame.to_dict("list") == {
        "step": [0, 2, 8], "kind": ["validation", "training", "validation"], "loss": [6.5, 5.0, 2.5]
    }  # fmt: skip
    assert history.losses(tmp_path).empty


def test_saved_shares_come_from_metrics_and_results(trained, tmp_path):
    path = tmp_path / "one"
    shutil.copytree(trained / "one", path)
    row = {"kind": "blimp", "step": 4, "pairs": "blimp", "accuracy": 0.6, "low": 0.5, "high": 0.7,
           "phenomena": {"binding": 0.7}}  # fmt: skip
    broken = {"kind": "blimp", "step": "x", "pairs": 3}
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n" + json.dumps(broken) + "\n")
    assert list(history.known_sets(path)) == ["embedded", "blimp"]
    found = history.saved_shares(path, "blimp")
    assert list(found) == [4]
    assert found[4].accuracy.tolist() == [0.6, 0.7]
    own = history.saved_shares(path, "embedded")
    assert list(own) == [8]
    assert own[8].set_index("phenomenon").accuracy[history.ALL] == pytest.approx(
        wb.load(path).blimp()["mean_over_paradigms"]["accuracy"], abs=1e-4
    )


def test_the_law_is_the_librarys_and_its_refusal_too(tmp_path):
    root = tmp_path / "runs"
    vocabulary = page_runs.tokenizer()
    for index, width in enumerate((8, 16, 32, 64)):
        path = page_runs.make_run(root / f"w{width}", vocabulary, steps=(8,), d_model=width, n_layers=1)
        row = {"kind": "eval", "step": 8, "loss": 4.0 - 0.4 * index, "bits_per_byte": 1.0, "final": True}
        write_text(path / "metrics.jsonl", json.dumps(row) + "\n")
    known = {path.name: catalogue.summarise(path) for path in sorted(root.iterdir())}
    points = family.table(known, "embedded")
    assert points.flops.tolist() == [
        wb.load(root / name).model.config.flops_per_token * 8000 for name in points.run
    ]
    law = family.law(known, points, "parameters", "loss")
    fit = fit_power(points_of_runs(root), bootstraps=family.BOOTSTRAPS)
    assert f"α = {fit.exponent.value:.3f}" in law.words
    np.testing.assert_allclose(law.curve.y, fit.loss(law.curve.x))
    refused = family.law(known, points, "tokens", "loss")
    assert refused.curve is None
    assert "at least 3 different numbers of tokens" in refused.words


def test_seeds_are_found_and_only_seeds(tmp_path):
    root = tmp_path / "runs"
    vocabulary = page_runs.tokenizer()
    for seed in (0, 1):
        path = page_runs.make_run(root / f"s{seed}", vocabulary, steps=(8,), n_layers=1, seed=seed)
        row = {"kind": "eval", "step": 8, "loss": 3.0 + seed, "bits_per_byte": 1.0}
        write_text(path / "metrics.jsonl", json.dumps(row) + "\n")
    page_runs.make_run(root / "wide", vocabulary, steps=(8,), n_layers=1, d_mlp=32)
    known = {path.name: catalogue.summarise(path) for path in sorted(root.iterdir())}
    spread = family.seeds(family.table(known, "embedded"), "loss")
    assert len(spread) == 1
    assert spread.runs[0] == "s0, s1"
    assert spread["mean"][0] == pytest.approx(3.5)


def test_memory_is_bounded_and_forgets_the_oldest():
    kept = Memory(2)
    for key in "abc":
        kept.put(key, key.upper())
        kept.get("a")
    assert kept.get("b") is None
    assert (kept.get("a"), kept.get("c"), len(kept)) == ("A", "C", 2)


def test_duration_is_read_by_people():
    assert [stepwise.duration(each) for each in (0, 1.2, 99, 100, 3600)] == [
        "1 s",
        "2 s",
        "99 s",
        "2 min",
        "60 min",
    ]


def test_the_page_says_how_to_choose_a_second_model(page, trained):
    test = page(trained, page="training", tview="models", run="one")
    whole(test)
    assert "Compare with" in words(test)
    button = next(each for each in test.button if each.label == "two")
    button.click().run()
    whole(test)
    assert test.selectbox(key="beside").value == "two"
    assert test.query_params["beside"] == "two"
    assert "one beside two" in words(test)


@pytest.mark.parametrize(("run", "beside", "told"), [
    ("one", "two", "Select a row"), ("one", "masked", "looks both ways"), ("one", "other", "different tokenizers"),
    ("one", "mlps", "no attention"), ("mlps", "one", "no attention"), ("masked", "one", "looks both ways"),
])  # fmt: skip
def test_models_of_any_kind_stand_side_by_side(page, trained, run, beside, told):
    test = page(trained, page="training", run=run, beside=beside)
    whole(test)
    assert told in words(test)
    assert not test.error


def test_the_mean_of_the_paradigm_and_the_matched_heads_stand_in_the_address(page, trained):
    query = {
        "page": "training",
        "run": "one",
        "beside": "two",
        "tover": "paradigm",
        "tmatch": "L1H1-L2H0",
        "tsink": "0",
    }
    test = page(trained, **query)
    whole(test)
    assert "mean over 100 pairs" in words(test)
    assert "one **L1H1**" in words(test)
    assert "two **L2H0**" in words(test)
    for key, value in query.items():
        assert test.query_params[key] == value


def test_moving_the_slider_moves_all_pages(page, trained):
    test = page(trained, page="training", run="one")
    whole(test)
    slider = test.select_slider(key="training step")
    assert slider.value == 8
    slider.set_value(4).run()
    whole(test)
    assert test.selectbox(key="checkpoint").value == 4
    assert test.query_params["checkpoint"] == "4"
    assert "checkpoint 4" in words(test)
    test.segmented_control(key="page").set_value("explain").run()
    assert "checkpoint 4" in words(test)
    test.selectbox(key="checkpoint").set_value(0).run()
    test.segmented_control(key="page").set_value("training").run()
    assert test.select_slider(key="training step").value == 0
    test.select_slider(key="training step").set_value(8).run()
    assert test.selectbox(key="checkpoint").value == "last"


def test_scoring_the_checkpoints_waits_for_a_click_and_is_remembered(page, trained, monkeypatch):
    few = open_pairs(None).select(None, 2)
    monkeypatch.setattr(sources, "embedded", lambda: few)
    monkeypatch.setattr(history, "STORIES", 2)
    memory.clear()
    test = page(trained, page="training", run="one")
    starts = {each.key: each for each in test.button if str(each.key).startswith("start-")}
    assert set(starts) == {"start-shares", "start-heads"}
    assert "2 of 3 checkpoints are missing, about" in starts["start-shares"].label
    assert "3 checkpoints, about" in starts["start-heads"].label
    starts["start-shares"].click().run()
    whole(test)
    assert "start-shares" not in {each.key for each in test.button}
    next(each for each in test.button if each.key == "start-heads").click().run()
    whole(test)
    assert test.selectbox(key="tscore").value == "induction"
    again = page(trained, page="training", run="one", tscore="previous")
    assert not [each for each in again.button if str(each.key).startswith("start-")]
    assert again.selectbox(key="tscore").value == "previous"


def test_the_paradigm_over_training_waits_for_a_click_and_for_this_model_only(page, trained, monkeypatch):
    monkeypatch.setattr(comparison, "PAIRS", 3)
    memory.clear()
    test = page(trained, page="training", run="one", tview="training", tover="paradigm")
    whole(test)
    assert "mean difference" in words(test)
    assert "3 pairs" in words(test)
    next(each for each in test.button if each.key == "start-paradigm").click().run()
    whole(test)
    assert "mean of 3 pairs, 3 checkpoints" in words(test)
    test.selectbox(key="run").set_value("two").run()
    whole(test)
    assert any(each.key == "start-paradigm" for each in test.button)


def test_a_damaged_checkpoint_is_left_out_of_the_curves_with_a_word(page, trained, tmp_path):
    shutil.copytree(trained / "one", tmp_path / "one")
    file = tmp_path / "one" / "checkpoints" / "step-000004" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    test = page(tmp_path, page="training")
    whole(test)
    assert "Checkpoint 4 is left out" in words(test)


def test_one_checkpoint_no_metrics_and_text_are_told(page, trained, tmp_path):
    shutil.copytree(trained / "one", tmp_path / "one")
    for step in (0, 4):
        shutil.rmtree(tmp_path / "one" / "checkpoints" / f"step-{step:06}")
    (tmp_path / "one" / "metrics.jsonl").unlink()
    test = page(tmp_path, page="training", look="text", tview="training")
    whole(test)
    assert "has one checkpoint" in words(test)
    assert "No losses are written down" in words(test)
    assert "Choose *Pair* or *Sentences*" in words(test)
    for view in ("models", "scaling"):
        whole(page(tmp_path, page="training", look="text", tview=view))


def test_damaged_metrics_leave_the_other_parts_standing(page, trained, tmp_path):
    shutil.copytree(trained / "one", tmp_path / "one")
    (tmp_path / "one" / "metrics.jsonl").write_text("not json\n{}\n")
    test = page(tmp_path, page="training", tview="training")
    assert FAILED not in words(test)
    assert "is not a JSON object" in words(test)


@pytest.mark.parametrize("query", [
    {"tview": "<b>", "tscore": "../x", "tpairs": "/etc/passwd", "checkpoint": "77"},
    {"tview": "scaling", "ty": "x", "tx": "'", "tset": "%00", "tkind": "gpt"},
    {"tview": "models", "beside": "../../two", "tmatch": "L99H99-L0H0", "tover": "x"},
    {"tview": "models", "beside": "two", "tmatch": "-", "tsink": "maybe"},
    {"tview": "scaling", "ty": "blimp", "tx": "flops"}, {"tview": "scaling", "tkind": "mlm", "ty": "bits_per_byte"},
])  # fmt: skip
def test_a_hostile_address_breaks_nothing(page, trained, query):
    whole(page(trained, page="training", run="one", **query))


def test_the_other_runs_stay_open_beside_a_damaged_and_a_hostile_one(page, runs):
    for view in ("models", "training", "scaling"):
        test = page(runs, page="training", tview=view, beside=page_runs.HOSTILE)
        whole(test)
        assert "onerror=alert(1)>" not in "".join(str(each.value) for each in test.get("html"))


def test_a_large_model_waits_for_a_click(opened, monkeypatch):
    assert checkpoints.is_light(opened["one"])
    monkeypatch.setattr(checkpoints, "LIGHT", 10)
    assert not checkpoints.is_light(opened["one"])
    then = checkpoints.at_step(opened["one"], 0)
    assert then.run.step == 0
    assert then.key == checkpoints.key_of(opened["one"], 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoints.at_step(opened["one"], 8) is opened["one"]


def test_results_are_frozen(opened):
    found = matching.match_heads(opened["one"], opened["two"], True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.texts = 3  # type: ignore[misc]
