# SPDX-License-Identifier: GPL-2.0
"""Writes the guest's initramfs: cpio archives (newc), one after the other."""

import hashlib
import os
import re
import stat
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, "build")


class Error(Exception):
    pass


class Cpio:
    def __init__(self):
        self.parts = []
        self.seen = set()

    def _entry(self, name, mode, data=b"", rdev=(0, 0)):
        name = name.strip("/")
        if name in self.seen:
            return
        if name and "/" in name:
            self._entry(os.path.dirname(name), stat.S_IFDIR | 0o755)
        self.seen.add(name)
        raw = os.fsencode(name) + b"\0"
        head = b"070701" + b"".join(b"%08X" % v for v in (
            len(self.seen), mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(raw), 0))
        for part in (head + raw, data):
            self.parts.append(part + b"\0" * (-len(part) % 4))

    def dir(self, name, mode=0o755):
        self._entry(name, stat.S_IFDIR | mode)

    def link(self, name, target):
        self._entry(name, stat.S_IFLNK | 0o777, os.fsencode(target))

    def data(self, name, data, mode=0o644):
        self._entry(name, stat.S_IFREG | mode, data)

    def file(self, src, name):
        """A file or directory, with the libraries that its programs need."""
        st = os.stat(src)
        if stat.S_ISDIR(st.st_mode):
            self.dir(name, st.st_mode & 0o7777)
            for sub in sorted(os.listdir(src)):
                path = os.path.join(src, sub)
                if os.path.islink(path):
                    self.link(f"{name}/{sub}", os.readlink(path))
                else:
                    self.file(path, f"{name}/{sub}")
            return
        if not stat.S_ISREG(st.st_mode):
            raise Error(f"{src}: neither a file nor a directory")
        with open(src, "rb") as f:
            data = f.read()
        self.data(name, data, st.st_mode & 0o7777)
        if data[:4] == b"\x7fELF" and b"ld-linux" in data[:8192]:
            for lib in libraries(src):
                self.file(lib, lib)

    def bytes(self):
        out = b"".join(self.parts)
        end = Cpio()
        end._entry("TRAILER!!!", 0)
        out += b"".join(end.parts)
        return out + b"\0" * (-len(out) % 512)


def libraries(program):
    ldd = subprocess.run(["ldd", program], capture_output=True, text=True)
    missing = re.findall(r"^\s*(\S+) => not found", ldd.stdout, re.M)
    if missing:
        raise Error(f"{program} needs {', '.join(missing)}, not found on this machine")
    return re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", ldd.stdout, re.M)


def which(*paths):
    for path in paths:
        if os.path.exists(path):
            return path
    raise Error(f"{paths[0]} is missing: run 'make build'")


def base():
    """The path of the archive that every guest has: made when its inputs changed."""
    inputs = [  # what, and where it goes
        (which("/bin/busybox", "/usr/bin/busybox"), "bin/busybox"),
        (which("/bin/keyctl", "/usr/bin/keyctl"), "bin/keyctl"),
        (which("/sbin/request-key", "/usr/sbin/request-key"), "sbin/request-key"),
        (which("/etc/request-key.conf"), "etc/request-key.conf"),
        (which("/etc/request-key.d"), "etc/request-key.d"),
        (which("/usr/share/keyutils"), "usr/share/keyutils"),
        (os.path.join(TOP, "vm/root"), ""),
        (which(os.path.join(BUILD, "guest")), ""),
    ]
    key = hashlib.sha256(open(__file__, "rb").read())
    for src, _ in inputs:
        walk = [src]
        for d, dirs, files in os.walk(src):
            dirs.sort()
            walk += [os.path.join(d, f) for f in sorted(files + dirs)]
        for path in walk:
            st = os.lstat(path)
            key.update(f"{path} {st.st_mode} {st.st_size} {st.st_mtime_ns}\n".encode())
    cache = os.path.join(BUILD, "vm")
    path = os.path.join(cache, f"base-{key.hexdigest()[:16]}.cpio")
    if os.path.exists(path):
        os.utime(path)
        return path

    c = Cpio()
    for d in ("dev", "proc", "sys", "run", "mnt", "tests", "usr/sbin", "usr/lib"):
        c.dir(d)
    c.dir("root", 0o700)
    c.dir("tmp", 0o1777)
    # Until /dev is mounted
    c._entry("dev/console", stat.S_IFCHR | 0o600, rdev=(5, 1))
    c._entry("dev/null", stat.S_IFCHR | 0o666, rdev=(1, 3))
    for src, name in inputs:
        if name:
            c.file(src, name)
        else:
            for sub in sorted(os.listdir(src)):
                c.file(os.path.join(src, sub), sub)
    applets = subprocess.run([inputs[0][0], "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        c.link(f"bin/{applet}", "busybox")
    os.makedirs(cache, exist_ok=True)
    tmp = f"{path}.{os.getpid()}"
    with open(tmp, "wb") as f:
        f.write(c.bytes())
    os.rename(tmp, path)
    # Older ones go, except those that a guest now starting may be about to read
    old = sorted((e for e in os.scandir(cache) if e.name.startswith("base-")),
                 key=lambda e: e.stat().st_mtime)
    for e in old[:-3]:
        os.unlink(e.path)
    return path
