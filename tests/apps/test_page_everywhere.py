"""The page opens runs of every architecture, ours and imported ones."""

from pathlib import Path

import page_runs
import pytest
from hf_folders import make_folder

import workbench as wb
from apps.answers import explain
from apps.charts.component_map import component_map
from workbench.interp.components import list_components
from workbench.runs.foreign import import_run

OURS = {
    "attention-free": dict(layout="mmm"),
    "attention only": dict(layout="aaa", positions="alibi", windows=(0, 6), n_heads=2),
    "mixed": dict(layout="maa(am)m", n_key_value_heads=2, positions="rotary", norm="RMSNorm", gated=True),
    "weighted": dict(n_layers=3, residual="weighted", norm_place="normformer", positions="t5", mlp_depth=2),
    "no norms": dict(norm="none", positions="shaw", d_value=12, unembed_bias=True),
    "post": dict(norm_place="post", positions="sinusoidal", activation="solu_ln", tied=False),
    "albert": dict(attention="bidirectional", norm_place="post", embed_norm=True, mlm_head=True, token_types=2,
                   unembed_bias=True, sharing="all", d_embed=16, activation="prelu"),
}  # fmt: skip
FAMILIES = ("gpt_neo", "llama", "bert", "roberta")
NAMES = [*OURS, *FAMILIES]


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("every") / "runs"
    words = page_runs.tokenizer()
    for name, fields in OURS.items():
        page_runs.make_run(root / name, words, steps=(8,), **fields)
    for family in FAMILIES:
        import_run(make_folder(root.parent / family, family), root / family)
    return root


def said(page, kind: str) -> list[str]:
    return [getattr(each, "body", None) or getattr(each, "value", "") for each in page.get(kind)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("look", ["pair", "text"])
def test_every_run_opens(page, every, name, look):
    query = {"look": "text", "text": "The cat was happy."} if look == "text" else {}
    test = page(every, run=name, **query)
    assert not test.error, test.error[0].value
    assert test.selectbox(key="run").value == name
    captions = [text.replace("\\", "") for text in said(test, "caption")]
    sums = [text for text in captions if "sum of contributions" in text]
    assert len(sums) == (1 if look == "text" else 2)
    # Contributions are shown with 4 decimals; what float32 leaves unexplained stays below them.
    assert all(abs(float(text.rpartition("rounding ")[2].rstrip("."))) < 1e-3 for text in sums)
    config = wb.load(every / name).model.config
    assert any(f"{config.n_params:,} parameters" in text for text in captions)
    attends = any("a" in kind for kind in config.blocks)
    parts = explain.part_labels(list_components(config, embeddings=True, biases=True))
    assert test.selectbox(key="head").options == parts
    assert any("This model has no attention" in text for text in said(test, "markdown")) == (not attends)
    if attends:
        heads = explain.head_labels(list_components(config, embeddings=True, biases=True))
        test.selectbox(key="head").set_value(heads[-1]).run()
        assert not test.exception
        assert any(heads[-1] in text for text in said(test, "markdown"))


def test_a_head_of_one_run_is_no_head_of_the_next(page, every):
    test = page(every, run="mixed", head="L2H3")
    assert test.selectbox(key="head").value == "L2H3"
    for name in ("attention-free", "attention only"):
        test.selectbox(key="run").set_value(name).run()
        assert not test.exception
        assert not test.error
    assert test.selectbox(key="head").value != "L2H3"


def test_word_pieces_are_shown_as_they_read_in_the_text(page, every):
    test = page(every, run="bert", look="text", text="The cats liked Lily.")
    shown = "".join(text for text in said(test, "html") if "wb-text" in text)
    assert "##" not in shown  # tokens are decoded in context, so that together they are the text
    assert "[UNK]" not in shown


@pytest.mark.parametrize("layout", ["maa(am)m", "aa", "mm"])
def test_the_map_leaves_missing_parts_empty(layout):
    config = wb.ModelConfig(layout=layout, n_heads=2, d_model=8)
    rows = [
        {"layer": f"L{part.layer}", "column": "MLP" if part.head is None else f"H{part.head}",
         "component": part.label, "what": "w", "nats": 0.5}
        for part in list_components(config, embeddings=True, biases=True) if part.layer is not None
    ]  # fmt: skip
    spec = component_map(rows).to_dict()
    cells = next(data for data in spec["datasets"].values() if "component" in data[0])
    assert len(cells) == len(rows)
    names = next(data for data in spec["datasets"].values() if "component" not in data[0])
    assert [each["text"] for each in names] == ["H0", "H1"] * ("a" in layout) + ["MLP"] * ("m" in layout)
    assert spec["layer"][0]["encoding"]["y"]["sort"] == [
        "",
        *(f"L{index}" for index in range(config.n_layers)),
    ]
