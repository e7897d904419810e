"""An image whose boot sector waits: it powers off when the power button is pressed, lets PCI devices go when asked,
and does nothing else. It never writes, so its disk keeps the image's bytes: a pattern, which does not compress, so that
a copy that is not whole is found out, and takes about as long as one of a system.

Where only the host's side of a VM matters it stands in for a system, whose boot without KVM costs fifty times as much
CPU (`splab bench boot`).

It needs QEMU's q35 with a BIOS and with ACPI PCI hot-plug, which is what agents define: on another machine nothing that
was hot-plugged would go. It talks to what that has in place of hardware: the ACPI registers of ICH9 at 0x600 (ACPI
specification, 4.8.3) and ACPI PCI hot-plug at 0xcc0 (QEMU, docs/specs/acpi_pci_hotplug).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SECTOR = 512
PARTS = 8
PATTERN = 1 << 20
"""Bytes of each part that are not zero; its last ones, so that the disk does not end before the pattern."""
ORIGIN = 0x7C00
"""Where the BIOS puts a boot sector."""

# 16-bit code, beside what `objdump -d -m i8086` says of it. Only the text's address is filled in.
_CODE = """
fa        cli
31 c0     xor %ax,%ax
8e d8     mov %ax,%ds
8e d0     mov %ax,%ss
bc 00 7c  mov $0x7c00,%sp
be TT TT  mov $text,%si
ba f8 03  mov $0x3f8,%dx       the first serial port
ac        lods %ds:(%si),%al
84 c0     test %al,%al
74 03     je +3                to the end of the text
ee        out %al,(%dx)
eb f8     jmp -8
ba 02 06  mov $0x602,%dx       PM1_EN
b8 00 01  mov $0x100,%ax       the power button counts
ef        out %ax,(%dx)
fb        sti
f4        hlt                  until the timer's next tick, 18 a second
ba 00 06  mov $0x600,%dx       PM1_STS
ed        in (%dx),%ax
f6 c4 01  test $0x1,%ah        was the power button pressed?
74 07     je +7
ba 04 06  mov $0x604,%dx       PM1_CNT
b8 00 20  mov $0x2000,%ax      to S5, which is off
ef        out %ax,(%dx)
66 31 db  xor %ebx,%ebx        of each bus:
ba d0 0c  mov $0xcd0,%dx
66 89 d8  mov %ebx,%eax
66 ef     out %eax,(%dx)
ba c4 0c  mov $0xcc4,%dx       is a slot to be let go?
66 ed     in (%dx),%eax
66 85 c0  test %eax,%eax
74 05     je +5
ba c8 0c  mov $0xcc8,%dx       then eject it
66 ef     out %eax,(%dx)
43        inc %bx
83 fb 20  cmp $0x20,%bx
72 e3     jb -29
eb cd     jmp -51              to the hlt
"""


def boot_sector(ready: str) -> bytes:
    """With the line that it writes to the first serial port once it answers."""
    words = [word for line in _CODE.strip().splitlines() for word in line[:8].split()]
    address = ORIGIN + len(words)
    words[words.index("TT")] = f"{address & 0xFF:02x}"
    words[words.index("TT")] = f"{address >> 8:02x}"
    sector = bytes.fromhex("".join(words)) + f"{ready}\r\n\0".encode()
    return sector.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def write_idle(raw: Path, size: int, ready: str) -> None:
    """A raw image of `size` bytes: the boot sector, and a pattern at the end of each eighth."""
    with raw.open("wb") as file:
        file.write(boot_sector(ready))
        for part in range(1, PARTS + 1):
            file.seek(size * part // PARTS - PATTERN)
            file.write(hashlib.shake_256(b"splab idle image, part %d" % part).digest(PATTERN))
