"""The layout of an archive, `<class>/<image>`: which file is which image, and what is none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from os.path import splitext
from pathlib import Path

from engram.data.archiving.left_out import LeftOut, Reason, summarise
from engram.data.archiving.names import check_name, is_junk, look
from engram.data.containers import ArchiveEntry, ArchiveLimits, Content, walk
from engram.data.examples import TWO_CLASSES, ClassesNeeded
from engram.data.formats import HEAD, READ_FORMATS, UNREAD_FORMATS, image_format
from engram.data.pictures import SUFFIXES
from engram.errors import BadLayout, BadName, NotAnArchive, TooFewClasses, TooFewImages, TruncatedImage

SPLITS = ("train", "val")
OTHER_NAMES = {"valid": "val", "validation": "val"}
"""What folders beside `train/` are called as well."""
TEST = "test"
"""The folder beside `train/` that is never learned from."""
LONGEST_CLASS = 255

_MOST_DAMAGED = 1000
"""So many damaged entries without an image's suffix are looked into before the whole archive is refused."""

Folder = tuple[str, ...]


@dataclass(frozen=True)
class FolderPlan:
    """Which file is which image: path in the archive -> (split, class, place in that split)."""

    classes: tuple[str, ...]
    places: dict[tuple[str, ...], tuple[str, int, int]]
    sizes: Counter[str]
    """Files by split."""
    bytes: int
    left_out: LeftOut
    hidden_classes: tuple[str, ...]
    """Classes whose names begin with a dot."""
    needed: ClassesNeeded
    """What was asked of the classes."""
    tests: int = 0
    """Images under `test/`, which are left out."""


@dataclass(frozen=True)
class FoundFile:
    """A file of an archive."""

    path: tuple[str, ...]
    size: int
    format: str | None
    """By its content where its suffix is none of an image."""
    image: bool
    """Whether it is an image to be read, by its suffix or its content."""
    doubtful: bool = False
    """Whether it may be one that cannot be read: of a format that is not, of no known one, or damaged."""

    @property
    def hidden(self) -> bool:
        """Whether its name, or that of a folder above it, begins with a dot."""
        return any(part.startswith(".") for part in self.path)


@dataclass(frozen=True)
class _Layout:
    """Where class folders lie: below one folder or none, and below `train/`, `val/` and `test/` or not."""

    top: str | None
    parted: bool

    def depth(self) -> int:
        """Parts in the path of a class folder."""
        return 1 + self.parted + (self.top is not None)

    def covers(self, folder: Folder) -> bool:
        """Whether a folder lies where classes do, whatever the split is called."""
        return len(folder) == self.depth() and (self.top is None or folder[0] == self.top)

    def split(self, folder: Folder) -> str:
        return OTHER_NAMES.get(folder[-2], folder[-2]) if self.parted else "train"

    def apart(self, path: tuple[str, ...]) -> bool:
        """Whether a file lies below `test/`, however deep."""
        at = 0 if self.top is None else 1
        return self.parted and len(path) > at + 1 and path[at] == TEST and (at == 0 or path[0] == self.top)

    def holds(self, folder: Folder) -> bool:
        return self.covers(folder) and self.split(folder) in SPLITS

    def __str__(self) -> str:
        below = "" if self.top is None else f"{self.top}/"
        return f"{below}train/<class>/<image> or {below}val/..." if self.parted else f"{below}<class>/<image>"


def plan(path: Path | str, limits: ArchiveLimits, needed: ClassesNeeded = TWO_CLASSES) -> FolderPlan:
    """Go through all entries once, settle the layout and give every image its place.

    What claims to be an image by its suffix, or is one by its first bytes, decides on the layout, and none of it may
    lie elsewhere. Every folder where classes lie is a class, and one without images a refusal; except that a folder
    whose name begins with a dot is a class only if it holds images. Files whose names begin with a dot are left out.
    What systems and programs leave behind (`engram.data.archiving.names.JUNK`) is passed over.

    Raises
    ------
    ArchiveError, TooFewClasses, TooFewImages, InputError, OSError
    """
    files, folders = found_files(path, limits)
    layout = _layout(files)
    classes = _class_folders(files, folders, layout)
    return _placed(files, classes, layout, needed)


def found_files(path: Path | str, limits: ArchiveLimits) -> tuple[list[FoundFile], set[Folder]]:
    """All files of an archive that are no junk, by path, each judged by its suffix or first bytes; and all folders.

    Raises
    ------
    ArchiveError, InputError, OSError
    """
    folders: set[Folder] = set()
    files: list[FoundFile] = []
    damaged = 0
    for entry, content in walk(path, limits):
        _add(folders, _visible(entry))
        if entry.junk or entry.folder:
            continue
        try:
            files.append(_judged(entry, content))
        except TruncatedImage as error:
            damaged += 1
            if damaged > _MOST_DAMAGED:
                raise NotAnArchive(f"more than {_MOST_DAMAGED} entries of the archive are damaged") from error
            files.append(FoundFile(entry.path, entry.size, None, image=False, doubtful=True))
    files.sort(key=lambda file: file.path)
    return files, folders


def _visible(entry: ArchiveEntry) -> Folder:
    """The folder that an entry shows to be there: not one that is junk or lies in one."""
    if entry.junk:
        first = next(at for at, part in enumerate(entry.path) if is_junk(part))
        return entry.path[:first]
    return entry.path if entry.folder else entry.path[:-1]


def _add(folders: set[Folder], folder: Folder) -> None:
    while folder and folder not in folders:
        folders.add(folder)
        folder = folder[:-1]


def _judged(entry: ArchiveEntry, content: Content) -> FoundFile:
    name = entry.path[-1]
    # As text: a `PurePath` interns every name, and ever new names wear out Python's table of interned strings.
    if splitext(name)[1].lower() in SUFFIXES:
        return FoundFile(entry.path, entry.size, None, image=not name.startswith("."))
    if name.startswith(".") or not entry.size:
        return FoundFile(entry.path, entry.size, None if entry.size else "empty", image=False)
    found = image_format(content(HEAD))
    unknown = found is None or found in UNREAD_FORMATS
    return FoundFile(entry.path, entry.size, found, image=found in READ_FORMATS, doubtful=unknown)


def _layout(files: list[FoundFile]) -> _Layout:
    """The layout that images have; those in hidden folders have no say where there are others."""
    images = [file for file in files if file.image]
    deciding = [file for file in images if not file.hidden] or images or [file for file in files if file.doubtful]
    if not deciding:
        raise BadLayout(no_images(files))
    votes = Counter(vote for file in deciding if (vote := _layout_of(file.path)) is not None)
    if not votes:
        raise BadLayout(
            f"{_shown(deciding[0].path)} is not <class>/<image>, train/<class>/<image> or val/<class>/<image>"
        )
    layout = max(votes, key=lambda vote: (vote.parted, votes[vote]))
    odd = [file.path for file in deciding if not (layout.holds(file.path[:-1]) or layout.apart(file.path))]
    if odd:
        culprit, more = odd[0], f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        if layout.parted and layout.covers(culprit[:-1]):
            raise BadLayout(f"beside train/, val/ and test/ there is {culprit[-3]!r}/")
        raise BadLayout(f"{_shown(culprit)}{more} is not {layout}, as the other {len(deciding) - len(odd)} are")
    return layout


def _layout_of(path: tuple[str, ...]) -> _Layout | None:
    match path:
        case (_, _):
            return _Layout(None, parted=False)
        case (first, _, _):
            return _Layout(None, parted=True) if first in SPLITS else _Layout(first, parted=False)
        case (first, part, _, _) if part in SPLITS and first not in SPLITS:
            return _Layout(first, parted=True)
        case _:
            return None


def no_images(files: list[FoundFile]) -> str:
    """The sentence that refuses an archive without images."""
    wanted = "images belong into one folder for each class"
    archives = [file for file in files if (file.format or "").endswith("archive")]
    if archives:
        return f"the archive holds no images but archives, such as {_shown(archives[0].path)}; {wanted}"
    return f"the archive holds no images; {wanted}"


def _class_folders(files: list[FoundFile], folders: set[Folder], layout: _Layout) -> dict[Folder, tuple[str, str]]:
    """Class folders, each with its split and class."""
    filled = {file.path[:-1] for file in files if file.image}
    used = {file.path[: layout.depth()] for file in files}
    found: dict[Folder, tuple[str, str]] = {}
    for folder in sorted(folders):
        if not layout.covers(folder):
            continue
        if folder not in filled and folder[-1].startswith("."):
            continue
        if layout.split(folder) in SPLITS:
            _check_class(folder[-1])
            found[folder] = layout.split(folder), folder[-1]
        elif folder[-2] != TEST and folder not in used:
            raise BadLayout(f"beside train/, val/ and test/ there is {folder[-2]!r}/")
    if layout.parted and len(held := sorted({folder[-2] for folder in found} - {"train"})) > 1:
        raise BadLayout(f"there are {' and '.join(f'{name}/' for name in held)}: one of them is the held-out part")
    return found


def _check_class(name: str) -> None:
    if len(name) > LONGEST_CLASS:
        raise BadLayout(f"the class name {name[:40]!r}... is longer than {LONGEST_CLASS} characters")
    check_name("the class name", name)


def _placed(
    files: list[FoundFile], folders: dict[Folder, tuple[str, str]], layout: _Layout, needed: ClassesNeeded
) -> FolderPlan:
    members = [file for file in files if (file.image or file.doubtful) and file.path[:-1] in folders]
    others: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for file in files:
        if not file.image and file.path[: layout.depth()] in folders:
            others[folders[file.path[: layout.depth()]]][_kind(file)] += 1
    counts = Counter(folders[file.path[:-1]] for file in members if file.image)
    classes = _classes(set(folders.values()), counts, others, needed)
    labels = {name: label for label, name in enumerate(classes)}
    places: dict[tuple[str, ...], tuple[str, int, int]] = {}
    sizes: Counter[str] = Counter()
    for file in members:
        part, name = folders[file.path[:-1]]
        places[file.path] = part, labels[name], sizes[part]
        sizes[part] += 1
    rest = [file for file in files if file.path not in places]
    left_out = summarise((file.path, _reason(file, folders, layout), file.format) for file in rest)
    hidden = tuple(name for name in classes if name.startswith("."))
    tests = sum(file.image and layout.apart(file.path) for file in rest)
    return FolderPlan(classes, places, sizes, sum(file.size for file in members), left_out, hidden, needed, tests)


def _reason(file: FoundFile, folders: dict[Folder, tuple[str, str]], layout: _Layout) -> Reason:
    if not file.hidden and layout.apart(file.path):
        return "test"
    if file.path[:-1] in folders:
        return "hidden" if file.path[-1].startswith(".") else "not_an_image"
    return "hidden" if file.hidden else "outside"


def _kind(file: FoundFile) -> str:
    if file.path[-1].startswith("."):
        return "hidden"
    return file.format or ("of an unknown format" if file.doubtful else "empty")


def _classes(
    folders: set[tuple[str, str]],
    counts: Counter[tuple[str, str]],
    others: dict[tuple[str, str], Counter[str]],
    needed: ClassesNeeded,
) -> tuple[str, ...]:
    """The sorted names, once there is known to be enough of each."""
    names = {part: {name for where, name in folders if where == part} for part in SPLITS}
    if not names["train"]:
        raise BadLayout("there is val/ but no train/")
    _check_looks(names["train"])
    if unknown := names["val"] - names["train"]:
        raise BadLayout(f"val/ has the class {min(unknown)!r}, which train/ has not")
    if (found := len(names["train"])) < needed.least:
        there = f"is one class only, {min(names['train'])!r}" if found == 1 else f"are {found} classes only"
        raise TooFewClasses(f"there {there}; {needed.sentence}")
    for name in sorted(names["train"]):
        if (found := counts["train", name]) < 2:
            plural, rest = "" if found == 1 else "s", _beside(others, "train", name)
            raise TooFewImages(f"class {name!r} has {found} image{plural}; it needs two{rest}")
        if names["val"] and not counts["val", name]:
            raise TooFewImages(f"class {name!r} has no image under val/{_beside(others, 'val', name)}")
    return tuple(sorted(names["train"]))


def _beside(others: dict[tuple[str, str], Counter[str]], part: str, name: str) -> str:
    """What else is in a class folder, as the rest of a sentence."""
    if not (found := others.get((part, name))):
        return ""
    listed = ", ".join(f"{count} {kind}" for kind, count in found.most_common(3))
    return f" ({found.total()} other file{'' if found.total() == 1 else 's'} there: {listed}; read are {_READ})"


_READ = ", ".join(sorted(READ_FORMATS))


def _check_looks(names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in sorted(names):
        other = seen.setdefault(look(name), name)
        if other != name:
            raise BadName(f"the classes {other!r} and {name!r} are taken for each other; rename one, or merge them")


def _shown(path: tuple[str, ...]) -> str:
    return repr("/".join(path))
