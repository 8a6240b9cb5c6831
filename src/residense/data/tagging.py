"""Corpora for tagging: found, read, converted, cached, and cut into batches."""

from typing import Literal

from residense.bounds import Count, Positive
from residense.data.columns import Column
from residense.data.corpus import Corpus
from residense.data.module import TextDataModule
from residense.data.source import Loaded, Source
from residense.data.synthetic import Synthetic
from residense.data.units import subword_tokenizer
from residense.data.vectors import Vectors
from residense.data.vocabulary import Vocabulary
from residense.predictions import Text
from residense.tags import spans

Scheme = Literal["IOB1", "IOB2", "IOBES", "BILOU", "BMES", "none"]


class TaggingDataModule(TextDataModule):
    """Sentences of tokens with tags: named entities, slots, parts of speech.

    Args:
        path: folder with train, dev and test files, one file, or hf:ID for a data set of the Hugging Face hub; for
            `predict` a file, of which .txt holds one text a line. Null for the embedded corpus (and, for `predict`,
            for standard input).
        text: texts to predict, instead of a file.
        synthetic: the embedded corpus.
        files: glob that the file names in the folder must match.
        token_column: column of the tokens, by index or by its name in the header; null finds it.
        tag_column: column of the tags, by index or by its name in the header; null finds it.
        encoding: of the files.
        repair: mend malformed input where that can be defended, and report how often.
        scheme: tag scheme to train in; the files' own scheme is detected and converted. `none` requires plain labels,
            such as parts of speech, and refuses tags of a scheme.
        split: shares of train, validation and test where there is one file only; null takes it whole.
        split_seed: of the splitting.
        vectors: text file of pretrained word vectors (GloVe, word2vec, fastText), plain, .gz or .zip.
        min_frequency: how often a training word must occur to be known, unless it has a vector.
        subwords: what the spelling of a word is read in: so many subwords, trained on the training words, or those of a
            tokenizer.json; null: characters.
        max_length: tokens; longer sentences are split and put together again in predictions.
        batch_tokens: tokens of a training batch over all processes, padding included.
        eval_batch_tokens: the same where no gradient is kept.
        seed: of the order of the batches; null takes that of --seed_everything.
    """

    def __init__(
        self,
        path: str | None = None,
        text: list[str] | None = None,
        synthetic: Synthetic = Synthetic(),
        files: str | None = None,
        token_column: Column = None,
        tag_column: Column = None,
        encoding: str = "utf-8",
        repair: bool = False,
        scheme: Scheme = "IOBES",
        split: tuple[float, float, float] | None = (0.8, 0.1, 0.1),
        split_seed: Count = 0,
        vectors: str | None = None,
        min_frequency: Positive = 1,
        subwords: Positive | str | None = None,
        max_length: Positive = 256,
        batch_tokens: Positive = 512,
        eval_batch_tokens: Positive = 4096,
        seed: Count | None = None,
    ):
        super().__init__(
            path,
            text,
            split,
            split_seed,
            vectors,
            min_frequency,
            batch_tokens,
            eval_batch_tokens,
            seed,
        )
        self.save_hyperparameters(logger=False)
        self.synthetic = synthetic
        self.source = Source(path, synthetic, files, token_column, tag_column, encoding, repair)
        self.scheme: str = scheme
        self.subwords, self.max_length = subwords, max_length

    def check(self) -> None:
        super().check()
        if self.synthetic.size < 30:
            raise ValueError(
                f"data.synthetic.size must be at least 30 sentences; got {self.synthetic.size}"
            )

    def load(self) -> Loaded:
        return self.source.load(
            self.vocabulary.scheme if self.vocabulary else self.scheme, self.max_length
        )

    def read_texts(self, vocabulary: Vocabulary) -> Corpus:
        unit = vocabulary.unit
        texts = (
            [Text.raw(t, unit) for t in self.text] if self.text else list(self.source.texts(unit))
        )
        return Corpus.build(((text.tokens, []) for text in texts), "none", self.max_length, texts)

    def build_vocabulary(self, loaded: Loaded, vectors: Vectors) -> Vocabulary:
        labels = {label for corpus in self.splits.values() for label in corpus.labels}
        if labels <= {"O"}:
            raise ValueError(f"{self.path}: no entities, all tags are O; check --data.tag_column")
        train, dim = self.splits["train"], vectors.matrix.shape[1]
        texts = map(" ".join, train.document_tokens())
        subwords = "" if self.subwords is None else subword_tokenizer(texts, self.subwords)
        words = (self.min_frequency, vectors.words, dim)
        return Vocabulary.build(train, labels, loaded.scheme, *words, subwords=subwords)

    def summarise(self, corpus: Corpus) -> str:
        counts = f"{corpus.num_documents:,} sentences, {len(corpus.tokens):,} tokens"
        if self.vocabulary is not None and self.vocabulary.scheme != "none":
            counts += f", {sum(len(spans(tags)) for tags in corpus.document_tags()):,} entities"
        return counts
