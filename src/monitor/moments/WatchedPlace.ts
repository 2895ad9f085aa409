import { hex } from "../../core/Address.ts"
import { NotWatched } from "../../kvm/spec/VmEngine.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"

/** A place in a kernel's memory, as words say it: `SYMBOL`, or `SYMBOL+OFFSET/BYTES` without one or both of these. */
export interface PlaceWords {
  /** `SYMBOL+OFFSET` */
  readonly name: string
  readonly symbol: string
  readonly offset: number
  /** 1, 2, 4 or 8; undefined: as many as the symbol has room for. */
  readonly bytes: number | undefined
}

const WORDS = /^(([A-Za-z_][\w.$]*)(?:\+(0x[0-9a-fA-F]{1,8}|\d{1,9}))?)(?:\/([1248]))?$/

/** The place that a text names; undefined where it names none. */
export const parsePlace = (text: string): PlaceWords | undefined => {
  const [whole, name, symbol, offset, bytes] = WORDS.exec(text) ?? []
  if (whole === undefined) return undefined
  return { name, symbol, offset: Number(offset ?? 0), bytes: bytes === undefined ? undefined : Number(bytes) }
}

/** Bytes of a kernel's virtual memory that a CPU can watch. */
export interface Place {
  readonly name: string
  readonly address: bigint
  readonly bytes: number
}

/** Where a kernel has the place that a text names, or why it cannot be watched. */
export const findPlace = (kernel: GuestKernelService, text: string): Place | NotWatched => {
  const refused = (why: string, hint: string) => new NotWatched({ place: text, why, hint })
  const words = parsePlace(text)
  if (words === undefined) return refused("not a place", "give SYMBOL, or SYMBOL+OFFSET/BYTES with 1, 2, 4 or 8 bytes")
  const { name, offset, symbol } = words
  const start = kernel.symbol(symbol)
  if (start === undefined || isPerCpu(kernel, start)) {
    return kernel.symbols.address(symbol) === undefined
      ? refused(`${kernel.release} has no such symbol`, "give one of its own: those of modules are not known")
      : refused("each CPU has a variable of that name", "give a symbol that is not per-CPU")
  }
  const address = start + BigInt(offset)
  const room = nextSymbol(kernel, start) - address
  if (room <= 0n) return refused("it lies in the next symbol", "give an offset inside the symbol")
  const fits = (bytes: number) => address % BigInt(bytes) === 0n && (words.bytes !== undefined || BigInt(bytes) <= room)
  const bytes = [words.bytes ?? [8, 4, 2, 1]].flat().find(fits)
  if (bytes === undefined) {
    return refused(`${hex(address)} is not aligned to ${words.bytes} bytes`, "give fewer bytes, or another offset")
  }
  return { name, address, bytes }
}

/** From v6.15 on per-CPU symbols have an address: that of the bytes which each CPU's copy was made from. */
const isPerCpu = ({ symbols }: GuestKernelService, address: bigint): boolean => {
  const [start, end] = [symbols.address("__per_cpu_start"), symbols.address("__per_cpu_end")]
  return start !== undefined && end !== undefined && start <= address && address < end
}

/** The address at which the next symbol begins. */
const nextSymbol = ({ symbols }: GuestKernelService, start: bigint): bigint => {
  let next = 2n ** 64n
  for (const { address } of symbols.entries()) if (address > start && address < next) next = address
  return next
}
