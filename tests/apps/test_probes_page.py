"""Probes page: the kept results, as the library reads them; and what to do where there are none."""

import json

import page_runs
import pytest
from seen import check, said

import probes
import workbench as wb
from apps.answers import catalogue, probed
from apps.look.palette import LIGHT
from apps.pages.probes.rows import layer_names, levels_of, lines_of

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def probed_runs(tmp_path_factory):
    """`one` at two checkpoints and `two`, probed for a task of the reader's own; `one` for a second task too."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    root, words = tmp_path_factory.mktemp("probed") / "runs", page_runs.tokenizer()
    page_runs.make_run(root / "one", words, d_model=16, d_mlp=24)
    page_runs.make_run(root / "two", words, d_model=16, d_mlp=24, n_layers=3, steps=(8,))
    page_runs.make_run(root / "bare", words, n_layers=1, steps=(8,))
    few = dict(seeds=1, tokens=1500, compression=False)
    probes.probe([str(root / "one@0"), str(root / "one@8"), str(root / "two")], "verb_number", **few)
    probes.probe(str(root / "one"), "sentence_boundary", untrained=False, hooks=["resid_post", "z"], **few)
    jaxtyping.config.update("jaxtyping_disable", False)
    return root


def charts(test) -> list[str]:
    """The Vega-Lite specifications on the page."""
    found = []

    def walk(block):
        for child in getattr(block, "children", {}).values():
            spec = getattr(getattr(child, "proto", None), "spec", None)
            if isinstance(spec, str):
                found.append(spec)
            walk(child)

    walk(test.main)
    return found


def test_without_results_it_says_how_to_get_them(page, probed_runs):
    test = page(probed_runs, page="probes", run="bare")
    check(test)
    assert "bare has not been probed at step 8" in said(test)
    assert "--task pos" in said(test, "code")


def test_the_figure_and_the_findings(page, probed_runs):
    test = page(probed_runs, page="probes", run="one")
    test.selectbox(key="probed").select_index(1).run()
    check(test)
    assert not test.error
    assert "".join(test.query_params["probed"]).startswith("verb_number-")
    words = said(test)
    assert "number of the subject" in words
    assert "best at" in words
    assert "selectivity" in words
    assert len(charts(test)) == 2  # by layer and over training
    assert test.selectbox(key="probed").options == ["sentence_boundary", "verb_number"]


def test_rows_are_the_librarys(probed_runs):
    opened = catalogue.open_checkpoint(probed_runs / "one", 8)
    result = next(one for one in probed.results(opened).values() if one.task == "verb_number")
    lines = lines_of(result, "one")
    table = result.to_frame()
    mine = table[(table.source == "model") & (table.labels == "task")].sort_values("layer")
    model = lines[lines.what == "model"]
    assert model.score.tolist() == pytest.approx(mine.score.tolist())
    assert layer_names(lines) == ["embed", "0", "1"]
    assert set(lines.line) == {"one", "untrained copy", "control task", "shuffled labels"}
    levels = levels_of(result)
    assert set(levels.score) == {round(value, 3) for value in table[table.source == "none"].score}
    assert " ".join(levels.name).count("majority") == 1


def test_heads_are_points(page, probed_runs):
    test = page(probed_runs, page="probes", run="one")
    check(test)
    assert not test.error
    assert "whether the sentence ends" in said(test)
    assert "probed at one checkpoint" in said(test)
    assert "@all --task sentence_boundary" in said(test, "code")


def test_two_models(page, probed_runs):
    test = page(probed_runs, page="probes", run="two", beside="one")
    check(test)
    chart = charts(test)[0]
    assert '"two", "one"' in chart


def test_results_of_other_weights_or_damaged_are_not_shown(page, probed_runs, tmp_path):
    import shutil

    root = tmp_path / "runs"
    shutil.copytree(probed_runs / "two", root / "two")
    (table,) = (root / "two").glob("probes/verb_number-*/step-*/cells.parquet")
    table.write_bytes(table.read_bytes()[:-9])
    assert "has not been probed" in said(page(root, page="probes", run="two"))
    shutil.rmtree(root / "two")
    shutil.copytree(probed_runs / "two", root / "two")
    (card,) = (root / "two").glob("probes/verb_number-*/step-*/probe.json")
    value = json.loads(card.read_text())
    card.write_text(json.dumps(value | {"weights": "0" * 64}))
    assert "has not been probed" in said(page(root, page="probes", run="two"))


def test_hostile_labels_stay_text(page, probed_runs, tmp_path):
    import shutil

    root = tmp_path / "runs"
    shutil.copytree(probed_runs / "two", root / "two")
    (card,) = (root / "two").glob("probes/verb_number-*/step-*/probe.json")
    text = card.read_text().replace(
        "number of the subject, read at the right and the wrong verb of minimal pairs",
        page_runs.HOSTILE.replace("\\", ""),
    )
    card.write_text(text)
    test = page(root, page="probes", run="two")
    check(test)
    assert page_runs.HOSTILE in said(test)
    assert not any("<img" in each.value for each in test.html if "wb-" in str(each.value))


def test_an_address_that_names_no_result(page, probed_runs):
    test = page(probed_runs, page="probes", run="one", probed="../../secret")
    check(test)
    assert test.selectbox(key="probed").value.startswith("sentence_boundary-")


def test_the_chart_in_both_themes(probed_runs):
    from apps.charts.probe_layers import probe_layers
    from apps.look.palette import DARK

    result = next(iter(probed.results(catalogue.open_checkpoint(probed_runs / "two", 8)).values()))
    lines = lines_of(result, wb.load(probed_runs / "two").name)
    for palette in (LIGHT, DARK):
        chart = probe_layers(lines, levels_of(result), palette, layer_names(lines), result.measure)
        assert chart.to_dict()["height"] == 340
