"""Members of equal parameters or FLOPs."""

import pytest

from training.sweep.plan import make_plan
from workbench.errors import ConfigError


def within(values, target):
    return all(abs(value - target) <= 0.01 * target for value in values)


@pytest.mark.parametrize("by", ["d_mlp", ["d_model", "d_mlp"]])
def test_parameters_match_within_one_per_cent(by, sweep_file):
    file = sweep_file(
        grid={"model.n_layers": [1, 2, 3]}, match={"parameters": "60k", "by": by}, budget={"tokens": 640}
    )
    plan = make_plan(file, ["model.d_model=32", "model.d_mlp=null"])
    assert within([member.parameters for member in plan.members], 60_000)
    assert len({member.settings.model.d_mlp for member in plan.members}) == 3
    assert all(
        set(m.chosen) == {f"model.{n}" for n in ([by] if isinstance(by, str) else by)} for m in plan.members
    )
    assert plan.matched.startswith("60,000 parameters within 1 %")


def test_flops_match_and_heads_keep_even_widths(sweep_file):
    file = sweep_file(
        grid={"model.n_heads": [1, 2, 4]}, match={"flops": 1e8, "by": "d_model"}, budget={"tokens": 640}
    )
    plan = make_plan(file, ["model.d_mlp=null", "model.n_layers=2"])
    assert within([member.flops_per_token for member in plan.members], 1e8)
    for member in plan.members:
        assert member.settings.model.d_mlp == 4 * member.settings.model.d_model
        assert member.settings.model.d_model % member.settings.model.n_heads == 0
    assert plan.members[0].settings.model.d_head % 2 == 0


def test_the_learning_rate_follows_the_width_that_was_chosen(sweep_file):
    plan = make_plan(
        sweep_file(match={"parameters": "200k", "by": "d_model"}), ["model.d_mlp=null", "model.n_heads=1"]
    )
    settings = plan.members[0].settings
    assert settings.train.lr == float(f"{3e-3 * (128 / settings.model.d_model) ** 0.75:.2g}")


def test_what_cannot_be_met_is_refused_with_the_nearest(sweep_file):
    file = sweep_file(
        match={"parameters": 20_000, "by": "d_model"}, base={"model": {"n_heads": 8, "d_mlp": 512}}
    )
    with pytest.raises(ConfigError) as error:
        make_plan(file)
    said = str(error.value)
    assert "match cannot be met: 20,000 parameters within 1 % by d_model; the nearest is d_model = " in said
    assert "try match.by: [d_model, d_mlp]" in said
    with pytest.raises(ConfigError, match="by d_mlp; the nearest is d_mlp = 1 with"):
        make_plan(sweep_file(match={"parameters": 100, "by": "d_mlp"}))


def test_the_counts_are_those_of_the_true_vocabulary(sweep_file):
    file = sweep_file(match={"parameters": "60k", "by": "d_mlp"}, budget={"tokens": 640})
    made = make_plan(file, vocabulary={300: 200}).members[0]
    assert made.settings.model.d_vocab == 200
    assert within([made.parameters], 60_000)
