import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { Buffer } from "node:buffer"
import { fstatSync } from "node:fs"
import { kvaOffset, kvaPage } from "../core/Address.ts"
import { SyscallError } from "../core/Errors.ts"
import { FormatError, parsing } from "../core/FormatError.ts"
import { type ElfFile, parseElf } from "../core/image/Elf.ts"
import { Native } from "../core/Native.ts"
import { IMAGE_MAP } from "./arch/Arch.ts"
import { X86PageTable } from "./arch/X86PageTable.ts"
import { type GuestMemory, writtenParts } from "./GuestMemory.ts"
import { type KernelLocation, type KernelNotLocated } from "./LocateKernel.ts"
import type { KernelSymbol, Symbols } from "./Symbols.ts"

/** The smallest `CONFIG_PHYSICAL_ALIGN` on x86-64, also the step of KASLR; arch/x86/Kconfig, v6.12. */
const ALIGN = 2 ** 21
/** `KERNEL_IMAGE_SIZE` with KASLR, arch/x86/include/asm/page_64_types.h, v6.12. */
const IMAGE_SIZE = 2 ** 30
/** `e_machine` of x86-64. */
const EM_X86_64 = 62
const MAX_BANNER = 1024
const MAX_NOTES = 2 ** 16
const MAX_FILE = 2 ** 32

/**
 * Facts about a kernel from its ELF file, at link-time addresses. Holds copies: the file may be unmapped.
 *
 * @since 0.1.0
 * @category models
 */
export interface Vmlinux {
  readonly subject: string
  readonly release: string
  readonly symbols: ReadonlyMap<string, bigint>
  readonly banner: { readonly address: bigint; readonly bytes: Uint8Array }
  /** The image's ELF notes, with the build id; they lie in the guest's memory too. */
  readonly notes: { readonly address: bigint; readonly bytes: Uint8Array } | undefined
  /** `init_top_pgt`, the root of the kernel's own page tables. */
  readonly root: bigint
}

/**
 * `bytes` is the whole vmlinux, borrowed for this call. Fails where it is stripped or no x86-64 kernel.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseVmlinux = (bytes: Uint8Array, subject: string): Either.Either<Vmlinux, FormatError> =>
  parsing(() => {
    const elf = parseElf(bytes, subject)
    if (elf.machine !== EM_X86_64) {
      throw lacking(
        subject,
        `machine ${EM_X86_64}, not ${elf.machine}: only x86-64 kernels are read with their vmlinux`
      )
    }
    const symbols = elf.symbols()
    const bannerAt = symbols.get("linux_banner")
    const root = symbols.get("init_top_pgt") ?? symbols.get("swapper_pg_dir")
    if (bannerAt === undefined || root === undefined) {
      throw lacking(
        subject,
        "a symbol table with linux_banner and init_top_pgt: an x86-64 vmlinux that is not stripped"
      )
    }
    const banner = linked(elf, bannerAt, MAX_BANNER)
    const nul = banner?.indexOf(0) ?? -1
    const release = nul < 0 ? undefined : /^Linux version (\S+) /.exec(banner!.toString("latin1", 0, nul))?.[1]
    if (banner === undefined || release === undefined) throw lacking(subject, "\"Linux version …\" at linux_banner")
    const notesAt = symbols.get("__start_notes")
    const notesEnd = symbols.get("__stop_notes")
    const notes = notesAt === undefined || notesEnd === undefined || notesEnd - notesAt > BigInt(MAX_NOTES)
      ? undefined
      : linked(elf, notesAt, Number(notesEnd - notesAt))
    return {
      subject,
      release,
      symbols,
      banner: { address: bannerAt, bytes: banner.subarray(0, nul + 1) },
      notes: notesAt === undefined || notes === undefined ? undefined : { address: notesAt, bytes: notes },
      root
    }
  })

/**
 * `parseVmlinux` of a file, of at most 4 GiB, mapped only meanwhile.
 *
 * @since 0.1.0
 * @category constructors
 */
export const openVmlinux = (path: string): Effect.Effect<Vmlinux, SyscallError | FormatError, Native> =>
  Effect.scoped(Effect.gen(function*() {
    const native = yield* Native
    const fd = yield* native.open(path, 0o4000) // O_NONBLOCK: a FIFO must not hang us
    const stat = fstatSync(fd)
    if (!stat.isFile() || stat.size === 0 || stat.size > MAX_FILE) {
      return yield* lacking(path, `a file of 1 byte to 4 GiB, not ${stat.isFile() ? `${stat.size} bytes` : "this"}`)
    }
    return yield* parseVmlinux(yield* native.mmap(fd, 0, stat.size, "read"), path)
  })).pipe(Effect.withSpan("Vmlinux.openVmlinux", { attributes: { path } }))

const lacking = (subject: string, expected: string): FormatError =>
  new FormatError({ format: "ELF", subject, offset: 0, expected })

/** A copy of up to `length` bytes that are linked at `address`. */
const linked = (elf: ElfFile, address: bigint, length: number): Buffer | undefined => {
  const at = elf.offsetOf(address)
  return at === undefined ? undefined : Buffer.from(elf.bytes.subarray(at, at + Math.max(0, length)))
}

/**
 * Where this very kernel runs. Its banner is looked for in memory: the image is loaded at a multiple of 2 MiB, so one place
 * in 2 MiB is looked at. That gives the physical address of the page tables, and the tables tell how far KASLR moved the
 * image, a multiple of 2 MiB below 1 GiB: they must map the moved banner to where it was found.
 * @see arch/x86/boot/compressed/kaslr.c `choose_random_location`, v6.12
 * @since 0.1.0
 * @category parsing
 */
export const locateByVmlinux = (memory: GuestMemory, vmlinux: Vmlinux): KernelLocation | KernelNotLocated => {
  const { banner, release, root } = vmlinux
  const linkedAt = Number(banner.address - IMAGE_MAP)
  const rootFromBanner = Number(root - banner.address)
  const shifts = IMAGE_SIZE / ALIGN
  let candidates = 0
  for (const at of placesOf(memory, linkedAt)) {
    if (memory.u8(at) !== banner.bytes[0]) continue
    const found = memory.bytes(at, banner.bytes.length)
    if (found === undefined || Buffer.compare(banner.bytes, found) !== 0) continue
    candidates++
    for (const levels of [4, 5] as const) {
      const table = new X86PageTable(memory, at + rootFromBanner, levels)
      for (let i = 0; i < shifts; i++) {
        const shift = BigInt(i * ALIGN)
        const maps = (address: bigint, pa: number) => table.walk(kvaPage(address + shift)) === pa - kvaOffset(address)
        if (maps(banner.address, at) && maps(root, table.root)) return { table, release, shift, info: undefined }
      }
    }
  }
  return { candidates, why: "no page tables there map it" }
}

/** The physical addresses, `linkedAt` and each 2 MiB before and behind it, where memory was written or can be made. */
function* placesOf(memory: GuestMemory, linkedAt: number): Generator<number> {
  const { regions } = memory
  for (const region of regions) {
    for (const [from, to] of writtenParts(region)) {
      const start = region.start + from
      for (let at = start + (((linkedAt - start) % ALIGN) + ALIGN) % ALIGN; at < region.start + to; at += ALIGN) {
        yield at
      }
    }
  }
  if (regions.length === 0) { for (let at = linkedAt % ALIGN; at < memory.end; at += ALIGN) yield at }
}

/**
 * The symbols of a vmlinux in a kernel that KASLR moved by `shift` bytes.
 *
 * @since 0.1.0
 * @category models
 */
export class VmlinuxSymbols implements Symbols {
  #sorted: { readonly addresses: BigUint64Array; readonly names: ReadonlyArray<string> } | undefined

  constructor(readonly vmlinux: Vmlinux, readonly shift: bigint) {}

  /** Per-CPU symbols (before v6.15) are offsets, which nothing moves. */
  #moved(address: bigint): bigint {
    return address >= IMAGE_MAP ? BigInt.asUintN(64, address + this.shift) : address
  }

  address(name: string): bigint | undefined {
    const linked = this.vmlinux.symbols.get(name)
    return linked === undefined ? undefined : this.#moved(linked)
  }

  at(address: bigint): { readonly name: string; readonly offset: number } | undefined {
    const { addresses, names } = this.#sorted ??= this.#sort()
    let low = 0
    let high = addresses.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (addresses[middle] > address) high = middle
      else low = middle + 1
    }
    if (low === 0 || address > addresses[addresses.length - 1]) return undefined
    let below = low - 1
    while (below > 0 && addresses[below - 1] === addresses[below]) below--
    return { name: names[below], offset: Number(address - addresses[below]) }
  }

  #sort() {
    const entries = [...this.vmlinux.symbols].filter(([, address]) => address >= IMAGE_MAP)
    entries.sort((a, b) => a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0)
    return {
      addresses: BigUint64Array.from(entries, ([, address]) => this.#moved(address)),
      names: entries.map(([name]) => name)
    }
  }

  /** All symbols, with run-time addresses. */
  *entries(): Iterable<KernelSymbol> {
    for (const [name, address] of this.vmlinux.symbols) yield { name, address: this.#moved(address) }
  }
}
