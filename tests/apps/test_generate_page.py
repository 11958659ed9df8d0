"""The page "Generate": its numbers are the library's, and nothing that is typed breaks it."""

import numpy as np
import page_runs
import pytest
import torch
from page_runs import HOSTILE, HOSTILE_TEXT

from apps.answers import catalogue, generate
from apps.answers.generate import Settings
from apps.charts.alternatives import alternatives
from apps.charts.lens_map import lens_map
from apps.frame.told import FAILED
from apps.look.palette import DARK, LIGHT
from apps.look.written import written
from workbench.errors import InputError
from workbench.interp.lens import logit_lens
from workbench.model.transformer import filter_logits, sample

pytestmark = pytest.mark.usefixtures("unchecked")
PROMPT = "Once upon a time"
KINDS = ("html", "markdown", "caption", "error", "warning", "info", "subheader")


def words_of(test) -> str:
    found = []
    for kind in KINDS:
        found += [str(getattr(each, "body", None) or getattr(each, "value", "")) for each in test.get(kind)]
    return "\n".join(found)


def opened(runs, name: str):
    return catalogue.open_checkpoint(runs / name, None)


def test_the_numbers_are_the_librarys(runs):
    one = opened(runs, "scored")
    settings = Settings(PROMPT, temperature=0.7, top_k=20, length=12, seed=3)
    found = generate.write(one, settings)
    model = one.model
    text = model.generate(PROMPT, 12, 0.7, top_k=20, seed=3)
    assert one.tokenizer.decode(list(found.ids), skip_special_tokens=True) == text
    ids = torch.tensor([found.ids])
    log_probs = model(ids).log_softmax(-1)[0]
    for index, place in enumerate(found.places):
        row, token = log_probs[place - 1], found.ids[place]
        assert found.log_probs[index] == pytest.approx(float(row[token]), abs=1e-5)
        assert found.ranks[index] == int((row > row[token]).sum()) + 1
        assert list(found.top[index]) == row.topk(10).indices.tolist()
        drawn = filter_logits(model(ids)[0, place - 1][None], 0.7, 20, None).softmax(-1)[0]
        assert found.drawn[index] == pytest.approx(float(drawn[token]), abs=1e-5)
        assert found.top_drawn[index].sum() <= 1 + 1e-6
        assert found.drawn[index] > 0
    lens = logit_lens(model, ids)
    read = [place - 1 for place in found.places]
    assert found.points == lens.points
    np.testing.assert_allclose(found.lens_log_probs, lens.target_log_prob[:, read], atol=1e-5)
    np.testing.assert_array_equal(found.lens_ranks, lens.target_rank[:, read])
    np.testing.assert_allclose(found.lens_log_probs[-1], found.log_probs, atol=1e-4)
    np.testing.assert_array_equal(found.lens_ranks[-1], found.ranks)
    assert found.end == "length"


def test_the_ranks_of_a_lens_are_counted(runs):
    one = opened(runs, "scored")
    reading = logit_lens(one.model, PROMPT)
    assert (reading.target_rank[:, -1] == 0).all()
    first = reading.target_rank[:, :-1] == 1
    top = reading.top_prob[:, :-1] <= np.exp(reading.target_log_prob[:, :-1]) * (1 + 1e-6)
    np.testing.assert_array_equal(first, top)


def test_what_is_drawn_from_is_what_sample_draws_from():
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    shares = filter_logits(logits, 0.5, 5, 0.9).softmax(-1)[0]
    assert 1 <= int((shares > 0).sum()) <= 5
    random = torch.Generator().manual_seed(1)
    counts = torch.zeros(50)
    for _ in range(2000):
        counts[sample(logits, 0.5, 5, 0.9, random)] += 1
    assert (counts[shares == 0] == 0).all()
    torch.testing.assert_close(counts / 2000, shares, atol=0.05, rtol=0)
    assert filter_logits(logits, 0, None, None).softmax(-1)[0, logits.argmax()] == 1


def test_greedy_takes_the_first_choice_and_the_context_ends_it(runs):
    one = opened(runs, "plain")
    found = generate.write(one, Settings(PROMPT, temperature=0, length=200))
    assert (found.ranks == 1).all()
    assert (found.drawn == 1).all()
    assert found.end in ("context", "eos")
    assert len(found.ids) <= one.model.config.n_ctx
    with pytest.raises(InputError, match="fills plain's context of 64 tokens; shorten it"):
        generate.write(one, Settings("the cat " * 200))


def test_a_masked_model_fills_gaps(runs):
    one = opened(runs, "masked")
    mask = generate.mask_token(one)
    found = generate.write(one, Settings(f"The {mask} likes the {mask}.", temperature=2.0))
    assert (len(found), found.end) == (2, "gaps")
    read = one.model.to_tokens(f"The {mask} likes the {mask}.")
    row = one.model(read)[0].log_softmax(-1)
    for index, place in enumerate(found.places):
        assert found.ids[place] == int(row[place].argmax())
        assert found.log_probs[index] == pytest.approx(float(row[place].max()), abs=1e-5)
    lens = logit_lens(one.model, read)
    np.testing.assert_array_equal(found.lens_words[-1], [found.word(0), found.word(1)])
    np.testing.assert_allclose(found.lens_top_probs, lens.top_prob, atol=1e-5)
    with pytest.raises(InputError, match="fills gaps"):
        generate.write(one, Settings("The cat."))


def test_alternatives_hold_the_written_token(runs):
    found = generate.write(opened(runs, "scored"), Settings(PROMPT, temperature=2.0, length=20))
    for index in range(len(found)):
        frame = found.alternatives(index)
        assert frame.written.sum() == 1
        mine = frame[frame.written].iloc[0]
        assert mine["probability"] == pytest.approx(found.probs[index])
        assert mine["rank"] == found.ranks[index]
    for palette in (LIGHT, DARK):
        chart = alternatives(found.alternatives(0), palette).to_dict()
        assert len(next(iter(chart["datasets"].values()))) >= generate.ALTERNATIVES
        for value in ("probability", "rank"):
            drawn = lens_map(found.lens_frame(), palette, value, 1, 700).to_dict()
            rows = next(iter(drawn["datasets"].values()))
            assert all(0 <= row["share"] <= 1 for row in rows)


def test_the_page(page, runs):
    test = page(runs, page="generate")
    assert not test.error
    assert "goes on" in words_of(test)
    assert test.selectbox(key="gtok").value is not None
    test.number_input(key="glen").set_value(7).run()
    test.select_slider(key="gtemp").set_value(0.0).run()
    assert test.query_params["glen"] == "7"
    assert "100% of the tokens were its first choice" in words_of(test)
    assert len(test.selectbox(key="gtok").options) == 7
    test.selectbox(key="gtok").set_value(3).run()
    again = page(runs, **dict(test.query_params))
    assert words_of(again) == words_of(test)
    assert again.selectbox(key="gtok").value == 3


def test_two_models_and_a_masked_one(page, runs):
    test = page(runs, page="generate", run="scored", beside="plain", glen="5", gtokB="4")
    assert not test.error
    assert words_of(test).count("goes on") == 2
    assert test.selectbox(key="gtokB").value == 4
    test = page(runs, page="generate", run="scored", beside="masked")
    assert "it reads to both sides and does not write on" in words_of(test).replace("\\", "")
    test.button[-1].click().run()
    assert not test.error
    assert "fills 1 gap" in words_of(test)
    test = page(runs, page="generate", run="masked")
    assert "fills 2 gaps" in words_of(test)


def test_another_is_the_next_seed(page, runs):
    test = page(runs, page="generate", glen="5", gseed="9999")
    next(button for button in test.button if button.label == "Another").click().run()
    assert test.number_input(key="gseed").value == 0


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "   ",
        HOSTILE_TEXT,
        "а" * 50,
        "cat",
        "the cat " * 300,
        "<bos><eos><mask>",
        "\x00\u202e\ud7ff",
        "😀🏳️‍🌈",
    ],
)
def test_any_prompt_gives_a_page_or_a_sentence(page, runs, prompt):
    for run in ("scored", "masked"):
        test = page(runs, page="generate", run=run, glen="4", gprompt=prompt)
        said = words_of(test)
        assert FAILED not in said
        assert not test.exception
        assert "<img src=x" not in said
        assert "goes on" in said or "fills" in said or len(test.error) == 1


@pytest.mark.parametrize(
    "query",
    [
        {"gtemp": "-1", "gtopk": "x", "glen": "1e9", "gseed": "-3"}, {"gtok": "0", "glen": "-5"},
        {"glen": "²", "gseed": "٣"}, {"gtok": "9999", "glens": "<b>"}, {"gtemp": "nan", "glen": "99999999999999"},
    ],
)  # fmt: skip
def test_any_address_opens(page, runs, query):
    test = page(runs, page="generate", **query)
    assert not test.error
    assert "goes on" in words_of(test)


def test_runs_of_every_kind(page, runs):
    for run in (HOSTILE, "group/inner"):
        test = page(runs, page="generate", run=run, glen="4")
        assert not test.error
    test = page(runs, page="generate", run="damaged")
    assert len(test.error) == 1
    assert FAILED not in words_of(test)


def test_no_heads_no_mlps(page, tmp_path):
    words = page_runs.tokenizer()
    page_runs.make_run(tmp_path / "mm", words, layout="mm", steps=(8,))
    page_runs.make_run(tmp_path / "aa", words, layout="aa", steps=(8,))
    for run in ("mm", "aa"):
        test = page(tmp_path, page="generate", run=run, glen="4", look="sentences")
        assert "goes on" in words_of(test)
        assert FAILED not in words_of(test)


def test_the_written_text_is_escaped():
    text = written(["‹bos›", "<b>", "·x&", "⏎", "·"], [1, 2, 3], [0.1, 0.9, 1.0], 1, LIGHT)
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert " x&amp;" in text
    assert text.count("here") == 1
