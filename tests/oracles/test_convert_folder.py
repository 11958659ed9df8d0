"""Folders from elsewhere: every form that is read, and every damage that is named in one line."""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from hf_folders import edit_settings, edit_tensors, make_folder
from hf_models import in_float64
from safetensors.torch import load_file, save_file

from workbench.errors import ConfigError, RunError, WorkbenchError
from workbench.model import config as counting
from workbench.model.hf import FAMILIES, check_model
from workbench.model.transformer import HookedTransformer

NUMBER = {"gpt2": 1, "gpt_neo": 2, "llama": 0, "bert": 0, "roberta": 2}
"""A case of each family with several heads."""


@pytest.fixture
def folder(tmp_path):
    """`folder("gpt2", **settings)` makes one."""

    def make(family: str, **settings) -> Path:
        return make_folder(tmp_path / family, family, NUMBER[family], **settings)

    return make


def logits_there(folder: Path, tokens):
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    make = (
        transformers.AutoModelForMaskedLM
        if kind in ("bert", "roberta")
        else transformers.AutoModelForCausalLM
    )
    model = make.from_pretrained(folder, attn_implementation="eager").double().eval()
    with in_float64(), torch.no_grad():
        return model(tokens).logits


def compare(folder: Path) -> None:
    ours = HookedTransformer.from_folder(folder).double()
    tokens = torch.randint(10, ours.config.d_vocab, (2, 11))
    # The files hold float32, from which both go on in float64.
    torch.testing.assert_close(ours(tokens), logits_there(folder, tokens), rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_what_transformers_saves_is_read(folder, family, tied):
    compare(folder(family, tie_word_embeddings=tied))


@pytest.mark.parametrize("family", FAMILIES)
def test_names_without_the_prefix(folder, family):
    """As the hub's gpt2 has them."""
    made = folder(family)
    before = HookedTransformer.from_folder(made).state_dict()
    prefix, file = FAMILIES[family].prefix, made / "model.safetensors"
    tensors = {name.removeprefix(prefix): tensor.clone() for name, tensor in load_file(file).items()}
    assert tensors.keys() != load_file(file).keys()
    save_file(tensors, file)
    after = HookedTransformer.from_folder(made).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


EXTRAS = {
    "gpt2": ["transformer.h.0.attn.bias", "h.0.attn.masked_bias"],
    "gpt_neo": ["transformer.h.0.attn.attention.bias", "transformer.h.0.attn.attention.masked_bias"],
    "llama": ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"],
    "bert": ["bert.embeddings.position_ids", "bert.pooler.dense.weight", "cls.seq_relationship.bias"],
    "roberta": ["roberta.embeddings.position_ids", "roberta.pooler.dense.bias"],
}


@pytest.mark.parametrize("family", FAMILIES)
def test_known_extras_are_passed_over(folder, family):
    made = folder(family)
    before = HookedTransformer.from_folder(made).state_dict()
    edit_tensors(made, **{name: torch.ones(2, 2) for name in EXTRAS[family]})
    after = HookedTransformer.from_folder(made).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


COPIES = {
    "gpt2": ("transformer.wte.weight", "lm_head.weight"),
    "gpt_neo": ("transformer.wte.weight", "lm_head.weight"),
    "llama": ("model.embed_tokens.weight", "lm_head.weight"),
    "bert": ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
    "roberta": ("lm_head.bias", "lm_head.decoder.bias"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_copies(folder, family):
    """The second copy may stand there, or stand alone, but must not say something else."""
    made = folder(family, tie_word_embeddings=True)
    first, second = COPIES[family]
    before = HookedTransformer.from_folder(made).state_dict()
    value = load_file(made / "model.safetensors")[first].clone()
    for changes in ({second: value}, {first: None, second: value}):
        edit_tensors(made, **changes)
        after = HookedTransformer.from_folder(made).state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
    edit_tensors(made, **{first: value, second: value + 1})
    with pytest.raises(RunError, match=f"{second} differs from {first}, and tie_word_embeddings says"):
        HookedTransformer.from_folder(made)


def test_the_first_berts_called_gain_and_bias_otherwise(folder):
    made = folder("bert")
    before = HookedTransformer.from_folder(made).state_dict()
    file = made / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): t.clone()
        for name, t in load_file(file).items()
    }
    assert any(name.endswith("gamma") for name in old)
    save_file(old, file)
    assert all(
        torch.equal(t, before[name]) for name, t in HookedTransformer.from_folder(made).state_dict().items()
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32(folder, dtype):
    made = folder("llama")
    file = made / "model.safetensors"
    narrow = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    save_file(narrow, file)
    model = HookedTransformer.from_folder(made)
    assert model.dtype == torch.float32
    assert torch.equal(model.embed.W_E, narrow["model.embed_tokens.weight"].float())


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_and_their_index(folder, family):
    made = folder(family)
    before = HookedTransformer.from_folder(made).state_dict()
    split(made)
    assert not (made / "model.safetensors").exists()
    after = HookedTransformer.from_folder(made).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    compare(made)


def split(folder: Path) -> dict[str, str]:
    """Cut model.safetensors into two parts and an index."""
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    file.unlink()
    names = sorted(tensors)
    where = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        name = f"model-{number:05d}-of-00002.safetensors"
        save_file({key: tensors[key] for key in part}, folder / name, metadata={"format": "pt"})
        where |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return where


def test_links_are_followed_as_in_the_hubs_cache(folder, tmp_path):
    made, cache = folder("gpt2"), tmp_path / "snapshot"
    cache.mkdir()
    for name in ("config.json", "model.safetensors"):
        (cache / name).symlink_to(made / name)
    assert torch.equal(
        HookedTransformer.from_folder(cache).embed.W_E, HookedTransformer.from_folder(made).embed.W_E
    )


def one_line(error: pytest.ExceptionInfo, *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    for word in words:
        assert word in text


def refused(folder: Path, *words: str, kind: type[WorkbenchError] = RunError) -> None:
    with pytest.raises(kind) as error:
        HookedTransformer.from_folder(folder)
    one_line(error, *words)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_tensor_is_named(folder, family):
    made = folder(family)
    names = sorted(load_file(made / "model.safetensors"))
    for name in (names[0], names[len(names) // 2], names[-1]):
        value = load_file(made / "model.safetensors")[name].clone()
        edit_tensors(made, **{name: None})
        refused(made, "model.safetensors: the tensor", f"{name} {list(value.shape)} is missing")
        edit_tensors(made, **{name: value})


@pytest.mark.parametrize("family", FAMILIES)
def test_an_extra_tensor_and_a_wrong_shape_are_named(folder, family):
    made = folder(family)
    name = sorted(load_file(made / "model.safetensors"))[1]
    value = load_file(made / "model.safetensors")[name].clone()
    edit_tensors(made, surplus__weight=torch.ones(3))
    refused(made, f"the tensor surplus.weight [3] has no place in {FAMILIES[family].title}")
    edit_tensors(made, surplus__weight=None, **{name: torch.ones(*value.shape, 2)})
    refused(
        made, f"the tensor {name} has shape {[*value.shape, 2]}; config.json asks for {list(value.shape)}"
    )


def test_damaged_numbers_are_named(folder):
    made = folder("gpt2")
    bad = torch.full((width_of(made),), float("nan"))
    edit_tensors(made, transformer__ln_f__weight=bad)
    refused(made, "the tensor transformer.ln_f.weight holds NaN or infinity")
    edit_tensors(made, transformer__ln_f__weight=bad.nan_to_num(1.0).to(torch.int64))
    refused(made, "the tensor transformer.ln_f.weight is int64; float16, bfloat16 and float32 are read")
    edit_tensors(made, transformer__ln_f__weight=bad.nan_to_num(1.0))
    big = torch.full_like(bad, 3e38)  # finite, though a sum of them is not
    edit_tensors(made, transformer__ln_f__bias=big)
    refused(made, "the logits of 4 tokens are not finite")


def width_of(folder: Path) -> int:
    return json.loads((folder / "config.json").read_text())["n_embd"]


def test_a_name_that_stands_twice(folder):
    made = folder("gpt2")
    width = width_of(made)
    edit_tensors(made, ln_f__weight=torch.ones(width))
    refused(made, "the tensor transformer.ln_f.weight is there twice, with and without its prefix")


def test_what_is_no_folder(tmp_path, folder):
    refused(tmp_path / "nothing", "nothing does not exist; a model is a folder with config.json")
    file = tmp_path / "file"
    file.write_text("x")
    refused(
        file, "file is a file; a model is a folder with config.json, model.safetensors and tokenizer.json"
    )
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty/config.json is missing; a model is a folder with config.json")


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\x00\xff", "[" * 100_000])
def test_what_is_no_config(folder, content):
    made = folder("gpt2")
    (made / "config.json").write_text(content)
    refused(made, "config.json is not a JSON object")


def test_unknown_families(folder):
    made = folder("gpt2")
    edit_settings(made, model_type="gpt_neox")
    refused(made, "model_type is 'gpt_neox', which is not a supported family. Did you mean 'gpt_neo'?")
    edit_settings(made, model_type="xlnet_")
    refused(
        made, "model_type is 'xlnet_', which is not a supported family. Choose from: gpt2, gpt_neo, llama"
    )
    edit_settings(made, model_type=None)
    refused(made, "model_type is None, which is not a supported family. Choose from: gpt2")
    edit_settings(made, model_type=["gpt2"])
    refused(made, "which is not a supported family")


def test_settings_are_refused_with_the_file_in_front(folder):
    made = folder("llama")
    edit_settings(made, mlp_bias=True)
    refused(made, "llama/config.json: mlp_bias = True: a gated MLP", kind=ConfigError)


def test_a_model_larger_than_memory_is_refused_before_its_weights_are_read(folder, monkeypatch):
    made = folder("gpt2")
    edit_settings(made, n_layer=10**9)
    (made / "model.safetensors").unlink()
    refused(made, "config.json: a model of", "GiB and this machine has", kind=ConfigError)
    edit_settings(made, n_layer=2)
    monkeypatch.setattr(counting, "total_memory", lambda: 1000)
    refused(made, "GiB and this machine has", kind=ConfigError)


@pytest.mark.parametrize("keep", [0, 4, 7, 200, -1])
def test_cut_files(folder, keep):
    made = folder("gpt2")
    file = made / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(made, "model.safetensors is not a whole safetensors file")


def test_a_header_that_lies(folder):
    made = folder("gpt2")
    file = made / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[:8] = (2**62).to_bytes(8, "little")
    file.write_bytes(data)
    refused(made, "model.safetensors is not a whole safetensors file")


def test_a_folder_in_the_place_of_the_weights(folder):
    made = folder("gpt2")
    (made / "model.safetensors").unlink()
    (made / "model.safetensors").mkdir()
    refused(made, "model.safetensors")


def test_no_pickle_is_opened(folder, monkeypatch):
    made = folder("gpt2")
    os.rename(made / "model.safetensors", made / "pytorch_model.bin")
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("a pickle was opened"))
    refused(made, "holds pytorch_model.bin, a pickle, which can run code and is never opened here")
    (made / "pytorch_model.bin").unlink()
    refused(made, "model.safetensors is missing")


@pytest.mark.parametrize(
    "names", [{}, [], None, {"a": 3}, {"a": "../elsewhere.safetensors"}, {"a": "/etc/passwd"}]
)
def test_an_index_that_leads_elsewhere(folder, names):
    made = folder("gpt2")
    split(made)
    (made / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    refused(made, "should map each tensor to a file of this folder in weight_map")


def test_parts_that_are_missing_or_overlap(folder):
    made = folder("gpt2")
    split(made)
    first, second = sorted(made.glob("model-*.safetensors"))
    tensors = {name: tensor.clone() for name, tensor in load_file(second).items()}
    second.unlink()
    refused(made, f"{second.name} is missing; model.safetensors.index.json names it")
    twice = next(iter(load_file(first)))
    save_file({**tensors, twice: torch.ones(1)}, second)
    refused(made, f"the tensor {twice} is in another part too")


def test_the_check_of_a_model_can_fail(folder):
    """Its three reasons, each brought about."""
    made = folder("gpt2", n_head=2, n_embd=8)
    model = HookedTransformer.from_folder(made)
    check_model(model, "a model")
    assert not model.has_listeners()

    for block in model.blocks:
        block.attn._explicit = deaf(block.attn)
    with pytest.raises(RunError, match="a model: changing the attention patterns does not change the logits"):
        check_model(model, "a model")
    assert not model.has_listeners()

    model = HookedTransformer.from_folder(made)
    model.blocks[0].attn._explicit = halved(model.blocks[0].attn)
    with pytest.raises(RunError, match=r"the rows of blocks\.0\.attn\.hook_pattern do not sum to 1"):
        check_model(model, "a model")

    model = HookedTransformer.from_folder(made)
    with torch.no_grad():
        model.embed.W_E.fill_(float("inf"))
    with pytest.raises(RunError, match="the logits of 4 tokens are not finite"):
        check_model(model, "a model")


def deaf(attn):
    """Attention whose hook on the pattern stands where nothing comes of it."""
    plain = attn._explicit

    def explicit(q, k, v, sight):
        z = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        plain(q, k, v, sight)
        return z

    return explicit


def halved(attn):
    """Attention whose rows sum to one half."""

    def explicit(q, k, v, sight):
        pattern = attn.hook_pattern((q @ k.transpose(-1, -2)).softmax(-1) / 2)
        return pattern @ v

    return explicit
