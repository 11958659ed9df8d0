"""`training.train` and `training.resume` from Python: callbacks, a custom loss, silence."""

import json

import pytest
import torch

import training
from workbench.errors import ConfigError, RunError
from workbench.model.config import ModelConfig

SMALL = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_mlp": 32, "n_ctx": 16, "d_vocab": 300}
FAST = {"eval_every": 1000, "sample_tokens": 0, "final_eval_tokens": 64, "log_every": 5}
DATA = {"n_stories": 200}


def rows(run, kind):
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


@pytest.mark.parametrize("model", ["nano", ModelConfig(**SMALL), SMALL], ids=["preset", "config", "dict"])
def test_train_takes_a_preset_a_config_or_fields(model, tmp_path, capfd):
    run = training.train(model, DATA, out=tmp_path / "run", steps=2, quiet=True, **FAST)
    assert run.step == 2
    assert run.model.config.n_params == run.checkpoint.config.n_params
    assert capfd.readouterr() == ("", "")


def test_callbacks_see_the_state_and_write_rows(tmp_path):
    seen = []

    def probe(state):
        seen.append((state.step, state.loss))
        return {"norm": state.model.W_E.norm(), "double": 2 * state.step}

    run = training.train(
        SMALL, DATA, out=tmp_path / "run", steps=12, quiet=True, callbacks=[probe, lambda state: None], **FAST
    )
    curve = rows(run, "train")
    assert [step for step, _ in seen] == [row["step"] for row in curve] == [5, 10, 12]
    assert [loss for _, loss in seen] == [row["loss"] for row in curve]
    assert [row["double"] for row in rows(run, "callback")] == [10.0, 20.0, 24.0]
    assert (run.metrics.query("kind == 'callback'").norm > 0).all()


def test_a_callback_must_return_numbers(tmp_path):
    for returned, words in ((3, "must return a dict"), ({"a": "x"}, "not a number"), ({"step": 1}, "a name")):
        with pytest.raises(ConfigError, match=words):
            training.train(
                SMALL, DATA, out=tmp_path / str(returned)[:3].strip("{'"), steps=5, quiet=True,
                callbacks=[lambda state, returned=returned: returned], **FAST,
            )  # fmt: skip


def test_every_row_of_the_curve_averages_as_many_updates(tmp_path):
    each = training.train(SMALL, DATA, out=tmp_path / "each", steps=12, quiet=True, **FAST | {"log_every": 1})
    run = training.train(SMALL, DATA, out=tmp_path / "run", steps=12, quiet=True, **FAST)
    losses = [row["loss"] for row in rows(each, "train")]
    means = [sum(losses[step - 5 : step]) / 5 for step in (5, 10, 12)]
    assert [row["loss"] for row in rows(run, "train")] == pytest.approx(means, rel=1e-12)


def half(model, batch):
    return model.loss(batch.tokens, batch.targets, batch.segments) / 2


def test_a_custom_loss_is_minimised_and_asked_for_again(tmp_path):
    settings = {"steps": 4, "quiet": True, "lr": 1e-9, **FAST}
    plain = training.train(SMALL, DATA, out=tmp_path / "plain", **settings)
    run = training.train(SMALL, DATA, out=tmp_path / "run", loss=half, **settings)
    assert rows(run, "train")[-1]["loss"] == pytest.approx(rows(plain, "train")[-1]["loss"] / 2, rel=1e-4)
    with pytest.raises(RunError, match="custom loss half"):
        training.resume(run.path, steps=2, quiet=True)
    assert training.resume(run.path, steps=2, quiet=True, loss=half).step == 6
    with pytest.raises(ConfigError, match="custom loss cannot be combined"):
        training.train(SMALL, DATA, out=tmp_path / "z", loss=half, z_loss=1e-4, **settings)


def test_a_custom_loss_equal_to_the_models_own_gives_the_same_weights(tmp_path):
    def own(model, batch):
        return model.loss(batch.tokens, batch.targets, batch.segments)

    runs = [
        training.train(SMALL, DATA, out=tmp_path / str(loss is None), steps=3, quiet=True, loss=loss, **FAST)
        for loss in (None, own)
    ]
    first, second = (run.model.state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_wrong_setting_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="batch_size"):
        training.train(SMALL, DATA, out=tmp_path / "run", steps=2, batch_sise=8)
    assert not (tmp_path / "run").exists()
