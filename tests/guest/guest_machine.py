"""A QEMU guest without hardware help (it runs anywhere), driven over its second serial port."""

from __future__ import annotations

import base64
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from guest_base import base_disk
from guest_image import checkout_disk, image

#: Everything but making the image: boots, installation, checks; more where all tests run and not only those whose
#: turn it is. A busy machine may be given more.
_WHOLE, _TURN = "4800", "2400"
LIMIT_SECONDS = int(os.environ.get("ALVEOLE_GUEST_SECONDS", _TURN if "ALVEOLE_TEST_PART" in os.environ else _WHOLE))

#: ``kvm`` while somebody writes tests, on a machine that has it; a run of the suite wants nothing of the hardware.
ACCELERATOR = os.environ.get("ALVEOLE_GUEST_ACCELERATOR", "tcg")


class Late(AssertionError):
    """The guest did not get there within the test's time."""


class Guest:
    def __init__(self, artefacts: Path, *, bases: bool = False) -> None:
        """``bases``: with the disk of :mod:`guest_base`."""
        self.console = artefacts / "guest-console.log"
        self.log = artefacts / "guest-commands.log"
        artefacts.mkdir(parents=True, exist_ok=True)
        self.log.write_text("", encoding="utf-8")
        self._work = Path(tempfile.mkdtemp(prefix="alvguest"))
        self._began = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._pending = b""
        self.http_port, self.https_port = _free_port(), _free_port()
        try:
            if bases:
                base_disk(self._work / "bases.img")
            self._start(image(), bases)
        except BaseException:
            self.close()
            raise

    def _start(self, made: Path, bases: bool) -> None:
        # The image may have just been made, which is no part of the guest's time.
        self._began = time.monotonic()
        checkout_disk(self._work / "checkout.img")
        door = self._work / "door"
        forward = f"hostfwd=tcp:127.0.0.1:{self.http_port}-:80,hostfwd=tcp:127.0.0.1:{self.https_port}-:443"
        # A processor in software: wide vectors and its own guards against its hardware's faults cost most of its time
        # (pip: 41 s of processor time with "-cpu max", 23 s so), and a clock that is a device costs an exit each time.
        argv = ["qemu-system-x86_64", "-machine", f"q35,accel={ACCELERATOR}", "-smp", "2", "-m", "2048"]
        argv += ["-cpu", "Nehalem" if ACCELERATOR == "tcg" else "host,-arch-capabilities"]
        argv += ["-display", "none", "-monitor", "none", "-nodefaults", "-device", "virtio-rng-pci"]
        argv += ["-kernel", str(made / "vmlinuz"), "-initrd", str(made / "initrd")]
        argv += ["-append", "root=LABEL=root rw console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"]
        # snapshot: what the guest writes goes into a file of QEMU's that is gone with it; the image stays fresh.
        argv += ["-drive", f"file={made / 'disk.img'},if=virtio,format=raw,snapshot=on,cache=unsafe"]
        argv += ["-drive", f"file={self._work / 'checkout.img'},if=virtio,format=raw,readonly=on"]
        if bases:
            argv += ["-drive", f"file={self._work / 'bases.img'},if=virtio,format=raw,readonly=on"]
        argv += ["-nic", f"user,model=virtio-net-pci,restrict=on,{forward}"]
        argv += ["-serial", f"file:{self.console}"]
        argv += ["-chardev", f"socket,id=door,path={door},server=on,wait=off", "-serial", "chardev:door"]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._work / "qemu.err").open("wb"),
            env={**os.environ, "TMPDIR": str(self._work)},
        )
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        while not door.exists():
            self._still_alive()
            time.sleep(0.05)
        self._socket.connect(str(door))

    def note(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"[{time.monotonic() - self._began:7.1f} s] {text.rstrip()}\n")

    def booted(self) -> str:
        """Wait until the guest has come up; gives its boot id."""
        while True:
            word, _, rest = self._line().partition(" ")
            if word == "hello":
                self.note(f"up, boot id {rest}")
                return rest

    def run(self, *argv: str, timeout: int = 60, check: bool = True) -> str:
        """Run a program in the guest; gives what it printed, both streams together."""
        return self.ask(*argv, timeout=timeout, check=check)[1]

    def ask(self, *argv: str, timeout: int = 60, check: bool = False) -> tuple[int, str]:
        self.send(*argv, timeout=timeout)
        word, _, rest = self._line().partition(" ")
        status, output = int(word), base64.b64decode(rest).decode(errors="replace")
        self.note(output + (f"(status {status})" if status else ""))
        assert not check or status == 0, f"{' '.join(argv)} ended with {status}:\n{output[-4000:]}"
        return status, output

    def send(self, *argv: str, timeout: int = 60) -> None:
        """Start something, and do not wait for its answer: a restart of the machine has none."""
        self.note(f"$ {' '.join(argv)}")
        packed = base64.b64encode(b"".join(os.fsencode(word) + b"\0" for word in argv))
        self._socket.sendall(b"%d %s\n" % (timeout, packed))

    def _line(self) -> str:
        while b"\n" not in self._pending:
            self._still_alive()
            ready, _, _ = select.select([self._socket], [], [], 1.0)
            if ready:
                got = self._socket.recv(65536)
                assert got, f"the guest is gone; see {self.console}"
                self._pending += got
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace").strip()

    def _still_alive(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"QEMU ended: {(self._work / 'qemu.err').read_text(errors='replace')}")
        if time.monotonic() - self._began > LIMIT_SECONDS:
            raise Late(f"the guest took more than {LIMIT_SECONDS} s; see {self.log} and {self.console}")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._socket.close()
        shutil.rmtree(self._work, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
