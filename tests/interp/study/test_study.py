"""A study is what its parts say one by one, on every kind of model."""

import json

import numpy as np
import page_runs
import pytest

from workbench.data.embedded.stories import stories
from workbench.data.pairs import open_pairs
from workbench.errors import InputError
from workbench.interp.ablation import ablation_effect
from workbench.interp.heads import head_scores
from workbench.interp.study import STAGES, paper_layer, study
from workbench.interp.texts import story_rows
from workbench.runs.run import load

pytestmark = pytest.mark.usefixtures("unchecked")

PAIRS = open_pairs(None).select(["embedded_transitive", "embedded_principle_A_domain"], 3)
TEXTS = stories(10, split="validation")
KINDS = {
    "plain": {}, "masked": dict(attention="bidirectional", layout="mam"), "mlps": dict(layout="mm"),
    "heads": dict(layout="aa"), "post": dict(layout="(am)(am)", norm_place="post", n_key_value_heads=2),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    words = page_runs.tokenizer()
    for name, fields in KINDS.items():
        page_runs.make_run(root / name, words, (8,), **fields)
    return root


def studied(root, name, **options):
    return study(load(root / name), TEXTS, pairs=PAIRS, quick=True, **options)


@pytest.fixture(scope="module")
def plain(root):
    told = []
    found = studied(root, "plain", progress=lambda share, stage: told.append((share, stage)))
    return found, told


def test_it_says_what_its_parts_say(plain, root):
    found, _ = plain
    values = found.to_dict()
    run = load(root / "plain")
    heads = head_scores(run.model, story_rows(run.tokenizer, TEXTS, 64, end=False), repeats=2)
    by_name = {row["head"]: row for row in values["heads"]}
    assert list(by_name) == [f"L{layer}H{head}" for layer in (0, 1) for head in range(4)]
    assert by_name["L1H2"]["copying"] == pytest.approx(heads.copying[1, 2], rel=1e-5)
    profile = [one["value"] for one in by_name["L1H2"]["offsets"]]
    np.testing.assert_allclose(profile, heads.profile.value[:, 1, 2], rtol=1e-5)
    alone = ablation_effect(run, "L1H2", text=TEXTS, measure=("loss",)).loss_intervals[0]
    assert list(by_name["L1H2"]["loss"].values()) == pytest.approx(list(alone), rel=1e-4)
    both = ablation_effect(run, "L1H2", pairs=PAIRS, measure=("pairs",))
    assert by_name["L1H2"]["accuracy"]["value"] == pytest.approx(both.accuracy_change[0], rel=1e-5)
    assert sum(values["kinds"].values()) == 8
    assert values["pairs"]["n"] == 6
    assert values["loss"]["uniform"] == pytest.approx(np.log(run.checkpoint.config.d_vocab), rel=1e-5)
    assert values["training"]["curve"] == [{"step": 8, "loss": 2.5}]
    assert values["sample"]["text"].startswith("Once upon a time")
    assert values["omitted"] == {}


def test_the_papers_neurons_and_controls(plain, root):
    found, _ = plain
    shown = [(one.label, one.why) for one in found.neurons if one.trained]
    config = load(root / "plain").checkpoint.config
    assert paper_layer(config) == 0  # one before the last
    hero = found.protagonist.best.label
    assert dict(shown)[hero] == "protagonist"
    whys = [why for label, why in shown if label != hero]
    assert set(whys) <= {"first", "second", "greatest total", "random"}
    (one,) = [one for one in found.neurons if one.why == "protagonist"]
    firsts = [passage for passage in one.passages if passage.kind == "first mention"]
    assert len(firsts) == 3
    assert all(any(name in "".join(passage.tokens) for name in found.protagonist.names) for passage in firsts)
    assert whys.count("random") == 2
    assert not [one for one in found.neurons if not one.trained and one.why in ("random", "protagonist")]
    for one in found.neurons:
        top = [passage for passage in one.passages if passage.kind == "top"]
        assert [passage.kind for passage in one.passages].count("random") == 1
        assert top[0].values.max() == pytest.approx(one.greatest, rel=1e-5)
    most = max((one for one in found.neurons if one.trained and one.layer == 0), key=lambda one: one.mean)
    assert most.why in ("greatest total", "first", "second", "protagonist")


def test_the_attention_picture(plain):
    shown = plain[0].attention
    assert shown.pattern.shape == (4, len(shown.tokens), len(shown.tokens))
    np.testing.assert_allclose(shown.pattern.sum(-1), 1, rtol=1e-5)
    assert 0 <= shown.query < len(shown.tokens)


def test_progress_goes_on_and_ends(plain):
    shares = [share for share, _ in plain[1]]
    assert np.diff(shares).min() > -1e-9
    assert shares[-1] == 1.0
    assert {stage for _, stage in plain[1]} == {*STAGES, "done"}


def test_it_is_json_and_repeats(plain, root):
    text = json.dumps(plain[0].to_dict(), allow_nan=False)
    assert json.dumps(studied(root, "plain").to_dict(), allow_nan=False) == text
    frame = plain[0].to_frame()
    assert {"L0H0", "L0 MLP", "L1 MLP"} <= set(frame.component)
    assert frame.set_index("component").loc["L0H0", "kind"] in ("distance", "semantic", "mixed", "uniform")


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("masked", {"sample"}),
        ("mlps", {"heads"}),
        ("heads", {"protagonist", "neurons", "labels"}),
        ("post", set()),
    ],
)
def test_other_models_leave_out_what_they_lack(root, name, missing):
    values = studied(root, name).to_dict()
    assert set(values["omitted"]) == missing
    json.dumps(values, allow_nan=False)
    assert (values["heads"] == []) == ("heads" in missing)
    assert (values["neurons"] == []) == ("neurons" in missing)


def test_bad_input(root):
    run = load(root / "plain")
    with pytest.raises(InputError, match="A study needs four stories or more; found 3"):
        study(run, TEXTS[:3])
    run.model.tokenizer = None
    with pytest.raises(InputError, match="no tokenizer, which a study needs"):
        study(run.model, TEXTS)
