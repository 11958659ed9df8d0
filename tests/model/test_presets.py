"""Presets: published parameter counts, exactly, against Hugging Face's own classes; what an override takes along."""

import pytest
import torch

from workbench.errors import ConfigError
from workbench.model.config import PRESETS, SOURCES, merge, preset
from workbench.model.transformer import HookedTransformer
from workbench.runs.config import resolve

PUBLISHED = {
    "gpt-neo-9m": 9_585_664,
    "tinystories-1m": 3_745_984,
    "tinystories-3m": 8_278_400,
    "tinystories-8m": 19_702_528,
    "tinystories-28m": 51_987_968,
    "tinystories-33m": 68_514_048,
    "stories260k": 260_032,
    "stories15m": 15_191_712,
    "stories42m": 41_689_600,
    "stories110m": 109_529_856,
    "gpt2": 124_439_808,
    "roberta-9m": 9_863_952,
    "bert-base": 109_514_298,
    "roberta-base": 124_697_433,
    "albert-base": 11_221_680,
}


def gpt_neo(vocab_size, max_position_embeddings, hidden_size, num_layers, num_heads, **rest):
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    types = [[["global", "local"], num_layers // 2]]
    return GPTNeoForCausalLM(
        GPTNeoConfig(
            vocab_size=vocab_size, max_position_embeddings=max_position_embeddings, hidden_size=hidden_size,
            num_layers=num_layers, num_heads=num_heads, attention_types=types, window_size=256, **rest,
        )
    )  # fmt: skip


def llama(hidden_size, layers, heads, kv_heads, intermediate, vocab, context):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=hidden_size, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
            intermediate_size=intermediate, vocab_size=vocab, max_position_embeddings=context, tie_word_embeddings=True,
            rms_norm_eps=1e-5,
        )
    )  # fmt: skip


def gpt2(**fields):
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(**fields))


def roberta(**fields):
    from transformers import RobertaConfig, RobertaForMaskedLM

    return RobertaForMaskedLM(
        RobertaConfig(max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, **fields)
    )


def bert():
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig())


def albert():
    from transformers import AlbertConfig, AlbertForMaskedLM

    return AlbertForMaskedLM(
        AlbertConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12)
    )


# The values of the configurations that were published.
THEIRS = {
    "gpt-neo-9m": lambda: gpt_neo(10000, 512, 512, 2, 4, intermediate_size=1024),
    "tinystories-1m": lambda: gpt_neo(50257, 2048, 64, 8, 16),
    "tinystories-3m": lambda: gpt_neo(50257, 2048, 128, 8, 16),
    "tinystories-8m": lambda: gpt_neo(50257, 2048, 256, 8, 16),
    "tinystories-28m": lambda: gpt_neo(50257, 2048, 512, 8, 16),
    "tinystories-33m": lambda: gpt_neo(50257, 2048, 768, 4, 16),
    "stories260k": lambda: llama(64, 5, 8, 4, 172, 512, 512),
    "stories15m": lambda: llama(288, 6, 6, 6, 768, 32000, 256),
    "stories42m": lambda: llama(512, 8, 8, 8, 1376, 32000, 1024),
    "stories110m": lambda: llama(768, 12, 12, 12, 2048, 32000, 1024),
    "gpt2": gpt2,
    "mini-llm-166m": lambda: gpt2(n_layer=18),
    "roberta-9m": lambda: roberta(
        vocab_size=10000, hidden_size=512, num_hidden_layers=2, num_attention_heads=4, intermediate_size=1024
    ),
    "bert-base": bert,
    "roberta-base": lambda: roberta(vocab_size=50265),
    "albert-base": albert,
}


def test_the_table_of_sources_is_whole():
    assert list(SOURCES) == list(PRESETS)
    assert {name: source.n_params for name, source in SOURCES.items() if source.n_params} == PUBLISHED
    assert all(source.citation and source.tokenizer for source in SOURCES.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    assert preset(name).n_params == PUBLISHED[name]


@pytest.mark.parametrize("name", PRESETS)
def test_the_module_has_as_many(name):
    with torch.device("meta"):
        model = HookedTransformer(preset(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == preset(name).n_params


@pytest.mark.parametrize("name", THEIRS)
def test_hugging_face_has_as_many(name):
    with torch.device("meta"):
        theirs = THEIRS[name]()
    config = preset(name)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == config.n_params
    vectors = theirs.get_input_embeddings().weight.numel()
    assert vectors == config.d_vocab * config.embed_width


def test_gpt_neo_has_its_windows_in_every_second_layer():
    config = preset("gpt-neo-9m")
    assert [config.window(index) for index in range(config.n_layers)] == [0, 256]
    with torch.device("meta"):
        assert gpt_neo(50257, 2048, 64, 8, 16).config.attention_layers == ["global", "local"] * 4
    assert [preset("tinystories-1m").window(index) for index in range(8)] == [0, 256] * 4


def test_a_layout_decides_the_number_of_layers_and_the_other_way_round(monkeypatch):
    assert preset("tiny", layout="aaaammmm").n_layers == 7
    assert resolve({}, "tiny", ["model.layout=aaaammmm"]).model.layout == "aaaammmm"
    assert resolve({"preset": "tiny", "model": {"layout": "(am)(am)"}}).model.n_layers == 2
    assert resolve({"model": {"layout": "mm"}}, "nano", ["model.d_model=32"]).model.blocks == ("m", "m")
    monkeypatch.setitem(PRESETS, "sandwich", dict(PRESETS["nano"], layout="aamm"))
    del PRESETS["sandwich"]["n_layers"]
    assert preset("sandwich").n_layers == 3
    assert preset("sandwich", n_layers=5).blocks == ("am",) * 5
    assert preset("sandwich", layout="amam").n_layers == 2
    both = {"layout": "amam", "n_layers": 3}
    with pytest.raises(ConfigError, match=r"n_layers = 3 contradicts model\.layout, which has 2 blocks"):
        preset("tiny", **both)
    with pytest.raises(ConfigError, match=r"n_layers = 3 contradicts model\.layout, which has 2 blocks"):
        resolve({"model": both}, "tiny")


def test_other_positions_leave_behind_what_belonged_to_the_presets_own():
    assert preset("roberta-9m", positions="alibi").position_offset == 0
    assert preset("roberta-9m", positions="learned").position_offset == 2
    assert preset("stories15m", positions="learned").rotary_adjacent is False
    assert preset("stories15m", positions="rotary").rotary_adjacent is True
    with pytest.raises(ConfigError, match="position_offset = 2 belongs to learned positions, not to rotary"):
        preset("roberta-9m", positions="rotary", position_offset=2)


def test_overrides_and_both_ways_of_asking_agree():
    assert merge("nano", {"d_model": 32})["n_heads"] == PRESETS["nano"]["n_heads"]
    for name in PRESETS:
        assert resolve({}, name, ["model.seed=3"]).model == preset(name, seed=3)
    before = {name: dict(fields) for name, fields in PRESETS.items()}
    preset("roberta-9m", positions="none", n_layers=3)
    assert before == PRESETS, "a preset is not changed by what is made of it"


def test_a_preset_that_does_not_exist():
    for ask in (lambda: preset("gtp2"), lambda: resolve({"preset": "gtp2"}), lambda: resolve({}, "gtp2")):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert str(caught.value) == "no preset is called 'gtp2'. Did you mean 'gpt2'?"
    for name in (["nano"], 3, {"nano": 1}):
        with pytest.raises(ConfigError, match="no preset is called"):
            resolve({"preset": name})


def test_an_unknown_field_is_named():
    with pytest.raises(ConfigError, match=r"model\.d_modle is not a field. Did you mean 'd_model'\?"):
        preset("tiny", d_modle=3)
