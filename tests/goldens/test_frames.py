"""Check the frames of the public functions on three shipped models, and the formats on disk, against records.

A case is one line of `CASES` or `WITHOUT_MODEL`. Columns, row order, strings, integers and booleans must match
exactly, floats up to the rounding of float32 on another CPU. Only `workbench.__all__`, methods of the results and the
command line are used, so that modules can move.

To record again after an intended change: `UPDATE_GOLDENS=1 pytest tests/goldens/test_frames.py`.
"""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pyarrow import parquet
from safetensors import safe_open
from small_runs import small

import workbench as wb
from apps.cli import main

FAMILY = Path(wb.__file__).parent / "zoo" / "family"
FOLDER = Path(__file__).parent / "frames"
RUNS = ("tiny-1h", "tiny-w128", "tiny-bert")
RTOL, ATOL = 1e-4, 1e-5
"""Relative to the value, and to the largest value of its column."""
ROUNDING = 2e-6
"""Absolute: effects are differences of float32 logits of about 10, which are rounded at 1e-6."""
ROWS = 100
"""Of a frame, at most about so many are recorded."""
TABLES = ("components", "head_scores", "opening", "opening_parts", "opening_tokens")
"""Of the saved summary of a run."""
AGREEMENT = ["embedded_distractor_agreement_relational_noun", "embedded_anaphor_gender_agreement"]
KNOWN = ["embedded_superlative_quantifiers", "embedded_transitive"]
"""Paradigms that all three models are above chance on."""
GOOD, BAD = "The sisters of the witch are proud.", "The sisters of the witch is proud."
ANSWERS = {"right": " was", "wrong": " were"}

pytestmark = pytest.mark.usefixtures("unchecked")


def is_masked(run) -> bool:
    return run.model.config.objective == "mlm"


def prompts(run) -> tuple[list[str], list[str]]:
    """Clean and corrupted prompts of the same numbers of tokens; a masked model answers at its mask."""
    end = "<mask> happy." if is_masked(run) else ""
    clean, corrupted = ("The dog", "The cat near the park"), ("The dogs", "The cats near the park")
    return [text + end for text in clean], [text + end for text in corrupted]


def patched(function, run, **options):
    return function(run.model, *prompts(run), **ANSWERS, **options)


def text(count: int = 3) -> list[str]:
    return wb.stories(count, split="validation")


def rows(run, count: int = 4, width: int = 40) -> torch.Tensor:
    """Token ids of the first tokens of stories, [sequence pos], BOS first."""
    ids = [
        [run.tokenizer.bos_token_id, *run.tokenizer(story, add_special_tokens=False).input_ids]
        for story in text(count)
    ]
    return torch.tensor([row[:width] for row in ids])


def matrix(run, method: str, **options):
    return wb.component_matrix(
        run, paradigms=AGREEMENT, limit=2, methods=[method], reference=text(), **options
    )


def corner(product) -> pd.DataFrame:
    """Some entries of a matrix [d_vocab d_vocab] in factors, and its singular values."""
    part = (product.A[300:306] @ product.B[:, 400:404]).double().numpy()
    return pd.DataFrame(part, columns=[f"to_{column}" for column in range(400, 404)]).assign(
        singular=product.S[:6].double().numpy()
    )


def neurons_of(run, method: str):
    clean, _ = prompts(run)
    steps: dict[str, Any] = {"steps": 4} if method in ("integrated", "conductance") else {}
    return wb.interp.attribute_neurons(
        run.model, clean, **ANSWERS, method=method, layers=[1], by_position=False, **steps
    )


@cache
def tuned_lens(name: str):
    return wb.interp.train_tuned_lens(opened(name), text(4), tokens=300)


def lens_frame(lens) -> pd.DataFrame:
    """A tuned lens in few numbers."""
    return pd.DataFrame(
        {
            "point": lens.points,
            "weight": lens.weight.double().norm(dim=(1, 2)).tolist(),
            "bias": lens.bias.double().norm(dim=1).tolist(),
        }
    )


def ablated_loss(run, **options) -> pd.DataFrame:
    tokens = rows(run)
    targets = tokens if is_masked(run) else tokens[:, 1:]
    inputs = tokens if is_masked(run) else tokens[:, :-1]
    with torch.no_grad(), wb.interp.ablated(run, "L1H0, L2 MLP, L0N17", **options) as model:
        without = model.loss(inputs, targets).item()
    with torch.no_grad():
        return pd.DataFrame({"whole": [run.model.loss(inputs, targets).item()], "without": [without]})


def study_frames(run) -> dict[str, Any]:
    found = wb.study(run, wb.stories(8, split="validation"), limit=1, quick=True)
    return {"components": found, "keys": sorted(found.to_dict())}


def knowledge(run):
    end = "<mask>." if is_masked(run) else ""
    facts = [
        f"{start} the park with her{end}" for start in ("Lily went to", "She walked to", "The girl ran to")
    ]
    found = wb.interp.knowledge_neurons(
        run.model, facts, " mom", others=[f"Tom and his{end}"], other_answers=" friends", steps=4, draws=5
    )
    return {"neurons": found, "effects": found.effects()}


def examples(run):
    return wb.interp.neuron_examples(run, text(4), layers=[2], count=2, sample=64)


CASES = {
    "patch": lambda run: patched(wb.patch, run),
    "patch-heads": lambda run: patched(wb.patch, run, site="z", by_position=False, direction="noise"),
    "patch-mean": lambda run: patched(wb.patch, run, site="mlp_out", values="mean", layers=[0, 2]),
    "patch-zero-kl": lambda run: patched(wb.patch, run, site="attn_out", values="zero", metric="kl"),
    "patch-pattern": lambda run: patched(wb.patch, run, site="pattern", by_position=False),
    "path_patch": lambda run: patched(wb.interp.path_patch, run),
    "path_patch-queries": lambda run: patched(wb.interp.path_patch, run, receivers=["L2H0.q", "L3H0"], through_mlps=True),
    "attribution_patch": lambda run: patched(wb.interp.attribution_patch, run),
    "attribution_patch-steps": lambda run: patched(wb.interp.attribution_patch, run, site="resid_pre", steps=3),
    "edge_attribution": lambda run: patched(wb.interp.edge_attribution, run),
    "check_attribution": lambda run: patched(wb.interp.check_attribution, run, steps=(0, 2), by_position=False),
    "align": lambda run: wb.interp.align(run.model, ["The dog in the park"], ["The big dog near the park"]),
    "attribute_logits": lambda run: wb.interp.attribute_logits(run, prompts(run)[0], " was", " were"),
    "attribute_pair": lambda run: wb.attribute_pair(run.model, GOOD, BAD, biases=True),
    "attribute_text": lambda run: wb.interp.attribute_text(run.model, "The dogs like Lily."),
    "logit_lens": lambda run: wb.interp.logit_lens(run, "The dog in the park is", sublayers=True),
    "logit_lens-tuned": lambda run: wb.interp.logit_lens(run, "The dogs are", lens=tuned_lens(run.name)),
    "lens_curve": lambda run: wb.interp.lens_curve(run, GOOD, BAD),
    "train_tuned_lens": lambda run: lens_frame(tuned_lens(run.name)),
    "ablated": lambda run: ablated_loss(run),
    "ablated-mean": lambda run: ablated_loss(run, how="mean", reference=text()),
    "ablated-resample": lambda run: ablated_loss(run, how="resample", reference=text(), seed=1),
    "ablation_effect": lambda run: wb.ablation_effect(
        run, {"head": "L1H0", "both": "L1H0, L2 MLP"}, how="mean", reference=text(), text=text(),
        paradigms=AGREEMENT, limit=3,
    ),
    "leave_one_out": lambda run: wb.interp.leave_one_out(run, how="resample", draws=2, reference=text(), text=text(), measure=["loss"]),
    "head_importance": lambda run: wb.interp.head_importance(run, text(), mlps=True),
    "prune_heads": lambda run: wb.interp.prune_heads(run, text(), share=0.5, orders=1),
    "component_matrix-direct": lambda run: matrix(run, "direct"),
    "component_matrix-ablate": lambda run: matrix(run, "ablate"),
    "component_matrix-resample": lambda run: matrix(run, "ablate", how="resample", draws=2),
    "component_matrix-patch": lambda run: matrix(run, "patch"),
    "component_matrix-noise": lambda run: matrix(run, "noise"),
    "component_matrix-denoise": lambda run: matrix(run, "denoise"),
    "component_matrix-gradient": lambda run: matrix(run, "gradient"),
    "smallest_circuit": lambda run: wb.smallest_circuit(
        run, None, KNOWN, limit=10, reference=text(), random_sets=2, keep=0.6
    ),
    "head_scores": lambda run: wb.head_scores(run.model, rows(run), repeats=3, repeat_length=8),
    "qk_circuit": lambda run: corner(wb.interp.qk_circuit(run.model, "L1H0")),
    "ov_circuit": lambda run: corner(wb.interp.ov_circuit(run.model, (1, 0))),
    "composition": lambda run: wb.interp.composition(run.model, draws=5),
    "attribute_neurons-contribution": lambda run: neurons_of(run, "contribution"),
    "attribute_neurons-gradient": lambda run: neurons_of(run, "gradient"),
    "attribute_neurons-integrated": lambda run: neurons_of(run, "integrated"),
    "attribute_neurons-conductance": lambda run: neurons_of(run, "conductance"),
    "attribute_neurons-ablation": lambda run: neurons_of(run, "ablation"),
    "neuron_examples": lambda run: examples(run),
    "label_neurons": lambda run: wb.interp.label_neurons(run, text(12), layers=[2], words=10),
    "neuron_survey": lambda run: wb.interp.neuron_survey(
        run, text(4), wb.stories(24, split="validation"), layers=[2], tokens=600, needed=2
    ),
    "knowledge_neurons": lambda run: knowledge(run),
    "promoted_tokens": lambda run: wb.interp.promoted_tokens(run.model, 2, 17, count=5),
    "neuron_card": lambda run: wb.neuron_card(
        run, "L2N17", text(4), stories=text(4), labels=False, count=4, before=4, after=2
    ),
    "blimp": lambda run: wb.blimp(run, paradigms=AGREEMENT, limit=5),
    "blimp-minicons": lambda run: wb.blimp(run, protocol="minicons", paradigms=AGREEMENT, limit=5),
    "blimp-babylm-2024": lambda run: wb.blimp(run, protocol="babylm-2024", paradigms=AGREEMENT, limit=5),
    "study": lambda run: study_frames(run),
}  # fmt: skip

CAUSAL_ONLY = {"component_matrix-patch", "component_matrix-noise", "component_matrix-denoise"}
"""Cases that a masked model refuses."""
SLOW = {("tiny-w128", "study")}
"""Left out: they take longer than all others and show nothing new."""


def loss(n, d):
    """A law to be fitted, nats a token."""
    return 1.1 + 60 / np.asarray(n) ** 0.4 + 300 / np.asarray(d) ** 0.35


def points(places, **options):
    """Points of a table of sizes and tokens."""
    n, d = np.array([*places], float).T
    wobble = 1 + 0.002 * np.sin(np.arange(len(n)))
    rows = pd.DataFrame(
        {"run": [f"n{size:g}" for size in n], "n": n, "tokens": d, "loss": loss(n, d) * wobble}
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        rows.to_csv("points.csv", index=False)
        return wb.scaling.points_of_table("points.csv", **options)


def grid():
    return points((n, d) for n in (2e3, 6e3, 2e4, 6e4) for d in (2e5, 6e5, 2e6, 6e6))


def budgets():
    return points((n, c / 6 / n) for c in (1e10, 3e10, 1e11) for n in (2e3, 6e3, 2e4, 6e4, 2e5))


def curves():
    return points(((n, d) for n in (2e3, 6e3, 2e4, 6e4, 2e5) for d in np.geomspace(1e5, 1e7, 8)), curves=True)


@cache
def parametric():
    return wb.scaling.fit_parametric(grid(), bootstraps=20, grid=((0.0,), (0.0, 5.0), (5.0,), (0.5,), (0.5,)))


def hours():
    speed: Any = SimpleNamespace(at=lambda n: 1e8 / np.asarray(n, float) ** 0.9, n=(2e3, 6e4), device="cpu")
    return wb.scaling.best_for_hours(parametric(), 0.01, speed)


def grammar(kind: Any):
    rows = [
        (f"n{n:g}-{seed}", n, name, 0.55 + 0.1 * factor * np.log10(n / 1e3) + 0.01 * seed, 100)
        for n in (2e3, 2e4, 2e5)
        for seed in (0, 1)
        for name, factor in (("agreement", 1.5), ("islands", 0.5))
    ]
    table = pd.DataFrame(rows, columns=["run", "n", "phenomenon", "accuracy", "pairs"])
    return wb.scaling.fit_grammar(table, kind=kind, bootstraps=20)


@contextlib.contextmanager
def some_runs():
    """A folder with three of the shipped runs and a prediction of one of them."""
    with tempfile.TemporaryDirectory() as root:
        for name in ("tiny-1h", "tiny-w32", "tiny-w128"):
            shutil.copytree(FAMILY / name, Path(root) / name)
        known = wb.load(FAMILY / "tiny-w128")
        size, tokens = known.model.config.n_params, known.checkpoint.state["tokens_seen"]
        prediction = {
            "model": known.model.config.to_dict(), "n": size, "count": "all", "measure": "loss", "tokens": tokens,
            "six_nd": 6 * size * tokens, "exact_flops": 1e15, "loss": 2.1, "low": 1.9, "high": 2.3, "law": "a law",
            "made": "2025-01-01T00:00:00+00:00", "fitted": ["tiny-1h"], "beyond": None,
        }  # fmt: skip
        (Path(root) / "predictions.json").write_text(json.dumps({"predictions": [prediction]}))
        yield root


def with_runs(function, **options):
    with some_runs() as root:
        found = function(root, **options).to_frame()
    return found


def history():
    found = wb.interp.component_history(
        wb.load("zoo/tiny-4h"), checkpoints=[512, 5859], methods=["direct"], paradigms=AGREEMENT[1:], limit=3
    )
    return {"components": found, "takeovers": found.takeovers()}


def family():
    runs = [opened(name) for name in RUNS[:2]]
    found = wb.interp.component_family(
        runs, methods=["ablate"], paradigms=AGREEMENT, limit=2, reference=text()
    )
    return {"components": found, "counts": found.counts(), "depths": found.depths()}


def weighted():
    shape = {"d_model": 16, "n_layers": 3, "n_heads": 2, "d_vocab": 100, "n_ctx": 16}
    return wb.interp.layer_weights(wb.HookedTransformer(wb.preset("tiny", residual="weighted", **shape)))


def presets() -> pd.DataFrame:
    rows = {name: json.dumps(wb.preset(name).to_dict(), sort_keys=True) for name in wb.model.config.PRESETS}
    return pd.DataFrame(rows.items(), columns=["preset", "config"])


def embedded() -> pd.DataFrame:
    return pd.DataFrame([pair.to_row() for pairs in wb.embedded_pairs(2).values() for pair in pairs])


def summaries() -> pd.DataFrame:
    return pd.DataFrame(map(dataclasses.asdict, wb.list_runs("zoo"))).drop(columns="path")


WITHOUT_MODEL = {
    "points_of_table": lambda: grid(),
    "points_of_runs": lambda: with_runs(wb.scaling.points_of_runs),
    "points_of_runs-along": lambda: with_runs(wb.scaling.points_of_runs, along=True, measure="bits_per_byte"),
    "check_predictions": lambda: with_runs(wb.scaling.check_predictions),
    "compare": lambda: with_runs(wb.compare, speed=False),
    "fit_parametric": lambda: parametric(),
    "best_for_flops": lambda: wb.scaling.best_for_flops(parametric(), 1e11),
    "best_for_hours": lambda: hours(),
    "fit_power-n": lambda: wb.scaling.fit_power(grid(), "n", bootstraps=20),
    "fit_power-d": lambda: wb.scaling.fit_power(grid(), "d", bootstraps=20, irreducible=True),
    "fit_isoflop": lambda: wb.scaling.fit_isoflop(budgets()),
    "fit_envelope": lambda: wb.scaling.fit_envelope(curves()),
    "fit_critical_batch": lambda: wb.scaling.fit_critical_batch([4.0, 3.5, 3.0, 2.6, 2.2], [1e3, 1.5e3, 3.1e3, 5e3, 1.1e4]),
    "fit_grammar-linear": lambda: grammar("linear"),
    "fit_grammar-logistic": lambda: grammar("logistic"),
    "scaling": lambda: with_runs(wb.scaling.scaling_study, bootstraps=20),
    "component_history": lambda: history(),
    "component_family": lambda: family(),
    "layer_weights": lambda: weighted(),
    "zoo_table": lambda: wb.zoo.zoo_table(),
    "list_runs": lambda: summaries(),
    "stories": lambda: pd.DataFrame({"train": wb.stories(3), "validation": text()}),
    "embedded_pairs": lambda: embedded(),
    "preset": lambda: presets(),
}  # fmt: skip


def plain(value: Any) -> Any:
    """A cell as JSON holds it: 7 digits of a float, null where there is no value, infinity as a word."""
    if isinstance(value, (tuple, list, np.ndarray)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if value is None or value is pd.NA or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return None
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.7g}") if math.isfinite(value) else str(float(value))
    return str(value)


def columns_of(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """The number of rows, and of each column the cells of up to ROWS rows that are equally far apart."""
    frame = frame.reset_index() if any(frame.index.names) else frame
    rows, frame = len(frame), frame.iloc[:: 1 + len(frame) // ROWS]
    return {"(rows)": [rows]} | {str(name): [plain(value) for value in frame[name]] for name in frame.columns}


def recorded(result: Any) -> dict[str, dict[str, list[Any]]]:
    """The frames of a result by name: one without a name, or several of a dictionary."""
    parts = result if isinstance(result, dict) else {"": result}
    frames = {name: part.to_frame() if hasattr(part, "to_frame") else part for name, part in parts.items()}
    return {
        name: columns_of(frame if isinstance(frame, pd.DataFrame) else pd.DataFrame({"value": frame}))
        for name, frame in frames.items()
    }


def check_column(where: str, golden: list[Any], found: list[Any]) -> None:
    assert len(found) == len(golden), f"{where}: {len(found)} rows, not {len(golden)}"
    floats = [isinstance(value, float) for value in golden]
    largest = max((abs(value) for value in golden if isinstance(value, float)), default=0.0)
    for row, (old, new) in enumerate(zip(golden, found, strict=True)):
        if floats[row] and isinstance(new, float):
            allowed = RTOL * abs(old) + max(ATOL * largest, ROUNDING)
            assert abs(new - old) <= allowed, f"{where}, row {row}: {new}, not {old}"
        else:
            assert (type(new), new) == (type(old), old), f"{where}, row {row}: {new!r}, not {old!r}"


def check_frames(case: str, golden: dict[str, Any], found: dict[str, Any]) -> None:
    assert list(found) == list(golden)
    for name, columns in golden.items():
        assert list(found[name]) == list(columns), f"{case} {name}: other columns"
        for column, values in columns.items():
            check_column(f"{case} {name} {column}", values, found[name][column])


def write(path: Path, value: dict[str, Any]) -> None:
    """JSON with a line for each column, so that a difference can be read."""
    lines = []
    for case, frames in value.items():
        for name, columns in frames.items():
            body = ",\n".join(
                f"  {json.dumps(column)}: {json.dumps(cells)}" for column, cells in columns.items()
            )
            lines.append((case, f" {json.dumps(name)}: {{\n{body}\n }}"))
    cases = [
        f"{json.dumps(case)}: {{\n" + ",\n".join(text for of, text in lines if of == case) + "\n}"
        for case in value
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(cases) + "\n}\n")


def check_recorded(file: str, case: str, found: dict[str, Any]) -> None:
    """Compare with what the file holds under that name, or write it when asked to."""
    path = FOLDER / f"{file}.json"
    if os.environ.get("UPDATE_GOLDENS"):
        held = json.loads(path.read_text()) if path.exists() else {}
        write(path, held | {case: found})
    check_frames(case, json.loads(path.read_text())[case], found)


@pytest.fixture(autouse=True)
def cache_folder(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@cache
def opened(name: str):
    """A shipped run whose model is in float64, so that the record is the same on every CPU: in float32 the
    order of sums differs, and effects, which are small differences of logits of about 10, differ with it."""
    run = wb.load(f"zoo/{name}")
    run.model.double()
    return run


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name in RUNS for case in CASES if (name, case) not in SLOW]
)
def test_frames_of_a_model(name, case):
    run = opened(name)
    if case in CAUSAL_ONLY and is_masked(run):
        with pytest.raises(wb.WorkbenchError):
            CASES[case](run)
        return
    check_recorded(name, case, recorded(CASES[case](run)))


@pytest.mark.parametrize("case", WITHOUT_MODEL)
def test_frames_without_a_model(case):
    check_recorded("without-model", case, recorded(WITHOUT_MODEL[case]()))


def test_every_function_has_a_case():
    others = {
        "HookedTransformer",
        "ModelConfig",
        "SequenceClassifier",
        "WorkbenchError",
        "BlimpResult",
        "Run",
    }
    others |= {"load", "load_tuned_lens"}  # every case loads a run; the lens has a test of its own
    others |= {"inference"}  # times
    others |= {"train", "resume", "probe"}  # not of this package
    others |= set(wb.runs.__all__) | {"train_tokenizer", "load_tokenizer", "export", "save_run"}  # tests/runs
    packages = {"data", "evals", "interp", "model", "plots", "runs", "scaling", "zoo"}
    public = set(wb.__all__) - packages
    public |= {
        name for package in (wb.data, wb.evals, wb.interp, wb.scaling, wb.zoo) for name in package.__all__
    }
    named = {case.partition("-")[0] for case in [*CASES, *WITHOUT_MODEL]}
    assert public - others == (named - {"scaling", "list_runs"}) | {"scaling_study"}


def test_a_tuned_lens_is_read_as_it_was_saved(tmp_path):
    run = wb.load("zoo/tiny-1h")
    lens = wb.interp.train_tuned_lens(run, text(4), tokens=300)
    again = wb.interp.load_tuned_lens(lens.save(tmp_path / "lens"), run)
    pd.testing.assert_frame_equal(lens_frame(lens), lens_frame(again))
    check_recorded("formats", "tuned lens", layout(tmp_path / "lens"))


def keys(value: Any, under: str = "") -> list[str]:
    """The paths of all keys in a JSON value; of lists those of every entry."""
    if isinstance(value, dict):
        return [under, *(path for name, each in value.items() for path in keys(each, f"{under}/{name}"))]
    if isinstance(value, list):
        return list(dict.fromkeys([under, *(path for each in value for path in keys(each, f"{under}/*"))]))
    return [under]


def content(file: Path) -> list[str]:
    """What a file is made of: keys, columns with their types, tensors with their shapes."""
    if file.suffix == ".json" and file.name != "tokenizer.json":
        return sorted(set(keys(json.loads(file.read_text()))) - {""})
    if file.suffix == ".jsonl":
        return sorted(
            {path for line in file.read_text().splitlines() for path in keys(json.loads(line)) if path}
        )
    if file.suffix == ".yaml":
        return sorted(set(keys(yaml.safe_load(file.read_text()))) - {""})
    if file.suffix == ".parquet":
        return [f"{field.name} {field.type}" for field in parquet.read_schema(file)]
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as tensors:
            return sorted(
                f"{name} {list(part.get_shape())} {part.get_dtype()}"
                for name in tensors.keys()  # noqa: SIM118
                for part in [tensors.get_slice(name)]
            )
    return []


def layout(folder: Path) -> dict[str, dict[str, list[str]]]:
    """The files under a folder and what each is made of."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {"": {str(file.relative_to(folder)): content(file) for file in files}}


def shipped(run) -> pd.DataFrame:
    saved, metrics = run.blimp(), run.metrics
    return pd.DataFrame(
        {
            "step": [run.step],
            "checkpoints": [run.checkpoints],
            "parameters": [run.model.config.n_params],
            "d_vocab": [len(run.tokenizer)],
            "blimp": [saved["overall"]["accuracy"]],
            "data": [sorted(run.data_card)],
            "config": [sorted(run.config.to_dict())],
            "rows": [len(metrics)],
            "metrics": [sorted(metrics.columns)],
            "loss": [metrics[metrics.kind == "eval"].loss.iloc[-1]],
        }
    )


def explained(run, table: str) -> dict[str, list[Any]]:
    """The first rows of a table of the saved summary, and the sum of each column of numbers."""
    from workbench.interp.summary import read_table  # the facade has no reader of summaries

    frame = read_table(run.path, run.step, table)
    if frame is None:
        return {}
    totals = frame.select_dtypes("number").astype(float).sum().to_frame().T
    return columns_of(pd.concat([frame.head(2).astype(object), totals.astype(object)], ignore_index=True))


@pytest.mark.parametrize("name", sorted(path.name for path in FAMILY.glob("tiny-*")))
def test_a_shipped_run(name):
    """Its files, and what is read from them."""
    run = opened(name)
    folder = FAMILY / name
    files = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
    result = type(wb.blimp(opened("tiny-w32"), paradigms=AGREEMENT[:1], limit=1))
    scores = {
        path.stem: result.read(path).to_frame().iloc[::8]
        for path in sorted((folder / "blimp").glob("*.json"))
    }
    tables = {table: explained(run, table) for table in TABLES}
    found = {"files": {"file": files}, "run": columns_of(shipped(run))} | recorded(scores) | tables
    check_recorded("shipped", name, found)


def test_what_a_new_run_and_its_results_write(tmp_path, capsys):
    from training.session import train

    path = tmp_path / "run"
    train(small("train.steps=6", "train.checkpoint_every=3", "model.n_ctx=64"), path, quiet=True)
    run = wb.load(path)
    check_recorded("formats", "run", layout(path))
    wb.blimp(run, paradigms=AGREEMENT, limit=2, tokenizer=run.tokenizer).save(run)
    check_recorded("formats", "blimp", layout(path / "blimp"))
    found = wb.component_matrix(
        run, paradigms=AGREEMENT, limit=1, methods=["direct", "ablate"], reference=text(2)
    )
    found.save(tmp_path / "matrix")
    check_recorded("formats", "component matrix", layout(tmp_path / "matrix"))
    again = type(found).read(tmp_path / "matrix")
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    prompts = ["--clean", "The dog", "--corrupted", "The dogs", "--right", " was", "--wrong", " were"]
    commands = {
        "patch": ["patch", "zoo/tiny-1h", *prompts, "--out", tmp_path / "patch"],
        "explain": ["explain", path, "--limit", 1, "--stories", 2, "--methods", "direct", "--quiet"],
    }
    places = {"patch": tmp_path / "patch", "explain": path / "explain"}
    for name, words in commands.items():
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err
        check_recorded("formats", name, layout(places[name]))
