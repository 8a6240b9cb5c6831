"""Nothing that settings name is imported or called unless it is trusted and of the kind that is asked for."""

import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from residense import Block, Connection, Conv, Dense, Tagger
from residense.cli import main
from residense.errors import UsageError
from residense.run.checkpoint_io import AtomicIO
from residense.run.checkpoints import moved
from residense.settings import trust

OWN = """
import pathlib

from residense import Conv

pathlib.Path("imported").touch()


class Mine(Conv):
    pass
"""


@pytest.fixture
def own(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A checkpoint whose block is a class in a file of the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_blocks_of_mine", raising=False)
    Path("own_blocks_of_mine.py").write_text(OWN)
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["init_args"]["encoder"] = {
        "class_path": "residense.Encoder",
        "init_args": {
            "block": {"class_path": "own_blocks_of_mine.Mine", "init_args": {"kernel": 3}}
        },
    }
    torch.save(content, "theirs.ckpt")
    return "theirs.ckpt"


def test_a_checkpoint_imports_no_file_of_the_user_without_a_flag(
    own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", f"--ckpt_path={own}", "--data.text=own_blocks_of_mine.Mine"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: theirs.ckpt needs own_blocks_of_mine.Mine")
    assert line.endswith("(in Python, trust=['own_blocks_of_mine'])")
    assert not Path("imported").exists()
    main(["predict", f"--ckpt_path={own}", "--data.text=x", "--trust=own_blocks_of_mine"])
    assert Path("imported").exists()  # the weights are of another block, so it ends there


def test_a_name_inside_a_text_of_a_checkpoint_is_not_trusted_either(own: str) -> None:
    content = torch.load(own, weights_only=True)
    for hidden in (
        "own_blocks_of_mine.Mine",
        "{class_path: own_blocks_of_mine.Mine}",
        "theirs.yaml",
    ):
        Path("theirs.yaml").write_text("class_path: own_blocks_of_mine.Mine\n")
        content["hyper_parameters"]["init_args"]["encoder"]["init_args"]["block"] = hidden
        torch.save(content, own)
        assert main(["predict", f"--ckpt_path={own}", "--data.text=x"]) == 2
        assert not Path("imported").exists()


@pytest.mark.parametrize(
    "option",
    [
        "--data.path=own_blocks_of_mine.conll",
        "--output=own_blocks_of_mine.jsonl",
        "--config=mine.yaml",
    ],
)
def test_a_file_name_trusts_no_module(option: str, own: str) -> None:
    Path("own_blocks_of_mine.conll").write_text("Anna O\n")
    Path("mine.yaml").write_text("output: own_blocks_of_mine.jsonl\n")
    assert main(["predict", f"--ckpt_path={own}", option]) == 2
    assert not Path("imported").exists()


def test_a_checkpoint_elsewhere_names_the_copy_of_its_file(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "own_code" / "own_blocks_of_mine.py"
    copy.parent.mkdir()
    (tmp_path / "checkpoints").mkdir()
    ckpt = Path(own).rename(tmp_path / "checkpoints" / "best.ckpt")
    (tmp_path / "own_blocks_of_mine.py").rename(copy)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folders = [folder for folder in sys.path if not Path(folder, copy.name).exists()]
    monkeypatch.setattr(sys, "path", folders)  # other tests ran where they have such a file
    assert main(["predict", f"--ckpt_path={ckpt}", "--data.text=x"]) == 2
    assert capsys.readouterr().err.endswith(f"whose file is not here: copy {copy}\n")


def test_a_class_that_is_typed_is_trusted(own: str) -> None:
    main(
        [
            "predict",
            f"--ckpt_path={own}",
            "--data.text=x",
            "--model.encoder.block",
            "own_blocks_of_mine.Mine",
        ]
    )
    assert Path("imported").exists()


def test_a_kept_file_trusts_no_package_of_its_name(own: str, tmp_path: Path) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    for file in (package / "__init__.py", tmp_path / "run" / "own_code" / "own_package.py"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert trust.kept_modules(tmp_path / "run" / "own_code") == set()


def test_a_checkpoint_opens_no_address(own: str) -> None:
    content = torch.load(own, weights_only=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"127.0.0.1:{server.getsockname()[1]}/x.yaml"
        for name in (f"http://{address}", f"simplecache::http://{address}", "local://theirs.yaml"):
            Path("theirs.yaml").write_text("class_path: residense.Encoder\n")
            content["hyper_parameters"]["init_args"]["encoder"] = name
            torch.save(content, own)
            assert main(["predict", f"--ckpt_path={own}", "--data.text=x"]) == 2
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_program_of_an_installed_package_is_not_run(
    fit: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--model.encoder.block=tqdm.__main__.Block") == 2
    assert "tqdm.__main__.Block cannot be used here" in capsys.readouterr().err
    assert "tqdm.__main__" not in sys.modules


def test_a_checkpoint_has_nothing_removed_but_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious.txt").touch()
    (tmp_path / "old.ckpt").touch()
    paths = [
        tmp_path / "precious",
        tmp_path / "precious.txt",
        f"local://{tmp_path}/precious",
        tmp_path / "old.ckpt",
    ]
    for path in paths:
        AtomicIO().remove_checkpoint(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "precious.txt"]


@pytest.mark.parametrize("path", ["x/..", "local:///etc", "/etc/passwd", "missing.ckpt"])
def test_paths_of_a_checkpoint_stay_in_the_run(path: str, tmp_path: Path) -> None:
    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    (tmp_path / "best.ckpt").touch()
    for best in ({}, {"best.ckpt": 1.0}, {path: 1.0}):
        state = moved(
            {**dict.fromkeys(names, path), "best_k_models": best, "dirpath": "z"}, str(tmp_path)
        )
        assert {state[name] for name in names} == {""}
        assert set(state["best_k_models"]) <= {str(tmp_path / "best.ckpt")}


def test_a_run_with_own_classes_is_resumed_while_they_are_unchanged(
    fit: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("my_own_blocks.py").write_text(OWN)
    assert (
        fit("--model.encoder.block=my_own_blocks.Mine", "--run_dir=run", "--test_after_fit=false")
        == 0
    )
    assert "best.ckpt --trust my_own_blocks --data.text" in capsys.readouterr().out
    resume = ["fit", "--run_dir=run", "--ckpt_path=last", "--trainer.max_epochs=2"]
    assert main(resume) == 0
    Path("my_own_blocks.py").write_text(OWN + "\n")
    capsys.readouterr()
    assert main(resume) == 2
    assert "run/config.yaml needs my_own_blocks.Mine" in capsys.readouterr().err
    assert main([*resume, "--trust=my_own_blocks"]) == 0


def test_a_file_that_poses_as_an_installed_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("seqeval.py").write_text(OWN)
    monkeypatch.delitem(sys.modules, "seqeval", raising=False)
    assert (
        main(
            [
                "fit",
                "--config=dense_ner.yaml",
                "--model.encoder.block=seqeval.Mine",
                "--run_dir=run",
            ]
        )
        == 2
    )
    assert "seqeval.Mine cannot be used here" in capsys.readouterr().err
    assert not Path("imported").exists()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("torch", "installed"),
        ("lightning", "installed"),
        ("residense", "installed"),
        ("faker", "installed"),
    ]
    + [
        (name, "never")
        for name in ("os", "subprocess", "builtins", "__main__", "jsonargparse", "sys")
    ]
    + [("no_such_module", "missing"), ("a_file_here", "own"), ("a_folder_here", "own")],
)
def test_where_a_module_is_from(
    module: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_file_here.py").touch()
    (tmp_path / "a_folder_here").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert trust.origin(module) == expected


SPEC = {"class_path": "residense.Conv", "init_args": {"kernel": 3}}


@pytest.mark.parametrize(
    "hint",
    [
        Block,
        Block | None,
        list[Block],
        Callable[[int, int], Block],
        Iterable[Callable[..., Conv]] | bool,
        Callable[..., Block] | Callable[..., Optimizer],
    ],
)
def test_a_class_of_the_kind_that_is_asked_for_is_accepted(hint: Any) -> None:
    trust.check(SPEC, hint, "option")
    trust.check([SPEC, SPEC], hint, "option")


@pytest.mark.parametrize(
    "hint",
    [
        Connection,
        Any,
        None,
        object,
        dict,
        str,
        Sequence[int],
        Callable,
        Callable[[Tensor], Tensor],
        Callable[[Block], Connection],
        type[Callback],
    ],
)
def test_any_other_class_is_refused(hint: Any) -> None:
    with pytest.raises(UsageError, match=r"^option: "):
        trust.check(SPEC, hint, "option")


def test_arguments_of_classes_are_checked_down_to_the_last() -> None:
    inner = {
        "class_path": "residense.Dense",
        "init_args": {"norm": {"class_path": "residense.Conv"}},
    }
    encoder = {"class_path": "residense.Encoder", "init_args": {"connection": inner}}
    with pytest.raises(
        UsageError, match=r"^model\.encoder\.connection\.norm: residense\.Conv is not a Norm$"
    ):
        trust.check_arguments(Tagger, {"encoder": encoder}, "model")


def test_only_listed_functions_and_defaults_are_accepted() -> None:
    class Part(nn.Module):
        def __init__(self, function: Callable[[Tensor], Tensor] = torch.erf):
            super().__init__()

    trust.check_arguments(Part, {"function": F.gelu}, "part")
    trust.check_arguments(Part, {"function": torch.erf}, "part")
    for function in (torch.load, print, lambda x: x):
        with pytest.raises(UsageError, match=r"^part\.function: .* is not accepted"):
            trust.check_arguments(Part, {"function": function}, "part")


def test_arguments_that_a_class_passes_on_have_the_annotations_of_its_base() -> None:
    class Wider(Dense):
        def __init__(self, *args: Any, wide: bool = True, **options: Any):
            super().__init__(*args, **options)

    trust.check_arguments(
        Wider, {"norm": {"class_path": "residense.RMSNorm"}, "wide": False}, "wider"
    )
    with pytest.raises(UsageError, match="is not a Norm"):
        trust.check_arguments(Wider, {"norm": SPEC}, "wider")


def test_an_installed_optimizer_is_one(fit: Callable[..., int]) -> None:
    assert issubclass(AdamW, Optimizer)
    assert fit("--model.optimizer=torch.optim.adamw.AdamW", "--test_after_fit=false") == 0
