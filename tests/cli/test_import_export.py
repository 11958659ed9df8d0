"""`workbench import` and `workbench export`: runs from elsewhere are runs like any other, and ours open elsewhere."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from exported_runs import write_run
from hf_folders import ROLES, edit_settings, edit_tensors, make_folder, tokenizer_text
from hf_models import in_float64
from scored_models import small_model

import workbench as wb
from workbench.data.embedded.stories import stories
from workbench.data.tokenizer import load_tokenizer
from workbench.errors import RunError
from workbench.model.hf import FAMILIES
from workbench.runs import foreign
from workbench.runs.run import list_runs

NUMBER = {"gpt2": 1, "gpt_neo": 2, "llama": 0, "bert": 0, "roberta": 2}
MASKED = ("bert", "roberta")
TEXTS = ["The cat sat.", "Once upon a time there was a little girl."]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each family as it is on the hub; not to be changed."""
    root = tmp_path_factory.mktemp("hub")
    return {family: make_folder(root / family, family, NUMBER[family]) for family in FAMILIES}


def opened(folder: Path, masked: bool):
    """The model and tokenizer as others open them."""
    auto = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    model, report = auto.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not any(report.values()), report
    return model.double().eval(), transformers.AutoTokenizer.from_pretrained(folder)


def same_logits(ours, theirs, tokens, mask=None) -> None:
    real = (torch.ones_like(tokens) if mask is None else mask).bool()
    with in_float64(), torch.no_grad():
        out = theirs(tokens, attention_mask=mask).logits
        torch.testing.assert_close(
            ours.double()(tokens, attention_mask=mask)[real], out[real], rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("verb", ["import", "export"])
def test_the_verbs_explain_themselves(verb, workbench):
    said = workbench(verb, "--help")
    assert said.code == 0
    assert f"  workbench {verb}" in said.out
    assert f"\n  {verb} " in workbench("--help").out


@pytest.mark.parametrize("family", FAMILIES)
def test_an_imported_run_is_a_run(family, folders, workbench, tmp_path):
    run = tmp_path / "run"
    said = workbench("import", folders[family], run)
    assert said.code == 0, said.err
    assert said.out.startswith(f"{run}: {FAMILIES[family].title}, ")
    assert "It passed its check. Look at it: workbench show" in said.out
    assert said.out.count("\n") == 1

    loaded = wb.load(run)
    assert loaded.step == 0
    theirs, tokenizer = opened(folders[family], family in MASKED)
    for role, token in ROLES[family].items():
        assert getattr(loaded.tokenizer, role) == token
    for text in TEXTS:
        ids = loaded.tokenizer.encode(text, add_special_tokens=False)
        assert ids == tokenizer.encode(text, add_special_tokens=False)
        same_logits(loaded.model, theirs, torch.tensor([ids]))

    shown = workbench("show", run)
    assert shown.code == 0, shown.err
    assert f"{FAMILIES[family].title} imported from" in shown.out
    assert "imported from" in workbench("show", run, "--card").out
    assert " imported" in workbench("list", tmp_path).out
    scored = workbench("blimp", run, "--limit", "2", "--protocol", "native")
    assert scored.code == 0, scored.err
    said = workbench("generate", run, "--tokens", "4")
    assert said.code == (2 if family in MASKED else 0), said.err
    pair = (
        wb.attribute_pair(loaded.model, "The cats sleep.", "The cats sleeps.")
        if family not in MASKED
        else None
    )
    assert pair is None or len(pair.to_frame())


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trips_keep_every_byte(family, folders, workbench, tmp_path):
    """Import, export, import: the same checkpoint. Export, import, export: the same tensors and tokenizer."""
    first, out, second, again = (tmp_path / name for name in ("first", "out", "second", "again"))
    for words in (("import", folders[family], first), ("export", first, out), ("import", out, second),
                  ("export", second, again)):  # fmt: skip
        said = workbench(*words)
        assert said.code == 0, said.err

    def checkpoint(run):
        return {
            name: (run / "checkpoints/step-000000" / name).read_bytes()
            for name in ("model.safetensors", "config.json")
        }

    assert checkpoint(first) == checkpoint(second)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (out / name).read_bytes() == (again / name).read_bytes(), name
    assert (out / "tokenizer.json").read_bytes() == (folders[family] / "tokenizer.json").read_bytes()
    theirs, _ = opened(folders[family], family in MASKED)
    exported, _ = opened(out, family in MASKED)
    # An untied masked model reads the bias of its decoder; its other one is read by nobody.
    spare = set() if theirs.config.tie_word_embeddings else {"cls.predictions.bias", "lm_head.bias"}
    for name, tensor in theirs.state_dict().items():
        if name in spare:
            continue
        assert torch.equal(tensor, exported.state_dict()[name]), name
    for key in FAMILIES[family].names.values():
        if key in theirs.config.to_dict():
            assert getattr(exported.config, key) in (
                getattr(theirs.config, key),
                4 * theirs.config.hidden_size,
            ), key


LLAMA = dict(positions="rotary", norm="RMSNorm", activation="silu", gated=True, tied=False,
             n_key_value_heads=2, qkv_bias=False, out_bias=False, mlp_bias=False)  # fmt: skip
BERT = dict(attention="bidirectional", norm_place="post", embed_norm=True, mlm_head=True, unembed_bias=True,
            token_types=2)  # fmt: skip
OWN = {
    "GPT-2": {},
    "GPT-2 untied": dict(tied=False, attention_scale=1.0),
    "GPT-Neo": dict(attention_scale=1.0, qkv_bias=False, windows=(0, 5)),
    "Llama": LLAMA,
    "Llama with neighbours": LLAMA | dict(rotary_adjacent=True, rotary_base=500.0, qkv_bias=True, out_bias=True),
    "BERT": BERT,
    "BERT untied": BERT | dict(tied=False),
    # Our tokenizers pad with token 0, so that RoBERTa's own count of positions begins at 1.
    "RoBERTa": BERT | dict(position_offset=2, token_types=1),
    "RoBERTa short": BERT | dict(position_offset=1),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_our_own_runs_open_elsewhere(name, workbench, tmp_path):
    model = small_model(**OWN[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    run = write_run(tmp_path / "run", model)
    said = workbench("export", f"{run}@3", tmp_path / "out")
    assert said.code == 0, said.err
    title, masked = name.split()[0], model.config.objective == "mlm"
    assert f"{run}@3 as {title}, {model.config.n_params:,} parameters" in said.out
    assert f"AutoModelFor{'MaskedLM' if masked else 'CausalLM'}" in said.out

    theirs, tokenizer = opened(tmp_path / "out", masked)
    assert tokenizer.bos_token_id == theirs.config.bos_token_id == 1
    assert tokenizer.eos_token_id == theirs.config.eos_token_id == 2
    assert tokenizer.pad_token_id == theirs.config.pad_token_id == 0
    assert tokenizer.mask_token_id == 3
    assert tokenizer.model_max_length == model.config.n_ctx
    tokenizer.padding_side = "right"
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    for text, row, real in zip(TEXTS, batch["input_ids"], batch["attention_mask"], strict=True):
        plain = model.tokenizer.encode(text, add_special_tokens=False)
        # As every story stood in training: BOS in front, and what follows a story behind it where both sides are seen.
        assert row[real.bool()].tolist() == [1, *plain, *([2] if masked else [])]
    same_logits(model, theirs, batch["input_ids"], batch["attention_mask"])

    said = workbench("import", tmp_path / "out", tmp_path / "back")
    assert said.code == 0, said.err
    back = wb.load(tmp_path / "back")
    assert back.tokenizer.encode(TEXTS[0], add_special_tokens=False) == plain_ids(model, TEXTS[0])
    torch.testing.assert_close(
        back.model.double()(batch["input_ids"]), model.double()(batch["input_ids"]), rtol=0, atol=1e-9
    )
    if name not in ("Llama with neighbours", "RoBERTa"):  # these two are put in another order
        ours, theirs = (path / "checkpoints" for path in (run, tmp_path / "back"))
        assert (ours / "step-000003/model.safetensors").read_bytes() == (
            theirs / "step-000000/model.safetensors"
        ).read_bytes()


def plain_ids(model, text):
    return model.tokenizer.encode(text, add_special_tokens=False)


def test_export_refuses_by_field(workbench, runs, tmp_path):
    said = workbench("export", write_run(tmp_path / "deep", small_model(mlp_depth=2)), tmp_path / "out")
    assert said.code == 2
    assert said.err.startswith(
        "Error: no family can hold this model. model.mlp_depth = 2: GPT-2 has one hidden layer"
    )
    assert said.err.count("\n") == 1
    said = workbench("export", runs / "two", tmp_path / "out")
    assert said.code == 2
    assert "model.norm_place = 'pre': BERT normalises the stream after each module" in said.err
    said = workbench("export", runs / "one", tmp_path / "out", "--family", "gpt_noe")
    assert said.err == "Error: no family is called 'gpt_noe'. Did you mean 'gpt_neo'?\n"
    said = workbench("export", runs / "one", tmp_path / "out", "--family", "gpt_neo")
    assert "model.attention_scale = None: GPT-Neo has 1.0 only" in said.err
    assert workbench("export", runs / "none", tmp_path / "out").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


def test_export_writes_over_nothing(workbench, runs, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    said = workbench("export", runs / "one", tmp_path / "full")
    assert said.err == f"Error: {tmp_path / 'full'} exists; choose a new folder.\n"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    assert workbench("export", runs / "one", tmp_path / "empty").code == 0
    modes = {(tmp_path / "empty" / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1, "whoever may read one file may read the other"


@pytest.fixture
def gpt2(folders, tmp_path):
    """A copy of GPT-2's folder, to be spoilt."""
    return make_folder(tmp_path / "gpt2", "gpt2", NUMBER["gpt2"])


def fails(workbench, folder: Path, run: Path, *words: str) -> None:
    """One line, exit code 2, and nothing left behind."""
    before = sorted(path.name for path in run.parent.iterdir())
    said = workbench("import", folder, run)
    assert said.code == 2, said.out
    assert said.err.startswith("Error: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err
    assert sorted(path.name for path in run.parent.iterdir()) == before


def test_import_writes_over_nothing(workbench, gpt2, runs, tmp_path):
    fails(workbench, gpt2, runs / "one", "the run", "already exists")
    (tmp_path / "file").write_text("x")
    fails(workbench, gpt2, tmp_path / "file", "exists and is not a run")


def test_import_of_what_is_no_model(workbench, gpt2, tmp_path):
    fails(workbench, tmp_path / "none", tmp_path / "run", "none does not exist; a model is a folder with")
    fails(
        workbench, gpt2 / "config.json", tmp_path / "run", "config.json is a file; a model is a folder with"
    )
    edit_tensors(gpt2, transformer__wte__weight=None)
    fails(workbench, gpt2, tmp_path / "run", "the tensor transformer.wte.weight", "is missing")
    edit_settings(gpt2, model_type="gpt_neox")
    fails(workbench, gpt2, tmp_path / "run", "model_type is 'gpt_neox'", "Did you mean 'gpt_neo'?")
    (gpt2 / "config.json").write_text("")
    fails(workbench, gpt2, tmp_path / "run", "config.json is not a JSON object")


def test_import_of_a_tokenizer_that_does_not_fit(workbench, gpt2, tmp_path):
    small = make_folder(tmp_path / "small", "gpt2", NUMBER["gpt2"], vocab_size=300)
    fails(
        workbench,
        small,
        tmp_path / "run",
        "tokenizer.json has ids up to 399 and the model a vocabulary of 300",
    )
    (gpt2 / "tokenizer.json").unlink()
    fails(
        workbench,
        gpt2,
        tmp_path / "run",
        "tokenizer.json does not exist; a tokenizer is a tokenizer.json file",
    )
    (gpt2 / "tokenizer.json").write_text("{}")
    fails(workbench, gpt2, tmp_path / "run", "is not a tokenizer.json")
    (gpt2 / "tokenizer.json").write_text(tokenizer_text("gpt2"))
    (gpt2 / "tokenizer_config.json").write_text("{")
    fails(workbench, gpt2, tmp_path / "run", "tokenizer_config.json is not a readable JSON file")


def test_a_larger_vocabulary_than_the_tokenizers_is_kept(workbench, tmp_path):
    """Vocabularies are often padded to a round number."""
    padded = make_folder(tmp_path / "padded", "gpt2", NUMBER["gpt2"], vocab_size=512)
    assert workbench("import", padded, tmp_path / "run").code == 0
    assert wb.load(tmp_path / "run").model.config.d_vocab == 512
    assert workbench("generate", tmp_path / "run", "--tokens", "20").code == 0


def test_a_full_disk_leaves_nothing(workbench, gpt2, tmp_path, monkeypatch):
    import errno
    import os

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    from workbench.runs import checkpoint

    real = checkpoint.new_folder
    monkeypatch.setattr(checkpoint, "new_folder", full)
    fails(
        workbench,
        gpt2,
        tmp_path / "run",
        f"the run {tmp_path / 'run'} cannot be created: No space left on device",
    )
    monkeypatch.setattr(checkpoint, "new_folder", real)
    monkeypatch.setattr(foreign, "write_json", full)
    said = workbench("export", write_run(tmp_path / "own", small_model()), tmp_path / "out")
    assert said.code == 2
    assert "cannot be written: No space left on device" in said.err
    assert not (tmp_path / "out").exists()


def test_a_run_made_in_the_meantime_is_kept(gpt2, tmp_path, monkeypatch):
    real = foreign.save_checkpoint

    def slow(*arguments):
        write_run(tmp_path / "run", small_model())
        return real(*arguments)

    monkeypatch.setattr(foreign, "save_checkpoint", slow)
    with pytest.raises(RunError, match="run was created by another process in the meantime"):
        foreign.import_run(gpt2, tmp_path / "run")
    assert wb.load(tmp_path / "run").step == 3
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


def test_special_tokens_come_from_the_files_beside(tmp_path):
    """Names that nobody could guess, in either file; and none that is not in the vocabulary."""
    text = tokenizer_text("gpt2").replace("<|endoftext|>", "<|begin_of_text|>")
    (tmp_path / "tokenizer.json").write_text(text)
    assert load_tokenizer(tmp_path).bos_token is None
    named = {"bos_token": {"content": "<|begin_of_text|>"}, "pad_token": "<none>", "mask_token": None}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(named))
    made = load_tokenizer(tmp_path / "tokenizer.json")
    assert (made.bos_token, made.pad_token, made.mask_token, made.eos_token) == (
        "<|begin_of_text|>",
        None,
        None,
        None,
    )
    assert len(made) == 400
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|begin_of_text|>", "bos_token": None})
    )
    assert load_tokenizer(tmp_path).eos_token == "<|begin_of_text|>"
    (tmp_path / "tokenizer_config.json").write_text("[]")
    assert load_tokenizer(tmp_path).eos_token is None


def test_a_roberta_without_padding_is_refused(workbench, tmp_path):
    """Its positions are counted from the id of its padding: without one they would be wrong."""
    made = make_folder(tmp_path / "roberta", "roberta", NUMBER["roberta"])
    text = tokenizer_text("roberta").replace('"<pad>"', '"<filler>"')
    (made / "tokenizer.json").write_text(text)
    (made / "tokenizer_config.json").write_text("{}")
    assert workbench("import", made, tmp_path / "run").code == 0
    said = workbench("export", tmp_path / "run", tmp_path / "out")
    assert said.code == 2
    assert "has no padding token, and RoBERTa counts its positions from that token's id" in said.err


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_an_imported_run_can_be_trained_on(family, folders, workbench, tmp_path):
    run, corpus = tmp_path / "run", tmp_path / "stories.txt"
    corpus.write_text("<|endoftext|>\n".join(f"{text}\n" for text in stories(80)))
    assert workbench("import", folders[family], run).code == 0
    before = wb.load(run).model.embed.W_E.detach().clone()
    said = workbench("resume", run, "--steps", "3")
    assert said.code == 2
    assert said.err == (
        f"Error: {run} was imported and has no corpus of its own; fine-tune it on yours: "
        f"workbench resume {run} --data stories.txt --minutes 10\n"
    )
    said = workbench("resume", run, "--data", corpus, "--steps", "3", "--quiet")
    assert said.code == 0, said.err
    trained = wb.load(run)
    assert trained.step == 3
    assert torch.equal(trained.at(0).model.embed.W_E, before)
    assert not torch.equal(trained.model.embed.W_E, before)
    assert [one.status for one in list_runs(tmp_path)] == ["finished"]
    card = (run / "README.md").read_text()
    assert "imported from" in card
    assert "and trained by the interpretability workbench" in card
    assert workbench("resume", run, "--steps", "2", "--quiet").code == 0
    assert wb.load(run).step == 5
    assert workbench("export", run, tmp_path / "out").code == 0
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (folders[family] / "tokenizer.json").read_bytes()


def test_a_missing_mask_token_is_told(workbench, tmp_path):
    made = make_folder(tmp_path / "bert", "bert", NUMBER["bert"])
    (made / "tokenizer.json").write_text(tokenizer_text("bert").replace("[MASK]", "[HOLE]"))
    (made / "tokenizer_config.json").unlink()
    said = workbench("import", made, tmp_path / "run")
    assert said.code == 0, said.err
    assert "Note: its tokenizer has no MASK token." in said.out


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {"do_lower_case": True}),
        ("bert", {"do_lower_case": False}),
        ("bert", {"do_lower_case": True, "strip_accents": False}),
        ("gpt2", {"add_prefix_space": True}),
        ("llama", {"add_prefix_space": False}),
    ],
    ids=str,
)
def test_an_imported_tokenizer_keeps_its_settings(family, settings, workbench, tmp_path):
    """Settings of tokenizer_config.json that AutoTokenizer applies are in the run's own tokenizer.json."""
    folder = make_folder(tmp_path / family, family, NUMBER[family])
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | settings))
    assert workbench("import", folder, tmp_path / "run").code == 0
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), wb.load(tmp_path / "run").tokenizer
    for text in ("The CAT sat.", "the café sat."):
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)


def test_an_unreadable_file_is_one_line_and_leaves_nothing(workbench, gpt2, tmp_path, monkeypatch):
    read = Path.read_bytes

    def refuse(path):
        if path.name == "tokenizer_config.json":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(RunError, match="cannot be created: Permission denied"):
        foreign.import_run(gpt2, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["gpt2"]
