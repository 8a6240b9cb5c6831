"""Trained models in Python: load a checkpoint, predict texts, and encode them as vectors."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from residense.data.batches import Batch, BatchLoader, Encoded
from residense.data.module import TextDataModule
from residense.errors import UsageError
from residense.run.checkpoint_io import read
from residense.settings.options import Options
from residense.tasks.base import Task


def load(
    path: str | Path, device: str | torch.device = "cpu", trust: Sequence[str] = ()
) -> "Model":
    """Load a trained model.

        model = residense.load("runs/dense_ner/.../checkpoints/best.ckpt")
        model.predict(["Anna lives in Oslo."])

    Args:
        path: checkpoint.
        device: where the model computes.
        trust: modules of the user that the checkpoint may import.

    Raises:
        UsageError: the checkpoint is damaged, or needs a module that is not trusted.
    """
    words = [f"--ckpt_path={path}", "--seed_everything=false"]
    options = Options("predict", [*words, f"--trust={','.join(trust)}"] if trust else words)
    checkpoint = read(path)
    data = options.make_data()
    data.vocabulary = checkpoint.vocabulary
    task = options.make_model(checkpoint.vocabulary)
    task.load_state_dict(checkpoint.weights)
    return Model(task.to(device), data)


class Model:
    """A trained model that predicts and encodes texts.

    Args:
        task: the model, with its vocabulary.
        data: a data module with the settings of the training data, which cuts texts into tokens.
    """

    def __init__(self, task: Task, data: TextDataModule):
        self.task = task.eval()
        self.data = data

    @torch.inference_mode()
    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Predict texts.

        Returns:
            One record for each text: a tagger's with its `entities` (`start` and `end` in
            characters, `type`, `text` and `probability`), or a tag for each token where tags are no
            spans; a classifier's with `label` and `probabilities`.
        """
        outputs = [
            one for batch in self._batches(texts) for one in self.task.predict_step(batch, 0)
        ]
        return list(self.task.records(outputs, self.data, "predict"))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as vectors [len(texts), D].

        The vector of a tagger is the mean of the encoded tokens of the text; that of a classifier
        is what it pools.
        """
        batches = list(self._batches(texts))
        document = torch.from_numpy(self.data.splits["predict"].document).long()
        sums: Any = 0.0  # a long text may be several sentences
        num_tokens = torch.zeros(len(texts))
        for batch in batches:
            rows = document[batch["index"].cpu()]
            weights = batch["mask"].sum(1).float().cpu()
            vectors = self.task.encode(batch).float().cpu() * weights[:, None]
            empty = vectors.new_zeros(len(texts), vectors.shape[1])
            sums = sums + empty.index_add(0, rows, vectors)
            num_tokens.index_add_(0, rows, weights)
        return sums / num_tokens.clamp(min=1)[:, None]

    def _batches(self, texts: Sequence[str]) -> Iterator[Batch]:
        if isinstance(texts, str):
            raise UsageError("texts are a list, such as [text]; got a single text")
        self.data.text = list(texts)
        self.data.setup("predict")
        encoded = Encoded(self.data.splits["predict"], self.task.vocabulary)
        for batch in BatchLoader(encoded, self.data.eval_batch_tokens):
            yield _to_device(batch, self.task.device)


def _to_device(batch: Any, device: torch.device) -> Batch:
    moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    return moved  # type: ignore[return-value]
