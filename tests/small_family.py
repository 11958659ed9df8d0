"""A small family: finished runs that trained for a moment, pairs with made-up sentences, the maker's recipe."""

import json
from pathlib import Path

import pytest
from small_runs import masked, small

from training.session import train
from training.zoo.member import Recipe
from training.zoo.scores import Sets
from workbench.data.pairs import BLIMP, Pair, PairSet, open_pairs

MEMBERS = ("mid", "mid-s1", "two-heads", "hidden")
SECRET = "The purple walrus never admired itself beside the harbour"
"""A sentence of the pairs that must be in no file."""


def pairs_of(count: int = 3) -> PairSet:
    """Pairs under BLiMP's names, so that they count as BLiMP; the sentences are made up."""
    made = {}
    for number, (uid, phenomenon) in enumerate(sorted(BLIMP.items())):
        made[uid] = [
            Pair(f"{SECRET} {number} {pair}.", f"{SECRET} {pair} {number} bad.", uid, phenomenon, pair)
            for pair in range(count)
        ]
    return PairSet("blimp", "blimp", made)


def supplement_of(count: int = 4) -> PairSet:
    """Five tasks as in the supplement."""
    tasks = ("hypernym", "qa_congruence_easy", "qa_congruence_tricky", "subject_aux_inversion", "turn_taking")
    made = {
        task: [Pair(f"{SECRET} {task} {n}.", f"{SECRET} {n} {task}?", task, task, n) for n in range(count)]
        for task in tasks
    }
    return PairSet("supplement", "folder", made)


def make_runs(root: Path) -> Path:
    """Finished runs of a sweep."""
    train(small("model.n_ctx=64"), root / "mid", quiet=True)
    share = (f"data.tokenizer={root / 'mid' / 'tokenizer.json'}", "train.steps=9", "model.n_ctx=64")
    train(small(*share, "train.seed=1", "model.seed=1"), root / "mid-s1", quiet=True)
    train(small(*share, "model.n_heads=1"), root / "two-heads", quiet=True)
    train(masked(*share), root / "hidden", quiet=True)
    plan = {
        "name": "small", "assignments": [f"data.source={root}/corpus", "budget.steps=9"],
        "members": [
            {"name": "mid", "differs": {}}, {"name": "mid-s1", "differs": {"seed": 1}},
            {"name": "two-heads", "differs": {"model.n_heads": 1}},
            {"name": "hidden", "differs": {"model.objective": "mlm"}},
        ],
    }  # fmt: skip
    (root / "sweep.json").write_text(json.dumps(plan))
    (root / "sweep.yaml").write_text("name: small\n")
    (root / "status").mkdir()
    (root / "status" / "mid.json").write_text(json.dumps({"started": 100.0, "ended": 130.5, "attempt": 1}))
    return root


def recipe_of() -> Recipe:
    """What all members share."""
    embedded = open_pairs(None).select(None, 2)
    return Recipe(Sets(pairs_of(), supplement_of(), embedded), {"machine": "a test's"}, None, 5, "mid", 512)


def take_for_whole(recipe: Recipe, patch: pytest.MonkeyPatch) -> None:
    """Take the small sets of pairs that the family is scored on for all of BLiMP and all embedded pairs."""
    patch.setattr("workbench.data.pairs.BLIMP_PAIRS", 3)
    patch.setattr("workbench.data.embedded.pairs.FINGERPRINT", recipe.sets.embedded.fingerprint)
