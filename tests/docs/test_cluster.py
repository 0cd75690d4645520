"""The scripts of docs/cluster.md: they parse, fit together, and use options that there are."""

import ast
import dataclasses
import inspect
import re
import shlex
import subprocess
from typing import Any

import pytest
import yaml

from qcjax import cli
from qcjax.config import Hosts, Mnms2Config
from qcjax.runtime.stops import REQUEUE
from tests.docs.pages import DOCS, blocks

TEXT = (DOCS / "cluster.md").read_text(encoding="utf-8")
SCRIPTS = [block for block in blocks(TEXT, "sh") if block.startswith("#!")]
OBJECTS: list[dict[str, Any]] = [part for block in blocks(TEXT, "yaml") for part in yaml.safe_load_all(block)]
JOBS = {part["metadata"]["name"]: part["spec"] for part in OBJECTS if part["kind"] == "Job"}
CONTAINERS = {name: spec["template"]["spec"]["containers"][0] for name, spec in JOBS.items()}
LINES = [line for script in SCRIPTS for line in script.replace("\\\n", " ").splitlines() if "srun" in line]
LINES += [container["args"][0] for container in CONTAINERS.values()]


def options(line: str) -> dict[str, str]:
    """Of the command itself, not of srun."""
    words = shlex.split(line)
    first = next(i for i, word in enumerate(words) if word in ("experiments.mnms2", "score"))
    given = words[first + 1 :]
    values = [*given[1:], "--"]
    return {
        word: "" if value.startswith("--") else value
        for word, value in zip(given, values, strict=True)
        if word.startswith("--")
    }


def test_there_is_a_script_and_a_job_for_each_of_two() -> None:
    assert len(SCRIPTS) == 1 and sorted(JOBS) == ["qcjax-score", "qcjax-train"]
    assert sum("experiments.mnms2" in line for line in LINES) == 2
    assert sum("qcjax score" in line for line in LINES) == 1


@pytest.mark.parametrize("script", [*SCRIPTS, *(c["args"][0] for c in CONTAINERS.values())])
def test_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("line", LINES)
def test_every_option_is_one_of_the_commands(line: str) -> None:
    given = options(line)
    if "qcjax score" in line:
        known = {f"--{name.replace('_', '-')}" for name in inspect.signature(cli.score).parameters}
        needed = {"--monitor", "--masks", "--out", "--scheduler"}
    else:
        known = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Mnms2Config)}
        known |= {f"--hosts.{field.name}" for field in dataclasses.fields(Hosts)}
        needed = {"--data", "--out", "--distributed"}
    assert needed <= set(given) <= known


@pytest.mark.parametrize("script", SCRIPTS)
def test_slurm_starts_a_stopped_script_again(script: str) -> None:
    assert f'if [ "$code" -eq {REQUEUE} ]; then' in script and "scontrol requeue" in script
    assert "#SBATCH --requeue" in script and "#SBATCH --signal=TERM@" in script
    assert "$SLURM_JOB_ID" in script


def test_a_task_for_every_gpu() -> None:
    (script,) = (s for s in SCRIPTS if "--distributed" in s)
    tasks, gpus = (re.search(p, script) for p in (r"--ntasks-per-node=(\d+)", r"--gres=gpu:(\d+)"))
    assert tasks and gpus and tasks[1] == gpus[1]


@pytest.mark.parametrize("name", sorted(JOBS))
def test_kubernetes_starts_a_stopped_pod_again(name: str) -> None:
    spec, container = JOBS[name], CONTAINERS[name]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    (code,) = (r for r in spec["podFailurePolicy"]["rules"] if "onExitCodes" in r)
    assert code["action"] == "Ignore" and code["onExitCodes"]["values"] == [REQUEUE]
    assert code["onExitCodes"]["containerName"] == container["name"]
    assert re.match(r"(dask scheduler [^&]+ & )?exec ", container["args"][0])  # so that it gets the signal
    volumes = {volume["name"] for volume in spec["template"]["spec"]["volumes"]}
    mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
    assert {m["name"] for m in mounts.values()} == volumes
    given = options(container["args"][0])
    for option in ("--data", "--masks", "--monitor", "--out"):
        assert option not in given or any(given[option].startswith(f"{path}/") for path in mounts)
    assert not next(m for path, m in mounts.items() if given["--out"].startswith(path)).get("readOnly")


def test_pods_find_each_other() -> None:
    (service,) = (p for p in OBJECTS if p["kind"] == "Service" and p["metadata"]["name"] == "qcjax")
    spec, given = JOBS["qcjax-train"], options(CONTAINERS["qcjax-train"]["args"][0])
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"] == {
        "job-name": "qcjax-train"
    }
    subdomain = spec["template"]["spec"]["subdomain"]
    assert subdomain == service["metadata"]["name"]
    host, port = given["--hosts.coordinator"].split(":")
    assert host == f"qcjax-train-0.{subdomain}" and port.isdecimal()
    assert spec["completions"] == spec["parallelism"] == int(given["--hosts.count"])
    assert given["--hosts.index"] == "$JOB_COMPLETION_INDEX"


def test_workers_find_the_scheduler_and_see_the_same_folders() -> None:
    (service,) = (p for p in OBJECTS if p["kind"] == "Service" and p["metadata"]["name"] != "qcjax")
    (workers,) = (p for p in OBJECTS if p["kind"] == "Deployment")
    spec, pod = workers["spec"], workers["spec"]["template"]
    assert service["spec"]["selector"] == {"job-name": "qcjax-score"}
    assert spec["selector"]["matchLabels"] == pod["metadata"]["labels"]
    (container,), port = pod["spec"]["containers"], service["spec"]["ports"][0]["port"]
    command, job = container["args"][0], CONTAINERS["qcjax-score"]
    assert f"dask worker tcp://{service['metadata']['name']}:{port} --nthreads 1" in command
    assert f"dask scheduler --port {port}" in job["args"][0]
    assert options(job["args"][0])["--scheduler"] == f"tcp://127.0.0.1:{port}"
    assert container["volumeMounts"] == job["volumeMounts"] and container["image"] == job["image"]
    assert pod["spec"]["volumes"] == JOBS["qcjax-score"]["template"]["spec"]["volumes"]


def test_the_program_for_slurm_gives_the_commands_options() -> None:
    (program,) = blocks(TEXT, "python")
    call = next(
        n for n in ast.walk(ast.parse(program)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "main"
    )
    given = [n.value for n in ast.walk(call) if isinstance(n, ast.Constant)]
    known = {f"--{name}" for name in inspect.signature(cli.score).parameters}
    assert given[0] == "score" and {g for g in given if g.startswith("--")} <= known
    assert '"--scheduler", cluster.scheduler_address' in program


def test_pages_that_speak_of_it_lead_here() -> None:
    for page in (DOCS / "reliability.md", DOCS.parent / "README.md"):
        assert "cluster.md)" in page.read_text(encoding="utf-8")
