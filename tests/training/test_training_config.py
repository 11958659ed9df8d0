"""Settings: what is accepted, and what a malformed one is answered with."""

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from small_runs import small

from training.config import DEFAULT_MINUTES, read_settings, resolve
from workbench.errors import ConfigError
from workbench.model.presets import PRESETS

MALFORMED = {
    # name: (YAML, words of the message)
    "unknown section": ("modle: {}", r"modle is not a field\. Did you mean 'model'\?"),
    "unknown model key": (
        "model: {d_modle: 64}",
        r"model\.d_modle is not a field\. Did you mean 'd_model'\?",
    ),
    "unknown data key": ("data: {sorce: x}", r"data\.sorce is not a field\. Did you mean 'source'\?"),
    "unknown train key": ("train: {learning_rate: 1}", r"train\.learning_rate is not a field\. (Did|Choose)"),
    "unknown track key": ("track: {wand: true}", r"track\.wand is not a field\. Did you mean 'wandb'\?"),
    "unknown preset": ("preset: tinny", r"no preset is called 'tinny'\. Did you mean 'tiny'\?"),
    "preset is a list": ("preset: [tiny]", r"no preset is called \['tiny'\]"),
    "section is a list": ("train: [1]", r"train must be a mapping of fields"),
    "section is text": ("model: tiny", r"model must be a mapping of fields"),
    "text for a number": ("train: {lr: fast}", r"train\.lr: .*number.*'fast'"),
    "text for a whole number": ("model: {n_layers: two}", r"model\.n_layers: .*integer.*'two'"),
    "half a layer": ("model: {n_layers: 1.5}", r"model\.n_layers: .*integer.*'1\.5'"),
    "list for a number": ("train: {lr: [1]}", r"train\.lr: .*number"),
    "mapping for a number": ("train: {steps: {a: 1}}", r"train\.steps: .*integer"),
    "yes for a number": ("train: {batch_size: yes}", r"train\.batch_size must be a number; found True"),
    "number for a yes": ("train: {compile: 7}", r"train\.compile: .*boolean.*'7'"),
    "no date": ("data: {source: 2024-01-01}", r"data\.source: .*string"),
    "zero layers": ("model: {n_layers: 0}", r"model\.n_layers must be a whole number of at least 1; found 0"),
    "negative width": ("model: {d_model: -8}", r"model\.d_model must be .* at least 1; found -8"),
    "heads do not divide": (
        "model: {d_model: 100, n_heads: 3}",
        r"model\.n_heads = 3 does not divide model\.d_model = 100",
    ),
    "odd rotary": ("model: {positions: rotary, d_head: 5}", r"model\.d_head = 5 must be even"),
    "unknown position": ("model: {positions: sinus}", r"model\.positions: .*'learned'.*'sinus'"),
    "unknown norm": ("model: {norm: BatchNorm}", r"model\.norm: "),
    "mlm and causal": (
        "model: {objective: mlm, attention: causal}",
        r"model\.objective = mlm contradicts model\.attention = causal",
    ),
    "dropout of one": ("model: {dropout: 1.0}", r"model\.dropout must lie in \[0, 1\); found 1\.0"),
    "vocabulary too small": ("model: {d_vocab: 3}", r"model\.d_vocab must hold the 4 special tokens"),
    "zero steps": ("train: {steps: 0}", r"train\.steps must be at least 1; found 0"),
    "zero minutes": ("train: {minutes: 0}", r"train\.minutes must be above 0; found 0"),
    "two limits": ("train: {steps: 5, minutes: 1}", r"train\.steps and train\.minutes are both set"),
    "three limits": (
        "train: {steps: 5, tokens: 9, minutes: 1}",
        r"train\.steps and train\.tokens and train\.minutes",
    ),
    "negative rate": ("train: {lr: -0.1}", r"train\.lr must be from 0 to 10; found -0\.1"),
    "rate of zero": ("train: {lr: 0}", r"train\.lr must be above 0; found 0"),
    "rate not a number": ("train: {lr: .nan}", r"train\.lr must be from 0 to 10; found nan"),
    "infinite rate": ("train: {lr: .inf}", r"train\.lr must be from 0 to 10; found inf"),
    "clip infinite": ("train: {clip: .inf}", r"train\.clip must be at least 0; found inf"),
    "warmup beyond": ("train: {warmup: 2}", r"train\.warmup must be from 0 to 1; found 2"),
    "beta of one": ("train: {beta2: 1.0}", r"train\.beta2 must be from 0 to 0\.99999; found 1\.0"),
    "eps zero": ("train: {eps: 0}", r"train\.eps must be above 0; found 0"),
    "batch of zero": ("train: {batch_size: 0}", r"train\.batch_size must be from 1 to 65536; found 0"),
    "threads": ("train: {threads: 0}", r"train\.threads must be from 1 to 1024; found 0"),
    "negative seed": ("train: {seed: -1}", r"train\.seed must be from 0"),
    "unknown dtype": ("train: {dtype: float16}", r"train\.dtype: .*'auto'.*'float16'"),
    "negative limit of stories": ("data: {limit: 0}", r"data\.limit must be at least 1; found 0"),
    "nothing but a list": ("- 1\n- 2", r"holds no mapping of fields"),
    "nothing but text": ("tiny", r"holds no mapping of fields"),
    "empty": ("", r"holds no mapping of fields"),
    "tabs": ("train:\n\tsteps: 5", r"is not valid YAML: .*line 2"),
    "unclosed": ("train: {steps: 5", r"is not valid YAML"),
    "duplicate section": ("train: {}\ntrain: {}", r"the key 'train' stands twice"),
    "duplicate key": ("train: {steps: 1, steps: 2}", r"the key 'steps' stands twice"),
    "key is a number": ("model: {1: 2}", r"the key 1 is not text"),
    "python object": (
        "train: !!python/object/apply:os.system [ls]",
        r"is not valid YAML: .*could not determine",
    ),
    "billion laughs": (
        "a: &a [x, x, x, x, x, x, x, x]\n"
        + "\n".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]" for a, b in pairwise("abcdefgh")),
        r"[a-h] is not a field",
    ),
    "two documents": ("train: {}\n---\ntrain: {}", r"is not valid YAML"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_answered_in_one_line(name, tmp_path):
    text, words = MALFORMED[name]
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    began = time.monotonic()
    with pytest.raises(ConfigError, match=words) as error:
        read_settings(file)
    assert time.monotonic() - began < 20  # it does not hang
    assert "\n" not in str(error.value)
    assert "experiment.yaml" in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("größe: 1".encode("latin-1"))
    (tmp_path / "large.yaml").write_text("# " + "x" * 10_000_000)
    (tmp_path / "folder").mkdir()
    for name, words in {
        "missing.yaml": "cannot read the configuration .*missing.yaml: No such file",
        "folder": "cannot read the configuration .*folder: Is a directory",
        "latin.yaml": r"latin\.yaml is not UTF-8 text",
        "large.yaml": r"large\.yaml is over 1 MB",
    }.items():
        with pytest.raises(ConfigError, match=words):
            read_settings(tmp_path / name)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("lr", r"--set takes field=value, such as train\.lr=0\.001; found 'lr'"),
        ("=3", r"--set takes field=value"),
        ("train.lr=", r"train\.lr|resolved"),
        ("train.lr.peak=1", r"--set train\.lr\.peak: lr holds 0\.1, not a mapping"),
        ("lr=1", r"lr is not a field\. Did you mean|lr is not a field\. Choose from"),
        ("train.lr={", r"--set train\.lr: '\{' is not a valid value"),
        ("train.lrr=1", r"train\.lrr is not a field\. Did you mean 'lr'\?"),
    ],
)
def test_malformed_assignments(assignment, words):
    if assignment == "train.lr=":  # an empty value is YAML's null: the default
        assert resolve({}, assignments=[assignment]).train.lr == resolve({}).train.lr
        return
    with pytest.raises(ConfigError, match=words):
        resolve({"train": {"lr": 0.1}}, assignments=[assignment])


@pytest.mark.parametrize("text", ["1e-3", "'1e-3'", "1.0e-3", "0.001"])
def test_a_number_however_it_is_written(text, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(f"train: {{lr: {text}, tokens: 1e6}}")
    settings = read_settings(file)
    assert settings.train.lr == 0.001
    assert settings.train.tokens == 1_000_000


def test_order_of_precedence():
    settings = resolve({"preset": "nano", "model": {"d_model": 96}}, assignments=["model.n_heads=6"])
    assert (settings.model.d_model, settings.model.n_heads) == (96, 6)
    assert settings.model.n_layers == PRESETS["nano"]["n_layers"]
    assert resolve({"preset": "nano"}, preset="small").model.d_model == 256


def test_open_choices_are_made():
    settings = resolve({})
    assert settings.train.minutes == DEFAULT_MINUTES
    assert settings.train.lr == 3e-3
    assert resolve({}, "base").train.lr == pytest.approx(3e-3 / 4**0.75, rel=0.05)
    assert resolve({}, "nano").train.lr > resolve({}, "base").train.lr


def test_settings_survive_their_file(tmp_path):
    from workbench.runs.folder import read_config, write_config

    settings = small("model.dropout=0.25", "data.source='ünï \"quoted\" # path: x'", "train.lr=1e-300")
    write_config(tmp_path, settings.to_dict())
    assert resolve(read_config(tmp_path)) == settings


def test_a_mistake_leaves_no_run_folder_and_takes_a_second(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("train: {stepz: 5}")
    root = Path(__file__).resolve().parents[2]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "training", str(file), "--out", str(tmp_path / "run")],
        capture_output=True, text=True, cwd=root, timeout=60,
    )  # fmt: skip
    took = time.monotonic() - began
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: {file}: train.stepz is not a field. Did you mean 'steps'?\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml"]
    assert took < 5, "settings are checked before anything heavy is imported"
