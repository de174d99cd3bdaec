"""The far side of the sandbox: a small process that forks one confined child for each job.

Started once by ``host.sandbox`` as a fresh Python with the standard library only, so that a job
costs one fork of a small process instead of the start of an interpreter, and nothing of the agent
(its memory, its threads, its files) is near. It gets each job over a socket and does nothing but
fork, write id-maps, and wait.

What confines a child, before it looks at anything of a site:

- ids of the site only: its one uid, or a user namespace in which nothing but the site's range is
  mapped and of whose capabilities it keeps the four that act on files;
- ``chroot`` into the one directory it was given as an open file, out of which no capability leads
  (nor a new user namespace: the kernel refuses one to a process in a chroot, user_namespaces(7));
- no network but an empty namespace, no other open file, no new process, no new privileges;
- ceilings on memory, processor time, open files and the length of a file.

It ends with the process that wanted it: the closing of its socket kills the job, and the death of
the agent ends this process and with it all children.
"""

# Names here are relative to open directories, or bytes, by the hundred thousand.
# ruff: noqa: PTH109, PTH208

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

from alveole.host import archive, collect, configfiles, layers, manifest, onefile, onto, putback, syscalls, tree

Job = Callable[[dict[str, Any], list[int], tree.Say], dict[str, Any]]

#: Largest message either way; a Unix datagram's default limit is 208 KiB (net.core.wmem_default).
MESSAGE_BYTES = 160 * 1024
MAX_FDS = 8
MEMORY_BYTES = 1536 * 1024 * 1024
CPU_SECONDS = 1800
#: Root of a site's user namespace keeps these: CHOWN, DAC_OVERRIDE, FOWNER, FSETID (capabilities(7)).
_FILE_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4


def probe(args: dict[str, Any], fds: list[int], say: tree.Say) -> dict[str, Any]:
    """Job: what a child sees of itself and whether it can open ``paths``, for tests and for ``doctor``."""

    def attempt(call: Callable[[], object]) -> str:
        try:
            call()
        except OSError as error:
            return error.strerror or "refused"
        return "allowed"

    def connect() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))

    header, data = struct.pack("Ii", 0x2008_0522, 0), ctypes.create_string_buffer(24)
    syscalls._libc.capget(header, data)
    effective = struct.unpack("6I", data.raw)
    return {
        "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
        "root": sorted(os.listdir("/")),
        "cwd": os.getcwd(),
        "files": [fd for fd in range(256) if attempt(partial(os.fstat, fd)) == "allowed"],
        "capabilities": effective[0] | effective[3] << 32,
        "connect": attempt(connect),
        "fork": attempt(os.fork),
        "chroot": attempt(lambda: os.chroot(".")),
        "unshare": attempt(lambda: syscalls.unshare(syscalls.CLONE_NEWUSER)),
        "mount": attempt(lambda: syscalls.mount("none", "/", "tmpfs")),
        "paths": {
            path: [attempt(partial(os.open, path, flags)) for flags in (os.O_RDONLY, os.O_WRONLY)]
            for path in args.get("paths", ())
        },
    }


JOBS: dict[str, Job] = {
    "probe": probe,
    "unpack": archive.unpack,
    "restore": archive.restore,
    "put-back": putback.put_back,
    "bring": onto.bring,
    "put-one": onefile.put_one,
    "collect": collect.collect,
    "changes": collect.changes,
    "differences": collect.differences,
    "pack": tree.pack,
    "remove": tree.remove,
    "measure": tree.measure,
    "digest": tree.digest,
    "config-write": configfiles.write,
    "config-read": configfiles.read,
    "image": layers.unpack_image,
    "finish": layers.finish_root,
    "manifest": manifest.write,
    "compare": manifest.compare,
}
#: Runs in the child before it is confined, and must not look at content beyond its first bytes.
PREPARE: dict[str, Callable[[dict[str, Any], list[int]], None]] = {
    "unpack": archive.prepare,
    "image": layers.prepare,
}


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    data, ancillary, _, _ = control.recvmsg(MESSAGE_BYTES, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, part in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(part[: len(part) - len(part) % fds.itemsize])
    return (json.loads(data), list(fds)) if data else None


def serve(fd: int) -> None:
    """Fork a child for each message on the socket ``fd`` until its other end closes."""
    control = socket.socket(fileno=fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # One empty network for all children: to make one for each would cost more than the job.
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS)
    os.chdir("/")
    gc.collect()
    gc.freeze()
    poll = select.poll()
    poll.register(control, select.POLLIN)
    children: dict[int, tuple[int, int, socket.socket]] = {}
    while True:
        for ready, _ in poll.poll():
            if ready == control.fileno():
                request = _receive(control)
                if request is None:
                    os._exit(0)
                _begin(control, request, poll, children)
            elif ready in children:
                _end(ready, poll, children)


def _begin(
    control: socket.socket,
    request: tuple[dict[str, Any], list[int]],
    poll: select.poll,
    children: dict[int, tuple[int, int, socket.socket]],
) -> None:
    order, fds = request
    ready_r, ready_w = os.pipe()
    go_r, go_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready_r)
        os.close(go_w)
        _child(order, fds, ready_w, go_r)
    os.close(ready_w)
    os.close(go_r)
    try:
        if order["mapped"] is not None and os.read(ready_r, 1) == b"1":
            for name in ("uid_map", "gid_map"):
                map_fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
                os.write(map_fd, "0 {} {}\n".format(*order["mapped"]).encode())
                os.close(map_fd)
            os.write(go_w, b"1")
    except OSError:
        # The child sees the pipe close and reports that it got no ids.
        pass
    finally:
        os.close(ready_r)
        os.close(go_w)
    reply = socket.socket(fileno=fds[0])
    for fd in fds[1:]:
        os.close(fd)
    pidfd = os.pidfd_open(pid)
    # The end of the child and the end of interest in it: whichever comes, both descriptors lead here.
    children[pidfd] = children[reply.fileno()] = (pid, pidfd, reply)
    poll.register(pidfd, select.POLLIN)
    poll.register(reply, 0)


def _end(ready: int, poll: select.poll, children: dict[int, tuple[int, int, socket.socket]]) -> None:
    pid, pidfd, reply = children[ready]
    if ready != pidfd:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.unregister(reply)
        return
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):
        reply.send(json.dumps({"ended": status}).encode())
    for fd in (pidfd, reply.fileno()):
        children.pop(fd)
        with contextlib.suppress(KeyError):
            poll.unregister(fd)
    os.close(pidfd)
    reply.close()


def _child(order: dict[str, Any], fds: list[int], ready: int, go: int) -> None:
    reply = socket.socket(fileno=fds[0])

    def send(**message: Any) -> None:
        reply.send(json.dumps(message).encode())

    def say(text: str, share: float | None = None) -> None:
        send(say=text, share=share)

    try:
        job, args, files = JOBS[order["job"]], order["args"], fds[2:]
        if order["job"] in PREPARE:
            PREPARE[order["job"]](args, files)
        _confine(order, fds, ready, go)
        send(result=job(args, files, say))
    except tree.Rejected as error:
        send(rejected={"code": error.code, "field": error.field, "message": error.message, "hint": error.hint})
    except MemoryError:
        send(
            rejected={
                "code": "invalid",
                "field": "archive",
                "message": "needs more memory to be read than it is given",
                "hint": "pack fewer files",
            }
        )
    except BrokenPipeError:
        pass
    except OSError as error:
        known = tree.full(error)
        if known is not None:
            send(rejected={"code": known.code, "field": known.field, "message": known.message, "hint": known.hint})
        else:
            send(
                fault=f"{error.strerror or error}: {error.filename or ''}"[:2000], trace=traceback.format_exc()[-8000:]
            )
    except BaseException as error:
        send(fault=f"{type(error).__name__}: {error}"[:2000], trace=traceback.format_exc()[-8000:])
    finally:
        os._exit(0)


def _confine(order: dict[str, Any], fds: list[int], ready: int, go: int) -> None:
    os.setgroups([])
    mapped = order["mapped"] is not None
    if mapped:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.write(ready, b"1")
        if os.read(go, 1) != b"1":
            raise OSError("the user namespace got no ids")
    # The child forks nothing, so that the processes of the same uid elsewhere do not count.
    limits = {
        # 1 and not 0: then no crash runs a program of the host's core_pattern either (see host.seccomp).
        resource.RLIMIT_CORE: 1,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: 1100,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_AS: MEMORY_BYTES,
    }
    for which, limit in limits.items():
        hard = resource.getrlimit(which)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (limit, limit))
    os.fchdir(fds[1])
    os.chroot(".")
    os.chdir("/")
    for capability in range(64):
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, capability)
        except OSError:
            break
    uid = 0 if mapped else order["uid"]
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _capset(_FILE_CAPABILITIES if mapped else 0)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    # After the change of ids, which clears it (prctl(2)).
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(0)
    os.close(fds[1])
    keep = sorted([0, 1, 2, fds[0], *fds[2:]])
    for low, high in zip(keep, [*keep[1:], 1 << 20], strict=True):
        os.closerange(low + 1, high)
    os.umask(0o022)


def _capset(mask: int) -> None:
    header = struct.pack("Ii", 0x2008_0522, 0)
    low, high = mask & 0xFFFF_FFFF, mask >> 32
    syscalls._check(syscalls._libc.capset(header, struct.pack("6I", low, low, 0, high, high, 0)), "capset")


if __name__ == "__main__":
    serve(int(sys.argv[1]))
