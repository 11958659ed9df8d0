"""`zoo/NAME` everywhere a run is named; nothing is written into the family."""

import hashlib
import json

import pytest
import torch

import workbench as wb
from training.session import resume
from workbench.data.pairs import open_pairs
from workbench.errors import RunError
from workbench.runs import zoo as shipped
from workbench.runs.checkpoint import WEIGHTS, checkpoint_folder, read_model, verify_checkpoint


def digest(folder) -> dict[str, str]:
    """Every file and folder below, by its contents."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


@pytest.fixture(autouse=True)
def untouched(family):
    before = digest(family)
    yield
    assert digest(family) == before


def test_a_run_by_its_name(family):
    run = wb.load("zoo/mid")
    assert str(run) == "zoo/mid@40"
    assert run.name == "mid"
    assert run.path == family / "mid"
    assert run.model.dtype == torch.float32
    assert run.config.model.n_heads == 2
    assert run.blimp()["source"] == "blimp"
    assert {"train", "eval", "blimp", "sample"} <= set(run.metrics.kind)
    early = wb.load(f"zoo/mid@{run.checkpoints[1]}")
    assert early.step == run.checkpoints[1]
    assert str(wb.load(str(early))) == str(early)
    assert early.at(run.step).step == run.step
    logits, cache = run.model.run_with_cache("Once upon a time")
    assert torch.isfinite(logits).all()
    assert cache["pattern", 0].ndim == 4
    assert wb.load("zoo/mid@best").step == run.step  # the one that was chosen to ship
    assert wb.load("zoo/hidden").model.config.objective == "mlm"
    assert [row.name for row in wb.list_runs("zoo")] == sorted(["mid", "mid-s1", "two-heads", "hidden"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zoo/mids", "there is no run zoo/mids. Did you mean 'zoo/mid"),
        ("zoo/mid@41", "mid has no checkpoint of step 41. It has: 0,"),
        ("zoo/mid@x", "a checkpoint is named by its step"),
        ("zoo", "zoo is a family, not a run. It holds zoo/hidden, zoo/mid"),
        ("zoo/", "zoo/ is a family, not a run|zoo is a family, not a run"),
        ("zoo/../family/mid", "there is no run zoo/../family/mid"),
        ("zoo//etc/passwd", "there is no run"),
        ("zoo/.", "there is no run"),
    ],
)
def test_a_name_that_is_none(name, words):
    with pytest.raises(RunError, match=words) as error:
        wb.load(name)
    assert "\n" not in str(error.value)


def test_no_family(monkeypatch, tmp_path, workbench):
    monkeypatch.setenv(shipped.PLACE, str(tmp_path / "nothing"))
    with pytest.raises(RunError, match="no family is installed"):
        wb.load("zoo/mid")
    code, _, err = workbench("list", "zoo")
    assert (code, err.count("\n")) == (2, 1)
    assert "no family is installed" in err


def test_a_folder_of_that_name_wins(runs, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(runs / "two-heads", tmp_path / "zoo" / "mid")
    monkeypatch.chdir(tmp_path)
    run = wb.load("zoo/mid")
    assert str(run) == f"zoo/mid@{run.step}"
    assert run.model.config.n_heads == 1
    assert run.results_folder == run.path


def test_results_go_to_the_cache(cache):
    run = wb.load("zoo/two-heads")
    assert run.results_folder.is_relative_to(cache)
    found = wb.blimp(run, open_pairs(None).select(None, 2))
    path = found.save(run)
    assert path.is_relative_to(cache)
    assert path.is_file()
    assert wb.load("zoo/two-heads").blimp()["pairs"] == "embedded"
    assert found.save("zoo/two-heads" and run.path) == path
    path.unlink()
    path.with_suffix(".parquet").unlink()
    assert wb.load("zoo/two-heads").blimp()["source"] == "blimp"


VERBS = [
    ("show", "zoo/mid"),
    ("show", "zoo/mid@16"),
    ("show", "zoo/mid", "--card"),
    ("show", "zoo/mid", "--settings"),
    ("generate", "zoo/mid", "--tokens", "5", "--prompt", "Once"),
    ("blimp", "zoo/mid", "--limit", "1", "--quiet"),
    ("attribute", "zoo/mid", "--text", "The cat sat.", "--tuned", "--tokens", "300", "--quiet"),
    ("patch", "zoo/mid", "--clean", "a b", "--corrupted", "a c", "--right", "d", "--wrong", "e", "--quiet"),
    ("heads", "zoo/mid", "--stories", "5", "--quiet"),
    (
        "circuit",
        "zoo/mid",
        "--limit",
        "2",
        "--quiet",
        "--family",
        "zoo",
        "--paradigm",
        "anaphor_number_agreement",
    ),
]


@pytest.mark.parametrize("words", VERBS, ids=lambda words: "-".join(words[:1]))
def test_verbs_take_it(words, workbench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = workbench(*words)
    assert code == 0, err
    assert out
    assert list(tmp_path.iterdir()) == []


def test_the_card_is_the_one_that_ships(workbench, family):
    assert workbench("show", "zoo/mid", "--card")[1] == (family / "mid" / "README.md").read_text()


def test_it_is_not_trained_further(workbench):
    for name in ("zoo/mid", "zoo/mid@16"):
        code, _, err = workbench("resume", name, "--steps", "3")
        assert code == 2
        assert "workbench copy zoo/mid runs/mid" in err
        assert err.count("\n") == 1
    with pytest.raises(RunError, match="cannot be trained further"):
        resume(wb.load("zoo/mid").path, steps=3)


def test_a_copy_is_ones_own(workbench, tmp_path):
    code, out, _ = workbench("copy", "zoo/mid@16", tmp_path / "mine")
    assert code == 0
    assert "zoo/mid@16" in out
    copy = wb.load(tmp_path / "mine")
    assert copy.step == 0
    source = wb.load("zoo/mid@16").model.state_dict()
    assert all(torch.equal(tensor, source[name]) for name, tensor in copy.model.state_dict().items())
    stories = tmp_path / "stories.txt"
    stories.write_text("<|endoftext|>".join(f"The cat sat on mat number {n}." for n in range(50)))
    assert resume(tmp_path / "mine", steps=2, data=str(stories), threads=1, quiet=True).finished
    assert wb.load(tmp_path / "mine").step == 2
    assert workbench("copy", "zoo/mid", tmp_path / "mine")[0] == 2
    assert workbench("copy", "zoo/none", tmp_path / "other")[0] == 2


def test_export(workbench, tmp_path):
    code, _, _ = workbench("export", "zoo/mid", tmp_path / "out")
    assert code == 0
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def hostile(made, tmp_path, change):
    import shutil

    folder = tmp_path / "step-000040"
    shutil.copytree(checkpoint_folder(made.path / "mid", 40), folder)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    change(folder, manifest["files"][WEIGHTS])
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    return folder


def test_the_type_is_the_manifests(made, tmp_path):
    """Half the bytes are taken only where the manifest says float16."""
    folder = hostile(made, tmp_path / "a", lambda _, entry: entry.pop("dtype"))
    for read in (read_model, verify_checkpoint):
        with pytest.raises(
            RunError, match=r"model\.safetensors has [\d,]+ bytes|should be float32; found float16"
        ):
            read_model(folder) if read is read_model else read(folder) and read_model(folder)
    folder = hostile(made, tmp_path / "b", lambda _, entry: entry.update(dtype="bfloat16"))
    with pytest.raises(RunError, match="known: float32, float16"):
        verify_checkpoint(folder)
    folder = hostile(made, tmp_path / "c", lambda _, entry: entry.update(dtype=["float16"]))
    with pytest.raises(RunError, match="known: float32, float16"):
        verify_checkpoint(folder)

    def flip(folder, entry):
        data = bytearray((folder / WEIGHTS).read_bytes())
        data[-1] ^= 1
        (folder / WEIGHTS).write_bytes(bytes(data))

    folder = hostile(made, tmp_path / "d", flip)
    with pytest.raises(RunError, match="its sha256 is not the one"):
        read_model(folder)
