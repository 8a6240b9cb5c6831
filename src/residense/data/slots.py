"""Corpora with slots and intents: a tag for each token and a class for each sentence, read from two files a split."""

from dataclasses import replace
from pathlib import Path

from residense.data.columns import Column
from residense.data.corpus import Corpus, class_targets
from residense.data.schemes import spans
from residense.data.sentences import CorpusError
from residense.data.source import Loaded
from residense.data.synthetic import Synthetic
from residense.data.tagging import Scheme, TaggingDataModule
from residense.data.texts import find_texts, read_texts
from residense.data.vectors import Vectors
from residense.data.vocabulary import Vocabulary

WHOLE = 10**6  # tokens: a sentence has one intent and is not split


class SlotsDataModule(TaggingDataModule):
    """Sentences with tagged tokens (slots) and a class each (intent).

    Args:
        path: folder with two files for each split: columns of tokens and tags, and texts with their intents, in the
            same order; for `predict` a file, of which .txt holds one text a line. Null for the embedded corpus, where
            the intent is the type of the first entity.
        text: texts to predict, instead of a file.
        synthetic: the embedded corpus.
        files: glob of the files with slots.
        intent_files: glob of the files with intents.
        token_column: column of the tokens, by index or by its name in the header; null finds it.
        tag_column: column of the tags, by index or by its name in the header; null finds it.
        label_separator: what separates the intents of a sentence that may have several; null: it has one.
        encoding: of the files.
        repair: mend malformed input where that can be defended, and report how often.
        scheme: tag scheme to train in; the files' own scheme is detected and converted.
        split: shares of train, validation and test where there is one file only; null takes it whole.
        split_seed: of the splitting.
        vectors: text file of pretrained word vectors (GloVe, word2vec, fastText), plain, .gz or .zip.
        min_frequency: how often a training word must occur to be known, unless it has a vector.
        subwords: what the spelling of a word is read in: so many subwords, trained on the training words, or those of a
            tokenizer.json; null: characters.
        batch_tokens: tokens of a training batch over all processes, padding included.
        eval_batch_tokens: the same where no gradient is kept.
        seed: of the order of the batches; null takes that of --seed_everything.
    """

    def __init__(
        self,
        path: str | None = None,
        text: list[str] | None = None,
        synthetic: Synthetic = Synthetic(),
        files: str | None = "*.slots.*",
        intent_files: str | None = "*.intent.*",
        token_column: Column = None,
        tag_column: Column = None,
        label_separator: str | None = None,
        encoding: str = "utf-8",
        repair: bool = False,
        scheme: Scheme = "IOBES",
        split: tuple[float, float, float] | None = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        vectors: str | None = None,
        min_frequency: int = 1,
        subwords: int | str | None = None,
        batch_tokens: int = 512,
        eval_batch_tokens: int = 4096,
        seed: int | None = None,
    ):
        reading = (path, text, synthetic, files, token_column, tag_column, encoding, repair, scheme, split, split_seed)
        super().__init__(*reading, vectors, min_frequency, subwords, WHOLE, batch_tokens, eval_batch_tokens, seed)
        self.intent_files, self.label_separator = intent_files, label_separator

    def load(self) -> Loaded:
        loaded = super().load()
        splits = {name: self._with_intents(name, corpus) for name, corpus in loaded.splits.items()}
        return loaded._replace(splits=splits)

    def _with_intents(self, split: str, corpus: Corpus) -> Corpus:
        if self.path is None:
            found = [spans(tags) for tags in corpus.document_tags()]
            intents = [(min(here).type if here else "NOTHING",) for here in found]
        else:
            intents = self._intents(self.path, split, corpus)
        classes, targets = class_targets(intents)
        return replace(corpus, classes=classes, targets=targets)

    def _intents(self, path: str, split: str, corpus: Corpus) -> list[tuple[str, ...]]:
        files = find_texts(Path(path), self.intent_files)
        if split not in files:
            raise CorpusError(Path(path), None, f"slots but no intents for {split}", fix="check --data.intent_files")
        source = self.source
        read = read_texts(files[split], None, None, source.encoding, source.repair, True, self.label_separator)
        sentences = corpus.document_tokens()
        for line, text, tokens in zip(read.lines, read.texts, sentences, strict=False):
            if text.split() != tokens:
                wrong = f"not the sentence of the file with slots, {' '.join(tokens)!r}"
                raise CorpusError(files[split], line, wrong, text, "both files hold the same sentences in one order")
        if len(read.texts) != len(sentences):
            wrong = f"{len(read.texts)} intents for {len(sentences)} sentences with slots"
            raise CorpusError(files[split], None, wrong, fix="both files hold the same sentences in one order")
        return read.labels

    def build_vocabulary(self, loaded: Loaded, vectors: Vectors) -> Vocabulary:
        built = super().build_vocabulary(loaded, vectors)
        return built.with_classes(self.splits, multi_label=self.label_separator is not None)

    def summarise(self, corpus: Corpus) -> str:
        return f"{super().summarise(corpus)}, {len(corpus.classes)} intents"
