#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""vm/inner.py DIR: what a guest needs to have guests of its own.

DIR, put into a guest by vm/boot --add DIR:/inner, has the patched QEMU with its
firmware, the patched kernel and a small initramfs; /inner/lib.sh starts and
talks to such guests (vm/inner/lib.sh tells how).
"""

import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import initramfs  # noqa: E402

FIRMWARE = ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "pvh.bin")
PROGRAMS = ("secret", "kvmrun")


def firmware(name):
    for root in (os.path.join(initramfs.BUILD, "firmware"), "/"):
        for d in ("usr/share/seabios", "usr/share/qemu", "usr/lib/ipxe/qemu"):
            path = os.path.join(root, d, name)
            if os.path.exists(path):
                return path
    raise initramfs.Error(f"{name} is missing: run 'make build'")


def initrd():
    c = initramfs.Cpio()
    for d in ("dev", "proc", "sys", "tmp", "run", "mnt"):
        c.dir(d)
    busybox = initramfs.which("/bin/busybox", "/usr/bin/busybox")
    c.file(busybox, "bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        c.link(f"bin/{applet}", "busybox")
    for program in PROGRAMS:
        c.file(os.path.join(initramfs.BUILD, "guest/tests", program), f"bin/{program}")
    c.file(os.path.join(initramfs.TOP, "vm/inner/init"), "init")
    return c.bytes()


def main(to):
    os.makedirs(to, exist_ok=True)
    for name in FIRMWARE:
        shutil.copy(firmware(name), to)
    for src, name in (("qemu/out/qemu-system-x86_64", "qemu"), ("linux/out/vmlinux", "vmlinux")):
        # What debuggers want of them is most of their size
        subprocess.run(["strip", "-o", os.path.join(to, name), os.path.join(initramfs.BUILD, src)],
                       check=True)
    with open(os.path.join(to, "initrd"), "wb") as f:
        f.write(initrd())
    shutil.copy(os.path.join(initramfs.TOP, "vm/inner/lib.sh"), to)


try:
    main(*sys.argv[1:])
except initramfs.Error as e:
    sys.exit(f"vm/inner.py: {e}")
