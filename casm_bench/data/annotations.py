"""Boxes from annotation files: ILSVRC's XML, and the CSV of Kaggle's localization challenge.

Corners are used exactly as written; whether they are exclusive or inclusive is for the protocol
to say.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from ..errors import UsageError, WorkError

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_SIZE = ("width", "height")
SOLUTIONS = ("LOC_val_solution.csv", "LOC_train_solution.csv")


class Annotation(NamedTuple):
    """What one picture shows: its class and where."""

    wnid: str
    boxes_n4: np.ndarray  # float64 x0, y0, x1, y1 as written
    width: int = 0  # of the picture; 0 if the annotation does not say
    height: int = 0


@dataclass(frozen=True)
class AnnotationIndex:
    """Where the annotation of each picture is, by the picture's name without its suffix."""

    xml_files: dict[str, str] = field(default_factory=dict)
    solutions: dict[str, str] = field(default_factory=dict)  # `wnid x0 y0 x1 y1` of each object

    def __contains__(self, stem: str) -> bool:
        return stem in self.xml_files or stem in self.solutions

    def read(self, stem: str) -> Annotation:
        """The annotation of a picture; XML goes before CSV, because it knows the picture's size.

        Raises KeyError if there is none, WorkError if it is damaged.
        """
        if stem in self.xml_files:
            return read_xml(Path(self.xml_files[stem]))
        return parse_solution(stem, self.solutions[stem])


def find_annotations(root: Path, skip: Path) -> AnnotationIndex:
    """Index every XML file below `root` and Kaggle's solution files, except below `skip`."""
    xml_files: dict[str, str] = {}
    solutions: dict[str, str] = {}
    visited = {os.path.realpath(skip)}
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(_not_yet_visited(folder, folders, visited))
        for file in files:
            if file.endswith(".xml"):
                xml_files.setdefault(file.removesuffix(".xml"), os.path.join(folder, file))
            elif file in SOLUTIONS:
                solutions.update(read_solutions(Path(folder, file)))
    return AnnotationIndex(xml_files, solutions)


def _not_yet_visited(parent: str, folders: list[str], visited: set[str]) -> list[str]:
    """Guard against links that lead in circles."""
    fresh = []
    for folder in folders:
        real = os.path.realpath(os.path.join(parent, folder))
        if real not in visited:
            visited.add(real)
            fresh.append(folder)
    return fresh


def read_xml(path: Path) -> Annotation:
    """Read an annotation in ILSVRC's (PASCAL VOC's) form.

    Raises WorkError naming the file when it is damaged, has no object, or objects of several
    classes.
    """
    try:
        annotation = ElementTree.parse(path).getroot()
        objects = annotation.findall("object")
        names = [_text(thing, "name") for thing in objects]
        boxes = [[float(_text(thing, f"bndbox/{side}")) for side in _SIDES] for thing in objects]
        width, height = (int(annotation.findtext(f"size/{side}") or 0) for side in _SIZE)
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise WorkError(f"Annotation {path} cannot be read: {error}. Fetch it again.") from error
    return Annotation(_only_class(names, str(path)), np.array(boxes), width, height)


def _text(element: ElementTree.Element, tag: str) -> str:
    text = element.findtext(tag)
    if not text:
        raise ValueError(f"an object has no {tag}")
    return text.strip()


def _only_class(names: list[str], where: str) -> str:
    if len(set(names)) != 1:
        found = (
            f"objects of several classes ({', '.join(sorted(set(names)))})"
            if names
            else "no object"
        )
        raise WorkError(
            f"Annotation {where} has {found}, but a picture must have objects of one class, its "
            "own. Are these the classification-localization annotations (CLS-LOC)?"
        )
    return names[0]


def read_solutions(path: Path) -> dict[str, str]:
    """Read LOC_val_solution.csv: per ImageId its PredictionString, `wnid x0 y0 x1 y1` per object.

    Raises UsageError for another kind of file.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"ImageId", "PredictionString"} <= set(reader.fieldnames or ()):
            raise UsageError(f"{path} must have the columns ImageId and PredictionString.")
        return {row["ImageId"]: row["PredictionString"] or "" for row in reader}


def parse_solution(stem: str, objects: str) -> Annotation:
    """Parse a PredictionString. Raises WorkError naming the picture when it is damaged."""
    where = f"of picture {stem} in LOC_*_solution.csv"
    words = objects.split()
    if len(words) % 5:
        raise WorkError(f"Annotation {where} is not a series of `wnid x0 y0 x1 y1`: {objects!r}.")
    corners = [words[start + 1 : start + 5] for start in range(0, len(words), 5)]
    try:
        boxes_n4 = np.array(corners, dtype=np.float64)
    except ValueError as error:
        raise WorkError(f"Annotation {where} has a corner that is no number: {error}.") from error
    return Annotation(_only_class(words[::5], where), boxes_n4)
