"""The page's pure functions."""

import json
import re
import threading
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as texts
from page_runs import HOSTILE_TEXT

from apps.answers import catalogue, explain, sources
from apps.charts.attention_map import attention_map
from apps.charts.component_map import component_map
from apps.look import bundle, markup
from apps.look.grid import component_grid
from apps.look.palette import DARK, LIGHT, palette
from apps.look.tokens import bare, distinct, side_by_side, visible
from workbench.errors import RunError
from workbench.interp.attribution import attribute_pair, first_difference
from workbench.interp.summary import candidates


class Elements(HTMLParser):
    """The elements and attributes of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, tuple(name for name, _ in attrs)))


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" cat", "·cat"), ("<bos>", "‹bos›"), ("\n", "⏎"), ("", "∅"), ("\u202eabc", "abc"), ("\u200b", "∅"),
        ("  ", "··"), ("</script>", "‹/script›"), ("\x07", "�"), ("é", "é"),
    ],
)  # fmt: skip
def test_tokens_are_visible(token, shown):
    assert visible(token) == shown


def test_a_word_of_ours_has_no_dot():
    assert bare(" cat") == "cat"
    assert bare(" ") == "·"


def test_repeated_tokens_get_names_of_their_own():
    names = distinct([" the", " cat", " the", " the"])
    assert len(set(names)) == 4
    assert [name.rstrip("\u2060") for name in names] == ["·the", "·cat", "·the", "·the"]


ROW = texts.lists(
    texts.tuples(texts.integers(0, 3), texts.just("x"), texts.floats(-9, 0)), min_size=1, max_size=9
)


@given(ROW, ROW)
def test_the_columns_sum_to_the_whole_difference(good, bad):
    """Whatever is laid beside what, nothing is lost and nothing counted twice."""
    if [token[0] for token in good] == [token[0] for token in bad]:
        return
    place = first_difference([token[0] for token in good], [token[0] for token in bad])
    columns = side_by_side(good, bad, place)
    whole = sum(token[2] for token in good) - sum(token[2] for token in bad)
    assert sum(column.difference for column in columns) == pytest.approx(whole, abs=1e-9)
    assert sum(column.good is not None for column in columns) == len(good)
    assert sum(column.bad is not None for column in columns) == len(bad)
    assert sum(column.shown for column in columns) == 1


@given(texts.text(max_size=40))
def test_no_text_becomes_an_element(text):
    for piece in (
        markup.verdict(text, 1.0, text, text),
        markup.headline(text),
        markup.where([text, text]),
        markup.key([("#ffffff", text)], text),
        markup.equation([(text, 1.0)], (text, 2.0)),
        markup.ranking([(text, -1.0, text)]),
        markup.tokens([text], [-1.0], 0, LIGHT),
        markup.pair(side_by_side([(0, text, -1.0)], [(1, text, -2.0)], 0), DARK, text, text),
    ):
        shape = Elements(piece).found
        allowed = {"p", "span", "div", "small", "i", "table", "tr", "td"}
        assert {tag for tag, _ in shape} <= allowed
        assert {name for _, names in shape for name in names} <= {"class", "style", "title"}


@given(texts.text(max_size=40))
def test_no_text_ends_a_script(text):
    page = markup.attention_page([text, "b"], np.eye(2)[None], [text], LIGHT, "/x.js")
    assert page.lower().count("<script") == 2
    assert page.lower().count("</script>") == 2
    script = page.rsplit("<script>", 1)[1].split("</script>")[0]
    arguments = script.split("CircuitsVis.AttentionHeads, ", 1)[1].rsplit(");", 1)[0]
    assert json.loads(arguments)["tokens"] == [text, "b"]


@pytest.mark.parametrize("text", ["![x](http://evil.example/a.png)", "[a](javascript:alert(1))", ":red[x]", "$x$", "# a", "<b>"])  # fmt: skip
def test_markdown_has_no_markup_left(text):
    escaped = markup.plain(text)
    for sign in "[]()<>!$#:":
        assert escaped.count(sign) == escaped.count("\\" + sign)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.234, "+1.23"), (-1.234, "−1.23"), (0.001, "0.00"), (-0.001, "0.00"), (float("nan"), "–"), (-0.0, "0.00")],
)  # fmt: skip
def test_numbers(value, text):
    assert markup.number(value) == text


def test_colours_are_symmetric_and_readable():
    assert palette("dark") is DARK
    assert palette(None) is LIGHT
    for colours in (LIGHT, DARK):
        assert colours.between(1) == colours.diverging[-1]
        assert colours.between(-1) == colours.diverging[0]
        assert colours.between(0) == colours.diverging[3]
        assert colours.between(7) == colours.diverging[-1]
        for share in np.linspace(-1, 1, 41):
            background = colours.between(share)
            assert contrast(background, colours.on(background)) >= 4.5, (colours.name, share)
        for share in np.linspace(0, 1, 21):
            background = colours.amount(share)
            assert contrast(background, colours.on(background)) >= 4.5
        for ink in (colours.ink, colours.muted, colours.good, colours.bad):
            assert contrast(ink, colours.page) >= 4.5


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def frame_of_pairs() -> pd.DataFrame:
    rows = []
    for paradigm, margins in {
        "easy": [3.0, 2.0, -1.0],
        "hard": [-9.0, -8.0, 1.0],
        "right": [1.0, 2.0, 3.0],
    }.items():
        for index, margin in enumerate(margins):
            rows.append({
                "paradigm": paradigm, "pair_id": index, "margin": margin, "correct": float(margin > 0),
                "tokens_good": 5, "tokens_bad": 5,
            })  # fmt: skip
    return pd.DataFrame(rows)


def test_it_opens_on_a_mistake_of_a_paradigm_that_is_mostly_right():
    found = candidates(frame_of_pairs())
    assert list(found.paradigm) == ["easy"]
    assert list(found.margin) == [-1.0]


def test_it_opens_on_something_even_without_mistakes():
    frame = frame_of_pairs()
    assert len(candidates(frame[frame.paradigm == "right"])) == 1
    assert sources.telling_pair(frame[frame.paradigm == "right"]) == 0
    assert sources.telling_pair(frame[frame.paradigm == "hard"]) == 0


def test_the_map_has_symmetric_limits_and_frames_the_choice():
    """On the page, and as the figure to take away."""
    rows = [
        {"layer": "L0", "column": column, "component": f"L0{column}", "what": "w", "nats": nats}
        for column, nats in (("H0", 0.5), ("H1", -2.0), ("MLP", 0.1))
    ]
    page = component_grid(rows, LIGHT, "a", "L0H1")
    for nats in (0.5, -2.0):
        assert f"background:{LIGHT.between(nats / 2.0)}" in page
    assert re.findall(r'data-wb-pick="(\w+)"[^>]*aria-pressed="true"', page) == ["L0H1"]
    assert f"background:{LIGHT.between(0.5 / 4.0)}" in component_grid(rows, LIGHT, "a", limit=4.0)
    spec = component_map(rows).to_dict()
    cells = spec["layer"][0]
    assert cells["encoding"]["color"]["scale"]["domain"] == [-2.0, 2.0]


def test_the_first_token_can_be_left_out_of_the_attention():
    pattern = np.tril(np.ones((3, 3))) / np.array([[1], [2], [3]])
    whole = attention_map(["a", "b", "a"], pattern, LIGHT, 1, 1.0).to_dict()
    part = attention_map(["a", "b", "a"], pattern, LIGHT, 1, 1.0, skip_first=True).to_dict()
    counts = [len(max(spec["datasets"].values(), key=len)) for spec in (whole, part)]
    assert counts == [6, 3]


def test_the_bundle_is_copied_once_under_its_hash(tmp_path):
    url = bundle.bundle_url(tmp_path)
    assert url is not None
    assert url.startswith("app/static/circuitsvis-")
    file = tmp_path / url.rsplit("/", 1)[1]
    assert file.read_bytes() == bundle.bundle()
    assert b"sourceMappingURL" not in file.read_bytes()[-200:]


def test_without_a_writable_folder_the_bundle_goes_into_the_view(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert bundle.bundle_url(blocked / "static") is None
    page = markup.attention_page(["a"], np.ones((1, 1, 1)), ["L0H0"], LIGHT, None, bundle.bundle())
    assert "var CircuitsVis" in page
    assert page.count("</script>") == 2


def test_runs_are_found_in_groups_and_links_lead_nowhere(runs, tmp_path):
    names = catalogue.find_runs(runs)
    assert "group/inner" in names
    assert "group" not in names
    with pytest.raises(RunError, match=r"there is no run '\.\./secret'"):
        catalogue.find_run(runs, "../secret")


def test_the_runs_folder_is_the_one_asked_for(tmp_path):
    assert catalogue.runs_folder(["--runs", str(tmp_path)]) == tmp_path
    assert catalogue.runs_folder(["-n", "2", "--durations=5"]).name == "runs"


def test_eight_sessions_at_once_see_their_own_numbers(runs):
    """They share one model; without the lock one session's hooks would fill another's cache."""
    opened = catalogue.open_checkpoint(runs / "scored", None)
    sentences = [("The cat was happy.", f"The cat {'very ' * index}were happy.") for index in range(8)]
    alone = [attribute_pair(opened.model, *pair).whole for pair in sentences]
    found: dict[int, np.ndarray] = {}

    def session(index: int) -> None:
        for _ in range(2):
            explain._pair.clear()
            found[index] = explain.explain_pair(opened, *sentences[index], "native", "original").whole
            explain.attention(opened, (1, 5, 6 + index), 0)

    threads = [threading.Thread(target=session, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, expected in enumerate(alone):
        np.testing.assert_allclose(found[index], expected, atol=1e-4)
    assert not opened.model.has_listeners()


def test_hostile_text_as_a_whole_page_part():
    piece = markup.tokens([HOSTILE_TEXT], [-1.0], 0, LIGHT)
    assert "<img" not in piece
    assert "&lt;img" in piece
