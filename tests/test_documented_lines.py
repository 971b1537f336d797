"""Every command line that the documentation or a help text shows, run as it stands, but small.

A new line is found by itself. It keeps all that it says; only what it leaves open is made small. It
runs in a folder that is not the repository, beside the runs that its placeholders name. What cannot
run stands in CANNOT with the reason, what takes long in LONG.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import pytest
import yaml
from command_line import PG, forked, rows

from pgcli.cli import reproduce
from pgcli.cli.main import COMMANDS, usage
from pgcli.cli.sources import conf_dir
from pgcli.proof import command as proof
from pgcli.reports import report

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = {"report": report.EXAMPLE, "reproduce": reproduce.EXAMPLE, "test": proof.EXAMPLE}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = ("pg ", "python ", "python3 ", "pip ", "tensorboard ", "eval ", ".ci/", ".venv/")

CANNOT = {  # by how they begin
    "python3 -m venv .venv": "installs into a clone: .ci/run runs these very lines",
    "source .venv/bin/activate": "in a clone that was set up: as above",
    ".venv/bin/pip install -e '.[dev]'": "installs into a clone: .ci/run does",
    "pip install ": "changes the environment in which the tests run",
    ".ci/run": "the gate, which runs this test",
    "tensorboard --logdir outputs": "serves until it is stopped: see runs/test_tensorboard.py",
    "python tests/benchmarks/throughput.py": "needs the extra bench and half an hour",
    "python tests/benchmarks/measurement.py": "takes minutes",
    "python tests/benchmarks/proximal.py": "needs the extra bench and takes minutes",
    "python tests/benchmarks/comparing.py": "takes minutes",
    "python tests/benchmarks/real.py": "needs the extra bench and takes minutes",
    "pg report outputs --over optimizer.lr": "see reports/test_sensitivity.py",
    "pg compare checkpoint=lqg ": "the run of the line before it: comparison/test_course.py",
    "pg report outputs --split update": "wants runs of several rules: as above",
    "pg report <its directory> --split update": "as above",
    "pg report <its directory> --over optimizer.lr": "wants runs of several rates: as above",
    "pg report outputs --page results.md": "writes another page: reports/test_page",
    "pg report results --page results.md": "wants that page's folder: reports/test_page",
}
LONG = (  # by how they begin
    "pg train -m seed='range(10)' hydra/launcher=",
    "pg train -m estimator=rtg,gae seed='range(10)'",
    "pg compare estimators=[total,rtg,rtg_value,gae] episodes=4096",
    "pg compare checkpoint=outputs/<date>/<time> iteration=50",  # of a help text, as the next two
    "pg train -m estimator=total,rtg,gae seed=0,1",
    "pg train -m estimator=total,rtg,rtg_value seed=0,1",
    "pg train -m hydra/sweeper=optuna",
    "pg train -m experiment=",  # short in training/test_lessons.py
    "pg train -m estimator=rtg,rtg_mean,gae seed='range(10)' && pg report outputs",
    "pg compare env=FrozenLake-v1 policy=tabular episodes=16384",
    "pg test ",
)
EXTRAS = {  # what a line with this in it needs
    "video=gif": "pygame",
    "hydra/launcher=joblib": "hydra_plugins.hydra_joblib_launcher",
    "hydra/launcher=submitit": "hydra_plugins.hydra_submitit_launcher",
    "hydra/launcher=ray": "hydra_plugins.hydra_ray_launcher",
    "hydra/sweeper=optuna": "hydra_plugins.hydra_optuna_sweeper",
}
PACKAGES = {"gymnasium.envs.box2d": "Box2D", "gymnasium.envs.mujoco": "mujoco"}
SLURM = "hydra/launcher=submitit_slurm hydra.launcher.partition=<name>"  # see test_slurm.py
RUN, OTHER = "outputs/2026-01-31/12-00-00", "outputs/2026-01-31/12-00-05"
SWEEP = "outputs/multirun/2026-01-31/12-00-00"
FILLED = {  # placeholders, and what they stand for in turn
    SLURM: ["hydra/launcher=submitit_local"],
    "outputs/<date>/<time>": [RUN],
    "<run>": [RUN, OTHER],
    "env=<id>": ["env=CartPole-v1"],
    "experiment=<name>": ["experiment=causality"],
    "<its directory>": [SWEEP],
    "outputs/multirun/<date>/<time>": [SWEEP],
    "<command>": ["report"],
}
MODULE = """
import gymnasium as gym

class MyEnv(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}
    def step(self, action):
        return self.observation_space.sample(), float(action), False, False, {}

gym.register("MyEnv-v0", MyEnv, max_episode_steps=9)
"""


def of_markdown(text: str) -> list[str]:
    """The lines of its shell blocks without comments, then the commands in its prose."""
    blocks = "\n".join(m[2] for m in FENCED.finditer(text) if m[1] == "sh")
    typed = [re.sub(r"(^|\s+)#.*", "", line).strip() for line in blocks.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    return [line for line in typed if line] + [line for line in inline if is_line(line)]


def of_help(text: str) -> list[str]:
    """The lines that it shows: what stands behind two spaces explains."""
    lines = [re.split(r"\s{2,}", line.strip())[0] for line in text.splitlines()]
    return [x for line in lines if is_line(x := line.removeprefix("Completion: "))]


def is_line(text: str) -> bool:
    """Whether it can be typed; `pg compare` alone only names the command."""
    if match := re.match(r"pg (\S+)", text):
        return match[1][0] in "-<" or (match[1] in COMMANDS and match[0] != text)
    return text.startswith(SHELL)


def help_of(command: str) -> str:
    if command in EXAMPLES:
        return EXAMPLES[command]
    tree = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text())
    return tree["hydra"]["help"]["template"].replace("$$", "$")


@cache
def documented() -> list[str]:
    """Every line once."""
    found = [line for path in TEXTS for line in of_markdown(path.read_text())]
    found += of_help(usage())
    found += [line for command in COMMANDS for line in of_help(help_of(command))]
    return list(dict.fromkeys(found))


LINES = [
    pytest.param(line, id=line, marks=[pytest.mark.slow] if line.startswith(LONG) else [])
    for line in documented()
    if not line.startswith(tuple(CANNOT))
]


def test_what_is_said_of_lines_is_of_lines_that_are_there():
    lines = documented()
    assert len(lines) > 40
    assert all(any(line.startswith(x) for line in lines) for x in (*CANNOT, *LONG))
    assert all(any(x in line for line in lines) for x in (*EXTRAS, *FILLED) if x != "<command>")


def extras(line: str) -> list[str]:
    """The modules of extras that a line needs: by its words, and by the environments it names."""
    named = re.findall(r"\benv=([^\s,]+)", line)
    known = [gymnasium.registry[env] for env in named if env in gymnasium.registry]
    made_by = [str(spec.entry_point) for spec in known]
    return [needed for part, needed in EXTRAS.items() if part in line] + [
        needed
        for package, needed in PACKAGES.items()
        if any(maker.startswith(package) for maker in made_by)
    ]


def filled(line: str) -> str:
    """With a value for each placeholder."""
    for placeholder, values in FILLED.items():
        for value in values:
            line = line.replace(placeholder, value, 1 if len(values) > 1 else -1)
    assert not re.search(r"<[\w /-]+>", line), f"what stands for the placeholder in {line}?"
    return line


def small(words: list[str]) -> list[str]:
    """The words, then a small value of each size that they leave open."""
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    if "--help" in words or words[:1] not in (["train"], ["compare"], ["eval"]):
        return words
    if words[0] == "train":
        sizes = {"iterations": "2", "batch_size": "4"}
        if "experiment" in given:  # which may sweep over the batch
            sizes = {"iterations": "2", "seeds": "2", "total_steps": "null"}
    elif words[0] == "eval":
        words, sizes = [x for x in words if not x.startswith("episodes=")], {"episodes": "3"}
    else:
        size = int(given.get("batch_size", 8))
        sizes = {"episodes": str(4 * size), "batch_size": str(size), "fit_episodes": "8",
                 "resamples": "100", "critic.epochs": "1"}  # fmt: skip
        if given.get("env") == "FrozenLake-v1":
            sizes["env.max_episode_steps"] = "12"
        elif "-m" in words:
            sizes["exact"] = "false"
        sizes["pictures"] = str(not {"-m", "iteration", "critic", "estimators"} & {*words, *given})
    return [*words, *(f"{key}={value}" for key, value in sizes.items() if key not in given)]


def pg(words: list[str], cwd: Path, log: Path) -> int | None:
    return forked(words, cwd, log, log)


def shell(line: str, cwd: Path, log: Path) -> int:
    """As a user types it, with `pg` and `python` of this environment."""
    path = os.pathsep.join([str(Path(PG).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    with open(log, "ab") as file:
        done = subprocess.run(
            ["bash", "-c", line], cwd=cwd, env=env, stdout=file, stderr=file, timeout=600
        )
    return done.returncode


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder: two runs and a sweep, an environment of its own, and all that is shown."""
    cwd = tmp_path_factory.mktemp("user")
    (cwd / "my_module.py").write_text(MODULE)
    shown = [m for path in TEXTS for m in FENCED.finditer(path.read_text())]
    python = [m[2] for m in shown if m[1] == "python"]
    for text in python:
        name = re.match(r"# (\w+\.py)\n", text)
        assert name is not None, "a snippet begins with the name of its file"
        (cwd / name[1]).write_text(text)
    long = ["iterations=50", "checkpoint.every=2", "batch_size=4", f"hydra.run.dir={RUN}"]
    lake = ["env=FrozenLake-v1", "policy=tabular", "iterations=2", f"hydra.run.dir={OTHER}"]
    two = ["-m", "estimator=rtg,gae", "iterations=2", "batch_size=4", f"hydra.sweep.dir={SWEEP}"]
    for words in (long, lake, two):
        assert pg(["train", *words], cwd, cwd / "log") == 0, (cwd / "log").read_text()
    return cwd


@pytest.mark.parametrize("line", LINES)
def test_a_documented_line(line, folder, tmp_path):
    for needed in extras(line):
        if find_spec(needed) is None:
            pytest.skip(f"needs {needed.rpartition('.')[2]}")
    cwd, log = tmp_path / "user", tmp_path / "log"
    shutil.copytree(folder, cwd, symlinks=True)
    there = {path for path in cwd.rglob("*") if path.is_dir()}
    for part in filled(line).split(" && "):
        words = shlex.split(part)
        if words[0] == "pg" and not line.startswith(LONG):
            code = pg(small(words[1:]), cwd, log)
        elif words[0] == "pg":
            code = shell(shlex.join(["pg", *small(words[1:])]), cwd, log)
        else:
            code = shell(part.replace(" tests/", f" {ROOT}/tests/"), cwd, log)
        said = log.read_text()
        assert code == 0, said
        assert "Traceback" not in said
        assert "Warning" not in said
        if words[0] == "pg":
            kept(small(words[1:]), cwd, there, said)


def kept(words: list[str], cwd: Path, there: set[Path], said: str) -> None:
    """Assert that the line has done what it promises."""
    given = dict(word.split("=", 1) for word in words if "=" in word and word[0] != "-")
    new = {path for path in cwd.rglob("*") if path.is_dir()} - there
    runs = [path.parent for path in new if path.name == ".hydra"]
    if words[0].startswith("-") or "--help" in words:
        assert said
    elif words[0] == "report":
        (page,) = cwd.glob("outputs/report/*/*/report.html")
        assert "<svg" in page.read_text() or "base64" in page.read_text()
        assert "estimator" in said
    elif words[0] == "test":
        assert "0 FAILS" in said
    elif words[0] == "reproduce":
        assert said.splitlines()[-1].startswith("pg train ")
    elif words[0] == "eval":
        (told,) = [path for path in cwd.rglob("eval.json") if path.parent not in there]
        beside = {"video": "video.*", "export": "policy-seed-0.*"}
        assert all(list(told.parent.rglob(p)) for key, p in beside.items() if key in given)
    elif "resume" in given:
        assert len(rows(cwd / given["resume"])) == 1 + int(given["iterations"])
    elif words[0] == "train":
        assert runs
        for run in runs:
            assert len(rows(run)) > 1
            assert list(run.glob("checkpoint/*.npz"))
            assert list(run.rglob("events.out.tfevents.*"))
    else:
        assert runs
        for run in runs:
            compared(run, given)
    if "-m" in words:
        assert f"{len(runs)} of {len(runs)} jobs finished" in said
        assert len(runs) == jobs(given)
        assert ("['maximize']" in said) == ("hydra/sweeper" in given)
    elif words[0] in ("train", "compare") and "resume" not in given:
        assert len(runs) == ("--help" not in words)


def jobs(given: dict[str, str]) -> int:
    """How many a sweep of these overrides has."""
    if "experiment" in given:
        params = yaml.safe_load(
            (conf_dir() / "experiment" / f"{given['experiment']}.yaml").read_text()
        )
        given = params["hydra"]["sweeper"]["params"]
    if "hydra.sweeper.n_trials" in given:
        return int(given["hydra.sweeper.n_trials"])
    count = 1
    for value in map(str, given.values()):
        if match := re.fullmatch(r"range\((\d+)\)", value):
            count *= int(match[1])
        elif not value.startswith("["):
            count *= len(value.split(","))
    return count


def compared(run: Path, given: dict[str, str]) -> None:
    """Assert that a comparison shows what is asked for."""
    with open(run / "compare.csv") as file:
        table = list(csv.DictReader(file))
    if "estimators" in given:
        names = {row["estimator"].split()[0] for row in table}  # a ladder has several of each
        assert names == set(given["estimators"][1:-1].split(","))
    if "behaviour.kl" in given:
        assert {float(row["kl"]) for row in table} == {
            *map(float, given["behaviour.kl"][1:-1].split(","))
        }
        assert (run / "importance.png").exists()
    if given.get("env") == "FrozenLake-v1":
        assert any(row["trace_cov_exact"] for row in table)
    assert bool(list(run.glob("*.png"))) == (given["pictures"] == "True")
    if "checkpoint" in given:
        tree = yaml.safe_load((run / ".hydra" / "config.yaml").read_text())
        user = next(path for path in run.parents if path.name == "outputs").parent
        source = yaml.safe_load((user / tree["checkpoint"] / ".hydra" / "config.yaml").read_text())
        assert (tree["policy"], tree["env"]) == (source["policy"], source["env"])
        assert tree["iteration"] == yaml.safe_load(given.get("iteration", "null"))


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.name)
def test_files_that_are_named_are_there(text):
    named = re.findall(r"\b(?:tests|pgcli|conf|docs)/[\w./-]+\.\w+", text.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []
