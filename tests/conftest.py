"""What every test can ask for, and how a failure in one configuration is repeated."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from trials import pytest_terminal_summary, trials  # noqa: F401

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: threads of each would only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the TinyStories sample, BLiMP and UD English EWT."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder.name} folder beside the checkout is absent")
    return folder


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the check of every call's shapes, which takes four times as long as a small model.

    For tests that run models many times; the first of `laws/test_paths.py` checks the shapes of every variant.
    """
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--variant",
        metavar="NAME",
        help="only this configuration of small_models.VARIANTS, in every test that has one",
    )


def variant_of(item: pytest.Item) -> str | None:
    """The configuration that a test runs on: the parameter of its `model` fixture."""
    callspec = getattr(item, "callspec", None)
    name = None if callspec is None else callspec.params.get("model")
    return name if isinstance(name, str) else None


def how_to_repeat(item: pytest.Item) -> str:
    """Two commands: this test on this configuration, and every test of the file on it."""
    name, file = variant_of(item), item.nodeid.partition("::")[0]
    return (
        f"configuration: {name}\n"
        f"this test again: pytest -n 0 {shlex.quote(item.nodeid)}\n"
        f"all of its laws: pytest -n 0 {shlex.quote(str(Path(file).parent))} --variant {shlex.quote(str(name))}"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--variant")
    if chosen is None:
        return
    kept = [item for item in items if variant_of(item) == chosen]
    if not kept:
        names = sorted({name for item in items if (name := variant_of(item)) is not None})
        raise pytest.UsageError(f"no test runs on --variant {chosen!r}; these are there: {'; '.join(names)}")
    config.hook.pytest_deselected(items=[item for item in items if variant_of(item) != chosen])
    items[:] = kept


running: list[pytest.Item] = []
"""The test that runs now."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    running[:] = [item]
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and variant_of(item) is not None:
        report.sections.append(("how to repeat it", how_to_repeat(item)))
    return report


def pytest_keyboard_interrupt() -> None:
    if running and variant_of(running[0]) is not None:
        print(f"\ninterrupted in\n{how_to_repeat(running[0])}", flush=True)
