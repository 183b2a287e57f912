"""Tests of decoding in processes that can be killed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from engram.config.definition import InputShape
from engram.data.image_limits import ImageLimits
from engram.data.images import decode
from engram.data.isolation.decoder import BoundedDecoder
from engram.data.isolation.frames import packed, unpacked
from engram.errors import Cancelled, ImageError, ImageTooCostly, TruncatedImage
from testing.data.costly import jpeg_of_scans, png_with, slow_jpeg
from testing.servers.service import wait_until

SHAPE = InputShape(channels=3, height=24, width=20, convert=True)
ENDLESS = ImageLimits(max_scans=10**6, max_parts=10**6, max_seconds=600)
SHORT = ImageLimits(max_scans=10**6, max_parts=10**6, max_seconds=0.2)


@pytest.fixture(scope="module")
def slow() -> bytes:
    return slow_jpeg()


@pytest.fixture(scope="module")
def bounded() -> Iterator[BoundedDecoder]:
    with BoundedDecoder() as decoder:
        yield decoder


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def children(decoder: BoundedDecoder) -> list[int]:
    return [process.pid for process in decoder._all if process.pid is not None]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_an_image_is_the_same_wherever_it_is_decoded(bounded: BoundedDecoder, kind: str) -> None:
    data = encoded(Image.effect_noise((90, 70), 80).convert("L" if kind == "GIF" else "RGB"), kind)
    here = decode(data, SHAPE)
    there = bounded.isolated(data, SHAPE)
    assert there.dtype == torch.uint8
    assert there.is_contiguous()
    assert torch.equal(here, there)
    assert torch.equal(here, bounded(data, SHAPE))


@pytest.mark.parametrize("data", [b"", b"nothing", b"GIF89a", b"\xff\xd8\xff", png_with(b"", 10_000, 10_000)])
def test_an_error_is_the_same_wherever_it_is_found(bounded: BoundedDecoder, data: bytes) -> None:
    with pytest.raises(ImageError) as here:
        decode(data, SHAPE)
    with pytest.raises(ImageError) as there:
        bounded.isolated(data, SHAPE)
    assert (here.type, str(here.value)) == (there.type, str(there.value))


def test_only_what_is_costly_goes_to_a_process() -> None:
    with BoundedDecoder(ImageLimits()) as decoder:
        decoder(encoded(Image.new("L", (9, 9)), "PNG"), SHAPE)
        assert children(decoder) == []
        assert decoder(jpeg_of_scans(450, 3000), SHAPE).float().mean() == 128
        assert len(children(decoder)) == 1


def test_an_image_that_takes_too_long_ends_its_process_and_no_other_image(slow: bytes) -> None:
    small = encoded(Image.new("L", (9, 9), 7), "PNG")
    with BoundedDecoder(SHORT) as decoder:
        for _ in range(2):
            with pytest.raises(ImageTooCostly, match=r"takes longer than 0\.2 s"):
                decoder(slow, SHAPE)
            assert children(decoder) == []
            assert (decoder.isolated(small, SHAPE) == 7).all()


@pytest.mark.parametrize(("signalled", "error"), [(signal.SIGSEGV, TruncatedImage), (signal.SIGKILL, ImageTooCostly)])
def test_an_image_that_crashes_its_process_is_unreadable(
    slow: bytes, signalled: signal.Signals, error: type[ImageError]
) -> None:
    with BoundedDecoder(ENDLESS) as decoder, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(decoder.isolated, slow, SHAPE)
        wait_until(lambda: children(decoder) and busy(children(decoder)[0]))
        os.kill(children(decoder)[0], signalled)
        with pytest.raises(error):
            waiting.result()


def busy(pid: int) -> bool:
    """Whether a process has begun to decode the slow image: it holds its pixels."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") > 80_000_000
    except OSError:
        return False


def test_who_stops_waiting_is_free_at_once_and_the_process_gone(slow: bytes) -> None:
    stop = threading.Event()
    with BoundedDecoder(ENDLESS, stop=stop.is_set) as decoder, ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(decoder, slow, SHAPE) for _ in range(3)]  # two of them for the one process
        wait_until(lambda: children(decoder) and busy(children(decoder)[0]))
        (child,) = children(decoder)
        stop.set()
        for one in waiting:
            with pytest.raises(Cancelled):
                one.result()
        assert not Path(f"/proc/{child}").exists()


def test_more_memory_than_allowed_is_not_taken() -> None:
    command = [sys.executable, "-m", "engram.data.isolation.child", str(os.getpid()), str(100_000_000)]
    limits = ImageLimits()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        read = process.stdout.read
        assert unpacked(read, 0)[0] == {"ready": True}
        image = encoded(Image.new("RGB", (7000, 7000)), "PNG")
        for piece in packed({"shape": SHAPE.model_dump(), "limits": asdict(limits), "decoder": 2}, image):
            process.stdin.write(piece)
        process.stdin.flush()
        answer, _ = unpacked(read, 10**6)
        assert answer["code"] == "image_too_costly"
        assert process.wait() == 0


def test_many_threads_share_the_processes() -> None:
    data = [encoded(Image.new("L", (30, 30), value), "PNG") for value in range(40)]
    with BoundedDecoder(processes=2) as decoder, ThreadPoolExecutor(6) as pool:
        found = [int(image.max()) for image in pool.map(lambda one: decoder.isolated(one, SHAPE), data)]
        assert found == list(range(40))
        assert len(children(decoder)) == 2


def test_a_process_is_small_and_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with BoundedDecoder() as decoder:
        decoder.isolated(png_with(b""), SHAPE)
        (child,) = children(decoder)
        assert "libtorch" not in Path(f"/proc/{child}/maps").read_text()
        assert "secret" not in Path(f"/proc/{child}/environ").read_text()
        limits = Path(f"/proc/{child}/limits").read_text()
        assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core file size")] == ["0"]
        assert os.getpgid(child) != os.getpgid(0)


def test_a_process_ends_with_its_parent() -> None:
    program = (
        "import sys, time\n"
        "from engram.config.definition import InputShape\n"
        "from engram.data.isolation.decoder import BoundedDecoder\n"
        "from testing.data.costly import png_with\n"
        "decoder = BoundedDecoder()\n"
        "decoder.isolated(png_with(b''), InputShape(channels=1, height=8, width=8))\n"
        "print(decoder._all[0].pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    wait_until(lambda: gone(child))


def gone(pid: int) -> bool:
    """Whether a process has ended, though perhaps nobody has asked for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_a_process_that_cannot_start_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with BoundedDecoder() as decoder, pytest.raises(RuntimeError, match="did not start"):
        decoder.isolated(png_with(b""), SHAPE)


def test_a_process_is_replaced_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engram.data.isolation.process.LIFETIME", 2)
    with BoundedDecoder() as decoder:
        seen = []
        for _ in range(4):
            decoder.isolated(png_with(b""), SHAPE)
            seen.append(children(decoder))
            time.sleep(0)
        assert [len(one) for one in seen] == [1, 0, 1, 0]
