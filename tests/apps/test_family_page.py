"""The page on the family that ships: what it opens on, and pairs whose sentences did not come with it."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import page_runs
import pytest
from small_family import SECRET, make_runs, recipe_of, take_for_whole
from streamlit.testing.v1 import AppTest

from apps.answers import catalogue, pairs_at_hand
from training.zoo.make import make_family
from workbench.runs.zoo import PLACE
from workbench.runs.zoo import family_folder as installed

PAGE = Path(__file__).resolve().parents[2] / "apps" / "explorer.py"


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Path:
    import jaxtyping

    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    jaxtyping.config.update("jaxtyping_disable", True)
    root = tmp_path_factory.mktemp("family")
    recipe = recipe_of()
    with pytest.MonkeyPatch.context() as patch:
        take_for_whole(recipe, patch)
        runs = make_runs(root / "runs")
        make_family(runs, root / "family", recipe, ["mid", "hidden"], "mid", say=lambda _: None)
    jaxtyping.config.update("jaxtyping_disable", False)
    return root / "family"


@pytest.fixture
def page(family, monkeypatch, tmp_path) -> Callable[..., AppTest]:
    """Open the page in an empty folder, with this command line and these URL parameters."""

    monkeypatch.setattr("workbench.data.pairs.BLIMP_PAIRS", 3)  # the small set is all of BLiMP here

    def opened(*words: str, place: Path = family, **query: str) -> AppTest:
        monkeypatch.setenv(PLACE, str(place))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "apps" / "catalogue.py"))
        monkeypatch.setattr(sys, "argv", ["explorer.py", *words])
        test = AppTest.from_file(str(PAGE), default_timeout=60)
        for key, value in query.items():
            test.query_params[key] = value
        test.run()
        assert not test.exception, [error.value for error in test.exception]
        return test

    return opened


def words_of(test: AppTest) -> str:
    found = []
    for kind in ("html", "markdown", "caption", "error", "warning", "info", "code"):
        found += [str(getattr(each, "body", None) or getattr(each, "value", "")) for each in test.get(kind)]
    return "\n".join(found)


def test_it_opens_on_the_middle_one_without_arguments(page):
    test = page()
    assert test.selectbox(key="run").value == "zoo/mid"
    assert test.selectbox(key="run").options == ["zoo/hidden", "zoo/mid"]
    assert test.selectbox(key="pairs").value == "embedded"
    assert "prefers" in words_of(test)
    assert not test.error
    assert "results came without sentences" in words_of(test)
    test = page(page="blimp")
    assert test.selectbox(key="result").value.endswith("-native-blimp")  # its shares are there all the same


def test_every_member_and_checkpoint_opens(page):
    for query in (
        {"run": "zoo/hidden"},
        {"run": "zoo/mid", "checkpoint": "0"},
        {"run": "zoo/mid", "pairs": "blimp"},
    ):
        test = page(**query)
        assert not test.error
        assert "prefers" in words_of(test)
        assert test.selectbox(key="run").value == query["run"]


def test_sentences_come_from_a_folder_of_the_same_pairs(page, tmp_path, recipe_pairs):
    test = page("--data", str(recipe_pairs))
    assert test.selectbox(key="pairs").value == "blimp"
    assert SECRET in test.selectbox(key="pair").options[0]
    assert "came without sentences" not in words_of(test)
    margins = [float(label.split()[1].replace("−", "-")) for label in test.selectbox(key="pair").options]
    assert margins == sorted(margins)
    assert not test.error


@pytest.fixture
def recipe_pairs(tmp_path) -> Path:
    """The pairs that the family was scored on, on the disk."""
    import json

    folder = tmp_path / "pairs" / "blimp"
    folder.mkdir(parents=True)
    for uid, rows in recipe_of().sets.blimp.paradigms.items():
        (folder / f"{uid}.jsonl").write_text("".join(json.dumps(row.to_row()) + "\n" for row in rows))
    return folder


def test_they_are_found_where_they_usually_lie(page, recipe_pairs, tmp_path):
    shutil.copytree(recipe_pairs, tmp_path / "data" / "blimp")
    assert page().selectbox(key="pairs").value == "blimp"


def test_other_pairs_are_passed_over(page, recipe_pairs):
    first = next(iter(sorted(recipe_pairs.iterdir())))
    first.write_text(first.read_text().replace("walrus", "seal"))
    test = page("--data", str(recipe_pairs))
    assert test.selectbox(key="pairs").value == "embedded"
    assert not test.error
    assert pairs_at_hand.pairs_at_hand("blimp", "blimp", "0" * 16, str(recipe_pairs.parent)) is None


@pytest.mark.parametrize("data", ["/nowhere", "", "\x00", "."])
def test_no_such_pairs(page, data):
    assert not page("--data", data).error


def test_ones_own_runs_come_first(page, tmp_path):
    page_runs.make_run(tmp_path / "runs" / "own", page_runs.tokenizer(), n_layers=1)
    test = page()
    assert test.selectbox(key="run").value == "own"
    assert test.selectbox(key="run").options == ["own", "zoo/hidden", "zoo/mid"]
    assert page("--runs", "runs").selectbox(key="run").options == ["own"]
    assert page("--runs", "zoo").selectbox(key="run").options == ["hidden", "mid"]


def test_a_damaged_member_is_told_in_one_line(page, family, tmp_path):
    shutil.copytree(family, tmp_path / "broken")
    for file in (tmp_path / "broken" / "mid").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-3])
    test = page(place=tmp_path / "broken", run="zoo/mid")
    assert len(test.error) == 1
    assert "no intact checkpoint" in test.error[0].value
    for kind in ("json", "parquet"):
        for file in (tmp_path / "broken" / "hidden" / "blimp").glob(f"*blimp.{kind}"):
            file.write_text("{")
        test = page(place=tmp_path / "broken", run="zoo/hidden")
        assert len(test.error) <= 2


def test_no_family_and_no_runs_says_what_to_do(page, tmp_path):
    test = page(place=tmp_path / "none")
    assert "workbench train" in words_of(test)


def test_the_family_is_the_packages_own(monkeypatch):
    monkeypatch.delenv(PLACE, raising=False)
    assert installed() == Path(catalogue.__file__).resolve().parents[2] / "workbench" / "zoo" / "family"
