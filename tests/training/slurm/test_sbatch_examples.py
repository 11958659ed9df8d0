"""The sbatch files that are shipped as examples, on a real Slurm."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from slurm_sweeps import until
from small_runs import SMALL, digests

from workbench.runs.checkpoint import checkpoint_steps

FOLDER = Path(__file__).resolve().parents[3] / "training" / "slurm"
ONE, MANY = FOLDER / "delftblue.sbatch", FOLDER / "delftblue-many-gpus.sbatch"


@pytest.mark.parametrize("file", [ONE, MANY], ids=lambda file: file.stem)
def test_they_are_shell(file):
    assert subprocess.run(["bash", "-n", file], check=False, capture_output=True).stderr == b""


@pytest.mark.parametrize("file", [ONE, MANY], ids=lambda file: file.stem)
def test_sbatch_takes_them(cluster, file):
    """All directives are known; a node of four cores has to be told to use fewer."""
    said = cluster.run(
        "sbatch", "--test-only", "--cpus-per-task=1", "--mem-per-cpu=100M", str(file), "a", "b"
    )
    assert "to start at" in said, said


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """What the examples expect of DelftBlue: `module`, and a virtual environment."""
    import sys

    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
    monkeypatch.setenv("VENV", str(tmp_path / "venv"))
    monkeypatch.setenv("BASH_FUNC_module%%", "() { echo modules: $*; }")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parents[1]))


@pytest.mark.torture
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("file", "options"), [(ONE, ()), (MANY, ("--ntasks-per-node=2", "--gpus-per-node=2"))]
)
def test_a_run_is_saved_before_the_limit_and_goes_on(cluster, tmp_path, environment, file, options):
    settings = SMALL | {"train": SMALL["train"] | {"steps": 600, "checkpoint_every": 50}}
    config, run, alone = tmp_path / "experiment.yaml", tmp_path / "run", tmp_path / "alone"
    config.write_text(yaml.safe_dump(settings))

    def submit(out: Path) -> str:
        small = ("--cpus-per-task=1", "--mem-per-cpu=100M", f"--output={out}.out")
        return cluster.run("sbatch", "--parsable", *small, *options, str(file), str(config), str(out))

    job = submit(run)
    until(lambda: max(checkpoint_steps(run), default=0) >= 32, "the run to train", 90.0)
    assert cluster.run("scancel", "--signal=USR2", job) == ""
    until(lambda: cluster.field(job, "Restarts") == "1", "the job to queue itself again")
    assert max(checkpoint_steps(run)) < 600
    other = submit(alone)
    for each in (job, other):
        until(lambda each=each: cluster.field(each, "JobState") == "COMPLETED", "both to end", 150.0)
    assert digests(run) == digests(alone)

    card = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert card["step"] == 600
