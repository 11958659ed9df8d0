"""The jobs of `--launcher slurm` through submitit's local executor, which needs no Slurm."""

import os
import signal
import subprocess
import sys

import pytest
from slurm_sweeps import contents, make_sweep, process_of, step_of, until

from training.sweep.launchers.job import MemberJob
from training.sweep.launchers.options import LauncherOptions
from training.sweep.launchers.submitit_local import launch
from training.sweep.member import run_member
from training.sweep.status import raw_status, read_status
from workbench.errors import ConfigError

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.slow
def test_told_to_save_goes_on_to_the_same_bytes(tmp_path):
    """The signal before the time limit, sent by hand: the executor then starts the member again."""
    folder, alone = tmp_path / "sweep", tmp_path / "alone"
    plan = make_sweep(folder, steps=200, d_mlp=(32, 40))
    make_sweep(alone, steps=200, d_mlp=(32, 40))
    names = [member.name for member in plan.members]
    done = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "apps.cli",
            "sweep",
            folder,
            "--launcher",
            "submitit-local",
            "--jobs",
            "2",
            "--yes",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    until(lambda: step_of(folder, names[0]) >= 32, "the first member to train")
    os.kill(process_of(folder, names[0]), signal.SIGUSR2)
    for name in names:
        run_member(alone, name, quiet=True)
    out, _ = done.communicate(timeout=150)
    assert done.returncode == 0, out
    assert "2 of 2 members are done." in out
    assert raw_status(folder, names[0])["attempt"] == 2
    assert raw_status(folder, names[1])["attempt"] == 1
    assert contents(folder, plan) == contents(alone, plan)


@pytest.mark.slow
def test_a_signal_saves_the_members_and_ends_the_call(tmp_path):
    folder = tmp_path / "sweep"
    make_sweep(folder, steps=20_000, d_mlp=(32,))
    command = [sys.executable, "-m", "apps.cli", "sweep", folder, "--launcher", "submitit-local", "--yes"]
    call = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until(lambda: step_of(folder, "d_mlp-32") >= 32, "the member to train")
    call.send_signal(signal.SIGTERM)
    _, error = call.communicate(timeout=30)
    assert call.returncode == 128 + signal.SIGTERM
    assert f"Continue with: workbench sweep {folder} --launcher submitit-local" in error
    (now,) = read_status(folder)
    assert now.state == "stopped"
    assert step_of(folder, "d_mlp-32") >= 32


def test_several_nodes_are_refused(tmp_path):
    plan = make_sweep(tmp_path / "sweep", steps=10, d_mlp=(32,))
    with pytest.raises(ConfigError, match=r"launcher\.nodes = 2: this machine is one node"):
        launch(tmp_path / "sweep", plan, LauncherOptions(kind="submitit-local", nodes=2))


def test_what_is_pickled_is_a_name_and_two_texts(tmp_path):
    """The job file is submitit's own; nothing of ours but the class's name and its two texts is in it."""
    import pickletools

    import cloudpickle

    job = MemberJob(tmp_path / "sweep", "d_mlp-32")
    texts = {arg for _, arg, _ in pickletools.genops(cloudpickle.dumps(job)) if isinstance(arg, str)}
    assert texts == {
        "training.sweep.launchers.job", "MemberJob", "folder", "member", str(tmp_path / "sweep"), "d_mlp-32",
    }  # fmt: skip


def test_submitit_is_imported_only_to_submit():
    code = (
        "import sys; import training.sweep.launchers.slurm, training.sweep.launchers.submitit_local;"
        "import training.sweep.launchers.cluster; assert 'submitit' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_signal_that_comes_too_late_does_not_fail_a_finished_job(tmp_path):
    """Between its end and the end of its process a job is still told of its time limit."""
    plan = make_sweep(tmp_path / "sweep", steps=5, d_mlp=(32,))
    code = (
        "import os, signal, sys; from training.sweep.launchers.job import MemberJob;"
        f"MemberJob({str(tmp_path / 'sweep')!r}, {plan.members[0].name!r})();"
        "os.kill(os.getpid(), signal.SIGUSR2); os.kill(os.getpid(), signal.SIGTERM)"
    )
    local = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | local, check=False)
    assert done.returncode == 0
    assert read_status(tmp_path / "sweep")[0].state == "done"
