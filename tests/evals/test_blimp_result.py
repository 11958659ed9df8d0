"""Aggregates, ties, files and figures of results on minimal pairs."""

import json

import numpy as np
import pandas as pd
import pytest
from scored_models import small_model

from workbench.data.pairs import BLIMP, PairSet, open_pairs
from workbench.errors import DataError, InputError
from workbench.evals.blimp import BlimpResult, blimp, decide
from workbench.evals.protocols import PROTOCOLS
from workbench.runs.run import latest_blimp, overall_accuracy, pairs_name
from workbench.stats import wilson


def made_result(decisions: dict[str, list[float]], **fields) -> BlimpResult:
    """A result with these values of `correct`; the phenomenon is the UID's first letter."""
    rows = [
        dict(
            paradigm=uid, phenomenon=uid[0], pair_id=index, sentence_good="g", sentence_bad="b",
            logp_good=-1.0, logp_bad=-2.0, tokens_good=1, tokens_bad=1,
            margin={1.0: 1.0, 0.5: 0.0, 0.0: -1.0}[correct], correct=correct,
        )
        for uid, values in decisions.items()
        for index, correct in enumerate(values)
    ]  # fmt: skip
    named = dict(pairs="made", source="folder", fingerprint="0" * 16)
    return BlimpResult(
        per_pair=pd.DataFrame(rows), protocol=PROTOCOLS["native"], pll=None, **(named | fields)
    )


def test_three_means_of_one_table():
    result = made_result({"a1": [1, 1, 1, 0], "a2": [1, 0], "b1": [0.5, 0.5, 0, 0, 0, 0]})
    assert result.paradigms.accuracy.to_dict() == {"a1": 0.75, "a2": 0.5, "b1": pytest.approx(1 / 6)}
    assert result.phenomena.accuracy.to_dict() == {"a": 0.625, "b": pytest.approx(1 / 6)}
    assert result.phenomena.paradigms.to_dict() == {"a": 2, "b": 1}
    overall = result.overall
    assert overall.paradigms.accuracy == pytest.approx((0.75 + 0.5 + 1 / 6) / 3)
    assert overall.phenomena.accuracy == pytest.approx((0.625 + 1 / 6) / 2)
    assert overall.micro.accuracy == pytest.approx(5 / 12)
    for share in (overall.paradigms, overall.phenomena, overall.micro):
        assert (share.n, share.ties) == (12, 2)
    low, high = wilson(0.75, 4)
    assert (result.paradigms.loc["a1", "low"], result.paradigms.loc["a1", "high"]) == pytest.approx(
        (low, high)
    )
    assert (overall.micro.low, overall.micro.high) == pytest.approx(wilson(5 / 12, 12))


@pytest.mark.parametrize(
    ("tie", "wanted"), [(0.5, [1, 0, 0.5, 0.5]), (1.0, [1, 0, 1, 1]), (0.0, [1, 0, 0, 0])]
)
def test_what_a_tie_counts(tie, wanted):
    minus = -np.inf
    good, bad = np.array([-1.0, -2.0, -3.0, minus]), np.array([-2.0, -1.0, -3.0, minus])
    assert decide(good, bad, tie).tolist() == wanted


def test_a_constant_model_is_at_chance_under_native_and_perfect_where_ties_are_right(embedded, tokenizer):
    """What babylm/evaluation-pipeline-2025#34 found: a model that knows nothing scores 100 %."""
    model = small_model(init_std=1e-30)
    ids = {uid: [tokenizer([p.sentence_good, p.sentence_bad])["input_ids"] for p in pairs]
           for uid, pairs in embedded.paradigms.items()}  # fmt: skip
    equal = {uid: sum(len(good) == len(bad) for good, bad in rows) for uid, rows in ids.items()}
    uid = max(equal, key=equal.__getitem__)
    assert equal[uid] == len(embedded.paradigms[uid])
    native = blimp(model, embedded, paradigms=[uid])
    assert native.overall.micro.ties == native.overall.micro.n
    assert native.overall.micro.accuracy == 0.5
    assert blimp(model, embedded, "paper", paradigms=[uid]).overall.micro.accuracy == 0.0
    assert blimp(model, embedded, "babylm-2025", paradigms=[uid]).overall.micro.accuracy == 1.0


def test_per_pair_scores_are_the_sentences_scores(causal, embedded):
    result = blimp(causal, embedded, limit=5)
    frame = result.per_pair
    assert len(frame) == 5 * len(embedded.paradigms)
    assert result.partial
    row = frame.iloc[7]
    loss = causal(row.sentence_bad, return_type="loss").detach()
    assert row.logp_bad == pytest.approx(-float(loss) * row.tokens_bad, rel=1e-5)
    np.testing.assert_allclose(frame.margin, frame.logp_good - frame.logp_bad)
    assert result.pair(row.paradigm, row.pair_id).logp_bad == row.logp_bad
    with pytest.raises(InputError, match="no pair 999"):
        result.pair(row.paradigm, 999)


def test_a_trained_model_is_above_chance_and_a_random_one_is_not(trained, embedded):
    random = blimp(small_model(init_std=0.02), embedded)
    learned = blimp(trained, embedded)
    assert learned.overall.paradigms.low > 0.52
    assert 0.4 < random.overall.paradigms.accuracy < 0.6


def test_progress_counts_pairs(causal, embedded):
    seen = []
    blimp(causal, embedded, limit=20, progress=lambda *report: seen.append(report))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    total = 20 * len(embedded.paradigms)
    assert seen[-1] == (1.0, f"{total} of {total} pairs")


@pytest.mark.parametrize("objective", ["clm", "mlm"])
def test_saved_and_read_again(objective, embedded, tmp_path):
    model = small_model(attention="causal" if objective == "clm" else "bidirectional")
    result = blimp(model, embedded.select(["embedded_transitive", "embedded_intransitive"]))
    path = result.save(tmp_path)
    middle = "native" if objective == "clm" else "native-original"
    name = f"final-{middle}-embedded-{result.fingerprint[:8]}.json"  # a part of the embedded pairs
    assert path == tmp_path / "blimp" / "partial" / name
    again = BlimpResult.read(path)
    pd.testing.assert_frame_equal(again.per_pair, result.per_pair)
    pd.testing.assert_frame_equal(again.paradigms, result.paradigms)
    assert again.overall == result.overall
    assert (again.pll, again.title) == (result.pll, result.title)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        path.name,
        path.with_suffix(".parquet").name,
    ]


def test_the_json_stands_alone_and_is_what_the_catalogue_reads(causal, embedded, tmp_path):
    result = blimp(causal, embedded)
    result.save(tmp_path)
    saved = latest_blimp(tmp_path)
    assert saved is not None
    assert overall_accuracy(saved) == pytest.approx(result.overall.micro.accuracy)
    assert saved["pairs"] == saved["source"] == "embedded"
    assert saved["protocol"]["name"] == "native"
    assert saved["chance"] == 0.5
    assert {row["phenomenon"] for row in saved["phenomena"]} == set(embedded.phenomena().values())
    json.dumps(saved, allow_nan=False)


def test_a_partial_result_is_not_taken_for_the_runs_figure(causal, embedded, tmp_path):
    path = blimp(causal, embedded, limit=3).save(tmp_path)
    assert path.parent == tmp_path / "blimp" / "partial"
    assert latest_blimp(tmp_path) is None


def test_a_part_of_blimp_is_never_taken_for_blimp(causal, make_pairs, tmp_path, monkeypatch):
    """A file of one paradigm used to be called BLiMP and to replace the saved result on all of it."""
    monkeypatch.setattr("workbench.data.pairs.BLIMP_PAIRS", 2)
    pair = ("The dog ran.", "The dog run.")
    rows = make_pairs(**{uid: [pair, pair] for uid in BLIMP}).paradigms
    whole = blimp(causal, PairSet("blimp", "blimp", rows))
    uid = "adjunct_island"
    part = blimp(causal, PairSet("blimp", "blimp", {uid: rows[uid]}))
    fewer = blimp(causal, PairSet("blimp", "blimp", {uid: rows[:1] for uid, rows in rows.items()}))
    folder = blimp(causal, PairSet("blimp", "folder", {"mine": rows[uid]}))
    others = [blimp(causal, PairSet("mine", "folder", {"mine": rows[uid][:n]})) for n in (1, 2)]
    results = [whole, part, fewer, folder, *others]
    assert [result.partial for result in results] == [False, True, True, False, False, False]
    assert part.title == "model on 2 pairs, a part of BLiMP, protocol native"
    assert len({result.save(tmp_path) for result in results}) == len(results)
    whole.save(tmp_path)
    saved = latest_blimp(tmp_path)
    assert saved is not None
    assert (saved["pairs"], saved["n_paradigms"], saved["n_pairs"]) == ("blimp", 67, 134)
    assert (saved["fingerprint"], saved["partial"]) == (whole.fingerprint, False)
    folder.save(tmp_path)
    assert pairs_name(latest_blimp(tmp_path)) == "blimp (folder)"


def test_an_old_result_that_hides_that_it_is_a_part_is_opened_as_one(causal, make_pairs, tmp_path):
    """Older files of a single paradigm say `partial: false`."""
    rows = make_pairs(adjunct_island=[("The dog ran.", "The dog run.")]).paradigms
    path = blimp(causal, PairSet("blimp", "blimp", rows)).save(tmp_path)
    value = json.loads(path.read_text()) | {"partial": False, "pairs": "blimp"}
    old = tmp_path / "blimp" / "000005-native-blimp.json"
    old.write_text(json.dumps(value))
    path.with_suffix(".parquet").rename(old.with_suffix(".parquet"))
    assert BlimpResult.read(old).partial
    assert latest_blimp(tmp_path) is None


def test_a_damaged_result_is_named(causal, embedded, tmp_path):
    path = blimp(causal, embedded, limit=3).save(tmp_path)
    path.with_suffix(".parquet").write_bytes(b"PAR1 not")
    with pytest.raises(DataError, match=r"not a saved result.*score the run again"):
        BlimpResult.read(path)
    path.write_text("{}")
    with pytest.raises(DataError, match="not a saved result"):
        BlimpResult.read(path)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        BlimpResult.read(path)


def test_embedded_pairs_are_never_called_blimp(causal, embedded):
    result = blimp(causal, embedded, limit=2)
    assert "not BLiMP" in result.title
    assert result.source == "embedded"


def test_frames_of_several_results_go_together(causal, embedded):
    frames = [blimp(causal, embedded, name, limit=2).to_frame() for name in ("native", "lm-eval")]
    both = pd.concat(frames)
    assert both.groupby("protocol").size().tolist() == [len(embedded.paradigms)] * 2


def test_plot_draws_a_bar_for_each_phenomenon(causal, embedded):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    result = blimp(causal, embedded, limit=2)
    axes = result.plot().axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [*result.phenomena.index, "mean over paradigms"]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([*result.phenomena.accuracy, result.overall.paradigms.accuracy])
    pyplot.close("all")


def test_the_real_blimp_has_67_paradigms_and_12_phenomena(real_data):
    pairs = open_pairs(str(real_data / "blimp"))
    result = blimp(small_model(), pairs, limit=2)
    assert len(result.paradigms) == 67
    assert len(result.phenomena) == 12
    assert result.phenomena.paradigms.sum() == 67
    assert result.title.endswith("BLiMP, protocol native")
