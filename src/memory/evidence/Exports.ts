import { Buffer } from "node:buffer"
import { cString } from "../../core/CString.ts"
import type { Symbols } from "../Symbols.ts"

/** `struct kernel_symbol`: value, name and namespace, each from its own place, in bytes; include/linux/export.h, v6.1. */
const ENTRY = 12
const NAME_AT = 4
const MOST_NAME = 512
/** Exported since before v2.6, on every kernel. */
const ANCHOR = Buffer.from("\0init_task\0", "latin1")
/** Functions taken from the whole table, and how many of these the kernel's own table must have: at the same addresses. */
const SAMPLE = 128
const LEAST_AGREED = 32
/** Tables that are tried, where memory means harm, and the entries of one, of which a kernel has some ten thousand. */
const MOST_TABLES = 4
const MOST_ENTRIES = 2 ** 16

/** Addresses of what the kernel exports to modules, functions and data, by name. */
export type Exports = ReadonlyMap<string, bigint>

/**
 * The kernel's `__ksymtab` and `__ksymtab_gpl`, which lie one behind the other: around the entry of `init_task` all that
 * are well-formed. They are believed where kallsyms has the same addresses of functions among them; else there are none.
 * @param image the image's read-only data, which is at `start`
 * @see include/linux/export.h `__KSYMTAB_ENTRY` (CONFIG_HAVE_ARCH_PREL32_RELOCATIONS); include/asm-generic/vmlinux.lds.h
 * `RO_DATA`, v6.1
 */
export const readExports = (image: Buffer, start: bigint, symbols: Symbols): Exports => {
  const names = new Set<number>()
  for (let at = image.indexOf(ANCHOR); at >= 0; at = image.indexOf(ANCHOR, at + 1)) names.add(at + 1)
  for (let place = NAME_AT, tables = 0; place + 8 <= image.length && tables < MOST_TABLES; place += 4) {
    if (!names.has(place + image.readInt32LE(place))) continue
    tables++
    const exports = exportsAround(image, start, place - NAME_AT)
    if (agree(exports, symbols)) return exports
  }
  return new Map()
}

const exportsAround = (image: Buffer, start: bigint, anchor: number): Exports => {
  let first = anchor
  while (anchor - first < MOST_ENTRIES * ENTRY && nameOf(image, first - ENTRY) !== undefined) first -= ENTRY
  const exports = new Map<string, bigint>()
  for (let at = first; at - first < MOST_ENTRIES * ENTRY; at += ENTRY) {
    const name = nameOf(image, at)
    if (name === undefined) break
    exports.set(name, BigInt.asUintN(64, start + BigInt(at + image.readInt32LE(at))))
  }
  return exports
}

const nameOf = (image: Buffer, entry: number): string | undefined => {
  if (entry < 0 || entry + ENTRY > image.length) return undefined
  const at = entry + NAME_AT + image.readInt32LE(entry + NAME_AT)
  if (at < 0 || at >= image.length) return undefined
  const name = cString(image, at, Math.min(MOST_NAME, image.length - at))
  return /^[A-Za-z_][\w.$]*$/.test(name) ? name : undefined
}

const agree = (exports: Exports, symbols: Symbols): boolean => {
  const every = Math.max(1, Math.floor(exports.size / SAMPLE))
  const known = [...exports].filter((_, i) => i % every === 0).flatMap(([name, address]) => {
    const there = symbols.address(name)
    return there === undefined ? [] : [there === address]
  })
  return known.length >= LEAST_AGREED && known.every(Boolean)
}
