"""The sweep folder: its names on disk."""

from pathlib import Path

from workbench.errors import RunError, nearest
from workbench.runs.folder import run_folders

FILE = "sweep.yaml"
PLAN = "sweep.json"
STATUS = "status"
LOGS = "logs"
CLAIMS = ".claims"
RESERVED = (FILE, PLAN, STATUS, LOGS, "tokenizer.json")


def is_sweep(path: Path) -> bool:
    """Whether a plan lies there."""
    return (Path(path) / PLAN).is_file()


def find_sweep(path: Path) -> Path:
    """The folder, if a sweep is in it.

    Raises:
        RunError: it does not exist or holds no plan; the message says what it holds instead.
    """
    path = Path(path)
    if is_sweep(path):
        return path
    if not path.is_dir():
        beside = [str(one) for one in _sweeps(path.parent)]
        hint = nearest(path, beside) if beside else "Make one: workbench sweep CONFIG.yaml --out runs/widths"
        raise RunError(f"there is no sweep {path}. {hint}")
    what = "runs, but not as a sweep" if run_folders(path) else "no sweep"
    raise RunError(
        f"{path} holds {what} (it has no {PLAN}); make one: workbench sweep CONFIG.yaml --out {path}-2"
    )


def _sweeps(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if is_sweep(path))
    except OSError:
        return []


def status_file(sweep: Path, member: str) -> Path:
    """Where a member's state is written."""
    return Path(sweep) / STATUS / f"{member}.json"


def log_file(sweep: Path, member: str) -> Path:
    """Where a member's output goes."""
    return Path(sweep) / LOGS / f"{member}.log"
