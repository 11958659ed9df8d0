"""The first page and the page of minimal pairs without a browser: choices, journeys, two models."""

import json
import shutil
import sys
from pathlib import Path

import page_runs
import pandas as pd
import pytest
from test_page import text_of

from apps.answers import catalogue, heads, paradigm_effects, sources
from apps.pages.blimp.matrix import UNDERWAY

pytestmark = pytest.mark.usefixtures("unchecked")
PAGE = Path(__file__).resolve().parents[2] / "apps" / "explorer.py"


def figures(test) -> dict[str, str]:
    return {metric.label: metric.value for metric in test.metric}


def test_the_chosen_head_is_switched_off(page, runs):
    test = page(runs)
    shown = figures(test)
    label = test.selectbox(key="head").value
    assert {f"{label}, direct", "Mean ablation", "Zero ablation", "Direct, whole, n = 100"} <= set(shown)
    assert all(metric.help for metric in test.metric)
    assert all("nats" in shown[name] for name in ("Mean ablation", "Zero ablation"))
    other = next(name for name in test.selectbox(key="head").options if name != label)
    test.selectbox(key="head").set_value(other).run()
    assert not test.exception
    assert f"{other}, direct" in figures(test)
    assert figures(test)["Zero ablation"] != shown["Zero ablation"]


def test_an_mlp_shows_its_neurons(page, runs):
    test = page(runs, head="L1 MLP")
    assert test.selectbox(key="head").value == "L1 MLP"
    assert "L1 MLP, direct" in figures(test)
    assert "strongest neurons here" in text_of(test)
    assert any("neuron" in frame.value.columns for frame in test.dataframe)
    assert not test.error


@pytest.mark.parametrize("measure", ["mean", "zero"])
def test_the_map_shows_what_is_lost(page, runs, measure):
    test = page(runs, measure=measure)
    for _ in range(60):  # it is computed in the background
        if "do not sum to the whole" in text_of(test):
            break
        test.run()
    assert not test.error
    assert "do not sum to the whole" in text_of(test)


def test_two_models_side_by_side(page, scored_runs):
    test = page(scored_runs, run="a", beside="b")
    assert not test.error
    verdicts = [each.body for each in test.get("html") if each.body.startswith('<p class="wb-verdict')]
    assert len(verdicts) == 2
    assert test.selectbox(key="headb").options == ["L0H0", "L0H1", "L0 MLP"]
    test.selectbox(key="headb").set_value("L0 MLP").run()
    assert test.query_params["headb"] == "L0 MLP"
    assert "head" not in test.query_params
    again = page(scored_runs, **dict(test.query_params))
    assert again.selectbox(key="headb").value == "L0 MLP"
    labels = [metric.label for metric in test.metric]
    assert labels.count("Whole paradigm") == 2


def test_a_model_beside_that_was_not_scored(page, scored_runs):
    assert not page(scored_runs, run="a", beside="d").error
    test = page(scored_runs, run="a", beside="d", page="blimp")
    assert not test.error
    assert any("d has no result on these pairs" in info.value.replace("\\", "") for info in test.info)


def test_more_models_stand_beside_and_in_the_address(page, scored_runs):
    test = page(scored_runs, run="a", page="blimp", also="c,none,b")
    assert test.multiselect(key="also").value == ["c", "b"]
    assert set(test.multiselect(key="also").options) == {"b", "c"}
    assert [metric.label for metric in test.metric] == ["a", "c", "b"]
    assert test.query_params["also"] == "c,b"


def test_pairs_that_tell_two_models_apart(page, scored_runs):
    test = page(scored_runs, run="a", beside="b", page="blimp")
    frame = next(each.value for each in test.dataframe if "margin_b" in each.value.columns)
    assert (frame.margin < 0).all()
    test.segmented_control(key="which").set_value("turned").run()
    assert not test.exception
    frame = next(each.value for each in test.dataframe if "margin_b" in each.value.columns)
    assert ((frame.margin < 0) & (frame.margin_b > 0)).all()
    assert list(frame.margin) == sorted(frame.margin)


def test_from_a_failing_pair_to_the_first_page(page, scored_runs):
    test = page(scored_runs, run="a", page="blimp", look="text", text="Hello.")
    names = test.selectbox(key="para").options
    test.selectbox(key="para").select_index(len(names) - 1).run()
    paradigm = test.selectbox(key="para").value
    label = test.button(key="explain-pair").label
    test.button(key="explain-pair").click().run()
    assert not test.exception
    assert test.session_state["page"] == "explain"
    assert test.selectbox(key="paradigm").value == paradigm
    assert label == f"Explain pair {test.selectbox(key='pair').value}"


def test_from_a_cell_of_the_matrix_to_a_pair_with_its_head(page, scored_runs):
    test = page(scored_runs, run="a", page="blimp")
    test.selectbox(key="mcol").set_value("L0H2").run()
    row = test.selectbox(key="mrow").value
    found = next(each.value for each in test.dataframe if "effect" in each.value.columns)
    assert list(found.effect) == sorted(found.effect, reverse=True)
    test.button(key="explain-with-head").click().run()
    assert not test.exception
    assert test.selectbox(key="head").value == "L0H2"
    assert test.selectbox(key="paradigm").value == row
    assert int(test.selectbox(key="pair").value) == int(found.pair_id.iloc[0])
    assert test.query_params["head"] == "L0H2"


def test_the_sidebars_paradigm_is_looked_at(page, scored_runs):
    test = page(scored_runs, run="a", page="blimp")
    assert test.selectbox(key="para").value == test.selectbox(key="paradigm").value
    before = test.selectbox(key="para").value
    test.selectbox(key="paradigm").select_index(3).run()
    assert test.selectbox(key="para").value != before
    assert test.selectbox(key="para").value == test.selectbox(key="paradigm").value


def test_the_rest_of_the_matrix_is_measured_with_a_bar(page, scored_runs, monkeypatch):
    monkeypatch.setattr(paradigm_effects, "FEW", 2)
    paradigm_effects._store.clear()
    test = page(scored_runs, run="c", page="blimp", rows="every")
    button = test.button(key="measure-rest")
    assert "about" in button.label
    button.click().run()
    for _ in range(200):  # a browser looks again by itself
        if UNDERWAY not in test.session_state:
            break
        assert "measure-cancel" in [each.key for each in test.button]
        test.run()
    assert not test.exception
    assert not test.error
    assert "measure-rest" not in [each.key for each in test.button]
    saved = sources.saved_results(scored_runs / "c")[0]
    names = set(sources.read_result(saved).paradigms.index)
    source = sources.sources(sources.saved_results(scored_runs / "c"), 8)[0]
    opened = catalogue.open_checkpoint(scored_runs / "c", None)
    assert all(paradigm_effects.is_measured(opened, source, name, "direct") for name in names)
    paradigm_effects._store.clear()


@pytest.mark.parametrize(
    "query",
    [
        {"phen": "<script>", "para": "../../x", "which": "all of them", "rows": "9", "method": "magic"},
        {"mrow": "none", "mcol": "L99H99", "also": "," * 500, "result": "../../etc"},
        {"also": page_runs.HOSTILE, "beside": page_runs.HOSTILE, "measure": "x", "headb": "L0H0"},
    ],
)
def test_a_hostile_address(page, scored_runs, query):
    test = page(scored_runs, run="a", page="blimp", **query)
    assert not test.error
    test = page(scored_runs, run="a", page="explain", **query)
    assert not test.error


def test_results_without_sentences_say_so(page, scored_runs, tmp_path):
    """As those that ship: margins and decisions only."""
    import json

    import pandas as pd

    root = tmp_path / "runs"
    shutil.copytree(scored_runs / "a", root / "a")
    for file in (root / "a" / "blimp").glob("*.json"):
        value = json.loads(file.read_text()) | {"pairs": "elsewhere", "source": "folder", "sentences": False}
        file.write_text(json.dumps(value))
        table = file.with_suffix(".parquet")
        frame = pd.read_parquet(table)[["paradigm", "phenomenon", "pair_id", "margin"]]
        frame.to_parquet(table)
    test = page(root, run="a", page="blimp")
    assert not test.error
    assert "came without sentences" in text_of(test, "caption")
    assert "explain-pair" not in [each.key for each in test.button]
    assert any("margin" in each.value.columns for each in test.dataframe)


def test_unknown_choices_in_the_address_are_reported(page, runs):
    test = page(runs, run="scored", checkpoint="77", paradigm="nonsense", pair="99999")
    said = " ".join(str(each.value) for each in test.warning).replace("\\", "")
    for words in ("There is no checkpoint '77' here; last is shown.", "paradigm 'nonsense'", "pair '99999'"):
        assert words in said
    test.selectbox(key="pair").select_index(1).run()
    assert "There is no" not in " ".join(str(each.value) for each in test.warning)


def test_a_text_that_is_too_long_is_refused_with_its_length(page, runs):
    test = page(runs, run="plain", look="text")
    test.text_area(key="text").set_value("cat " * 600).run()
    assert "2,400 characters" in test.error[0].value.replace("\\", "")


def test_pairs_of_a_folder_need_no_saved_result(monkeypatch, runs, tmp_path):
    from streamlit.testing.v1 import AppTest

    folder = tmp_path / "agreement"
    folder.mkdir()
    for verb in ("run", "sing"):
        rows = [
            {"sentence_good": f"{name} {verb}s.", "sentence_bad": f"{name} {verb}."}
            for name in ("Tom", "She")
        ]
        (folder / f"agreement_{verb}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(sys, "argv", ["explorer.py", "--runs", str(runs), "--data", str(folder)])
    test = AppTest.from_file(str(PAGE), default_timeout=300)
    test.query_params["run"], test.query_params["pairs"] = "plain", "agreement"
    test.run()
    assert not test.exception
    assert not test.error
    assert test.selectbox(key="pairs").value == "agreement"
    assert sorted(test.selectbox(key="paradigm").options) == ["agreement run", "agreement sing"]
    verdict = next(each.body for each in test.get("html") if each.body.startswith('<p class="wb-verdict'))
    assert "plain prefers" in verdict or "equally likely" in verdict


def test_a_head_has_every_class_that_it_earns():
    frame = pd.DataFrame({
        "layer": [0, 0, 0, 0], "head": [0, 0, 1, 1], "score": ["sink", "induction_unigram", "sink", "previous"],
        "value": [0.9, 0.6, 0.1, 0.1], "excess": [0.8, 0.5, 0.05, 0.0], "untrained_high": [0.2] * 4,
    })  # fmt: skip
    assert heads.classes(frame) == {"L0H0": "sink, induction", "L0H1": "other"}
    assert (
        heads.finding(frame) == "No previous-token head: best score 0.10 (L0H1), untrained copy up to 0.20."
    )
