"""Each verb: what it prints, what it makes, what it refuses."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apps.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
ALL = [name for group in COMMANDS.values() for name in group]
SMALL = ("--set", "data.n_stories=60", "--set", "train.eval_tokens=64", "--set", "train.final_eval_tokens=64",
         "--set", "model.d_model=16", "--set", "model.d_mlp=32", "--set", "model.d_vocab=300", "--set", "model.n_ctx=16",
         "--set", "train.batch_size=2", "--float32", "--threads", "1", "--quiet")  # fmt: skip


def outside(*words, **kwargs):
    """The command in a process of its own."""
    command = [sys.executable, "-m", "apps.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, **kwargs)


def test_help_loads_nothing_heavy():
    heavy = ["torch", "rich", "pydantic", "transformers", "streamlit", "pandas", "numpy", "wandb", "datasets"]
    code = f"import sys, apps.cli; apps.cli.main(['--help']); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("[]\n")
    for verb in ALL:
        assert f"\n  {verb} " in done.stdout


@pytest.mark.parametrize("verb", ALL)
def test_each_verb_explains_itself_with_examples(verb, workbench):
    for words in ((verb, "--help"), ("help", verb)):
        said = workbench(*words)
        assert said.code == 0
        assert said.out.startswith(f"Usage: workbench {verb}")
        assert f"  workbench {verb} " in said.out.split("examples:")[-1] or verb in ("demo", "data", "app")
        assert max(map(len, said.out.splitlines())) <= 120


@pytest.mark.parametrize("verb", ["train", "resume", "list", "show", "generate", "presets", "demo", "app"])
def test_verbs_load_torch_only_when_they_run(verb):
    code = f"import sys, apps.cli\ntry: apps.cli.main(['{verb}', '--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("False\n"), done.stderr


def test_bare_and_version(workbench):
    assert workbench().out == workbench("--help").out == workbench("help").out
    assert workbench("--version").out.startswith("workbench 0.")


MISTAKES = {
    ("trian",): "there is no command 'trian'. Did you mean 'train'?",
    ("train", "--stps", "5"): "workbench train: There is no option --stps. Did you mean '--steps'?",
    ("train", "extra"): "workbench train: Got unexpected extra argument(s) (extra).",
    ("train", "--steps", "many"): "workbench train: Invalid value for '--steps': 'many' is no whole number",
    ("train", "--steps", "1.5"): "'1.5' is no whole number; write 5000, 1e6 or 2.5M",
    ("train", "--steps"): "Option '--steps' requires an argument.",
    ("train", "--steps", "0"): "train.steps must be at least 1; found 0.",
    ("train", "--minutes", "-1"): "train.minutes must be from 0 to 525600; found -1.0.",
    ("train", "--minutes", "nan"): "train.minutes must be from 0 to 525600; found nan.",
    (
        "train",
        "--steps",
        "5",
        "--minutes",
        "1",
    ): "train.steps and train.minutes are both set; a run has one limit.",
    ("train", "--preset", "tinny"): "no preset is called 'tinny'. Did you mean 'tiny'?",
    ("train", "--objective", "mml"): "'--objective': 'mml' is not one of 'clm', 'mlm'.",
    (
        "train",
        "--config",
        "nowhere.yaml",
    ): "cannot read the configuration nowhere.yaml: No such file or directory.",
    ("train", "--set", "model.d_modle=3"): "model.d_modle is not a field. Did you mean 'd_model'?",
    ("train", "--set", "model.n_heads=3"): "model.n_heads = 3 does not divide model.d_model = 128",
    ("train", "--set", "lr"): "--set takes field=value, such as train.lr=0.001; found 'lr'.",
    ("train", "--name", "../up"): "--name is a bare name, such as tiny; found '../up'.",
    ("train", "--name", "a", "--out", "b"): "--out and --name both name the run; give one of them.",
    ("train", "--bf16", "--float32"): "--bf16, --float32 and --auto choose the weights' type",
    ("train", "--data", "nowhere.txt"): "nowhere.txt",
    (
        "train",
        "--tokenizer",
        "nowhere.json",
    ): "nowhere.json does not exist; a tokenizer is a tokenizer.json file.",
    ("resume",): "workbench resume: Missing argument 'RUN'.",
    ("resume", "runs/nowhere"): "there is no run runs/nowhere.",
    (
        "list",
        "nowhere",
    ): "there is no folder nowhere; `workbench train --out nowhere/tiny` trains a first run.",
    ("list", "--sort", "size"): "'--sort': 'size' is not one of 'name',",
    ("show", "nowhere"): "there is no run nowhere.",
    ("generate", "nowhere"): "there is no run nowhere.",
    ("generate", "x", "--prompt", " "): "--prompt is empty; give the beginning of a text",
    ("generate", "x", "--tokens", "0"): "--tokens must be at least 1; found 0.",
    ("demo", "--seconds", "0", "--no-serve"): "--seconds must lie between 0 and 3600; found 0.",
    ("app", "--runs", "nowhere"): "there is no folder nowhere; train a run first, or `workbench demo`.",
}


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_and_code_2(words, workbench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = workbench(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1
    assert said.err.startswith("Error: ")
    assert MISTAKES[words] in said.err
    assert list(tmp_path.iterdir()) == [], "something was left behind"


def test_train_resume_list_show_generate(workbench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = workbench(
        "train", *SMALL, "--steps", "6", "--name", "a", "--seed", "3", "--set", "model.n_layers=2"
    )
    assert (said.code, said.out) == (0, "Finished at step 6: runs/a. Look at it: workbench show runs/a\n")
    assert "step 6  validation loss" in said.err
    again = workbench("train", *SMALL, "--steps", "6", "--name", "a")
    assert (again.code, again.out) == (2, "")
    assert "the run runs/a already exists; continue it with `workbench resume runs/a`" in again.err
    assert workbench("resume", "runs/a").code == 2
    said = workbench("resume", "runs/a", "--steps", "2", "--quiet")
    assert (said.code, said.out) == (0, "Finished at step 8: runs/a. Look at it: workbench show runs/a\n")
    said = workbench("list")
    assert said.out.splitlines()[0].split() == [
        "run", "parameters", "kind", "step", "tokens", "loss", "bits/byte", "pairs", "minutes", "status",
    ]  # fmt: skip
    assert said.out.splitlines()[2].split()[:5] == ["a", "9,536", "clm", "8", "256"]
    shown = workbench("show", "runs/a").out
    assert "runs/a at step 8" in shown
    assert "checkpoints (6): 0, 1, 2, 4, 6, 8" in shown
    written = [
        workbench("generate", "runs/a", "--prompt", "The", "--tokens", "5", "--seed", "1").out for _ in "ab"
    ]
    assert written[0] == written[1]
    assert written[0].startswith("The")
    config = (tmp_path / "runs/a/config.yaml").read_text()
    assert "seed: 3" in config.split("train:")[0]
    assert "seed: 3" in config.split("train:")[1]


def test_python_m_training_is_the_same_code(workbench, tmp_path, monkeypatch, capsys):
    from small_runs import digests

    from training.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.yaml").write_text("preset: nano\ntrain: {steps: 3}\n")
    assert main(["a.yaml", *SMALL, "--out", "runs/a"]) == 0
    capsys.readouterr()
    assert workbench("train", "--preset", "nano", "--steps", "3", *SMALL, "--out", "runs/b").code == 0
    assert digests(tmp_path / "runs/a") == digests(tmp_path / "runs/b")


def test_flags_go_over_the_file_and_set_over_flags(tmp_path, monkeypatch):
    from training import command
    from workbench.command import run_command

    (tmp_path / "a.yaml").write_text("train: {minutes: 3, lr: 0.5, seed: 1}\nmodel: {d_model: 64}\n")

    def settings(*words):
        made = []
        monkeypatch.setattr("training.session.train", lambda settings, *_, **__: made.append(settings))
        monkeypatch.setattr(command, "report", lambda outcome: 0)
        run_command(command.train, "workbench train", ["--config", str(tmp_path / "a.yaml"), *words])
        return made[0]

    assert settings().train.minutes == 3
    made = settings("--tokens", "2.5k", "--seed", "4", "--set", "train.seed=5", "--wandb", "--compile")
    assert (made.train.minutes, made.train.tokens, made.train.lr) == (None, 2500, 0.5)
    assert (made.train.seed, made.model.seed, made.track.wandb, made.train.compile) == (5, 4, True, True)
    assert settings("--no-wandb").track.wandb is False
    assert settings("--objective", "mlm").model.attention == "bidirectional"
    assert settings("--bf16").train.dtype == "bfloat16"
    assert settings().train.dtype == "auto"


def test_list_and_show(workbench, runs):
    said = workbench("list", runs)
    assert [line.split()[0] for line in said.out.splitlines()[2:]] == ["one", "two"]
    assert " mlm " in said.out
    sorted_by_size = workbench("list", runs, "--sort", "loss").out.splitlines()[2:]
    assert len(sorted_by_size) == 2
    said = workbench("show", runs / "two")
    assert "masked, " in said.out
    assert "bits/byte" not in said.out
    assert workbench("show", f"{runs / 'one'}@4").out.splitlines()[0].endswith("one at step 4")
    assert workbench("show", runs / "one", "--card").out == (runs / "one/README.md").read_text()
    assert workbench("show", runs / "one", "--settings").out == (runs / "one/config.yaml").read_text()
    assert "▁" in workbench("show", runs / "one").out
    empty = runs.parent / "empty"
    empty.mkdir(exist_ok=True)
    assert (
        workbench("list", empty).out
        == f"{empty} holds no runs yet. Train one: workbench train --out {empty}/tiny\n"
    )


def test_generate_refuses(workbench, runs):
    said = workbench("generate", runs / "two", "--prompt", "The")
    assert (said.code, "a masked model" in said.err) == (2, True)
    said = workbench("generate", runs / "one", "--prompt", "The dog " * 40)
    assert said.code == 2
    assert "the model's context is 16" in said.err
    said = workbench("generate", runs / "one", "--prompt", "The", "--top-p", "2")
    assert said.code == 2
    assert "0 < top_p <= 1" in said.err
    said = workbench("generate", runs / "one", "--prompt", "The", "--tokens", "100", "--samples", "2")
    assert said.code == 0
    assert "leaves room for" in said.err


def test_a_damaged_latest_is_passed_over_with_one_line(workbench, runs, tmp_path):
    import shutil

    shutil.copytree(runs / "one", tmp_path / "one")
    (tmp_path / "one/checkpoints/step-000012/state.json").write_text("{}")
    said = workbench("generate", tmp_path / "one", "--prompt", "The", "--tokens", "2")
    assert said.code == 0
    assert said.err.startswith("Warning: ")
    assert said.err.count("\n") == 1
    assert "state.json is damaged" in said.err
    assert "Using step-000008 instead." in said.err


def test_a_reader_that_goes_away_is_no_error(runs):
    done = subprocess.run(
        f"{sys.executable} -m apps.cli show {runs / 'one'} --settings | head -c 1", shell=True, capture_output=True,
        text=True, cwd=ROOT,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("m", "")


def test_ctrl_c_elsewhere_is_one_line(workbench, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("apps.commands.presets.presets", interrupted)
    assert workbench("presets") == (130, "", "Interrupted.\n")


def test_a_full_disk_is_one_line(workbench, monkeypatch):
    import errno

    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere")

    monkeypatch.setattr("apps.commands.presets.presets", full)
    said = workbench("presets")
    assert said == (2, "", "Error: the disk is full at /somewhere; free some space.\n")


def test_a_defect_of_ours_is_not_hidden(workbench, monkeypatch):
    monkeypatch.setattr("apps.commands.presets.presets", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        workbench("presets")


def test_no_name_can_drive_the_terminal(workbench, runs, tmp_path):
    import shutil

    hostile = tmp_path / "runs" / "\x1b[2J\x1b]0;owned\x07[red]x"
    shutil.copytree(runs / "one", hostile)
    metrics = hostile / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"text": "', '"text": "\\u001b[31m'))
    for words in (("list", tmp_path / "runs"), ("show", hostile)):
        said = workbench(*words)
        assert said.code == 0
        assert "\x1b" not in said.out + said.err
        assert "[red]x" in said.out


def test_presets(workbench):
    lines = workbench("presets").out.splitlines()
    assert any(line.split()[0] == "base" and "13,663,232" in line for line in lines)


def test_the_demo(workbench, tmp_path, monkeypatch):
    import apps.commands.demo as demo
    from workbench.model.config import PRESETS

    monkeypatch.setattr(demo, "WIDTHS", (8, 16))
    monkeypatch.setattr(demo, "STORIES", 200)
    monkeypatch.setitem(PRESETS, "nano", dict(n_layers=1, n_heads=2, d_vocab=600, n_ctx=48))
    said = workbench("demo", "--no-serve", "--seconds", "0.5", "--out", tmp_path / "family")
    assert said.code == 0, said.err
    assert "not BLiMP" in said.out
    assert [line.split()[0] for line in said.out.splitlines() if line.startswith("width-")] == [
        "width-8",
        "width-16",
    ]
    assert "subject-verb agreement" in said.out
    began = time.monotonic()
    again = workbench("demo", "--no-serve", "--seconds", "0.5", "--out", tmp_path / "family")
    assert again.out.count("finished already") == 2
    assert time.monotonic() - began < 30  # it does not hang
    assert said.out.splitlines()[-20:] == again.out.splitlines()[-20:]
    assert "embedded" in workbench("list", tmp_path / "family").out


def test_the_app_is_streamlit_on_the_explorer(monkeypatch, runs):
    from apps.commands.runs import serve

    called = []
    monkeypatch.setattr(os, "execv", lambda path, command: called.append(command))
    serve(runs, port=8600)
    assert called[0][1:5] == ["-m", "streamlit", "run", str(ROOT / "apps/explorer.py")]
    assert called[0][-3:] == ["--", "--runs", str(runs)]
