"""A sweep on a real Slurm: requeued, killed, told to save and cancelled in the middle, and finished."""

import os
import signal
import time

import pytest
from slurm_sweeps import contents, make_sweep, process_of, step_of, until

from training.sweep.launchers.cluster import with_jobs
from training.sweep.launchers.options import LauncherOptions
from training.sweep.launchers.record import Attempt, Record, member_jobs, read_record, write_record
from training.sweep.launchers.slurm import launch
from training.sweep.member import run_member
from training.sweep.status import raw_status, read_status
from workbench.errors import RunError

OPTIONS = LauncherOptions(kind="slurm", partition="debug", time=30, cpus=1, memory="500MB")
STEPS = 400


def states(folder):
    """What `--status` says of each member."""
    return {each.name: each.state for each in with_jobs(folder, read_status(folder)).members}


@pytest.mark.slow
@pytest.mark.timeout(290)
def test_four_members_requeued_killed_told_to_save_and_cancelled(cluster, tmp_path, unchecked):
    folder = tmp_path / "a sweep"
    plan = make_sweep(folder, steps=STEPS)
    requeued, killed, limited, cancelled = (member.name for member in plan.members)

    made = launch(folder, plan, OPTIONS)
    assert made.submitted == (requeued, killed, limited, cancelled)
    ids = {name: job.id for name, job in member_jobs(folder).items()}
    assert set(ids.values()) == {f"{made.array}_{element}" for element in range(4)}, "one array job"
    assert launch(folder, plan, OPTIONS).queued == made.submitted, "nothing is submitted twice"
    token = cluster.field(made.array, "Comment")
    write_record(
        folder, Record({}, Attempt(token, made.submitted))
    )  # killed before it could note the numbers
    assert launch(folder, plan, OPTIONS).queued == made.submitted, "its jobs are found again"
    assert {name: job.id for name, job in member_jobs(folder).items()} == ids

    actions = {
        requeued: lambda: cluster.run("scontrol", "requeue", ids[requeued]),
        killed: lambda: os.kill(process_of(folder, killed), signal.SIGKILL),
        # What Slurm sends some time before the time limit.
        limited: lambda: cluster.run("scancel", "--signal=USR2", ids[limited]),
        cancelled: lambda: cluster.run("scancel", ids[cancelled]),
    }
    while actions:  # each as soon as it trains
        until(lambda: any(step_of(folder, name) >= 32 for name in actions), "a member to train")
        for name in [name for name in actions if step_of(folder, name) >= 32]:
            assert not actions.pop(name)()
            assert step_of(folder, name) < STEPS, "in the middle"

    until(lambda: not member_jobs(folder)[killed].alive, "the killed job to be over")
    until(lambda: not member_jobs(folder)[cancelled].alive, "the cancelled job to be over")
    now = {each.name: each for each in with_jobs(folder, read_status(folder)).members}
    assert now[killed].state == "failed"
    assert ids[killed] in now[killed].error
    assert "FAILED" in now[killed].error
    assert now[cancelled].state == "stopped", "scancel is the user's word; nothing queues the member again"
    until(lambda: cluster.field(ids[limited], "Restarts") == "1", "the member to queue itself again")

    again = launch(folder, plan, OPTIONS)
    assert again.submitted == (killed, cancelled)
    assert again.queued == (requeued, limited)

    alone = tmp_path / "alone"
    make_sweep(alone, steps=STEPS)
    for member in plan.members:  # while the cluster is at work
        assert run_member(alone, member.name, quiet=True).finished

    until(lambda: set(states(folder).values()) == {"done"}, "every member to be done")
    assert contents(folder, plan) == contents(alone, plan)
    for name in ids:
        assert raw_status(folder, name)["attempt"] == 2, "each went on once"
    assert launch(folder, plan, OPTIONS).done == made.submitted
    assert not list((folder / "slurm").glob("*.save_tmp"))


def test_a_partition_that_does_not_exist(cluster, tmp_path):
    folder = tmp_path / "sweep"
    plan = make_sweep(folder, steps=10)
    with pytest.raises(RunError) as caught:
        launch(folder, plan, LauncherOptions(kind="slurm", partition="gpu-h100"))
    message = str(caught.value)
    assert "invalid partition specified: gpu-h100" in message
    assert "Invalid partition name specified" in message
    assert "partitions here: " in message
    assert all(name in message for name in ("debug", "grace", "urgent", "gpu-a100"))
    assert "\n" not in message
    assert set(states(folder).values()) == {"waiting"}
    assert {path.name for path in (folder / "slurm").iterdir()} == {".lock", "jobs.json"}, (
        "nothing half-submitted"
    )
    assert read_record(folder) == Record({})
    assert cluster.run("squeue", "--noheader", "--name=sweep") == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"constraint": "a100"}, "Invalid feature specification"),
        ({"sbatch": {"gres": "tpu:1"}}, "Invalid generic resource"),
        ({"memory": "90TB"}, "Memory specification can not be satisfied"),
        ({"sbatch": {"reservation": "nobody"}}, "Requested reservation is invalid"),
        ({"sbatch": {"no-such-option": "1"}}, "unrecognized option"),
    ],
)
def test_what_sbatch_refuses_is_told_in_its_words(cluster, tmp_path, options, said):
    folder = tmp_path / "sweep"
    plan = make_sweep(folder, steps=10)
    with pytest.raises(RunError, match=said) as caught:
        launch(folder, plan, LauncherOptions(kind="slurm", **options))
    assert "\n" not in str(caught.value)
    assert set(states(folder).values()) == {"waiting"}


def test_a_silent_controller_is_told_within_seconds(cluster, tmp_path, monkeypatch):
    folder = tmp_path / "sweep"
    plan = make_sweep(folder, steps=10)
    (folder / "slurm").mkdir()
    (folder / "slurm" / "jobs.json").write_text('{"jobs": {"d_mlp-32": "7"}}')
    conf = tmp_path / "slurm.conf"
    text = cluster.conf.read_text()
    port = next(line for line in text.splitlines() if line.startswith("SlurmctldPort="))
    conf.write_text(text.replace(port, "SlurmctldPort=1"))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    monkeypatch.setattr("training.sweep.launchers.queue.PATIENCE", 2.0)
    begun = time.monotonic()
    found = with_jobs(folder, read_status(folder))
    assert found.note is not None
    assert "Slurm does not answer" in found.note or "Unable to contact" in found.note
    assert found.jobs == {}
    with pytest.raises(RunError):
        launch(folder, plan, OPTIONS)
    assert time.monotonic() - begun < 8
    assert {each.state for each in read_status(folder)} == {"waiting"}
