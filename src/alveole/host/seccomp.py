"""The filter of system calls that every process of every site runs under.

The rules are Docker's default profile. Debian ships the variant of the container tools
(``golang-github-containers-common``), which differs in allowing what makes mounts and namespaces:
that is taken back here (:data:`REFUSED`), as moby's ``profiles/seccomp/default.json`` does for a
container without CAP_SYS_ADMIN. None of the capabilities that images keep opens a rule.

libseccomp compiles the rules once for an agent; crun takes the result by annotation, which saves
15 ms a start (measured with crun 1.8.1: 10 ms instead of 25).
"""

from __future__ import annotations

import base64
import ctypes
import errno
import functools
import os
import struct
from pathlib import Path
from typing import Any

import msgspec

from alveole.errors import Temporary

PROFILE = Path("/usr/share/containers/seccomp.json")
#: Allowed by the container tools' profile and refused by Docker's (EPERM).
REFUSED = frozenset(
    {
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "keyctl",
        "add_key",
        "request_key",
        "mount",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "pivot_root",
        "reboot",
        "setns",
        "syslog",
        "umount",
        "umount2",
        "unshare",
    }
)
#: Any of these in clone(2) makes a namespace: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_NAMESPACES = (0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000)
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK, _NETLINK_AUDIT = 1, 2, 10, 16, 9
_RLIMIT_CORE = 4

# seccomp.h of libseccomp 2.5.
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
_NE, _LT, _EQ, _GT, _MASKED_EQ = 1, 2, 4, 6, 7
_OPERATORS = {
    "SCMP_CMP_NE": _NE,
    "SCMP_CMP_LT": _LT,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": _EQ,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": _GT,
    "SCMP_CMP_MASKED_EQ": _MASKED_EQ,
}
_ARCHITECTURES = {
    "SCMP_ARCH_X86": 0x4000_0003,
    "SCMP_ARCH_X86_64": 0xC000_003E,
    "SCMP_ARCH_X32": 0x4000_003E,
    "SCMP_ARCH_ARM": 0x4000_0028,
    "SCMP_ARCH_AARCH64": 0xC000_00B7,
}
_NAMES = {"x86_64": ("SCMP_ARCH_X86_64", "amd64"), "aarch64": ("SCMP_ARCH_AARCH64", "arm64")}
_BY_TREE = 2  # SCMP_FLTATR_CTL_OPTIMIZE: a binary tree, so that no call costs a walk of 400 rules
_ATTRIBUTE_OPTIMIZE = 8

Condition = tuple[int, int, int, int]
"""Argument index, operator, value (a mask for ``_MASKED_EQ``), second value."""


class SyscallRule(msgspec.Struct, frozen=True):
    name: str
    action: int
    conditions: tuple[Condition, ...] = ()


class SyscallRules(msgspec.Struct, frozen=True):
    default: int
    architectures: tuple[int, ...]
    """Beside the machine's own."""
    rules: tuple[SyscallRule, ...]


def convert(profile: dict[str, Any], machine: str) -> SyscallRules:
    """PURE. The profile for a container without special capabilities on ``machine`` (as in uname(2))."""
    architecture, go_name = _NAMES[machine]
    others = next(
        (item["subArchitectures"] for item in profile.get("archMap", ()) if item["architecture"] == architecture), ()
    )
    rules = [SyscallRule(name, _ERRNO | errno.EPERM) for name in sorted(REFUSED)]
    rules += _own_rules()
    own = {rule.name for rule in rules}
    for entry in profile["syscalls"]:
        includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
        if includes.get("caps") or go_name in excludes.get("arches", ()):
            continue
        if includes.get("arches") and go_name not in includes["arches"]:
            continue
        action = _ALLOW if entry["action"] == "SCMP_ACT_ALLOW" else _ERRNO | entry.get("errnoRet", errno.EPERM)
        conditions = tuple(
            (item["index"], _OPERATORS[item["op"]], item["value"], item.get("valueTwo", 0))
            for item in entry.get("args") or ()
        )
        rules += [SyscallRule(name, action, conditions) for name in entry["names"] if name not in own]
    return SyscallRules(
        # What the profile does not know gets ENOSYS, so that a C library falls back to what it does know.
        default=_ERRNO | errno.ENOSYS,
        architectures=tuple(_ARCHITECTURES[name] for name in others),
        rules=tuple(rules),
    )


def _own_rules() -> list[SyscallRule]:
    everything = functools.reduce(int.__or__, _NAMESPACES)
    return [
        SyscallRule("clone", _ALLOW, ((0, _MASKED_EQ, everything, 0),)),
        *(SyscallRule("clone", _ERRNO | errno.EPERM, ((0, _MASKED_EQ, flag, flag),)) for flag in _NAMESPACES),
        # A filter cannot look behind the pointer of clone3: C libraries fall back to clone on ENOSYS.
        SyscallRule("clone3", _ERRNO | errno.ENOSYS),
        # Narrower than Docker's: of some forty families a web application needs four, and each other one is
        # kernel code that its first socket loads and runs (AF_ALG, AF_VSOCK, AF_PACKET, AF_RDS, AF_TIPC…).
        *(SyscallRule("socket", _ALLOW, ((0, _EQ, family, 0),)) for family in (_AF_UNIX, _AF_INET, _AF_INET6)),
        SyscallRule("socket", _ALLOW, ((0, _EQ, _AF_NETLINK, 0), (2, _NE, _NETLINK_AUDIT, 0))),
        SyscallRule("socket", _ERRNO | errno.EINVAL, ((0, _EQ, _AF_NETLINK, 0), (2, _EQ, _NETLINK_AUDIT, 0))),
        # The others have no rule and so get the default: refused.
        # A core_pattern with a pipe is a program that the kernel runs as root of the host, for crashes in
        # containers too. The limit 1 keeps it from that (fs/coredump.c) where 0 does not, so it is not changed:
        # the call succeeds without an effect, for those who ask for 0.
        SyscallRule("setrlimit", _ALLOW, ((0, _NE, _RLIMIT_CORE, 0),)),
        SyscallRule("setrlimit", _ERRNO, ((0, _EQ, _RLIMIT_CORE, 0),)),
        SyscallRule("prlimit64", _ALLOW, ((1, _NE, _RLIMIT_CORE, 0),)),
        SyscallRule("prlimit64", _ALLOW, ((1, _EQ, _RLIMIT_CORE, 0), (2, _EQ, 0, 0))),
        SyscallRule("prlimit64", _ERRNO, ((1, _EQ, _RLIMIT_CORE, 0), (2, _NE, 0, 0))),
    ]


class _Compare(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def without_socketcall(program: bytes) -> bytes:
    """PURE. ``program`` behind a few instructions that refuse socketcall(2) of 32-bit x86 programs (ENOSYS).

    It hides the family behind a pointer, and libseccomp lets it through as soon as any family may pass; C
    libraries call socket(2) since Linux 4.3. Jumps are relative, so what follows need not change.
    """
    load, equal, answer = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
    before = (
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 0, 3, _ARCHITECTURES["SCMP_ARCH_X86"]),
        (load, 0, 0, 0),  # seccomp_data.nr
        (equal, 0, 1, 102),  # __NR_socketcall
        (answer, 0, 0, _ERRNO | errno.ENOSYS),
    )
    return b"".join(struct.pack("=HBBI", *each) for each in before) + program


def compile_filter(rules: SyscallRules) -> bytes:
    """The BPF program of ``rules``; raises ``Temporary`` when libseccomp is absent or refuses."""
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        raise Temporary("libseccomp is not installed", hint="apt-get install libseccomp2") from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    context = library.seccomp_init(rules.default)
    if not context:
        raise Temporary("libseccomp made no filter")
    try:
        _must(library.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, _BY_TREE), "optimize")
        for architecture in rules.architectures:
            _must(library.seccomp_arch_add(context, architecture), f"architecture {architecture:#x}")
        for rule in rules.rules:
            number = library.seccomp_syscall_resolve_name(rule.name.encode())
            # A call that this libseccomp does not know gets the default: refused. An allowed or
            # denied call with the same action as the default needs no rule (libseccomp refuses it).
            if number == -1 or rule.action == rules.default:
                continue
            conditions = (_Compare * max(1, len(rule.conditions)))(*(_Compare(*item) for item in rule.conditions))
            _must(
                library.seccomp_rule_add_array(context, rule.action, number, len(rule.conditions), conditions),
                rule.name,
            )
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            _must(library.seccomp_export_bpf(context, fd), "export")
            program = os.pread(fd, os.fstat(fd).st_size, 0)
            return without_socketcall(program) if _ARCHITECTURES["SCMP_ARCH_X86"] in rules.architectures else program
        finally:
            os.close(fd)
    finally:
        library.seccomp_release(context)


def _must(result: int, what: str) -> None:
    if result < 0:
        raise Temporary(f"libseccomp refused {what}: {os.strerror(-result)}")


@functools.cache
def annotation() -> str:
    """The compiled filter of this machine in base64, for ``run.oci.seccomp_bpf_data``.

    Raises ``Temporary`` when the profile is absent or damaged: a site never runs without it.
    """
    try:
        profile = msgspec.json.decode(PROFILE.read_bytes())
        rules = convert(profile, os.uname().machine)
    except FileNotFoundError:
        raise Temporary(f"{PROFILE} is absent", hint="apt-get install golang-github-containers-common") from None
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise Temporary(f"{PROFILE} is not a seccomp profile: {error}") from error
    return base64.b64encode(compile_filter(rules)).decode("ascii")
