"""Objects for 64-bit Arm: what they need, and running them under qemu-user where that is installed.

An object is linked with a few lines of LLVM code that map an image of memory at a fixed address, read it from the
standard input, call the kernel and write the image back; so arrays go in and out as bytes. Needs `qemu-aarch64` (or
`qemu-aarch64-static`) and GNU's assembler and linker for it.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np

from gluonish.kernels import compile as compiler
from gluonish.kernels import target
from gluonish.kernels.kernel import Kernel

QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
AS, LD = shutil.which("aarch64-linux-gnu-as"), shutil.which("aarch64-linux-gnu-ld")
MISSING = ", ".join(
    [*([] if QEMU else ["qemu-aarch64 (Debian: qemu-user)"]), *([] if AS and LD else ["binutils-aarch64-linux-gnu"])]
)
BASE, ROOM, HEAD = 1 << 32, 1 << 26, 32
START = f"""
declare void @KERNEL(i64, i64, i64)

declare i64 @system(i64, i64, i64, i64, i64, i64, i64)

define void @move(i64 %call, i64 %file, i64 %total) noinline {{
start:
  br label %loop
loop:
  %done = phi i64 [ 0, %start ], [ %next, %more ]
  %at = add i64 %done, {BASE}
  %left = sub i64 %total, %done
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %more, label %end
more:
  %r = call i64 @system(i64 %call, i64 %file, i64 %at, i64 %left, i64 0, i64 0, i64 0)
  %next = add i64 %done, %r
  %good = icmp sgt i64 %r, 0
  br i1 %good, label %loop, label %fail
fail:
  %x = call i64 @system(i64 93, i64 9, i64 0, i64 0, i64 0, i64 0, i64 0)
  ret void
end:
  ret void
}}

define void @_start() {{
  %m = call i64 @system(i64 222, i64 {BASE}, i64 {ROOM}, i64 3, i64 50, i64 -1, i64 0)
  call void @move(i64 63, i64 0, i64 {HEAD})
  %head = inttoptr i64 {BASE} to ptr
  %p1 = getelementptr i64, ptr %head, i64 1
  %p2 = getelementptr i64, ptr %head, i64 2
  %p3 = getelementptr i64, ptr %head, i64 3
  %total = load volatile i64, ptr %head
  call void @move(i64 63, i64 0, i64 %total)
  %args = load volatile i64, ptr %head
  %begin = load volatile i64, ptr %p1
  %end = load volatile i64, ptr %p2
  call void @KERNEL(i64 %args, i64 %begin, i64 %end)
  %size = load volatile i64, ptr %p3
  call void @move(i64 64, i64 1, i64 %size)
  %x = call i64 @system(i64 93, i64 0, i64 0, i64 0, i64 0, i64 0, i64 0)
  ret void
}}
"""
SYSTEM = """
.global system
system:
  mov x8, x0
  mov x0, x1
  mov x1, x2
  mov x2, x3
  mov x3, x4
  mov x4, x5
  mov x5, x6
  svc #0
  ret
"""
BYTES = """
define ptr @NAME(ptr %to, TYPE %from, i64 %count) "no-builtins" {
start:
  br label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %next, %body ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %body, label %end
body:
  LOAD
  %t = getelementptr i8, ptr %to, i64 %i
  store volatile i8 %b, ptr %t
  %next = add i64 %i, 1
  br label %loop
end:
  ret ptr %to
}
"""
COPY = BYTES.replace("TYPE", "ptr").replace("LOAD", "%f = getelementptr i8, ptr %from, i64 %i\n  %b = load i8, ptr %f")
FILL = BYTES.replace("TYPE", "i32").replace("LOAD", "%b = trunc i32 %from to i8")


def undefined(code: bytes) -> set[str]:
    """The names that an ELF object needs from elsewhere."""
    sections_at, size, count = struct.unpack_from("<Q", code, 0x28)[0], *struct.unpack_from("<HH", code, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, sections_at + i * size) for i in range(count)]
    found = set()
    for header in headers:
        if header[1] != 2:  # the table of symbols
            continue
        names = headers[header[6]][4]
        for at in range(header[4], header[4] + header[5], 24):
            name, _, _, section = struct.unpack_from("<IBBH", code, at)
            if section == 0 and name:
                found.add(code[names + name : code.index(b"\0", names + name)].decode())
    return found


def assembly(kernel: Kernel) -> str:
    """The kernel's code for Arm as text."""
    with target.use(target.arm()):
        return kernel.assembly


def run(kernel: Kernel, arguments: list[np.ndarray | int], begin: int, end: int, folder: Path) -> list[np.ndarray]:
    """Calls a kernel under qemu; gives the arrays among the arguments as they are afterwards."""
    program = _linked(kernel, folder)
    at, places, words = HEAD + 8 * len(arguments), [], []
    for x in arguments:
        if isinstance(x, np.ndarray):
            at = -(-at // 64) * 64
            places.append(at)
            words.append(BASE + at)
            at += x.nbytes
        else:
            words.append(x)
    image = bytearray(at)
    struct.pack_into("<4q", image, 0, BASE + HEAD, begin, end, at)
    struct.pack_into(f"<{len(words)}q", image, HEAD, *words)
    arrays = [x for x in arguments if isinstance(x, np.ndarray)]
    for place, x in zip(places, arrays):
        image[place : place + x.nbytes] = x.tobytes()
    head = struct.pack("<4q", at, 0, 0, 0)
    done = subprocess.run([str(QEMU), str(program)], input=head + image, capture_output=True, timeout=300)
    assert done.returncode == 0 and len(done.stdout) == at, (done.returncode, done.stderr[-2000:])
    return [np.frombuffer(done.stdout, x.dtype, x.size, place).reshape(x.shape) for place, x in zip(places, arrays)]


def _linked(kernel: Kernel, folder: Path) -> Path:
    import llvmlite.binding as llvm

    machine = target.arm()
    code = compiler.object_code(kernel, machine, "KERNEL")
    text = START + COPY.replace("NAME", "memcpy") + COPY.replace("NAME", "memmove") + FILL.replace("NAME", "memset")
    module = llvm.parse_assembly(f'target triple = "{machine.triple}"\n{text}')
    module.verify()
    paths = [folder / "kernel.o", folder / "start.o", folder / "system.o"]
    (folder / "system.s").write_text(SYSTEM)
    subprocess.run([str(AS), "-o", str(paths[2]), str(folder / "system.s")], check=True)
    for path, content in zip(paths, (code, compiler._machine(machine).emit_object(module))):
        path.write_bytes(content)
    program = folder / "program"
    subprocess.run([str(LD), "-o", str(program), *map(str, paths)], check=True, capture_output=True)
    return program
