"""Settings both ways: what each family holds, and what is refused by the name of its field or setting."""

import dataclasses

import pytest
import torch
import transformers
from hf_models import CASES, in_float64

from workbench.errors import ConfigError, InputError
from workbench.model.config import PRESETS, ModelConfig, preset
from workbench.model.hf import FAMILIES, family_for, to_hf
from workbench.model.hf.family import RULES
from workbench.model.transformer import HookedTransformer

CLASSES = {
    "gpt2": transformers.GPT2Config, "gpt_neo": transformers.GPTNeoConfig, "llama": transformers.LlamaConfig,
    "bert": transformers.BertConfig, "roberta": transformers.RobertaConfig,
}  # fmt: skip

LLAMA = dict(norm="RMSNorm", activation="silu", gated=True, mlp_bias=False, qkv_bias=False, out_bias=False)
SHAPES = {
    "gpt2": {},
    "gpt_neo": dict(attention_scale=1.0, qkv_bias=False, windows=(0, 5)),
    "llama": dict(positions="rotary", n_key_value_heads=2, **LLAMA),
    "bert": dict(attention="bidirectional", norm_place="post", embed_norm=True, mlm_head=True,
                 unembed_bias=True, token_types=2),
}  # fmt: skip
SHAPES["roberta"] = SHAPES["bert"] | dict(position_offset=2)

IDLE = {
    "dropout",
    "init_std",
    "depth_scaled_init",
    "seed",
    "rotary_base",
    "relative_buckets",
    "relative_distance",
}
"""Fields that change training only, or something that another, refused field switches on."""


def shape(family: str, **changes) -> ModelConfig:
    size = dict(d_model=32, n_heads=4, d_vocab=61, n_ctx=24) | (
        {} if "layout" in changes else {"n_layers": 2}
    )
    return ModelConfig(**size | SHAPES[family] | changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_is_held_or_refused(family):
    """A field that is added to ModelConfig must be put into the tables before the families take it."""
    one = FAMILIES[family]
    known = {*one.names, *one.constants, *(field for field, *_ in (*RULES, *one.rules))} | IDLE
    known |= {"n_ctx", "rotary_base", "qkv_bias", "attention_scale", "n_layers", "rotary_adjacent", "windows"}
    assert {field.name for field in dataclasses.fields(ModelConfig)} <= known


@pytest.mark.parametrize("family", FAMILIES)
def test_settings_survive_the_round_trip(family):
    config = shape(family, d_mlp=24, eps=0.01, dropout=0.0, init_std=0.3, tied=False)
    settings = FAMILIES[family].settings_of(config)
    assert family_for(config) is FAMILIES[family]
    assert FAMILIES[family].config_of(settings) == dataclasses.replace(config)
    theirs = CLASSES[family](**{key: value for key, value in settings.items() if key != "model_type"})
    assert FAMILIES[family].config_of(theirs.to_dict()) == config
    for key in settings.keys() - {"architectures", "dtype", "rope_theta"}:
        assert getattr(theirs, key) == settings[key], key


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_config_json_leaves_out_is_what_transformers_takes(family):
    assert FAMILIES[family].config_of({}) == FAMILIES[family].config_of(CLASSES[family]().to_dict())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_random_settings_come_back(case):
    one = FAMILIES[case.family]
    config = one.config_of({**transformers.AutoConfig.for_model(case.family).to_dict(), **case.settings})
    assert one.config_of(one.settings_of(config)) == config


EXPORTED = {
    "nano": "GPT-2", "tiny": "GPT-2", "gpt2": "GPT-2", "mini-llm-166m": "GPT-2", "gpt-neo-9m": "GPT-Neo",
    "tinystories-1m": "GPT-Neo", "stories15m": "Llama", "bert-base": "BERT", "roberta-9m": "RoBERTa",
    "roberta-base": "RoBERTa",
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTED)
def test_presets_find_their_family(name):
    assert family_for(preset(name)).title == EXPORTED[name]


@pytest.mark.parametrize("name", ["nano", "gpt-neo-9m", "stories260k", "roberta-9m"])
def test_presets_give_the_same_logits_there(name):
    small = {} if name == "nano" else {"d_vocab": 300, "n_ctx": 64}
    ours = HookedTransformer(preset(name, **small, init_std=0.1)).double().eval()
    theirs = to_hf(ours)
    tokens = torch.randint(5, 200, (2, 40))
    with in_float64():
        logits = theirs(tokens).logits
    torch.testing.assert_close(ours(tokens), logits, rtol=0, atol=1e-10)


REFUSED_FIELDS = [
    ("gpt_neo", dict(mlp_depth=2), "model.mlp_depth = 2: GPT-Neo has one hidden layer in its MLP."),
    ("gpt_neo", dict(qkv_bias=True), "model.qkv_bias = True: GPT-Neo has no biases on queries, keys and values."),
    ("gpt_neo", dict(attention_scale=2.0), "model.attention_scale = 2.0: GPT-Neo has 1.0 only."),
    ("gpt_neo", dict(windows=(3, 5)), "model.windows = (3, 5): GPT-Neo has one window for all its local layers."),
    ("gpt2", dict(windows=(0, 5)), "model.windows = (0, 5): GPT-2 attends to the whole context in all layers."),
    ("gpt2", dict(attention_scale=3.0), "model.attention_scale = 3.0: GPT-2 divides attention scores by sqrt(d_head), or not at all."),
    ("gpt2", dict(layout="amma"), "model.layout = 'amma': GPT-2 has an MLP after each attention module."),
    ("gpt2", dict(d_head=4), "model.d_head = 4: GPT-2 has heads of width d_model / n_heads."),
    ("gpt2", dict(d_value=4), "model.d_value = 4: GPT-2 has values as wide as its queries."),
    ("gpt2", dict(n_key_value_heads=1), "model.n_key_value_heads = 1: GPT-2 has separate keys and values for each head."),
    ("gpt2", dict(positions="alibi"), "model.positions = 'alibi': GPT-2 has learned positions."),
    ("gpt2", dict(norm="RMSNorm"), "model.norm = 'RMSNorm': GPT-2 has LayerNorm."),
    ("gpt2", dict(norm_place="normformer"), "model.norm_place = 'normformer': GPT-2 normalises the input of each module."),
    ("gpt2", dict(activation="prelu"), "model.activation = 'prelu': GPT-2 has gelu, gelu_tanh, relu, silu."),
    ("gpt2", dict(gated=True), "model.gated = True: GPT-2 has no gate in its MLP."),
    ("gpt2", dict(d_embed=8), "model.d_embed = 8: GPT-2 has embeddings as wide as the model."),
    ("gpt2", dict(sharing="mlp"), "model.sharing = 'mlp': GPT-2 has separate weights in each layer."),
    ("gpt2", dict(residual="weighted"), "model.residual = 'weighted': GPT-2 adds each module's output to the residual stream."),
    ("gpt2", dict(unembed_bias=True), "model.unembed_bias = True: GPT-2 has no bias on its logits."),
    ("llama", dict(mlp_bias=True), "model.mlp_bias = True: Llama has no biases in its MLP here."),
    ("llama", dict(qkv_bias=True), "model.out_bias = False: Llama has biases in all of its attention or nowhere."),
    ("llama", dict(gated=False), "model.gated = False: Llama has a gate in its MLP."),
    ("llama", dict(n_heads=3, n_key_value_heads=3, d_head=4), "model.n_heads = 3: Llama has a d_model that n_heads divides."),
    ("bert", dict(mlm_head=False), "model.mlm_head = False: BERT has a dense layer before its readout."),
    ("bert", dict(token_types=0), "model.token_types = 0: BERT has at least one token type."),
    ("bert", dict(norm_place="pre"), "model.norm_place = 'pre': BERT normalises the stream after each module."),
    ("bert", dict(position_offset=2), "model.position_offset = 2: BERT has no vectors before its first position."),
    ("roberta", dict(activation="relu"), "model.activation = 'relu': RoBERTa has 'gelu' only."),
    ("roberta", dict(position_offset=0), "model.position_offset = 0: RoBERTa starts its positions after the id of its padding token."),
]  # fmt: skip


@pytest.mark.parametrize(("family", "changes", "words"), REFUSED_FIELDS, ids=lambda value: str(value)[:40])
def test_a_field_that_a_family_cannot_hold_is_named(family, changes, words):
    config = shape(family, **changes)
    with pytest.raises(ConfigError) as error:
        family_for(config, family)
    assert str(error.value) == words
    assert FAMILIES[family].refusals(shape(family)) == []


def test_without_a_family_the_nearest_one_comes_first():
    with pytest.raises(ConfigError) as error:
        family_for(shape("gpt_neo", mlp_depth=2, sharing="all"))
    assert str(error.value).startswith(
        "no family can hold this model. model.mlp_depth = 2: GPT-Neo has one hidden layer in its MLP. "
        "model.sharing = 'all': GPT-Neo has separate weights in each layer. The others refuse GPT-2: "
    )
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match=r"no family is called 'gtp2'. Did you mean 'gpt2'\?"):
        family_for(shape("gpt2"), "gtp2")


REFUSED_SETTINGS = [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True: a scale that differs by layer"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention = True: attention to another model's output"),
    ("gpt2", {"activation_function": "quick_gelu"}, "activation_function = 'quick_gelu' is not a supported activation"),
    ("gpt2", {"n_embd": "wide"}, "model.d_model"),
    ("gpt2", {"n_layer": -1}, "model.n_layers must be from 1 to 1e+15; found -1"),
    ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config = {'bits': 4}: the weights are quantised"),
    ("gpt_neo", {"attention_types": [[["global"], 3]], "num_layers": 2}, "attention_types names 3 layers and num_layers is 2"),
    ("gpt_neo", {"attention_types": [[["global", "sparse"], 1]], "num_layers": 2}, "attention_types names ['global', 'sparse']"),
    ("gpt_neo", {"attention_types": 7}, "a setting has the wrong type"),
    ("gpt_neo", {"attention_types": [[["global"], 10**12]], "num_layers": 10**12}, "attention_types names 1,000,000,000,000 layers"),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters has type 'llama3'"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling has type 'linear': rescaled rotary angles"),
    ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "heads that are rotated in part"),
    ("llama", {"mlp_bias": True}, "mlp_bias = True: a gated MLP with a bias on its gate is not supported"),
    ("llama", {"hidden_act": 7}, "hidden_act = 7 is not a supported activation"),
    ("llama", {"num_key_value_heads": 5}, "model.n_key_value_heads = 5 must divide model.n_heads = 32"),
    ("bert", {"is_decoder": True}, "is_decoder = True: a masked model's layers used from left to right"),
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key': only absolute positions"),
    ("roberta", {"hidden_act": "relu"}, "hidden_act = 'relu': its readout has gelu, and a model of ours one activation"),
    ("roberta", {"pad_token_id": 600}, "max_position_embeddings = 512 leaves no position after pad_token_id = 600"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "settings", "words"), REFUSED_SETTINGS, ids=lambda value: str(value)[:40])
def test_a_setting_that_we_cannot_hold_is_named(family, settings, words):
    with pytest.raises(ConfigError) as error:
        FAMILIES[family].config_of(settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_of_older_files_are_read():
    llama = FAMILIES["llama"]
    assert llama.config_of({"rope_theta": 500000.0}).rotary_base == 500000.0
    assert llama.config_of({"rope_theta": 100.0, "rope_scaling": None}).rotary_base == 100.0
    assert FAMILIES["gpt_neo"].config_of({}).windows == (0, 256)
    types = [[["global", "local"], 2], [["local"], 1]]
    odd = FAMILIES["gpt_neo"].config_of({"attention_types": types, "num_layers": 5, "window_size": 9})
    assert odd.windows == (0, 9, 0, 9, 9)
    assert FAMILIES["gpt2"].config_of({"scale_attn_weights": False}).attention_scale == 1.0


def test_other_models_are_refused():
    other = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    with pytest.raises(
        InputError, match=r"T5ForConditionalGeneration \(model_type 't5'\) is not a supported family"
    ):
        HookedTransformer.from_hf(other)
    with pytest.raises(InputError, match="Linear"):
        HookedTransformer.from_hf(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["albert-base", "elc-bert-small"])
def test_presets_that_no_family_holds_say_why(name):
    with pytest.raises(ConfigError, match="no family can hold this model"):
        family_for(preset(name))


def test_all_other_presets_have_a_family():
    for name in PRESETS.keys() - {"albert-base", "elc-bert-small"}:
        assert family_for(preset(name))
