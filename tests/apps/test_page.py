"""The page in each state of the world: it says what to do, and never shows a traceback."""

import shutil

import page_runs
import pytest
from page_runs import HOSTILE, HOSTILE_TEXT

import workbench as wb
from workbench.interp.attribution import attribute_pair

KINDS = ("html", "markdown", "caption", "error", "warning", "info", "subheader", "code")


def text_of(page, *kinds: str) -> str:
    """What the page says, in one string."""
    found = []
    for kind in kinds or KINDS:
        found += [getattr(each, "body", None) or getattr(each, "value", "") for each in page.get(kind)]
    return "\n".join(map(str, found))


def test_opens_on_a_failing_pair_without_a_click(page, runs):
    test = page(runs)
    words = text_of(test)
    assert "prefers" in words
    assert "the wrong sentence" in words
    assert test.selectbox(key="run").value == "scored"
    assert test.selectbox(key="pair").value is not None
    assert not test.error


def test_the_numbers_are_the_librarys(page, runs):
    test = page(runs)
    run = wb.load(runs / "scored")
    frame = wb.embedded_pairs()[test.selectbox(key="paradigm").value]
    pair = next(each for each in frame if each.pair_id == test.selectbox(key="pair").value)
    found = attribute_pair(run.model, pair.sentence_good, pair.sentence_bad)
    assert f"by {abs(found.difference):.2f} nats" in text_of(test)
    shown = {metric.label: metric.value for metric in test.metric}
    assert shown["Whole sentences"] == f"{found.difference:+.2f} nats".replace("-", "−")
    heads = [
        (abs(value), part.label)
        for part, value in zip(found.components, found.at_place, strict=True)
        if part.kind == "head"
    ]
    assert test.selectbox(key="head").value == max(heads)[1]


def test_worst_pairs_come_first_and_a_new_paradigm_starts_with_its_own(page, runs):
    test = page(runs)
    options = [name for name in wb.embedded_pairs() if name != test.selectbox(key="paradigm").value]
    test.selectbox(key="paradigm").set_value(options[3]).run()
    assert not test.exception
    assert test.query_params["paradigm"] == options[3]
    labels = test.selectbox(key="pair").options
    margins = [float(label.split()[1].replace("−", "-")) for label in labels]
    assert margins == sorted(margins)


def test_the_address_brings_the_view_back(page, runs):
    first = page(runs)
    first.selectbox(key="head").set_value("L1H2").run()
    first.toggle(key="nobos").set_value(True).run()
    query = dict(first.query_params)
    second = page(runs, **query)
    for key in ("run", "pairs", "paradigm", "pair", "head"):
        assert second.selectbox(key=key).value == first.selectbox(key=key).value, key
    assert second.toggle(key="nobos").value is True
    assert text_of(second) == text_of(first)


RUN_NAMES = [
    "../secret", "/etc/passwd", "scored/../../secret", "scored@0", "linked", "~", "\x00", "file:///etc",
    "scored\\..\\secret", "",
]  # fmt: skip
OTHERS = [
    {"checkpoint": "../../x", "pairs": "/etc", "head": "L99H99", "result": "../../../etc/passwd"},
    {"checkpoint": "-1", "paradigm": "../../etc/passwd", "pair": "1e9", "level": "x", "at": "y"},
    {"checkpoint": "999999", "look": "<script>", "nobos": "maybe"},
    {"look": "text", "token": "77777", "head": "L0 MLP"},
]


@pytest.mark.parametrize("query", [{"run": name} for name in RUN_NAMES] + OTHERS)
def test_a_hostile_address_opens_nothing_else(page, runs, query, monkeypatch):
    if not (runs / "linked").exists():
        page_runs.outside(runs)
    opened = []
    original = wb.runs.checkpoint._read_regular

    def watched(file, limit):
        opened.append(file)
        return original(file, limit)

    monkeypatch.setattr("workbench.runs.checkpoint._read_regular", watched)
    test = page(runs, **query)
    assert "linked" not in test.selectbox(key="run").options
    assert all(file.resolve().is_relative_to(runs.resolve()) for file in opened)
    assert test.selectbox(key="run").value in ("scored",)


def test_no_runs_says_how_to_make_one(page, tmp_path):
    for root in (tmp_path, tmp_path / "absent"):
        words = text_of(page(root))
        assert "make demo" in words
        assert "workbench train" in words


def test_a_run_without_scores_says_how_to_get_them(page, runs):
    test = page(runs, run="plain", page="blimp")
    words = text_of(test)
    assert "workbench blimp" in words
    assert not test.error


def test_an_unscored_checkpoint_of_a_scored_run_is_scored_now(page, runs):
    test = page(runs, run="scored", checkpoint="0")
    assert "prefers" in text_of(test)
    test = page(runs, run="scored", checkpoint="0", page="blimp")
    assert any("the opened checkpoint is step 0" in info.value for info in test.info)


def test_a_damaged_run_is_told_in_one_line_and_others_stay_open(page, runs):
    test = page(runs, run="damaged")
    assert len(test.error) == 1
    assert "damaged has no intact checkpoint" in test.error[0].value.replace("\\", "")
    test.selectbox(key="run").set_value("plain").run()
    assert not test.exception
    assert "prefers" in text_of(test)


def test_one_damaged_checkpoint_is_passed_over_and_said(page, tmp_path):
    path = page_runs.make_run(tmp_path / "half", page_runs.tokenizer(), n_layers=1)
    file = path / "checkpoints" / "step-000008" / "model.safetensors"
    file.write_bytes(b"\0" * file.stat().st_size)
    test = page(tmp_path)
    assert any("Using step-000000 instead" in each.value.replace("\\", "") for each in test.warning)
    assert "checkpoint 0" in text_of(test)


def test_a_run_deleted_while_open(page, runs, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(runs / "plain", root / "a")
    shutil.copytree(runs / "plain", root / "b")
    test = page(root, run="b")
    shutil.rmtree(root / "b")
    test.run()
    assert not test.exception
    assert test.selectbox(key="run").value == "a"
    shutil.rmtree(root / "a")
    test.run()
    assert not test.exception
    assert "make demo" in text_of(test)


def test_a_masked_model_is_explained_at_the_masked_position(page, runs):
    test = page(runs, run="masked")
    assert "prefers" in text_of(test)
    test = page(runs, run="masked", look="text", text="The cat was happy.")
    assert "pseudo-log-likelihood" in text_of(test)
    assert not test.error


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("", "The cat.", "write a sentence into both fields"),
        ("The cat.", "The cat.", "the two sentences are equal"),
        ("cat " * 200, "The cat.", "the model's context has 64"),
    ],
)
def test_sentences_that_cannot_be_compared(page, runs, good, bad, words):
    test = page(runs, look="sentences", good=good, bad=bad)
    assert len(test.error) == 1
    assert words in test.error[0].value.replace("\\", "")


@pytest.mark.parametrize(
    "text", ["a", "Zoë 喝 café 🐈 ﷽", "\t\n .", "<bos><eos><mask>", HOSTILE_TEXT, " the" * 55]
)
def test_any_text_is_read(page, runs, text):
    test = page(runs, look="text", text=text)
    assert not test.error, test.error[0].value
    assert "nats each" in text_of(test)


def test_an_empty_text_and_one_too_long(page, runs):
    assert "write some text" in page(runs, look="text", text="  ").error[0].value
    assert "context has 64" in page(runs, look="text", text="word " * 300).error[0].value.replace("\\", "")


def test_a_hostile_name_stays_text(page, runs):
    test = page(runs, run=HOSTILE)
    words = text_of(test, "html", "markdown", "caption", "subheader")
    assert "<img" not in words.replace("\\<", "")
    assert "&lt;img src=x onerror=alert(1)&gt;" in words
    assert test.selectbox(key="run").value == HOSTILE


def test_sums_are_shown_and_right(page, runs):
    test = page(runs)
    line = next(each.body for each in test.get("html") if "wb-equation" in each.body)
    assert "nats" in line
    captions = [each.value.replace("\\", "") for each in test.caption if "sum of contributions" in each.value]
    assert len(captions) == 2
    assert all("rounding" in each for each in captions)


def test_models_are_kept_by_content_and_bounded(page, runs, tmp_path):
    """The same path with other weights is another model."""
    words = page_runs.tokenizer()
    path = page_runs.make_run(tmp_path / "again", words, n_layers=1)
    before = text_of(page(tmp_path))
    shutil.rmtree(path)
    page_runs.make_run(path, words, steps=(0, 9), n_layers=1)
    assert text_of(page(tmp_path)) != before


def test_nothing_listens_after_a_page(page, runs):
    from apps.answers import catalogue

    page(runs, run="scored")
    opened = catalogue.open_checkpoint(runs / "scored", None)
    assert not opened.model.has_listeners()
    assert not any(parameter.requires_grad for parameter in opened.model.parameters())


def test_windows_over_long_texts(page, runs):
    test = page(runs, look="text", text=" the" * 55, allheads="1")
    assert not test.error
    assert test.slider
    assert any("CircuitsVis is shown up to" in each.value for each in test.info)
