"""Sixty hostile paths through every parameter of the address and the choice of the run: nothing outside is opened."""

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import page_runs
import pytest
from hostile import PATHS, addresses, covered, every
from seen import address_keys, check

from apps.answers import catalogue
from apps.pages import PAGES
from workbench.errors import RunError

pytestmark = pytest.mark.usefixtures("unchecked")

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = [Path(place).resolve() for place in {
    *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")), sys.prefix, sys.base_prefix,
    *(path for path in sys.path if path and Path(path).is_dir()),
} if Path(place).resolve() != Path("/")]  # fmt: skip
"""Where the interpreter's and the libraries' own files are."""
MACHINE = ("/sys/fs/cgroup/", "/proc/meminfo", "/proc/self/cgroup")
"""Asked for how much memory there is."""
OWN = (".py", ".pyi", ".pyc", ".toml", ".so", ".json", ".js", ".svg")

WATCHED: list[list[str]] = []
"""The lists that opened files are written to, innermost last; an audit hook cannot be taken out again."""


def _hook(event: str, arguments: tuple) -> None:
    if WATCHED and event in ("open", "os.listdir", "os.scandir", "os.chdir", "subprocess.Popen", "os.system",
                             "socket.connect"):  # fmt: skip
        WATCHED[-1].append(f"{event}: {_path(arguments[0] if event != 'socket.connect' else arguments[1])}")


def _path(value: object) -> str:
    if isinstance(value, int):
        return ""
    return os.fsdecode(value) if isinstance(value, str | bytes | os.PathLike) else repr(value)


sys.addaudithook(_hook)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """What is opened, listed, started or connected to."""
    WATCHED.append([])
    yield WATCHED[-1]
    WATCHED.pop()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Runs, a run beside them that nobody may open, and a link to it."""
    import shutil

    root, words = tmp_path_factory.mktemp("guarded") / "runs", page_runs.tokenizer()
    page_runs.score(page_runs.make_run(root / "scored", words, n_layers=1), limit=2)
    page_runs.make_run(root / "plain", words, n_layers=1)
    page_runs.make_run(root / "group" / "inner", words, n_layers=1)
    page_runs.outside(root)
    shutil.copytree(root.parent / "secret", root.parent / "secret@8")
    return root


def outside(opened: list[str], root: Path) -> list[str]:
    """Of what was opened, what is neither under the runs nor the interpreter's, the libraries' or our own code."""
    found = []
    for line in opened:
        kind, _, name = line.partition(": ")
        if not name or name in sys.path or name.startswith(MACHINE):
            continue
        if kind not in ("open", "os.listdir", "os.scandir"):
            found.append(line)
            continue
        path = Path(os.path.realpath(name))
        facts = path.parent.suffix in (".egg-info", ".dist-info")  # of this package, installed from here
        code = path.is_relative_to(ROOT) and (path.suffix in OWN or path.is_dir() or facts)
        system = any(path.is_relative_to(place) for place in SYSTEM if place != ROOT)
        if not (path.is_relative_to(root.resolve()) or code or system):
            found.append(line)
    return found


def test_the_watch_sees_what_is_opened(opened, root):
    (root.parent / "secret" / "config.yaml").read_text()
    os.listdir(root.parent)
    assert len(outside(opened, root)) == 2
    del opened[:]
    (root / "linked" / "config.yaml").read_text()
    assert len(outside(opened, root)) == 1


def test_no_path_is_the_name_of_a_run(root, opened):
    for path in _paths(root):
        with pytest.raises(RunError, match="there is no run"):
            catalogue.find_run(root, path)
    assert outside(opened, root) == []
    assert "linked" not in catalogue.find_runs(root)


def _paths(root: Path) -> list[str]:
    return [path.replace("{secret}", str(root.parent / "secret")) for path in PATHS]


def _try(page, root: Path, opened: list[str], query: dict[str, str]) -> None:
    test = page(root, **query)
    check(test)
    strange = outside(opened, root)
    assert strange == [], f"{query} opened {strange[:3]}"
    assert test.selectbox(key="run").value in ("scored", "plain", "group/inner")
    assert "linked" not in test.selectbox(key="run").options


@pytest.mark.parametrize("key", PAGES)
def test_paths_in_the_address(page, root, opened, key):
    """A few rows of the table below, each with paths in all parameters at once."""
    keys = [name for name in address_keys() if name != "page"]
    start = list(PAGES).index(key)
    for query in addresses(keys, _paths(root))[start::20]:
        _try(page, root, opened, query | {"page": key})


@pytest.mark.parametrize(
    "value", ["L0N" + "9" * 5000, "L0." + "9" * 5000, "9" * 5000], ids=["neuron", "cell", "number"]
)
@pytest.mark.parametrize("key", PAGES)
def test_numbers_beyond_all_measure(page, root, opened, key, value):
    """Python refuses to read integers of more than 4300 digits; nobody may stumble over that."""
    _try(page, root, opened, dict.fromkeys(address_keys(), value) | {"page": key})


@pytest.mark.parametrize("look", ["sentences", "text"])
def test_paths_beside_a_choice(page, root, opened, look):
    """Where the subject is chosen rightly, the others still are paths."""
    keys = [name for name in address_keys() if name not in ("page", "look")]
    for at, query in enumerate(addresses(keys, _paths(root))[::20]):
        _try(page, root, opened, query | {"page": list(PAGES)[at % len(PAGES)], "look": look})


@pytest.mark.torture
@pytest.mark.parametrize("key", PAGES)
def test_every_path_in_every_parameter(page, root, opened, key):
    keys = [name for name in address_keys() if name != "page"]
    queries = addresses(keys, _paths(root))
    assert covered(queries) == every(keys, _paths(root))
    for query in queries:
        _try(page, root, opened, query | {"page": key})
    for name in ("page", "look"):
        for value in _paths(root):
            _try(page, root, opened, {"page": key, name: value})


@pytest.mark.parametrize("key", PAGES)
def test_a_run_that_nobody_offered(page, root, opened, key):
    """The browser's answer to the choice of a run is not one of the choices."""
    test = page(root, page=key)
    for path in _paths(root)[list(PAGES).index(key) :: 12]:
        states = test._tree.get_widget_states()
        answered = [state for state in states.widgets if state.WhichOneof("value") == "string_value"]
        assert len(answered) >= 4
        for state in answered:
            state.string_value = path
        test._run(states)
        check(test)
        assert test.selectbox(key="run").value in ("scored", "plain", "group/inner")
        assert outside(opened, root) == []
