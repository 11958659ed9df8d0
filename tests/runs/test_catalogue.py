"""Runs by name, summaries, model cards; hostile names in all of them."""

import json
import shutil

import pytest
import torch
from small_runs import masked, small

from training.session import train
from workbench.errors import ConfigError, RunError
from workbench.io import locked, write_json
from workbench.runs.card import card_text, write_card
from workbench.runs.checkpoint import checkpoint_folder
from workbench.runs.config import RunSettings
from workbench.runs.folder import DamagedCheckpoint, check_free, find_run, write_config
from workbench.runs.run import latest_blimp, list_runs, load, summarise


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """runs/one (causal), runs/two (masked); not to be changed."""
    import os

    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    root = tmp_path_factory.mktemp("root") / "runs"
    train(small("train.steps=12"), root / "one", quiet=True)
    train(masked("train.steps=4"), root / "two", quiet=True)
    return root


@pytest.fixture
def runs(root, tmp_path):
    """A copy of it."""
    shutil.copytree(root, tmp_path / "runs")
    return tmp_path / "runs"


def test_load(root, monkeypatch):
    run = load(root / "one")
    assert (run.name, run.step, run.checkpoints) == ("one", 12, [0, 1, 2, 4, 8, 12])
    assert (str(run), run.path) == (f"{root / 'one'}@12", root / "one")
    assert run.config.train.steps == 12
    assert run.model.tokenizer is run.tokenizer
    assert run.data_card["train"]["stories"] == 60
    assert run.blimp() is None
    early = load(f"{root / 'one'}@4")
    assert early.step == run.at(4).step == 4
    assert not torch.equal(early.model.W_E, run.model.W_E)
    assert load(f"{root / 'one'}@latest").step == 12
    frame = run.metrics
    assert set(frame.kind) == {"train", "eval", "sample"}
    monkeypatch.chdir(root.parent)
    assert load("one").path.name == load("runs/one").path.name == "one"


def test_what_was_generated_can_be_generated_again(root):
    a, b = (load(root / "one").model.generate("The", 5, seed=3) for _ in range(2))
    assert a == b


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("runs/on", r"there is no run .*runs/on\. Did you mean '.*runs/one'\?"),
        ("runs/one@5", r"runs/one has no checkpoint of step 5\. It has: 0, 1, 2, 4, 8, 12\."),
        ("runs/one@first", r"a checkpoint is named by its step, such as .*runs/one@512; found"),
        ("runs", r"runs is not a run\. It holds runs: .*runs/one, .*runs/two"),
        ("runs/one/checkpoints", r"checkpoints is not a run\. It has no config\.yaml"),
        ("nowhere/one", r"there is no run .*nowhere/one\."),
        ("runs/one@-1", "named by its step"),
        ("runs/one@²", "named by its step"),
    ],
)
def test_names_that_are_no_run(root, name, words):
    with pytest.raises(RunError, match=words):
        load(root.parent / name)


def test_a_folder_with_an_at_sign_is_a_run(runs):
    (runs / "one").rename(runs / "lr@3")
    assert find_run(runs / "lr@3") == (runs / "lr@3", None)
    assert load(f"{runs / 'lr@3'}@4").step == 4


def test_latest_falls_back_and_says_so(runs):
    (checkpoint_folder(runs / "one", 12) / "model.safetensors").write_bytes(b"x")
    with pytest.warns(
        DamagedCheckpoint, match=r"step-000012/model\.safetensors is damaged.*Using step-000008"
    ):
        assert load(runs / "one").step == 8


def test_another_tokenizer_is_noticed(runs, root):
    file = runs / "one" / "tokenizer.json"
    original = file.read_text()
    file.write_text(
        original.replace('"content": "<bos>"', '"content": "<BOS>"').replace('"<bos>"', '"<BOS>"')
    )
    with pytest.raises(
        RunError, match=r"tokenizer\.json is not the tokenizer that .*one was trained with \(its hash"
    ):
        _ = load(runs / "one").model
    from workbench.data.tokenizer import save_tokenizer, train_tokenizer

    save_tokenizer(train_tokenizer(["a story of many different words and letters " * 9] * 3, 320), file)
    with pytest.raises(RunError):
        _ = load(runs / "one").model


def test_summaries(root):
    one, two = list_runs(root)
    assert (one.name, one.objective, one.step, one.status) == ("one", "clm", 12, "finished")
    assert one.parameters == load(root / "one").model.config.n_params
    assert one.tokens_seen == 12 * 2 * 16
    assert 3 < one.loss < 6
    assert one.bits_per_byte > 1
    assert (one.blimp, one.minutes > 0) == (None, True)
    assert (two.objective, two.bits_per_byte) == ("mlm", None)


def test_summaries_of_what_is_damaged(runs):
    (runs / "half").mkdir()
    (runs / "half/config.yaml").write_text("model: {}\n")
    (runs / "not a run").mkdir()
    (runs / ".hidden.tmp").mkdir()
    (runs / ".hidden.tmp/config.yaml").write_text("")
    (checkpoint_folder(runs / "two", 4) / "state.json").write_text("{")
    assert [run.name for run in list_runs(runs)] == ["half", "one", "two"]
    assert summarise(runs / "half").status == "empty"
    assert summarise(runs / "two").status.startswith("damaged: ")
    with locked(runs / "one"):
        assert summarise(runs / "one").status == "training"
    lines = (runs / "one/metrics.jsonl").read_text().splitlines()
    (runs / "one/metrics.jsonl").write_text(
        "\n".join(line for line in lines if '"final": true' not in line) + "\n"
    )
    assert summarise(runs / "one").status == "stopped"
    (runs / "one/metrics.jsonl").write_text("nonsense\n{}\n")
    assert "metrics.jsonl, line 1, is not a JSON object" in summarise(runs / "one").status
    with pytest.raises(RunError, match=r"there is no folder .*nowhere; `workbench train --out"):
        list_runs(runs / "nowhere")


def test_the_latest_result_on_pairs(runs):
    assert latest_blimp(runs / "one") is None
    for number, name in enumerate(["000004-native-embedded", "000012-native-blimp"]):
        write_json(
            runs / f"one/blimp/{name}.json", {"pairs": name[-8:], "overall": {"accuracy": 0.5 + number / 4}}
        )
    import os

    os.utime(runs / "one/blimp/000004-native-embedded.json", (1, 1))
    assert summarise(runs / "one").blimp == 0.75
    assert load(runs / "one").blimp()["overall"]["accuracy"] == 0.75


def test_card(root):
    text = card_text(root / "one")
    parameters = load(root / "one").model.config.n_params
    assert (root / "one/README.md").read_text() == text
    assert text.startswith(f"# one\n\nA causal transformer with {parameters:,} parameters")
    for words in ("validation loss, nats/token", "bits/byte", "fingerprint", "d_model", "run = wb.load("):
        assert words in text
    assert "masked (bidirectional)" in card_text(root / "two")


HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    "`code` **bold** _em_ | cell | # head",
    "a\n\n# another heading\n\n- list",
    "a\r\n```\n<b>",
    "&lt;script&gt;",
    "'); import os; os.system('x') #",
    "\x1b[31mred\x07",
    "\u202egnp.exe",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text_in_the_card(name, runs):
    folder = runs / name.replace("/", "∕")
    (runs / "one").rename(folder)
    config = folder / "config.yaml"
    values = json.dumps(name)
    config.write_text(config.read_text().replace("source: embedded", f"source: {values}"))
    card = json.loads((folder / "data.json").read_text()) | {"name": name, "source": name, name: name}
    (folder / "data.json").write_text(json.dumps(card))
    text = write_card(folder).read_text()
    fence = text[text.index("```python") :]
    body = text[: text.index("```python")]
    assert "<" not in body
    assert "](" not in body
    assert [line for line in body.splitlines() if line.startswith("# ")] == body.splitlines()[:1]
    assert fence.count("```") == 2 or "```" in ascii(str(folder))
    code = fence.splitlines()
    assert [code[0], code[-1]] == ["```python", "```"]
    compile("\n".join(code[1:-1]), "card", "exec")
    assert len(code) == 6
    assert not any(ord(character) < 32 and character != "\n" for character in text)


def test_what_a_kill_left_beside_a_run_is_removed_when_it_is_made_again(tmp_path, root):
    import os

    from workbench.runs.folder import create_run

    run = load(root / "one")
    for name, age in {".run.old.tmp": 3600, ".run.young.tmp": 1, ".other.old.tmp": 3600}.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, times=(1, __import__("time").time() - age))
    create_run(tmp_path / "run", run.config.to_dict(), run.tokenizer, run.data_card)
    assert sorted(os.listdir(tmp_path)) == [".other.old.tmp", ".run.young.tmp", "run"]


def test_places_for_a_run(tmp_path):
    check_free(tmp_path / "new" / "deep" / "run")
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file is a file, so no run can be created at .*file/run"):
        check_free(tmp_path / "file" / "run")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RunError, match="link exists and is not a run"):
        check_free(tmp_path / "link")


def test_the_settings_of_a_run_are_typed(tmp_path, root):
    """Missing sections have their defaults; an unknown field is named, but the model still loads."""
    run = load(root / "one")
    assert isinstance(run.config, RunSettings)
    assert run.config.model == run.checkpoint.config
    for content, expected in (
        ({"model": run.config.to_dict()["model"]}, RunSettings(model=run.config.model)),
        (run.config.to_dict() | {"train": {"steps": 3, "lr": 0.01}}, None),
    ):
        shutil.copytree(root / "one", tmp_path / "copy", dirs_exist_ok=True)
        write_config(tmp_path / "copy", content)
        again = load(tmp_path / "copy").config
        assert (again == expected) if expected else (again.train.steps == 3 and again.train.lr == 0.01)
    write_config(tmp_path / "copy", run.config.to_dict() | {"train": {"stepz": 3}})
    other = load(tmp_path / "copy")
    assert other.model.config == run.checkpoint.config
    with pytest.raises(ConfigError, match=r"config.yaml: train.stepz is not a field. Did you mean 'steps'"):
        other.config  # noqa: B018
