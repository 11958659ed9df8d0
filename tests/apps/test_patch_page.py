"""The page "Ablate and patch" in each state of the world; its clicks are in tests/browser."""

import page_runs
import pytest
from page_runs import HOSTILE_TEXT
from test_page import text_of

import workbench as wb
from apps.answers import ablate
from apps.charts.effects import effects
from apps.charts.patch_map import patch_map, percent
from apps.charts.switches import switch_map
from apps.look.changes import Changed, changes
from apps.look.palette import DARK, LIGHT
from apps.pages.patch.switches import toggled
from apps.pages.patch.work import Work, clock
from workbench.interp.ablation import ablation_effect

UID = "embedded_anaphor_gender_agreement"
PAIR = {"page": "patch", "pairs": "embedded", "paradigm": UID}
PARTS = ("ablate", "patch", "scatter")
FAILED = "This part of the page failed"

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(autouse=True)
def few_stories(monkeypatch):
    monkeypatch.setattr("workbench.interp.texts.STORIES", 6)
    ablate._reference.clear()
    yield
    ablate._reference.clear()


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Runs of four shapes."""
    root = tmp_path_factory.mktemp("few") / "runs"
    words = page_runs.tokenizer()
    page_runs.make_run(root / "scored", words, steps=(8,))
    page_runs.make_run(root / "attention", words, steps=(8,), layout="aa")
    page_runs.make_run(root / "mlps", words, steps=(8,), layout="mm")
    page_runs.make_run(root / "masked", words, steps=(8,), attention="bidirectional")
    return root


def figures(test) -> dict[str, str]:
    return {metric.label: metric.value for metric in test.metric}


def test_everything_is_on_at_first_and_the_page_says_what_to_do(page, few):
    test = page(few, **PAIR, run="scored")
    shown = figures(test)
    assert shown["Whole model"] == shown["Ablated"]
    assert shown["Effect"] == "0.00 nats"
    words = text_of(test)
    assert "Nothing is ablated" in words
    assert "Ablate something above" in words
    assert FAILED not in words


def test_switches_stand_in_the_address_and_the_figures_are_the_librarys(page, few):
    test = page(few, **PAIR, run="scored", off="L1 MLP,L0H1,L0N5", how="mean")
    assert test.multiselect(key="off").value == ["L0H1", "L0N5", "L1 MLP"]
    assert test.query_params["off"] == "L0H1,L0N5,L1 MLP"
    run = wb.load(few / "scored")
    pair = next(each for each in wb.embedded_pairs()[UID] if each.pair_id == test.selectbox(key="pair").value)
    from workbench.data.embedded.stories import stories
    from workbench.interp.ablation import ablated
    from workbench.interp.attribution import attribute_pair

    sentences = (pair.sentence_good, pair.sentence_bad)
    before = attribute_pair(run.model, *sentences).difference
    with ablated(run.model, "L0H1,L0N5,L1 MLP", "mean", stories(6)):
        now = attribute_pair(run.model, *sentences).difference
    shown = figures(test)
    assert shown["Whole model"] == f"{before:+.2f} nats".replace("-", "−")
    assert shown["Ablated"] == f"{now:+.2f} nats".replace("-", "−")
    assert "scored without L0H1, L0N5, L1 MLP" in text_of(test, "html")
    assert "mean over the tokens of 6 embedded training stories" in text_of(test, "caption").replace("\\", "")


def test_one_switch_more_and_everything_on_again(page, few):
    test = page(few, **PAIR, run="scored", off="L0H1")
    test.multiselect(key="off").set_value(["L0H1", "L1H2"]).run()
    assert not test.exception
    assert test.query_params["off"] == "L0H1,L1H2"
    everything = next(button for button in test.button if button.label == "Restore all")
    everything.click().run()
    assert "off" not in test.query_params
    assert figures(test)["Effect"] == "0.00 nats"


@pytest.mark.parametrize(
    ("off", "told"),
    [
        ("L9H0", "blocks L0 to L1"),
        ("L0N9999", "L0N0 to L0N63"),
        ("banana", "Unknown head, MLP or neuron"),
        (HOSTILE_TEXT, "Unknown head, MLP or neuron"),
        (",,,", ""),
        ("L0H" + "9" * 3000, "Unknown head, MLP or neuron"),
    ],
)
def test_names_that_are_none_are_told_and_left_on(page, few, off, told):
    test = page(few, **PAIR, run="scored", off=off)
    words = text_of(test).replace("\\", "")
    assert told in words or "is out of range" in words
    assert FAILED not in words
    assert test.multiselect(key="off").value == []
    assert "off" not in test.query_params
    assert "<img src=x" not in text_of(test, "html")


def test_the_paradigm_runs_to_the_end_with_the_librarys_figures(page, few, monkeypatch):
    monkeypatch.setattr("apps.pages.patch.work.PIECE", 30.0)  # a rerun for each piece takes its time here
    test = page(few, **PAIR, run="scored", off="L0H1,L0 MLP")
    start = test.button(key="paradigm-a-start")
    assert "200 pairs, about" in start.label
    start.click().run()
    assert not test.exception
    shown = figures(test)
    run = wb.load(few / "scored")
    table = ablation_effect(run, "L0H1,L0 MLP", measure=("pairs",), paradigms=[UID]).paradigms()
    row = table.iloc[0]
    assert shown["Accuracy, whole model"] == f"{row.before:.1%}"
    assert shown["Accuracy, ablated"] == f"{row.after:.1%}"
    assert shown["Lost and gained"] == f"{row.lost} and {row.gained}"
    delta = next(
        metric.delta
        for metric in test.metric
        if metric.label == "Change of accuracy" and "points" in metric.value
    )
    assert f"{100 * row.low:+.1f}".replace("-", "−").replace("+0.0", "0.0") in delta
    assert delta.endswith("n = 200")
    assert "paradigm-a-start" not in [button.key for button in test.button]  # nothing is left to do


def test_own_sentences_and_texts_say_what_to_do(page, few):
    test = page(few, page="patch", run="scored", look="sentences", off="L0H1")
    assert "have no paradigm" in text_of(test)
    test = page(few, page="patch", run="scored", look="text")
    assert "Two sentences are needed here" in text_of(test)
    pair = next(button for button in test.button if button.label == "A pair of a set")
    pair.click().run()
    assert not test.exception
    assert figures(test)["Effect"] == "0.00 nats"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["scored", "attention", "mlps", "masked"])
def test_every_kind_of_model_opens_every_part(page, few, name, part):
    test = page(
        few, **PAIR, run=name, do=part, off="L0H1,L1 MLP", beside="scored" if name != "scored" else "mlps"
    )
    words = text_of(test)
    assert FAILED not in words
    assert not test.error
    if part == "patch":
        assert "logit difference" in words
        assert ("no heads to patch" in words) == (name == "mlps")
        sites = test.get("button_group")
        assert sites
    if part == "scatter":
        assert "Pearson" in words


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        ("cat", "dog", ""),
        ("cat", "cat sat", ""),
        ("cat", "cat", "the two sentences are equal"),
        ("Ü 日本 🙂", "x", ""),
        (HOSTILE_TEXT, "The cat sat.", ""),
        ("cat " * 200, "dog", "context"),
    ],
)
def test_odd_sentences(page, few, part, good, bad, told):
    test = page(few, page="patch", run="scored", look="sentences", do=part, good=good, bad=bad, off="L0H1")
    words = text_of(test)
    assert told in words
    assert FAILED not in words
    assert "<img src=x" not in text_of(test, "html")
    if part == "patch" and bad == "cat sat":
        assert "Choose another pair" in words


def test_choices_of_a_patch_are_clamped_and_kept(page, few):
    test = page(
        few, **PAIR, run="attention", do="patch", site="mlp_out", metric="kl", way="noise", answer="99"
    )
    assert not test.error
    assert "site" not in test.query_params  # this model has no MLPs
    assert test.query_params["metric"] == "kl"
    assert test.query_params["way"] == "noise"
    assert "answer" not in test.query_params
    again = page(few, **PAIR, run="scored", do="patch", cell="L1.2")
    assert "Heads of layer 1 at position 2" in text_of(again)
    gone = page(few, **PAIR, run="scored", do="patch", cell="L9.77")
    assert "Heads of layer" in text_of(gone)
    assert not gone.error


def test_an_own_corrupted_beginning(page, few):
    query = {"page": "patch", "run": "scored", "do": "patch", "look": "sentences"}
    query |= {"good": "The tree was happy.", "bad": "The tree was big.", "answer": "3"}
    test = page(few, **query)
    box = next((each for each in test.text_input if each.key == "against"), None)
    assert box is not None
    box.set_value("The ball was").run()
    assert "The second prompt is your own beginning" in text_of(test)
    assert test.query_params["against"] == "The ball was"
    box = next(each for each in test.text_input if each.key == "against")
    box.set_value("cat " * 200).run()
    assert "shorten it" in text_of(test, "error")


def test_one_session_ablates_and_the_other_does_not(page, few):
    """Two readers on the same model, one after the other and back."""
    whole = page(few, **PAIR, run="scored")
    first = figures(whole)["Ablated"]
    other = page(few, **PAIR, run="scored", off="L0H1,L1H0,L0 MLP")
    changed = figures(other)["Ablated"]
    assert changed != first
    assert figures(whole.run())["Ablated"] == first
    assert figures(other.run())["Ablated"] == changed


def test_a_switch_turns_with_every_click():
    assert toggled([], ["L0H1"]) == {"L0H1"}
    assert toggled(["L0H1"], ["L0H1", "L1H0"]) == {"L1H0"}
    assert toggled(["L0H1"], []) == {"L0H1"}


def test_work_is_kept_when_it_is_stopped():
    mine = Work(100)
    assert mine.left(0.5) == 50
    mine.pieces, mine.done, mine.seconds = ["a"], 20, 4.0
    assert mine.left(0.5) == pytest.approx(16)
    assert not mine.finished
    assert (clock(0.2), clock(61), clock(185)) == ("1 s", "61 s", "3 min 5 s")


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_charts_are_valid_and_symmetric(colours):
    """The page draws them without Altair's check of the schema, so it is made here."""
    rows = [
        {"layer": f"L{layer}", "column": column, "component": f"L{layer}{column}", "what": "w", "nats": layer - 0.5}
        for layer in (0, 1) for column in ("H0", "H1", "MLP")
    ]  # fmt: skip
    spec = switch_map(rows, ["L0H1"], colours).to_dict()
    selection = next(param for param in spec["params"] if param["name"] == "switch")
    assert selection["select"]["toggle"] == "true"
    cells = [
        {"layer": f"L{layer}", "position": place, "token": "the", "value": 1.0, "effect": -0.5,
         "recovered": None, "shown": -0.5 + place}
        for layer in (0, 1) for place in (0, 1)
    ]  # fmt: skip
    spec = patch_map(cells, colours, ("L1", 0), True).to_dict()
    assert spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == [-0.5, 0.5]
    points = [{"component": "L0H0", "kind": "head", "direct": 0.1, "ablated": 0.2}]
    effects(points, colours, "L0H0", "a", "b").to_dict()
    assert (percent(-0.001), percent(0.456), percent(-1.2)) == ("0", "46", "−120")


def test_changed_tokens_are_escaped_and_sum_to_the_change():
    side = Changed((1, 2), ('<img src=x onerror="1">', "</div>"), (-1.0, -2.0), (-1.5, -2.25))
    other = Changed((1, 3), ("a", "b"), (-1.0, -2.0), (-1.5, -1.0))
    piece = changes(side, other, 1, LIGHT, "<b>", "second")
    assert "<img" not in piece
    assert "<b>" not in piece
    assert piece.count("</div>") == piece.count("<div")
    assert "+1.25" in piece  # 0.25 + 1.0 at the differing token
