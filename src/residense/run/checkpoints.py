"""What a checkpoint contains. No other module uses its keys; `checkpoint_io` reads and saves it."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Required, TypedDict, cast, get_origin, get_type_hints

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

import residense
from residense.data.vocabulary import Vocabulary

FORMAT = 1  # raise it when older checkpoints cannot be read any more


class Content(TypedDict, total=False):
    """Entries of a checkpoint: those of Lightning that this project reads, and its own."""

    hyper_parameters: Required[dict[str, Any]]  # `class_path` and `init_args` of the model
    datamodule_hyper_parameters: Required[dict[str, Any]]  # the same of the data module
    state_dict: Required[dict[str, Tensor]]  # weights; averaged, if the run averages them
    current_model_state: dict[str, Tensor]  # then, the weights that are trained
    optimizer_states: list[dict[str, Any]]
    callbacks: dict[str, dict[str, Any]]
    loops: Required[dict[str, Any]]
    epoch: Required[int]
    global_step: Required[int]

    format: Required[int]
    versions: dict[str, str]
    vocabulary: Required[dict[str, Any]]  # fields of `Vocabulary`
    sharded: bool  # whether the run was; then the optimizer numbers its parameters differently
    generators: list[dict[str, Any]]  # random number generators of each process
    rows: int  # of metrics.csv
    next_row: dict[str, Any]  # arguments of `log_metrics` right after the save


REQUIRED = {*Content.__required_keys__, "pytorch-lightning_version"}  # which Lightning reads first
TYPES: dict[str, type] = {
    key: get_origin(hint) or hint for key, hint in get_type_hints(Content).items()
}
SETTINGS = {"model": "hyper_parameters", "data": "datamodule_hyper_parameters"}


class Progress(NamedTuple):
    """What `Last` adds to a checkpoint: see `Content`."""

    generators: list[dict[str, Any]]
    rows: int
    next_row: dict[str, Any]


class Checkpoint:
    """A checkpoint in memory.

    Args:
        content: the dictionary that Lightning saves and loads.
    """

    def __init__(self, content: dict[str, Any]):
        self.content = cast(Content, content)

    # -- what it was made by ----------------------------------------------------------------------

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Class and arguments of the `model` and the `data`, in the form of a config."""
        return {part: cast(Any, self.content)[key] for part, key in SETTINGS.items()}

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary of the model."""
        return Vocabulary(**self.content["vocabulary"])

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to predict with."""
        return self.content["state_dict"]

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 0."""
        return self.content["epoch"]

    @property
    def is_sharded(self) -> bool:
        """Whether the run split its weights over processes."""
        return self.content.get("sharded", False)

    @property
    def version(self) -> str:
        """The version of this project that saved it."""
        version = str(self.content.get("versions", {}).get("residense", ""))
        return version if re.fullmatch(r"[\w.+-]{1,40}", version) else "unknown"

    def saved_by(self) -> str:
        """Name the versions that saved and read it, to append to an error; empty if the same."""
        if self.version == residense.__version__:
            return ""
        return f" (saved by residense {self.version}, read by residense {residense.__version__})"

    def data_state(self, data: L.LightningDataModule) -> dict[str, Any]:
        """Return the state that a data module of this class saved."""
        return cast(Any, self.content).get(type(data).__qualname__, {})

    # -- what a task adds and checks --------------------------------------------------------------

    def add_model(self, vocabulary: Vocabulary, sharded: bool) -> None:
        """Add what the weights need to be used again."""
        self.content["vocabulary"] = asdict(vocabulary)
        self.content["sharded"] = sharded

    def is_finite(self, trainable: set[str]) -> bool:
        """Return whether these weights and the states of the optimizers are finite."""
        states = (self.weights, self.content.get("current_model_state", {}))
        parts = [state[name] for state in states for name in trainable & state.keys()]
        flags: list[bool] = []
        apply_to_collection(
            [parts, self.content.get("optimizer_states", [])],
            Tensor,
            lambda tensor: flags.append(bool(tensor.isfinite().all())),
        )
        return all(flags)

    def misfit(self, weights: dict[str, Tensor]) -> str | None:
        """Name a weight that is missing, unknown or of another shape than in the model."""
        stored = self.content.get("state_dict", weights)  # sharded weights have been loaded before
        shapes = [{name: weight.shape for name, weight in w.items()} for w in (weights, stored)]
        names = sorted({**weights, **stored})
        return next((n for n in names if shapes[0].get(n) != shapes[1].get(n)), None)

    def swap_averages(self) -> None:
        """Exchange the averaged weights and the trained ones, where each took the other's place."""
        content = cast(dict[str, Any], self.content)
        averaged = content["current_model_state"]
        content |= {"current_model_state": content["state_dict"], "state_dict": averaged}

    # -- where a run resumes ----------------------------------------------------------------------

    def add_progress(self, progress: Progress) -> None:
        """Add what a run needs to resume."""
        cast(Any, self.content).update(progress._asdict())

    @property
    def progress(self) -> Progress:
        """What a run needs to resume."""
        content = self.content
        return Progress(
            content.get("generators", []), content.get("rows", 0), content.get("next_row", {})
        )

    @property
    def stopped_early(self) -> bool:
        """Whether `EarlyStopping` ended training; Lightning would train one more epoch."""
        states = self.content.get("callbacks", {}).items()
        return any(
            state.get("stopping_reason") for key, state in states if key.startswith("EarlyStopping")
        )

    def is_trained(self, trainer: L.Trainer) -> bool:
        """Return whether the limits of the trainer, or early stopping, leave nothing to train."""
        progress = self.content["loops"]["fit_loop"]["epoch_progress"]
        epochs = progress["current"]["processed"]
        steps = self.content["global_step"]
        if 0 < (trainer.max_epochs or 0) <= epochs or 0 <= trainer.max_steps <= steps:
            return True
        enough = epochs >= (trainer.min_epochs or 0) and steps >= (trainer.min_steps or 0)
        return self.stopped_early and enough

    def relocate(self, saver: ModelCheckpoint) -> dict[str, Any] | None:
        """Return the state of a `ModelCheckpoint`, with the paths that its files have now."""
        states = self.content.get("callbacks", {})
        if saver.state_key not in states:
            return None
        states[saver.state_key] = moved(states[saver.state_key], str(saver.dirpath))
        return states[saver.state_key]


def moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return the state of a `ModelCheckpoint` with the paths that its files have in `folder`.

    Lightning compares paths as text and forgets the best scores of a run that was moved, copied or
    linked. Paths of files that are not in `folder` are dropped: a checkpoint may name any file, and
    Lightning removes what it replaces.
    """

    def here(path: str) -> str:
        file = Path(folder) / Path(path).name
        return str(file) if path and file.is_file() else ""

    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    best = {here(path): score for path, score in state["best_k_models"].items()}
    if "" in best:  # of another run
        return state | dict.fromkeys(names, "") | {"best_k_models": {}}
    paths = {name: here(state[name]) for name in names}
    return state | paths | {"best_k_models": best, "dirpath": folder}
