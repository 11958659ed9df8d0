"""Members of a sweep file: combinations, names, budgets, and what comes back from the disk."""

import json

import pytest

from training.sweep.names import compose, slug
from training.sweep.plan import make_plan, read_plan, write_plan
from training.sweep.start import SHIPPED, begin, first_difference, go_on
from workbench.errors import ConfigError, RunError

TOKENS = {"tokens": 640}


def names(plan):
    return [member.name for member in plan.members]


def test_grid_and_seeds_multiply_and_seeds_vary_slowest(sweep_file):
    plan = make_plan(
        sweep_file(grid={"model.d_model": [16, 32], "model.n_heads": [1, 2]}, seeds=[0, 7], budget=TOKENS)
    )
    assert names(plan)[:4] == [f"d_model-{w}_n_heads-{h}_seed-0" for w in (16, 32) for h in (1, 2)]
    assert len(plan) == 8
    last = plan.members[-1]
    assert (last.settings.model.seed, last.settings.train.seed) == (7, 7)
    assert (last.settings.model.d_model, last.settings.model.n_heads) == (32, 2)
    assert last.differs == {"model.d_model": 32, "model.n_heads": 2, "seed": 7}
    assert last.parameters == last.settings.model.n_params
    assert last.flops == 640 * last.settings.model.flops_per_token


def test_the_order_of_the_data_may_be_shared(sweep_file):
    plan = make_plan(sweep_file(seeds=[1, 2], share_order=True, budget=TOKENS))
    assert [(m.settings.model.seed, m.settings.train.seed) for m in plan.members] == [(1, 0), (2, 0)]


def test_paired_fields_go_together(sweep_file):
    plan = make_plan(
        sweep_file(paired={"train.batch_size": [2, 4], "train.lr": ["1e-3", 2e-3]}, budget=TOKENS)
    )
    assert [(m.settings.train.batch_size, m.settings.train.lr) for m in plan.members] == [
        (2, 1e-3),
        (4, 2e-3),
    ]
    assert names(plan) == ["batch_size-2_lr-1e-3", "batch_size-4_lr-0.002"]


def test_list_entries_may_have_names_and_multiply_with_a_grid(sweep_file):
    plan = make_plan(
        sweep_file(
            list=[{"name": "flat", "model.layout": "aamm"}, {"model": {"n_layers": 3}}],
            grid={"model.d_mlp": [8, 16]}, budget=TOKENS,
        )
    )  # fmt: skip
    assert names(plan) == ["flat_d_mlp-8", "flat_d_mlp-16", "n_layers-3_d_mlp-8", "n_layers-3_d_mlp-16"]
    assert plan.members[0].settings.model.n_layers == 3  # the layout's blocks, not the base's number


def test_members_with_names_seeds_and_budgets_of_their_own(sweep_file):
    entries = [{"name": "a"}, {"name": "a-s1", "seed": 1}, {"name": "long", "budget": {"tokens": 1280}}]
    plan = make_plan(sweep_file(members=entries, budget=TOKENS))
    assert [(m.name, m.settings.model.seed, m.tokens) for m in plan.members] == [
        ("a", 0, 640), ("a-s1", 1, 640), ("long", 0, 1280),
    ]  # fmt: skip
    again = make_plan(
        sweep_file(members=[{"name": "a"}, {"name": "b", "model.d_mlp": 8}], seeds=[0, 1], budget=TOKENS)
    )
    assert names(again) == ["a-s0", "b-s0", "a-s1", "b-s1"]


def test_names_do_not_change_when_values_are_added(sweep_file):
    one = make_plan(sweep_file(grid={"model.d_model": [16]}, budget=TOKENS))
    two = make_plan(sweep_file(grid={"model.d_model": [16, 32]}, budget=TOKENS))
    assert names(one) == names(two)[:1] == ["d_model-16"]


def test_names_are_safe_and_short():
    assert slug(1e-05) == "1e-5"
    assert slug(3e13) == "3e13"
    assert slug([0, 256]) == "0+256"
    assert slug("(am)(am)") == "am+am"
    assert slug(None) == "none"
    assert slug("../../etc/passwd") == "etc+passwd"
    assert slug("{}\n$x") == "x"
    assert compose({"model.seed": 1, "train.seed": 2}, None) == "model.seed-1_train.seed-2"
    long = compose({"data.source": "x" * 300}, 1)
    other = compose({"data.source": "x" * 301}, 1)
    assert len(long) <= 110
    assert long != other


def test_flops_become_tokens_and_several_budgets_become_families(sweep_file):
    plan = make_plan(sweep_file(grid={"model.d_model": [16, 32]}, budget={"flops": ["1e9", 3e9]}))
    assert sorted(names(plan)) == [f"d_model-{w}_flops-{n}e9" for w in (16, 32) for n in (1, 3)]
    for member in plan.members:
        budget = 1e9 if "1e" in member.name else 3e9
        step = member.settings.tokens_per_step * member.flops_per_token
        assert budget - step < member.flops <= budget


def test_minutes_and_units(sweep_file):
    assert make_plan(sweep_file(budget={"minutes": 0.5})).members[0].settings.train.minutes == 0.5
    assert make_plan(sweep_file(budget={"tokens": "1.28k"})).members[0].tokens == 1280
    assert make_plan(sweep_file()).members[0].settings.train.minutes == 10  # as an ordinary run


def test_set_changes_the_base_or_the_sweep(sweep_file):
    file = sweep_file(grid={"model.d_model": [16]}, budget=TOKENS)
    plan = make_plan(file, ["model.d_mlp=8", "budget.minutes=2", "seeds=[3]", "launcher.jobs=2"])
    member = plan.members[0]
    assert (member.name, member.settings.model.d_mlp, member.settings.train.minutes) == (
        "d_model-16_seed-3",
        8,
        2,
    )
    assert plan.launcher.jobs == 2


def test_the_true_vocabulary_takes_the_place_of_the_one_asked_for(sweep_file):
    file = sweep_file(grid={"model.d_model": [16]}, budget=TOKENS)
    assert make_plan(file, vocabulary={300: 290}).members[0].settings.model.d_vocab == 290


def test_a_plan_comes_back_from_the_disk_as_it_was(sweep_file, tmp_path):
    file = sweep_file(
        grid={"model.windows": [[], [4]], "train.lr": [1e-3]}, seeds=[0, 1], budget=TOKENS, blimp={"limit": 3},
        launcher={"kind": "slurm", "partition": "cpu", "setup": ["module load x"]}, question="why?",
    )  # fmt: skip
    plan = make_plan(file, ["train.log_every=5"], {300: 299})
    write_plan(plan, tmp_path / "out")
    assert read_plan(tmp_path / "out") == plan
    assert (tmp_path / "out" / "sweep.yaml").read_bytes() == file.read_bytes()


def test_a_damaged_plan_is_refused_in_one_line(planned):
    out = planned(budget=TOKENS)
    (out / "sweep.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(RunError, match=r"sweep\.json is damaged"):
        read_plan(out)
    with pytest.raises(RunError, match=r"there is no sweep .*nowhere\. Did you mean '.*sweep'\?"):
        read_plan(out.parent / "nowhere")


def test_what_differs_is_named(sweep_file):
    one = make_plan(sweep_file(grid={"model.d_model": [16]}, budget=TOKENS))
    more = make_plan(sweep_file(grid={"model.d_model": [16, 32]}, budget=TOKENS))
    other = make_plan(sweep_file(grid={"model.d_model": [16]}, budget={"tokens": 1280}))
    assert first_difference(one, one) is None
    assert first_difference(one, more) == "it has no member d_model-32"
    assert first_difference(more, one) == "the file has no member d_model-32"
    assert first_difference(one, other) == "train.tokens of d_model-16 is 640 there, 1280 here"


def test_a_sweep_may_be_given_more_members_but_not_others(planned, sweep_file):
    out = planned(grid={"model.d_model": [16, 32]}, budget=TOKENS)
    before = read_plan(out)
    plan = go_on(sweep_file(grid={"model.d_model": [8, 16, 32]}, budget=TOKENS), (), out)
    assert [member.name for member in plan.members] == ["d_model-8", "d_model-16", "d_model-32"]
    assert plan.members[1:] == before.members
    assert read_plan(out) == before, "nothing is written before it is agreed to"
    begin(plan, out)
    assert read_plan(out) == plan
    assert "8" in (out / "sweep.yaml").read_text()
    (out / "d_model-64").mkdir()
    for grid, words in (
        ({"model.d_model": [16, 32]}, "the file has no member d_model-8"),
        ({"model.d_model": [8, 16, 32, 64]}, "d_model-64 exists and is not of this sweep"),
    ):
        with pytest.raises(RunError, match=words):
            go_on(sweep_file(grid=grid, budget=TOKENS), (), out)
    members = [{"name": f"d_model-{width}", "model.d_model": width} for width in (8, 16, 32)]
    members.append({"name": "words", "model.d_model": 8, "model.d_vocab": 310})
    with pytest.raises(RunError, match=r"needs a tokenizer of another size"):
        go_on(sweep_file(members=members, budget=TOKENS), (), out)


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_sweeps_plan_and_say_what_they_ask(file):
    plan = make_plan(file)
    assert plan.name == file.stem
    assert len(plan) >= 9
    assert plan.question
    text = file.read_text()
    for word in ("# Question: ", "# Held fixed: ", "# Takes: "):
        assert word in text
    assert max(map(len, text.splitlines())) <= 120
    assert all(member.tokens for member in plan.members)


def test_the_family_that_ships():
    plan = make_plan(SHIPPED / "zoo.yaml")
    assert names(plan) == [
        "tiny-4h", "tiny-4h-s1", "tiny-4h-s2", "tiny-1h", "tiny-2h", "tiny-8h", "tiny-1l", "tiny-2l", "tiny-w32",
        "tiny-w128", "tiny-attn", "tiny-bert",
    ]  # fmt: skip
    shape = {member.name: member.settings.model for member in plan.members}
    assert shape["tiny-attn"].layout == "aa"
    assert shape["tiny-bert"].objective == "mlm"
    assert shape["tiny-w128"].d_mlp == 512
    assert shape["tiny-4h"].d_head == 16


REFUSED = {
    "unknown section": (dict(gird={}), "gird is not a field. Did you mean 'grid'?"),
    "unknown field": (dict(grid={"model.d_modl": [1]}), "grid.model.d_modl is not a field of a run. Did you mean 'model.d_model'?"),
    "without its section": (dict(grid={"d_model": [1]}), "grid.d_model is not a field of a run. Did you mean 'model.d_model'?"),
    "unknown in base": (dict(base={"model": {"d_heads": 3}}), "base.model.d_heads is not a field of a run. Did you mean 'model.d_head'?"),
    "unknown base section": (dict(base={"modle": {}}), "base.modle is not a section. Did you mean 'model'?"),
    "empty grid": (dict(grid={"model.d_model": []}), "grid.model.d_model is empty"),
    "a grid of nothing": (dict(grid={}), "grid is empty; give it values, or leave it out"),
    "not a list": (dict(grid={"model.d_model": 16}), "grid.model.d_model must be a list of values; found 16."),
    "unequal": (dict(paired={"model.d_model": [16], "model.d_mlp": [1, 2]}), "paired fields need equally many values; found model.d_model 1, model.d_mlp 2."),
    "twice": (dict(grid={"model.d_model": [16, 16]}), "two members are called d_model-16; remove the repeated value"),
    "case": (dict(members=[{"name": "a"}, {"name": "A", "seed": 1}]), "a and A are one name"),
    "same run": (dict(members=[{"name": "a"}, {"name": "b"}]), "a and b are the same run; leave one of them out."),
    "nameless": (dict(members=[{"seed": 1}]), "members[0] has no name."),
    "bad name": (dict(members=[{"name": "../x"}]), "members[0].name must be of letters, digits"),
    "taken name": (dict(members=[{"name": "status"}]), "is kept for the sweep's own files"),
    "no members": (dict(members=[]), "members is empty"),
    "both kinds": (dict(members=[{"name": "a"}], grid={"model.d_model": [16]}), "they take no grid, paired or list beside them"),
    "seed twice": (dict(seeds=[1, 1]), "seeds holds a seed twice"),
    "seed varied": (dict(seeds=[1], grid={"model.seed": [1]}), "model.seed is varied twice; leave it to seeds."),
    "varied twice": (dict(list=[{"model.d_model": 16}], grid={"model.d_model": [32]}), "model.d_model is varied twice"),
    "two limits": (dict(budget={"tokens": 1, "minutes": 1}), "budget takes one of tokens, minutes and flops; found tokens, minutes."),
    "unknown limit": (dict(budget={"token": 1}), "budget.token is not a field. Did you mean 'tokens'?"),
    "small budget": (dict(budget={"tokens": 31}), "the budget cannot be met: 31 tokens are less than one update of 32"),
    "small flops": (dict(budget={"flops": 1000}), "the budget cannot be met: 1e+03 FLOPs are 0 tokens, less than one update"),
    "no number": (dict(budget={"tokens": "many"}), "budget.tokens must be a number above 0, such as 50M or 1e15; found 'many'."),
    "negative": (dict(budget={"minutes": -1}), "budget.minutes must be a number above 0"),
    "second limit": (dict(budget=TOKENS, base={"train": {"steps": 5}}), "train.steps and budget are both set; a member has one limit."),
    "a value no run takes": (dict(grid={"model.n_heads": [3]}), "n_heads-3: model.n_heads = 3 does not divide model.d_model = 16"),
    "match of nothing": (dict(match={"by": "d_mlp"}), "match needs one of parameters and flops"),
    "match by": (dict(match={"parameters": 1e6, "by": "n_layers"}), "match.by must be d_model, d_mlp or [d_model, d_mlp]"),
    "blimp": (dict(blimp={"limt": 3}), "blimp.limt is not a field. Did you mean 'limit'?"),
    "launcher": (dict(launcher={"partitoin": "x"}), "launcher.partitoin is not a field. Did you mean 'partition'?"),
    "huge": (dict(grid={"train.seed": list(range(200)), "model.d_mlp": list(range(1, 201))}), "this sweep has 40,000 members; at most 10,000 are taken."),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_place_and_the_remedy(case, sweep_file):
    sections, words = REFUSED[case]
    with pytest.raises(ConfigError) as error:
        make_plan(sweep_file(**sections))
    assert words in str(error.value)
    assert "sweep.yaml: " in str(error.value)
    assert "\n" not in str(error.value)


def test_set_of_a_field_that_the_sweep_varies(sweep_file):
    with pytest.raises(ConfigError, match=r"--set model.d_model: the sweep itself varies model.d_model"):
        make_plan(sweep_file(grid={"model.d_model": [16]}), ["model.d_model=32"])
