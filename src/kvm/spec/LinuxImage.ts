import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import { closeSync, fstatSync, openSync, readSync } from "node:fs"
import { FormatError, parsing } from "../../core/FormatError.ts"
import { SegmentType } from "../../core/image/Elf.ts"
import { elfNote } from "../../core/image/ElfNote.ts"
import { isArm64Image } from "../../core/image/KernelImage.ts"
import { VmBootError } from "./VmEngine.ts"

/** A piece of the file that belongs at a guest-physical address; the rest up to `memBytes` is zero. */
interface LoadSegment {
  readonly fileOffset: number
  readonly fileBytes: number
  readonly address: number
  readonly memBytes: number
}

/** A kernel as a boot loader sees it. */
export interface LinuxImage {
  readonly kind: "bzImage" | "vmlinux" | "arm64 Image"
  /** Whether it is a vmlinux with a PVH entry (CONFIG_PVH), which is the one that QEMU enters. */
  readonly pvh: boolean
  readonly pieces: ReadonlyArray<LoadSegment>
  /** Guest-physical address of its 64-bit entry. */
  readonly entry: number
  /** One past the highest byte that it uses before it knows what memory there is. */
  readonly end: number
  /** Bytes of the longest command line, without its NUL. */
  readonly cmdlineLimit: number
  /** The highest address that a byte of the initramfs may have. */
  readonly initrdMax: number
  /** A bzImage's setup header, to hand back in the boot parameters from offset 0x1f1 on. */
  readonly setupHeader: Uint8Array
}

// Documentation/arch/x86/boot.rst, v6.12: offsets of the setup header
const SETUP_SECTS = 0x1f1
const BOOT_FLAG = 0x1fe
const JUMP_LENGTH = 0x201
const HEADER = 0x202
const VERSION = 0x206
const INITRD_ADDR_MAX = 0x22c
const XLOADFLAGS = 0x236
const CMDLINE_SIZE = 0x238
const PREF_ADDRESS = 0x258
const INIT_SIZE = 0x260
/** XLF_KERNEL_64: the kernel has the 64-bit entry, 0x200 behind where it is loaded. */
const KERNEL_64 = 1
const ENTRY_64 = 0x200
const SECTOR = 512
/** The first version that has `xloadflags`. */
const OLDEST = 0x20c

/** QEMU places it; COMMAND_LINE_SIZE of arch/arm64/include/uapi/asm/setup.h, v6.12. */
const ARM64: LinuxImage = {
  kind: "arm64 Image",
  pvh: false,
  pieces: [],
  entry: 0,
  end: 0,
  cmdlineLimit: 2047,
  initrdMax: 0,
  setupHeader: new Uint8Array(0)
}

const ELF_HEADER = 64
const PROGRAM_HEADER = 56
/** Far more than the notes of a kernel take, in bytes. */
const NOTES_LIMIT = 2 ** 20
/** include/xen/interface/elfnote.h, v6.12 */
const XEN_ELFNOTE_PHYS32_ENTRY = 18
const EM_X86_64 = 62
/** arch/x86/include/asm/setup.h COMMAND_LINE_SIZE, v6.12 */
const COMMAND_LINE_SIZE = 2048
/** The `initrd_addr_max` of today's bzImages; a vmlinux of the same kernel does not say it. */
const INITRD_MAX = 0x7fffffff

/**
 * Read what a boot loader needs out of a bzImage (its decompressor runs in the guest) or an uncompressed ELF vmlinux.
 * Only headers are read: `load` the pieces where they belong.
 * @throws Error of node:fs when the file cannot be read
 */
export const readLinuxImage = (path: string): Either.Either<LinuxImage, FormatError> =>
  parsing(() => {
    const fd = openSync(path, "r")
    try {
      const size = fstatSync(fd).size
      const head = new Uint8Array(0x400)
      const got = readSync(fd, head, 0, head.length, 0)
      const view = new DataView(head.buffer)
      const broken = (offset: number, expected: string) =>
        new FormatError({ format: "kernel image", subject: path, offset, expected })
      if (got >= ELF_HEADER && view.getUint32(0, false) === 0x7f454c46) return vmlinux(fd, size, view, broken)
      if (isArm64Image(head)) return ARM64
      if (
        got < head.length || view.getUint16(BOOT_FLAG, true) !== 0xaa55 || view.getUint32(HEADER, true) !== 0x53726448
      ) {
        throw broken(BOOT_FLAG, "a bzImage (boot/vmlinuz-…, arch/x86/boot/bzImage) or an ELF vmlinux")
      }
      return bzImage(size, head, view, broken)
    } finally {
      closeSync(fd)
    }
  })

/** `readLinuxImage` for a VM that is to boot it. */
export const readKernelImage = (path: string): Effect.Effect<LinuxImage, VmBootError> =>
  Effect.suspend(() => {
    const broken = (why: string) =>
      new VmBootError({ subject: path, why, hint: "give the path of a kernel image (bzImage or vmlinux)" })
    try {
      return Effect.mapError(readLinuxImage(path), (error) => broken(error.message))
    } catch (error) {
      return broken(error instanceof Error ? error.message : String(error))
    }
  })

type Broken = (offset: number, expected: string) => FormatError

const bzImage = (size: number, head: Uint8Array, view: DataView, broken: Broken): LinuxImage => {
  const version = view.getUint16(VERSION, true)
  if (version < OLDEST) throw broken(VERSION, `boot protocol 2.12 or newer, not ${version >> 8}.${version & 0xff}`)
  if ((view.getUint16(XLOADFLAGS, true) & KERNEL_64) === 0) throw broken(XLOADFLAGS, "a kernel with a 64-bit entry")
  const start = ((view.getUint8(SETUP_SECTS) || 4) + 1) * SECTOR
  if (start >= size) throw broken(SETUP_SECTS, `a setup part shorter than the file's ${size} bytes`)
  const address = Number(view.getBigUint64(PREF_ADDRESS, true))
  const initSize = view.getUint32(INIT_SIZE, true)
  const end = address + Math.max(initSize, size - start)
  if (address % 4096 !== 0 || address < 0x100000 || end > 2 ** 32) {
    throw broken(PREF_ADDRESS, "a load address between 1 MiB and 4 GiB")
  }
  return {
    kind: "bzImage",
    pvh: false,
    pieces: [{ fileOffset: start, fileBytes: size - start, address, memBytes: size - start }],
    entry: address + ENTRY_64,
    end,
    cmdlineLimit: view.getUint32(CMDLINE_SIZE, true),
    initrdMax: view.getUint32(INITRD_ADDR_MAX, true),
    setupHeader: head.slice(SETUP_SECTS, HEADER + view.getUint8(JUMP_LENGTH))
  }
}

const vmlinux = (fd: number, size: number, view: DataView, broken: Broken): LinuxImage => {
  if (view.getUint16(18, true) !== EM_X86_64 || view.getUint8(4) !== 2) throw broken(4, "a 64-bit x86 kernel")
  const at = Number(view.getBigUint64(32, true))
  const count = view.getUint16(56, true)
  if (view.getUint16(54, true) !== PROGRAM_HEADER || count === 0 || at + count * PROGRAM_HEADER > size) {
    throw broken(54, "program headers inside the file: a linked kernel")
  }
  const headers = new Uint8Array(count * PROGRAM_HEADER)
  readSync(fd, headers, 0, headers.length, at)
  const program = new DataView(headers.buffer)
  const pieces: Array<LoadSegment> = []
  let pvh = false
  for (let start = 0; start < headers.length; start += PROGRAM_HEADER) {
    const type = program.getUint32(start, true)
    if (type !== SegmentType.Load && type !== SegmentType.Note) continue
    const number = (offset: number) => Number(program.getBigUint64(start + offset, true))
    if (type === SegmentType.Note) {
      const notes = new Uint8Array(Math.min(number(32), NOTES_LIMIT))
      const got = readSync(fd, notes, 0, notes.length, number(8))
      pvh ||= elfNote(notes.subarray(0, got), "Xen", XEN_ELFNOTE_PHYS32_ENTRY) !== undefined
      continue
    }
    const piece = { fileOffset: number(8), address: number(24), fileBytes: number(32), memBytes: number(40) }
    if (piece.fileOffset + piece.fileBytes > size) throw broken(at + start + 8, `a segment inside the ${size} bytes`)
    if (piece.address < 0x100000 || piece.address + piece.memBytes > 2 ** 32 || piece.memBytes < piece.fileBytes) {
      throw broken(at + start + 24, "a segment between 1 MiB and 4 GiB")
    }
    pieces.push(piece)
  }
  const entry = Number(view.getBigUint64(24, true))
  if (!pieces.some(({ address, fileBytes }) => entry >= address && entry < address + fileBytes)) {
    throw broken(24, "an entry inside a segment, at its physical address")
  }
  return {
    kind: "vmlinux",
    pvh,
    pieces,
    entry,
    end: pieces.reduce((end, { address, memBytes }) => Math.max(end, address + memBytes), 0),
    cmdlineLimit: COMMAND_LINE_SIZE - 1,
    initrdMax: INITRD_MAX,
    setupHeader: new Uint8Array(0)
  }
}
