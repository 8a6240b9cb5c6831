"""Folders of texts: a folder for each class, a file for each text."""

from dataclasses import replace

from residense.data.readers.file import Example, File
from residense.data.readers.splits import class_folders


def read_folder(file: File) -> list[Example]:
    """Read the texts CLASS/*.txt of a folder; the names of their folders are the labels.

    Raises:
        CorpusError: A file is malformed.
    """
    classes = class_folders(file.path)
    examples = []
    for label, paths in classes.items():
        for path in paths:
            part = replace(file, path=path)  # shares the repairs
            text = part.text().rstrip("\r\n")
            if text.strip():
                labels = (label,) if file.labeled else ()
                examples.append(Example(len(examples) + 1, [], [], text, labels=labels))
            else:
                part.drop(1, "empty text", None)
    file.notes.append(f"a class in each of {len(classes)} folders")
    return examples
