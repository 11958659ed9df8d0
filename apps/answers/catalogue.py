"""Which runs the page may open, and the opened ones: those of a folder, and the family that ships.

A name is looked up in a list, never made into a path.
"""

import argparse
import hashlib
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from apps.answers.libraries import libraries
from workbench.errors import RunError, nearest
from workbench.runs.checkpoint import MANIFEST, checkpoint_folder, checkpoint_steps
from workbench.runs.folder import DamagedCheckpoint, good_checkpoint, run_folders, runs_root
from workbench.runs.run import Run, RunSummary, summarise
from workbench.runs.zoo import family_folder
from workbench.runs.zoo import shown_name as shipped_name

if TYPE_CHECKING:
    from workbench.model.transformer import HookedTransformer

LAST = "last"
"""The checkpoint choice that follows the run while it trains."""


@dataclass(frozen=True)
class Opened:
    """One checkpoint in memory, shared by all sessions. Listen to the model only while holding the lock."""

    run: Run
    key: str
    """Changes with the checkpoint's content."""
    notes: tuple[str, ...] = ()
    """What was passed over to get here, such as a damaged checkpoint."""
    lock: threading.RLock = field(default_factory=threading.RLock, compare=False)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""
        return "model" in vars(self.run)

    @property
    def model(self) -> "HookedTransformer":
        """Read when it is first asked for: what is said before needs neither it nor torch.

        Raises:
            WorkbenchError: the weights do not fit, or the tokenizer is another.
        """
        if not self.is_loaded:
            libraries()
            with self.lock:
                _ = self.run.model.requires_grad_(False)
        return self.run.model

    @property
    def tokenizer(self) -> Any:
        """The run's tokenizer."""
        libraries()
        return self.run.tokenizer


@dataclass(frozen=True)
class Asked:
    """What the page was started on."""

    root: Path
    """The folder of the user's runs."""
    family: bool
    """Whether the family that ships is shown beside them: where no folder was asked for."""
    data: str | None
    """Where minimal pairs are whose sentences did not come with a result."""


def asked(arguments: Sequence[str]) -> Asked:
    """`-- --runs FOLDER --data PAIRS`; see `runs_folder`."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--runs")
    parser.add_argument("--data")
    known = parser.parse_known_args(list(arguments))[0]
    return Asked(runs_folder(arguments), known.runs is None, known.data)


def runs_folder(arguments: Sequence[str]) -> Path:
    """The folder of `-- --runs FOLDER`; without it `runs` here, else `runs` beside the apps folder."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--runs")
    asked = parser.parse_known_args(list(arguments))[0].runs
    if asked is not None:
        return runs_root(asked)
    here, beside = Path("runs"), Path(__file__).resolve().parents[2] / "runs"
    return beside if beside.is_dir() and not here.is_dir() else here


def find_runs(root: Path, family: bool = False) -> dict[str, Path]:
    """Name -> folder of the runs under `root` and in its folders (`demo/tiny`), by name; behind them, if
    wanted, the family that ships (`zoo/tiny-4h`).

    A run that a link leads out of `root` is left out.
    """
    mine = _runs_under(root)
    shipped = {shipped_name(path): path for path in run_folders(family_folder())} if family else {}
    return mine | {name: path for name, path in shipped.items() if name not in mine}


def _runs_under(root: Path) -> dict[str, Path]:
    inside = Path(root).resolve()
    found = {path.name: path for path in run_folders(root)}
    for group in _folders(root):
        if group.name not in found:
            found |= {f"{group.name}/{path.name}": path for path in run_folders(group)}
    return {name: path for name, path in sorted(found.items()) if path.resolve().is_relative_to(inside)}


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(
            path for path in Path(root).iterdir() if path.is_dir() and not path.name.startswith(".")
        )
    except OSError:
        return []


def find_run(root: Path, name: str) -> Path:
    """The folder of the run called `name`.

    Raises:
        RunError: no run of that name in the list; nothing is opened.
    """
    known = find_runs(root)
    if name not in known:
        hint = nearest(name, known) if known else "Train one with `workbench train`."
        raise RunError(f"there is no run {name[:100]!r} in {root}. {hint}")
    return known[name]


@st.cache_data(ttl=5, max_entries=16, show_spinner=False)
def summaries(root: str, names: tuple[str, ...], family: bool = False) -> dict[str, RunSummary]:
    """The summary of each run; read again every few seconds, as a run may be training."""
    known = find_runs(Path(root), family)
    return {name: summarise(known[name]) for name in names if name in known}


def steps(path: Path) -> list[int]:
    """Steps of a run's checkpoints, latest first."""
    return checkpoint_steps(path)[::-1]


def open_checkpoint(path: Path, step: int | None) -> Opened:
    """The model of a checkpoint, from memory if it is there; None is the last whole one.

    Raises:
        WorkbenchError: nothing whole to open, with what to do.
    """
    return _opened(str(path), step, fingerprint(path, step))


def fingerprint(path: Path, step: int | None) -> str:
    """Digest of the manifests, which hold the weights' SHA-256, of one checkpoint or of all."""
    digest = hashlib.sha256(str(Path(path).resolve()).encode())
    for each in checkpoint_steps(path) if step is None else [step]:
        try:
            digest.update((checkpoint_folder(path, each) / MANIFEST).read_bytes())
        except OSError:
            digest.update(b"missing")
    return digest.hexdigest()[:20]


@st.cache_resource(max_entries=4, show_spinner=False)
def _opened(path: str, step: int | None, digest: str) -> Opened:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DamagedCheckpoint)
        run = Run(Path(path), good_checkpoint(Path(path), step))
    notes = [str(one.message) for one in caught if issubclass(one.category, DamagedCheckpoint)]
    return Opened(run, f"{digest}@{run.step}", tuple(notes))
