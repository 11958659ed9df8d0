"""Where Slurm, or submitit, is not there or does not answer: one line, at once, nothing half-done."""

import json
import sys
import time
from pathlib import Path

import pytest
from slurm_sweeps import make_sweep

from apps.cli import main
from training.sweep import status
from training.sweep.launchers import queue
from training.sweep.launchers.cluster import with_jobs
from training.sweep.launchers.options import LauncherOptions
from training.sweep.launchers.slurm import launch
from workbench.errors import ConfigError, RunError
from workbench.io import locked


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts shell scripts in the place of Slurm's programs; nothing else is on the PATH but /bin."""
    place = tmp_path / "programs"
    place.mkdir()
    for name in ("sh", "sleep", "cat"):
        (place / name).symlink_to(
            next(path for path in ("/bin", "/usr/bin") if (Path(path) / name).exists()) + f"/{name}"
        )
    monkeypatch.setenv("PATH", str(place))

    def put(name: str, script: str) -> None:
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)

    return put


@pytest.fixture
def sweep(tmp_path):
    """A sweep of two members."""
    folder = tmp_path / "sweep"
    return folder, make_sweep(folder, steps=10, d_mlp=(32, 40))


def submitted(folder, **ids):
    """As if the sweep had been submitted."""
    (folder / "slurm").mkdir(exist_ok=True)
    (folder / "slurm" / "jobs.json").write_text(
        json.dumps({"jobs": {f"d_mlp-{k[1:]}": v for k, v in ids.items()}})
    )


def test_no_sbatch(sweep, programs, capsys):
    folder, plan = sweep
    with pytest.raises(RunError, match=r"sbatch is not on this machine.*--launcher local"):
        launch(folder, plan, LauncherOptions(kind="slurm"))
    assert not (folder / "slurm").exists()
    assert main(["sweep", str(folder), "--launcher", "slurm", "--yes"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("Error: sbatch is not on this machine")
    assert "\n" not in error


def test_no_submitit(sweep, monkeypatch, capsys):
    folder, _ = sweep
    monkeypatch.setitem(sys.modules, "submitit", None)
    for kind in ("slurm", "submitit-local"):
        assert main(["sweep", str(folder), "--launcher", kind, "--yes"]) == 2
        error = capsys.readouterr().err.strip()
        assert "pip install 'interp-workbench[cluster]'" in error
        assert "\n" not in error


def test_status_without_slurms_programs(sweep, programs, capsys):
    folder, _ = sweep
    submitted(folder, d32="12_0", d40="12_1")
    assert main(["sweep", str(folder), "--status"]) == 0
    out, err = capsys.readouterr()
    assert "d_mlp-32" in out
    assert "squeue is not on this machine" in err


def test_status_where_slurm_is_silent(sweep, programs, monkeypatch, capsys):
    monkeypatch.setattr(queue, "PATIENCE", 0.5)
    folder, _ = sweep
    submitted(folder, d32="12_0", d40="12_1")
    programs("squeue", "exec sleep 60")
    begun = time.monotonic()
    assert main(["sweep", str(folder), "--status"]) == 0
    assert time.monotonic() - begun < 5
    assert "Slurm does not answer: squeue was silent for 0.5 s" in capsys.readouterr().err


def test_states_of_jobs_beside_those_of_members(sweep, programs, capsys):
    folder, _ = sweep
    submitted(folder, d32="12_0", d40="12_1")
    status.write_status(folder, "d_mlp-32", state="running", host="node7", pid=1, attempt=1)
    status.write_status(folder, "d_mlp-40", state="submitted")
    programs("squeue", "echo '12_0|FAILED|NonZeroExitCode|1:00|node7'\necho '12_1|PENDING|Priority|0:00|'")
    found = with_jobs(folder, status.read_status(folder))
    assert [each.state for each in found.members] == ["failed", "submitted"]
    assert found.members[0].error == "job 12_0 ended: FAILED, NonZeroExitCode"
    assert main(["sweep", str(folder), "--status"]) == 0
    out = capsys.readouterr().out
    assert "job 12_1 PENDING (Priority)" in out
    assert "d_mlp-32: job 12_0 ended: FAILED, NonZeroExitCode" in out


@pytest.mark.parametrize(
    ("job", "member", "state"),
    [
        ("RUNNING", "running", "running"),
        ("RUNNING", "submitted", "submitted"),
        ("PENDING", "running", "submitted"),  # the node went down; Slurm will run it again
        ("PENDING", "stopped", "submitted"),  # saved before the limit, in the queue again
        ("COMPLETING", "stopped", "submitted"),
        ("CANCELLED", "submitted", "stopped"),
        ("CANCELLED", "running", "stopped"),
        ("TIMEOUT", "running", "failed"),
        ("OUT_OF_MEMORY", "running", "failed"),
        ("FAILED", "failed", "failed"),
        ("COMPLETED", "done", "done"),
        ("CANCELLED", "stopped", "stopped"),
    ],
)
def test_what_a_member_and_its_job_mean_together(sweep, programs, job, member, state):
    folder, _ = sweep
    submitted(folder, d32="12_0")
    status.write_status(folder, "d_mlp-32", state=member, host="node7", pid=1)
    programs("squeue", f"echo '12_0|{job}|None|1:00|node7'")
    assert with_jobs(folder, status.read_status(folder)).members[0].state == state


def test_jobs_that_squeue_has_forgotten_are_asked_of_sacct(programs):
    programs("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert queue.jobs(["12_0"])["12_0"].state == "UNKNOWN"
    programs(
        "sacct", "echo '12_0|CANCELLED by 1000|0:15|00:01:00|node7'; echo '12_1|OUT_OF_MEMORY|0:125|1:00|n'"
    )
    found = queue.jobs(["12_0", "12_1", "13"])
    assert [found[each].state for each in ("12_0", "12_1", "13")] == ["CANCELLED", "OUT_OF_MEMORY", "UNKNOWN"]
    assert not any(job.alive for job in found.values())
    programs("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert queue.jobs(["12_0"])["12_0"].state == "UNKNOWN"


def test_a_silent_queue_stops_a_submission(sweep, programs, monkeypatch):
    """Unknown jobs might be alive: better none is submitted than one twice."""
    monkeypatch.setattr(queue, "PATIENCE", 0.5)
    folder, plan = sweep
    submitted(folder, d32="12_0", d40="12_1")
    programs("sbatch", "echo slurm-wlm 22.05.8")
    programs("squeue", "exec sleep 60")
    with pytest.raises(RunError, match="Slurm does not answer"):
        launch(folder, plan, LauncherOptions(kind="slurm"))
    assert {each.state for each in status.read_status(folder)} == {"waiting"}


def test_another_call_is_submitting(sweep, programs):
    folder, plan = sweep
    programs("sbatch", "echo slurm-wlm 22.05.8")
    (folder / "slurm").mkdir()
    with locked(folder / "slurm"), pytest.raises(RunError, match="another call is submitting"):
        launch(folder, plan, LauncherOptions(kind="slurm"))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"jobs": 3}', '{"jobs": {}, "attempt": {"token": "a"}}', "\0"]
)
def test_a_damaged_record_is_named(sweep, programs, text):
    folder, plan = sweep
    programs("sbatch", "echo slurm-wlm 22.05.8")
    submitted(folder)
    (folder / "slurm" / "jobs.json").write_text(text)
    with pytest.raises(RunError, match=r"jobs\.json is damaged") as caught:
        launch(folder, plan, LauncherOptions(kind="slurm"))
    assert "\n" not in str(caught.value)
    assert "damaged" in str(with_jobs(folder, status.read_status(folder)).note)


def test_processes_that_cannot_share_a_batch_are_refused_before_anything_is_queued(sweep, programs):
    folder, plan = sweep
    programs("sbatch", "echo submitted by mistake; exit 1")
    with pytest.raises(ConfigError, match="d_mlp-32: 6 processes cannot share the 2 windows of a step"):
        launch(folder, plan, LauncherOptions(kind="slurm", gpus=3, nodes=2))
    assert not (folder / "slurm").exists()


def test_a_filter_that_the_user_set_hides_no_jobs(programs, monkeypatch):
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    programs("squeue", 'test -z "$SQUEUE_PARTITION" && echo "12|RUNNING|None|1:00|node7"')
    assert queue.jobs(["12"])["12"].state == "RUNNING"


def test_what_slurm_complains_of_is_one_line():
    text = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: No.\n"
    assert queue.words(text) == "invalid partition specified: x; Batch job submission failed: No"
