"""The `launcher:` section: what it means to Slurm, and what it refuses."""

import pytest

from training.sweep.launchers.options import LauncherOptions
from training.sweep.launchers.slurm import _parameters
from workbench.errors import ConfigError
from workbench.settings import assign, build, read_yaml


@pytest.mark.parametrize(
    ("time", "minutes"),
    [
        (90, 90), ("90", 90), ("90:30", 91), ("4:00:00", 240), ("24:00:00", 1440), ("0:00:30", 1),
        ("1-0", 1440), ("2-12:30", 3630), ("1-00:00:01", 1441),
    ],
)  # fmt: skip
def test_times_are_slurms(time, minutes):
    assert LauncherOptions(time=time, save_before=10).minutes == minutes


@pytest.mark.parametrize("time", ["", "soon", "1:2:3:4", "-5", "4h", 0, -1, "0:00:00"])
def test_times_that_are_none(time):
    with pytest.raises(ConfigError, match=r"launcher\.time"):
        LauncherOptions(time=time)


def test_a_time_without_quotes_is_no_number_of_base_60(tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text("launcher: {kind: slurm, time: 4:00:00, jobs: 1_0}\nratio: 1.5\nsum: 1:30.5\n")
    found = read_yaml(file)
    assert build(LauncherOptions, found["launcher"]).minutes == 240
    assert found["launcher"]["jobs"] == 10
    assert (found["ratio"], found["sum"]) == (1.5, "1:30.5")
    assert assign({}, ["launcher.time=12:00:00"]) == {"launcher": {"time": "12:00:00"}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"partitoin": "gpu"}, "launcher.partitoin is not a field. Did you mean 'partition'"),
        ({"kind": "pbs"}, "launcher.kind"),
        ({"gpus": -1}, "launcher.gpus must be at least 0"),
        ({"nodes": 0}, "launcher.nodes must be at least 1"),
        ({"processes": 0}, "launcher.processes must be at least 1"),
        ({"memory": "much"}, 'launcher.memory is a size such as "8GB"'),
        ({"time": 1, "save_before": 90}, "leaves nothing of launcher.time"),
        ({"partition": " "}, "launcher.partition must be one line"),
        ({"account": "a\nb"}, "launcher.account must be one line"),
        ({"setup": "module load cuda"}, "launcher.setup"),
    ],
)
def test_what_is_refused(values, said):
    with pytest.raises(ConfigError) as caught:
        build(LauncherOptions, values, "launcher")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_field_reaches_sbatch(tmp_path):
    import submitit

    options = LauncherOptions(
        kind="slurm", jobs=3, partition="gpu-a100", account="research", qos="long", time="1-0", save_before=60,
        gpus=4, nodes=2, cpus=8, memory="16GB", constraint="a100", setup=("module load 2024r1", "module load cuda"),
        sbatch={"mail-type": "END", "exclusive": True},
    )  # fmt: skip
    executor = submitit.SlurmExecutor.__new__(submitit.SlurmExecutor)  # no srun is needed to write the file
    submitit.core.core.Executor.__init__(executor, tmp_path)
    executor.update_parameters(**_parameters("widths", options, "token"))
    executor.parameters["map_count"] = 6
    text = executor._make_submission_file_text("python member.py", "0")
    for line in (
        "--array=0-5%3", "--partition=gpu-a100", "--account=research", "--qos=long", "--time=1440",
        "--signal=USR2@60", "--gpus-per-node=4", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=8",
        "--mem=16GB", "--constraint=a100", "--mail-type=END", "--exclusive", "--requeue", "--job-name=widths", "--comment=token",
        "--open-mode=append",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in text, line
    assert text.index("module load 2024r1\n") < text.index("module load cuda\n") < text.index("srun ")
    assert "--kill-on-bad-exit=1 --cpus-per-task=8 python member.py" in text


def test_changes_for_the_rest_of_a_sweep():
    options = LauncherOptions(kind="slurm", partition="gpu", setup=("module load cuda",))
    changed = options.changed(["launcher.partition=gpu-a100", "launcher.time=8:00:00"])
    assert (changed.partition, changed.minutes, changed.setup) == ("gpu-a100", 480, options.setup)
    with pytest.raises(ConfigError, match=r"launcher\.partitoin is not a field"):
        options.changed(["launcher.partitoin=gpu"])
