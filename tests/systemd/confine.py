"""Becomes another program under the restrictions of a systemd unit that need no PID 1 to take effect.

Usage: confine.py UNIT PROGRAM [ARGUMENT...]

The unit's SystemCallFilter= (as systemd-analyze expands its groups) is put in force by seccomp, so are
RestrictAddressFamilies= and RestrictNamespaces=; MemoryDenyWriteExecute= by prctl; NoNewPrivileges= and an
empty CapabilityBoundingSet= by prctl; UMask=, LimitNOFILE= and LimitCORE= as they are.
"""

import ctypes
import errno
import os
import re
import resource
import struct
import subprocess
import sys

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_SET_MDWE = 24, 38, 22, 65
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000
AUDIT_ARCH_X86_64 = 0xC000003E
LOAD, EQUAL, RETURN, ANY_BIT = 0x20, 0x15, 0x06, 0x45
NUMBER, ARCHITECTURE, ARGUMENT_0 = 0, 4, 16
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
NAMESPACE_FLAGS = 0x7E020080

libc = ctypes.CDLL(None, use_errno=True)


def settings(unit):
    found = {}
    for line in open(unit):
        if match := re.match(r"(\w+)=(.*)", line.strip()):
            found.setdefault(match[1], []).append(match[2])
    return found


def expand(word, groups):
    return {word} if not word.startswith("@") else set().union(*(expand(w, groups) for w in groups[word]))


def allowed_calls(filters):
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], check=True, capture_output=True, text=True
    ).stdout
    groups, name = {}, None
    for line in text.splitlines():
        if line.startswith("@"):
            name = line.strip()
            groups[name] = []
        elif name and line.startswith("    ") and not line.strip().startswith("#"):
            groups[name].append(line.strip())
    allowed = set(groups["@default"])
    for value in filters:
        words = value.lstrip("~").split()
        calls = set().union(*(expand(word, groups) for word in words))
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


def numbers():
    for path in ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"):
        if os.path.exists(path):
            return {m[1]: int(m[2]) for m in re.finditer(r"__NR_(\w+) (\d+)", open(path).read())}
    sys.exit("confine.py: SKIPPED: no numbers of system calls (linux-libc-dev)")


def program(found):
    calls = numbers()
    allowed = sorted(calls[name] for name in allowed_calls(found["SystemCallFilter"]) if name in calls)
    families = [FAMILIES[name] for name in found["RestrictAddressFamilies"][0].split()]
    deny = SECCOMP_RET_ERRNO | errno.EPERM
    code = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, AUDIT_ARCH_X86_64), (RETURN, 0, 0, deny)]
    code += [(LOAD, 0, 0, NUMBER)]
    code += [(EQUAL, 0, len(families) + 3, calls["socket"]), (LOAD, 0, 0, ARGUMENT_0)]
    code += [(EQUAL, len(families) - place, 0, family) for place, family in enumerate(families)]
    code += [(RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EAFNOSUPPORT), (RETURN, 0, 0, SECCOMP_RET_ALLOW)]
    # clone3 hides its flags behind a pointer, so systemd answers ENOSYS and libc falls back to clone.
    code += [(EQUAL, 0, 1, calls["clone3"]), (RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.ENOSYS)]
    code += [(EQUAL, 0, 4, calls["clone"]), (LOAD, 0, 0, ARGUMENT_0)]
    code += [(ANY_BIT, 0, 1, NAMESPACE_FLAGS), (RETURN, 0, 0, deny), (RETURN, 0, 0, SECCOMP_RET_ALLOW)]
    for number in allowed:
        code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, SECCOMP_RET_ALLOW)]
    code += [(RETURN, 0, 0, deny)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code), len(code)


def prctl(*arguments):
    padded = (list(arguments) + [0] * 5)[:5]
    if libc.prctl(*(ctypes.c_ulong(value) for value in padded)) != 0:
        raise OSError(ctypes.get_errno(), f"prctl{tuple(arguments)}")


def main():
    found = settings(sys.argv[1])
    for name in ("NoNewPrivileges", "MemoryDenyWriteExecute", "RestrictNamespaces", "LockPersonality"):
        assert found[name] == ["yes"], name
    assert found["CapabilityBoundingSet"] == [""], "no capability at all"
    os.umask(int(found["UMask"][0], 8))
    files = int(found["LimitNOFILE"][0])
    hard = min(files, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code, length = program(found)
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0)  # as many as the kernel knows
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    try:
        prctl(PR_SET_MDWE, 1)
    except OSError as error:
        print(f"confine.py: this kernel cannot deny write and execute: {error}", file=sys.stderr)
    instructions = ctypes.create_string_buffer(code)
    described = ctypes.create_string_buffer(struct.pack("HxxxxxxP", length, ctypes.addressof(instructions)))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(described))
    os.execv(sys.argv[2], sys.argv[2:])


main()
