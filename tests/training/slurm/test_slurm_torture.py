"""The real time limit, preemption with and without grace, a node that goes down, several processes a member."""

import pytest
from slurm_sweeps import contents, make_sweep, step_of, until

from training.sweep.launchers import submitit_local
from training.sweep.launchers.cluster import with_jobs
from training.sweep.launchers.options import LauncherOptions
from training.sweep.launchers.record import member_jobs
from training.sweep.launchers.slurm import launch
from training.sweep.member import run_member
from training.sweep.status import raw_status, read_status

pytestmark = [
    pytest.mark.torture,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("unchecked"),
]


def start(folder, steps, d_mlp, **options):
    """Submit a sweep; returns its plan and the numbers of its jobs."""
    plan = make_sweep(folder, steps, d_mlp)
    launch(folder, plan, LauncherOptions(kind="slurm", cpus=1, **options))
    return plan, {name: job.id for name, job in member_jobs(folder).items()}


def finish(folder, seconds=240.0):
    """Wait for every member."""
    until(
        lambda: all(each.state == "done" for each in with_jobs(folder, read_status(folder)).members),
        "every member to be done",
        seconds,
    )


def in_one_go(folder, steps, d_mlp):
    """The same members, trained without Slurm."""
    plan = make_sweep(folder, steps, d_mlp)
    for member in plan.members:
        assert run_member(folder, member.name, quiet=True).finished
    return contents(folder, plan)


def test_the_time_limit(cluster, tmp_path):
    """Slurm looks every 30 s for jobs near their limit, and signals up to a minute early."""
    plan, ids = start(tmp_path / "sweep", 5000, (32,), partition="debug", time=1, save_before=15)
    finish(tmp_path / "sweep")
    (name,) = ids
    assert int(cluster.field(ids[name], "Restarts")) >= 1, "one job was not enough"
    until(lambda: cluster.field(ids[name], "JobState") == "COMPLETED", "the last job to end")
    assert contents(tmp_path / "sweep", plan) == in_one_go(tmp_path / "alone", 5000, (32,))


def test_a_limit_too_short_to_begin_is_given_up_and_told(cluster, tmp_path):
    folder = tmp_path / "sweep"
    _, ids = start(folder, 500, (32,), partition="debug", time=30)
    (name,) = ids
    for attempt in (1, 2, 3):
        until(
            lambda attempt=attempt: raw_status(folder, name).get("attempt") == attempt, f"attempt {attempt}"
        )
        cluster.run("scancel", "--signal=USR2", ids[name])
        until(lambda: raw_status(folder, name)["state"] in ("stopped", "failed"), "it to leave")
    until(lambda: not member_jobs(folder)[name].alive, "the job to be over")
    assert step_of(folder, name) <= 0
    (found,) = with_jobs(folder, read_status(folder)).members
    assert found.state == "failed"
    assert "launcher.time" in found.error
    assert cluster.field(ids[name], "Restarts") == "2"


def test_preemption_with_and_without_grace_and_a_node_that_goes_down(cluster, tmp_path):
    plain, graced = tmp_path / "plain", tmp_path / "graced"
    plan, ids = start(plain, 1500, (32,), partition="debug")
    _, others = start(graced, 1500, (32,), partition="grace")
    (name,) = ids
    for folder in (plain, graced):
        until(lambda folder=folder: step_of(folder, name) >= 32, "the members to train")
    urgent = cluster.run("sbatch", "--parsable", "--partition=urgent", "-c4", "-o/dev/null", "--wrap=sleep 1")
    until(lambda: cluster.field(urgent, "JobState") == "COMPLETED", "the urgent job")
    for folder, number in ((plain, ids[name]), (graced, others[name])):
        assert cluster.field(number, "Restarts") == "1"
        until(lambda folder=folder: raw_status(folder, name)["attempt"] == 2, "both to go on")
        assert step_of(folder, name) < 1500
    before = step_of(plain, name)
    until(lambda: step_of(plain, name) > before, "it to train")
    cluster.run("scontrol", "update", "NodeName=ALL", "State=DOWN", "Reason=test")
    until(lambda: cluster.field(ids[name], "Restarts") == "2", "Slurm to take the job back")
    until(lambda: raw_status(plain, name)["state"] in ("stopped", "done"), "the member to save")
    cluster.run("scontrol", "update", "NodeName=ALL", "State=RESUME")
    for folder in (plain, graced):
        finish(folder)
    assert contents(plain, plan) == contents(graced, plan) == in_one_go(tmp_path / "alone", 1500, (32,))


def test_two_processes_a_member_save_together_and_go_on(cluster, tmp_path):
    folder, alone = tmp_path / "sweep", tmp_path / "alone"
    plan, ids = start(folder, 600, (32,), partition="debug", processes=2)
    (name,) = ids
    until(lambda: step_of(folder, name) >= 32, "the member to train")
    assert cluster.run("scancel", "--signal=USR2", ids[name]) == ""
    until(lambda: cluster.field(ids[name], "Restarts") == "1", "the member to queue itself again")
    assert step_of(folder, name) < 600
    finish(folder)
    make_sweep(alone, 600, (32,))
    submitit_local.launch(alone, plan, LauncherOptions(kind="submitit-local", processes=2))
    assert contents(folder, plan) == contents(alone, plan)
