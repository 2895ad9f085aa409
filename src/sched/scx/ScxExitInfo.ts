import * as Either from "effect/Either"
import { hex, kvaOffset, kvaPage } from "../../core/Address.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { StructReader } from "../../memory/structs/StructReader.ts"
import { enumValues } from "../EnumValues.ts"
import { schedLayouts } from "../SchedLayouts.ts"
import type { Int } from "../StructFields.ts"

/** `SCX_EXIT_BT_LEN`, `SCX_EXIT_MSG_LEN` and `SCX_EXIT_DUMP_DFL_LEN`; a scheduler may ask for a longer dump. */
const BACKTRACE_LIMIT = 64
const TEXT_LIMIT = 1024
const DUMP_LIMIT = 2 ** 22

/**
 * Why a scheduler ended, or ends: what the kernel tells its loader.
 *
 * @since 0.1.0
 * @category models
 */
export interface ExitInfo {
  /** `ERROR_STALL` */
  readonly kind: string
  readonly exit_code?: Int
  /** The CPU on which it happened; v7.2. */
  readonly exit_cpu?: Int
  readonly reason?: string
  readonly message?: string
  /** Return addresses by function and offset, the innermost first. */
  readonly backtrace: ReadonlyArray<string>
  /** The kernel's own dump of the scheduler's state, for errors. */
  readonly dump?: string
}

/**
 * Undefined while nothing happened.
 * @see include/linux/sched/ext.h `struct scx_exit_info`, v6.12 to v7.3
 */
export const readExitInfo = (kernel: GuestKernelService, address: bigint): ExitInfo | undefined => {
  const { btf, space, symbolAt } = kernel
  const { exitInfo } = schedLayouts(btf)
  if (exitInfo === undefined || !space.window(kvaPage(address), kvaOffset(address), exitInfo.size)) return undefined
  const { at, view } = space // until the next look at anything else
  const { bt_len, exit_code, exit_cpu, kind } = exitInfo.read(view, at)
  const name = enumValues(btf, "scx_exit_kind").get(BigInt(kind ?? 0))?.replace(/^SCX_EXIT_/, "") ?? String(kind)
  if (name === "NONE") return undefined
  const pointerOf = (path: string): bigint => {
    const offset = exitInfo.at(path)
    return offset === undefined ? 0n : view.getBigUint64(at + offset, true)
  }
  const [reason, message, dump, bt] = ["reason", "msg", "dump", "bt"].map(pointerOf)
  const reader = new StructReader(space)
  const text = (pointer: bigint, limit: number): string | undefined =>
    pointer === 0n ? undefined : Either.getOrUndefined(reader.text(pointer, limit))
  const backtrace: Array<string> = []
  for (let i = 0; i < Math.min(Number(bt_len ?? 0), BACKTRACE_LIMIT) && bt !== 0n; i++) {
    const frame = space.u64(bt + BigInt(i * 8))
    if (frame === undefined) break
    const symbol = symbolAt(frame)
    backtrace.push(symbol === undefined ? hex(frame) : `${symbol.name}+0x${symbol.offset.toString(16)}`)
  }
  const dumped = text(dump, DUMP_LIMIT)
  const said = text(message, TEXT_LIMIT)
  const why = text(reason, TEXT_LIMIT)
  return {
    kind: name,
    ...(exit_code === undefined ? {} : { exit_code }),
    ...(exit_cpu === undefined ? {} : { exit_cpu }),
    ...(why === undefined ? {} : { reason: why }),
    ...(said === undefined ? {} : { message: said }),
    backtrace,
    ...(dumped === undefined || dumped === "" ? {} : { dump: dumped })
  }
}
