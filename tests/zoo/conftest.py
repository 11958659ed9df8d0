"""A small family, made by the maker of finished runs that trained for a moment."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_family import make_runs, recipe_of, take_for_whole

from training.zoo.make import Made, make_family
from training.zoo.member import Recipe
from workbench.runs.zoo import PLACE


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    os.environ.setdefault("WORKBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return Path(os.environ["WORKBENCH_CACHE"])


@pytest.fixture(scope="session", autouse=True)
def _unchecked() -> Iterator[None]:
    """Without the check of every call's shapes while the family is made and read: see `unchecked`."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _small_sets(request, monkeypatch) -> None:
    if {"runs", "made", "family", "recipe"} & set(request.fixturenames):
        take_for_whole(request.getfixturevalue("recipe"), monkeypatch)


@pytest.fixture(scope="session")
def runs(tmp_path_factory, cache) -> Path:
    """Finished runs of a sweep; not to be changed."""
    return make_runs(tmp_path_factory.mktemp("zoo") / "runs")


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return recipe_of()


@pytest.fixture(scope="session")
def made(runs, recipe, tmp_path_factory) -> Made:
    """The family on the disk; not to be changed."""
    place = tmp_path_factory.mktemp("made") / "family"
    with pytest.MonkeyPatch.context() as patch:
        take_for_whole(recipe, patch)
        return make_family(runs, place, recipe, middle="mid", say=lambda _: None)


@pytest.fixture
def family(made, monkeypatch) -> Path:
    """The same as the one that ships."""
    monkeypatch.setenv(PLACE, str(made.path))
    return made.path


@pytest.fixture
def workbench(capsys, cache) -> Callable[..., tuple[int, str, str]]:
    """`workbench("list", "zoo")` -> exit code, stdout, stderr."""
    from apps.cli import main

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return code, *capsys.readouterr()

    return call
