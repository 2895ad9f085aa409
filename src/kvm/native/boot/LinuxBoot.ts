import * as Effect from "effect/Effect"
import { closeSync, openSync, readSync } from "node:fs"
import type { GuestMemory } from "../../../memory/GuestMemory.ts"
import type { LinuxImage } from "../../spec/LinuxImage.ts"
import type { Topology } from "../../spec/Topology.ts"
import { VmBootError } from "../../spec/VmEngine.ts"
import { ramLayout } from "../abi/KvmVm.ts"
import { writeLongMode } from "../cpu/LongMode.ts"
import { acpiTables, RSDP } from "./Acpi.ts"

/** Guest-physical addresses below 640 KiB, behind those of `LongMode`. */
const BOOT_PARAMS = 0x7000
const CMDLINE = 0x20000
const LOW_END = 0x9fc00
const HIGH_START = 0x100000
const PAGE = 4096

// arch/x86/include/uapi/asm/bootparam.h `struct boot_params`, v6.12
const ACPI_RSDP_ADDR = 0x070
const EXT_RAMDISK_IMAGE = 0x0c0
const EXT_RAMDISK_SIZE = 0x0c4
const E820_ENTRIES = 0x1e8
const SETUP_HEADER = 0x1f1
const VID_MODE = 0x1fa
const BOOT_FLAG = 0x1fe
const HEADER = 0x202
const VERSION = 0x206
const TYPE_OF_LOADER = 0x210
const LOADFLAGS = 0x211
const RAMDISK_IMAGE = 0x218
const RAMDISK_SIZE = 0x21c
const CMD_LINE_PTR = 0x228
const E820_TABLE = 0x2d0
const E820_RAM = 1
const E820_RESERVED = 2
const LOADED_HIGH = 1
const LOADER_UNDEFINED = 0xff

/** The files to load beside the kernel, and how to boot. */
export interface LinuxBootSpec {
  /** Path of the kernel, the file `image` was read from. */
  readonly kernel: string
  readonly image: LinuxImage
  readonly initramfs: Uint8Array
  readonly cmdline: string
  readonly topology: Topology
}

/** Where the boot CPU starts, in 64-bit mode, and what RSI holds there. */
export interface LinuxEntry {
  readonly rip: number
  readonly rsi: number
}

/**
 * Put a kernel, its initramfs, boot parameters and ACPI tables into the memory of a machine that has not started.
 * @see Documentation/arch/x86/boot.rst, v6.12, "64-bit Boot Protocol"
 */
export const loadLinux = (memory: GuestMemory, spec: LinuxBootSpec): Effect.Effect<LinuxEntry, VmBootError> =>
  Effect.gen(function*() {
    const { image, initramfs } = spec
    const broken = (why: string, hint: string) => new VmBootError({ subject: spec.kernel, why, hint })
    const cmdline = new TextEncoder().encode(spec.cmdline)
    const lowRam = memory.regions.reduce((end, { bytes, start }) => start === end ? start + bytes.length : end, 0)
    const initrdAt = Math.floor((Math.min(lowRam, image.initrdMax + 1) - initramfs.length) / PAGE) * PAGE
    if (initrdAt < image.end) {
      const mib = Math.ceil((image.end + initramfs.length) / 2 ** 20)
      return yield* broken(
        `${Math.floor(memory.size / 2 ** 20)} MiB of memory cannot hold it and its initramfs`,
        `set memoryMib to ${mib + 64} or more`
      )
    }
    yield* Effect.try({
      try: () => loadPieces(memory, spec.kernel, image),
      catch: (error) => broken(error instanceof Error ? error.message : String(error), "is the file being modified?")
    })
    const written = memory.write(initrdAt, initramfs) && memory.write(CMDLINE, cmdline) &&
      memory.write(CMDLINE + cmdline.length, new Uint8Array(1)) &&
      memory.write(RSDP, acpiTables(spec.topology, ramLayout(memory.size))) &&
      writeLongMode(memory) &&
      memory.write(BOOT_PARAMS, bootParams(memory, image, initrdAt, initramfs.length))
    if (!written) return yield* Effect.die(new RangeError("the first MiB of the guest is not all RAM"))
    return { rip: image.entry, rsi: BOOT_PARAMS }
  })

const loadPieces = (memory: GuestMemory, path: string, image: LinuxImage): void => {
  const fd = openSync(path, "r")
  try {
    for (const { address, fileBytes, fileOffset } of image.pieces) {
      for (let done = 0; done < fileBytes;) {
        // straight into the guest; a piece may go over the border of two regions
        const region = memory.regions.find(({ bytes, start }) =>
          address + done >= start && address + done < start + bytes.length
        )
        if (region === undefined) throw new Error(`no memory at 0x${(address + done).toString(16)} for a part of it`)
        const at = address + done - region.start
        const length = Math.min(fileBytes - done, region.bytes.length - at)
        const got = readSync(fd, region.bytes, at, length, fileOffset + done)
        if (got === 0) throw new Error("the file ended early")
        done += got
      }
    }
  } finally {
    closeSync(fd)
  }
}

const bootParams = (memory: GuestMemory, image: LinuxImage, initrdAt: number, initrdBytes: number): Uint8Array => {
  const bytes = new Uint8Array(PAGE)
  const view = new DataView(bytes.buffer)
  bytes.set(image.setupHeader, SETUP_HEADER)
  if (image.kind === "vmlinux") {
    view.setUint16(BOOT_FLAG, 0xaa55, true)
    view.setUint32(HEADER, 0x53726448, true)
    view.setUint16(VERSION, 0x20f, true)
  }
  view.setUint16(VID_MODE, 0xffff, true) // "normal"
  bytes[TYPE_OF_LOADER] = LOADER_UNDEFINED
  bytes[LOADFLAGS] |= LOADED_HIGH
  view.setUint32(RAMDISK_IMAGE, initrdBytes === 0 ? 0 : initrdAt, true)
  view.setUint32(RAMDISK_SIZE, initrdBytes, true)
  view.setUint32(EXT_RAMDISK_IMAGE, 0, true)
  view.setUint32(EXT_RAMDISK_SIZE, 0, true)
  view.setUint32(CMD_LINE_PTR, CMDLINE, true)
  view.setBigUint64(ACPI_RSDP_ADDR, BigInt(RSDP), true)
  const map = memoryMap(memory)
  bytes[E820_ENTRIES] = map.length
  map.forEach(({ end, start, type }, index) => {
    const at = E820_TABLE + index * 20
    view.setBigUint64(at, BigInt(start), true)
    view.setBigUint64(at + 8, BigInt(end - start), true)
    view.setUint32(at + 16, type, true)
  })
  return bytes
}

/** The BIOS's map of memory: RAM, with the last KiB below 640 KiB, the adapters' and the BIOS area reserved. */
const memoryMap = (
  memory: GuestMemory
): ReadonlyArray<{ readonly start: number; readonly end: number; readonly type: number }> => {
  const ram: Array<{ start: number; end: number; type: number }> = []
  for (const { bytes, start } of memory.regions) {
    const last = ram.at(-1)
    if (last?.end === start) last.end = start + bytes.length
    else ram.push({ start, end: start + bytes.length, type: E820_RAM })
  }
  return [
    { start: 0, end: LOW_END, type: E820_RAM },
    { start: LOW_END, end: HIGH_START, type: E820_RESERVED },
    { start: HIGH_START, end: ram[0].end, type: E820_RAM },
    ...ram.slice(1)
  ]
}
