"""Settings that name what must not run, in every slot that takes a class, by every route that settings arrive.

    python tests/e2e/hostile_settings.py CHECKPOINT FOLDER [--n N] [--seed SEED] [--unchecked] [--commands N]

runs N cases of each route in FOLDER and prints one JSON line for each: the case, whether it executed, the exit code,
and the output. `--commands` runs so many of all routes instead, as commands. `--unchecked` switches the checks of
`residense.settings.trust` off, which shows what they prevent.
`tests/e2e/test_hostile_settings.py` runs this file in a process of its own, since an audit hook
stays for the life of a process.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from jsonargparse import set_parsing_settings

import residense
from residense.cli import main
from residense.errors import UsageError
from residense.settings import trust

CANARY = "canary"
RUN = f"open({CANARY!r}, 'w').close()"  # Python source
SHADOWED = "tabulate_of_nobody"  # as a file beside the command, and as an installed package
PAYLOADS: dict[str, dict[str, Any]] = {
    "os.system": {"class_path": "os.system", "init_args": {"command": f"touch {CANARY}"}},
    "subprocess.Popen": {
        "class_path": "subprocess.Popen",
        "init_args": {"args": ["touch", CANARY]},
    },
    "builtins.exec": {
        "class_path": "builtins.exec",
        "init_args": {"source": RUN},
        "dict_kwargs": {"source": RUN},
    },
    "runpy.run_path": {"class_path": "runpy.run_path", "init_args": {"path_name": "script.py"}},
    "another base": {"class_path": "installed_witness.Witness", "init_args": {}},
    "an installed function": {"class_path": "installed_witness.function", "init_args": {}},
    "a shadowing module": {"class_path": f"{SHADOWED}.Witness", "init_args": {}},
}
WITNESS = f"""
class Witness:
    def __init__(self, *args, **kwargs):
        {RUN}

    def __call__(self, *args, **kwargs):
        {RUN}


def function(*args, **kwargs):
    {RUN}
"""
MODEL = {
    "model": "",
    "embeddings": "embeddings",
    "characters": "embeddings.init_args.characters",
    "encoder": "encoder",
    "block": "encoder.init_args.block",
    "one of several blocks": "encoder.init_args.block.0",
    "connection": "encoder.init_args.connection",
    "norm of a connection": "encoder.init_args.connection.init_args.norm",
    "branch": "encoder.init_args.branch",
    "norm of a branch": "encoder.init_args.branch.init_args.norm_type",
    "transition": "encoder.init_args.transition",
    "head": "head",
    "optimizer": "optimizer",
    "schedule": "schedule",
}
DATA = {"data": "", "synthetic": "synthetic"}
TRAINER = {
    "logger": "logger",
    "callbacks": "callbacks",
    "one of several callbacks": "callbacks.0",
    "argument of a callback": "callbacks.1.init_args.on_fit_start",
    "strategy": "strategy",
    "profiler": "profiler",
    "plugins": "plugins",
    "accelerator": "accelerator",
}
SLOTS = {
    **{name: ("model", *path.split(".")) if path else ("model",) for name, path in MODEL.items()},
    **{name: ("data", *path.split(".")) if path else ("data",) for name, path in DATA.items()},
    **{name: ("trainer", *path.split(".")) for name, path in TRAINER.items()},
}
FORMS = ("spec", "name")  # class_path and init_args, or the bare name
FIT_ROUTES = ("config", "fragment", "option")
CHECKPOINT_ROUTES = ("predict", "test", "resume", "init_from", "export", "load")


class Case(NamedTuple):
    """What is named, where, in which form, and by which route it arrives."""

    slot: str
    payload: str
    form: str
    route: str


def cases() -> list[Case]:
    """All combinations; a checkpoint holds no settings of the trainer."""
    found = itertools.product(SLOTS, PAYLOADS, FORMS, (*FIT_ROUTES, *CHECKPOINT_ROUTES))
    return [
        Case(*case) for case in found if case[3] in FIT_ROUTES or SLOTS[case[0]][0] != "trainer"
    ]


def whole_config() -> dict[str, Any]:
    """A config in which each slot is filled."""
    encoder = {
        "block": [{"class_path": "residense.Conv"}],
        "connection": {
            "class_path": "residense.Dense",
            "init_args": {"norm": {"class_path": "residense.LayerNorm"}},
        },
        "branch": {
            "class_path": "residense.Branch",
            "init_args": {"norm_type": {"class_path": "residense.LayerNorm"}},
        },
        "transition": {"class_path": "residense.Transition"},
        "depth": [1],
    }
    model = {
        "embeddings": {
            "class_path": "residense.Embeddings",
            "init_args": {"characters": {"class_path": "residense.CharCNN"}},
        },
        "encoder": {"class_path": "residense.Encoder", "init_args": encoder},
        "head": {"class_path": "residense.CRF"},
        "optimizer": {"class_path": "torch.optim.AdamW"},
        "schedule": {"class_path": "residense.Warmup"},
    }
    callbacks = [
        {"class_path": "lightning.pytorch.callbacks.ModelSummary"},
        {"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {}},
    ]
    synthetic = {"class_path": "residense.Synthetic", "init_args": {"size": 60}}
    return {
        "model": {"class_path": "residense.Tagger", "init_args": model},
        "data": {
            "class_path": "residense.TaggingDataModule",
            "init_args": {"synthetic": synthetic},
        },
        "trainer": {
            "callbacks": callbacks,
            "max_epochs": 1,
            "limit_train_batches": 1,
            "limit_val_batches": 1,
        },
    }


def planted(config: dict[str, Any], case: Case) -> dict[str, Any]:
    """The config with the payload at its slot."""
    payload = (
        PAYLOADS[case.payload] if case.form == "spec" else PAYLOADS[case.payload]["class_path"]
    )
    first, *path = SLOTS[case.slot]
    path = ["init_args", *path] if path and first != "trainer" else path
    place: Any = config
    for key in [first, *path][:-1]:
        place = place[int(key) if isinstance(place, list) else key]
    last: Any = [first, *path][-1]
    place[int(last) if isinstance(place, list) else last] = payload
    return config


def arguments(case: Case, checkpoint: dict[str, Any]) -> list[str]:
    """Write what the route needs into the working directory; the command line."""
    ends = ["--run_dir=run", "--logger=none", "--test_after_fit=false"]
    if case.route == "config":
        Path("case.yaml").write_text(yaml.safe_dump(planted(whole_config(), case)))
        return ["fit", "--config=case.yaml", *ends]
    if case.route == "fragment":
        config = planted(whole_config(), case)
        first = SLOTS[case.slot][0]
        Path("part.yaml").write_text(yaml.safe_dump(config[first]))
        Path("case.yaml").write_text(yaml.safe_dump({**config, first: "part.yaml"}))
        return ["fit", "--config=case.yaml", *ends]
    if case.route == "option":
        Path("case.yaml").write_text(yaml.safe_dump(whole_config()))
        config = planted(whole_config(), case)
        path = [key for key in SLOTS[case.slot] if key != "init_args"]
        while path[-1].isdigit() or any(
            key.isdigit() for key in path
        ):  # an item of a list has no option of its own
            path = path[: next(i for i, key in enumerate(path) if key.isdigit())]
        value: Any = config
        for i, key in enumerate(path):
            value = value[key] if i == 0 or path[0] == "trainer" else value["init_args"][key]
        typed = value if isinstance(value, str) else json.dumps(value)
        return ["fit", "--config=case.yaml", f"--{'.'.join(path)}={typed}", *ends]
    settings = planted(whole_config(), case)
    hyper_parameters = {"model": "hyper_parameters", "data": "datamodule_hyper_parameters"}
    content = dict(checkpoint)
    for part, key in hyper_parameters.items():
        spec = (
            settings[part] if isinstance(settings[part], dict) else {"class_path": settings[part]}
        )
        content[key] = {"init_args": {}, **spec}
    torch.save(content, "evil.ckpt")
    if case.route == "load":
        return [case.route]
    if case.route == "export":
        return ["export", "evil.ckpt", "out.safetensors"]
    if case.route == "predict":
        return ["predict", "--ckpt_path=evil.ckpt", "--data.text=Anna sleeps."]
    if case.route == "test":
        return ["test", "--ckpt_path=evil.ckpt", "--data.path=corpus.conll"]
    Path("case.yaml").write_text(yaml.safe_dump(whole_config()))
    if case.route == "init_from":
        return ["fit", "--config=case.yaml", "--init_from=evil.ckpt", *ends]
    checkpoints = Path("run/checkpoints")
    checkpoints.mkdir(parents=True, exist_ok=True)
    Path("evil.ckpt").rename(checkpoints / "last.ckpt")
    Path("run/config.yaml").write_text(yaml.safe_dump(settings))  # which a resumed run reads
    return ["fit", *ends, "--ckpt_path=last"]


class Audit:
    """Counts the system calls by which the payloads act, while it is switched on."""

    EVENTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn")

    def __init__(self) -> None:
        self.on, self.seen = False, list[str]()
        sys.addaudithook(self._hook)

    def _hook(self, event: str, details: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in self.EVENTS and CANARY in repr(details):
            self.seen.append(event)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Switch on."""
        self.on, self.seen = True, []
        try:
            yield
        finally:
            self.on = False


def prepare(folder: Path) -> None:
    """What the payloads need: a script, an installed package with a witness, a file that poses as a package."""
    site = folder / "site-packages"
    for package in (SHADOWED, "installed_witness"):
        (site / package).mkdir(parents=True, exist_ok=True)
        (site / package / "__init__.py").write_text(WITNESS if package != SHADOWED else "")
    (folder / "work").mkdir(exist_ok=True)
    os.chdir(folder / "work")
    sys.path[:0] = [str(folder / "work")]  # as if main.py stood there
    sys.path.append(str(site))
    Path("script.py").write_text(RUN)
    Path(f"{SHADOWED}.py").write_text(f"{RUN}\n{WITNESS}")
    Path("corpus.conll").write_text("Anna\tB-PER\nsleeps\tO\n\n" * 20)


def run(case: Case, checkpoint: dict[str, Any], audit: Audit) -> dict[str, Any]:
    """Run a case: whether its payload executed, the exit code, and the output."""
    sys.modules.pop(SHADOWED, None)
    command, code, output = arguments(case, checkpoint), 1, io.StringIO()
    with audit.watch(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            code = load() if command == ["load"] else main(command)
        except (Exception, SystemExit) as error:
            output.write(f"{type(error).__name__}: {error}")
    executed = bool(audit.seen) or Path(CANARY).exists()
    Path(CANARY).unlink(missing_ok=True)
    shutil.rmtree("run", ignore_errors=True)
    return {**case._asdict(), "executed": executed, "code": code, "output": output.getvalue()}


def run_as_command(case: Case, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The same by main.py, in a process of its own; the canary alone shows what executed."""
    words, root = arguments(case, checkpoint), Path(__file__).parents[2]
    tests = str(Path(__file__).parent)
    loading = f"import sys; sys.path.append({tests!r}); import {Path(__file__).stem} as h; sys.exit(h.load())"
    script = ["-c", loading] if words == ["load"] else [root / "main.py", *words]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((os.getcwd(), str(Path.cwd().parent / "site-packages"))),
    }
    command = [sys.executable, *script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    executed = Path(CANARY).exists()
    Path(CANARY).unlink(missing_ok=True)
    shutil.rmtree("run", ignore_errors=True)
    return {
        **case._asdict(),
        "executed": executed,
        "code": done.returncode,
        "output": done.stdout + done.stderr,
    }


def load() -> int:
    """Load the checkpoint in Python, and predict."""
    try:
        residense.load("evil.ckpt").predict(["Anna sleeps."])
    except UsageError as error:
        print(f"error: {error}")
        return 2
    return 0


def unchecked() -> None:
    """Switch the checks off: what is named may be imported and called."""
    named = [payload["class_path"] for payload in PAYLOADS.values()]
    names = [*named, *(name.split(".")[0] for name in named)]
    set_parsing_settings(
        import_path_allowlist=[*names, "posix", "posix.system"],
        instantiate_subclass_spec_in_any=True,
    )
    for name in ("allow", "refuse_untrusted", "check", "check_arguments"):
        setattr(trust, name, lambda *_: None)


def run_cases() -> None:
    """Run cases of each route, drawn by the seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unchecked", action="store_true")
    parser.add_argument("--commands", type=int, default=0)
    options = parser.parse_args()
    checkpoint = torch.load(options.checkpoint, weights_only=True)
    prepare(options.folder)
    if options.unchecked:
        unchecked()
    audit, rng = Audit(), random.Random(options.seed)
    for case in rng.sample(cases(), options.commands):
        print(json.dumps(run_as_command(case, checkpoint)), flush=True)
    if options.commands:
        return
    for route in (*FIT_ROUTES, *CHECKPOINT_ROUTES):
        chosen = [case for case in cases() if case.route == route]
        for case in rng.sample(chosen, min(options.n or len(chosen), len(chosen))):
            print(json.dumps(run(case, checkpoint, audit)), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    run_cases()
