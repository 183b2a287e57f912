"""Tests of the demo's data and contact sheet."""

import io
from pathlib import Path
from zipfile import ZipFile

from PIL import Image

from engram.config.definition import InputShape
from engram.data.archives import read
from service.cli import contact_sheet
from service.cli.digits import SIDE, tasks


def test_the_digits_are_five_tasks_that_keep_their_held_out_images_apart(tmp_path: Path) -> None:
    found = tasks()
    assert [task.name for task in found] == ["zero-one", "two-three", "four-five", "six-seven", "eight-nine"]
    shape = InputShape(channels=1, height=SIDE, width=SIDE)
    for task in found:
        path = tmp_path / task.name
        path.write_bytes(task.archive)
        examples = read(path, shape).examples
        assert examples.classes == tuple(sorted(task.name.split("-")))
        with ZipFile(path) as archive:
            learned = {archive.read(name) for name in archive.namelist()}
        assert len(task.held_out) / (len(task.held_out) + len(examples)) > 0.24
        assert not learned & {png for png, _ in task.held_out}


def test_the_seed_decides_what_is_kept_apart() -> None:
    assert tasks(1) == tasks(1)
    assert tasks(1) != tasks(2)


def test_a_sheet_shows_every_row(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (28, 28), (255, 0, 0)).save(out, "PNG")
    rows = [contact_sheet.Row(out.getvalue(), out.getvalue(), out.getvalue(), "zero", ("task a", "100%"))] * 3
    contact_sheet.draw(rows, "A title", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        red = sum(count for count, colour in sheet.getcolors(2**24) or [] if colour == (255, 0, 0))
    assert red == 9 * contact_sheet.PANEL**2
