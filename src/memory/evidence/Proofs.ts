import * as Either from "effect/Either"
import type { Buffer } from "node:buffer"
import type { Btf } from "../../btf/Btf.ts"
import { layout } from "../../btf/Layout.ts"
import { kvaFrom } from "../../core/Address.ts"
import type { KernelSpace } from "../KernelSpace.ts"
import { perCpuOffsets } from "../PerCpu.ts"
import { listNodes } from "../structs/ListHead.ts"
import { StructReader } from "../structs/StructReader.ts"
import { idrLayout, walkIdr } from "../structs/Xarray.ts"
import type { Symbols } from "../Symbols.ts"

/** A variable, a function whose code uses it, and what an address must have to be it. */
export interface Proof {
  readonly name: string
  readonly user: string
  /** @param others all addresses that the function uses */
  readonly holds: (address: bigint, others: ReadonlySet<bigint>) => boolean
}

/** `ROOT_IS_IDR`: include/linux/radix-tree.h, v6.1. Marks of its root are in the bits above, from `__GFP_BITS_SHIFT`. */
const ROOT_IS_IDR = 4
const FLAG_BITS = 0x3f_ffff
const NAME_BYTES = 64

/** A kernel that proofs ask; what it lacks proves nothing. */
interface Kernel {
  readonly space: KernelSpace
  readonly btf: Btf
  readonly symbols: Symbols
}

/**
 * The variables that readers ask for and the kernel does not export, each with one that follows it.
 * @see kernel/bpf/syscall.c, kernel/bpf/core.c, kernel/sched/{core,debug,psi}.c, kernel/time/{jiffies,tick-sched}.c, v6.1
 */
export const proofsOf = (kernel: Kernel): ReadonlyArray<Proof> => [
  { name: "map_idr", user: "bpf_map_get_curr_or_next", holds: isIdr(kernel, idOf(kernel, "bpf_map", "id")) },
  { name: "prog_idr", user: "bpf_prog_get_curr_or_next", holds: isIdr(kernel, programId(kernel)) },
  { name: "link_idr", user: "bpf_link_get_curr_or_next", holds: isIdr(kernel, idOf(kernel, "bpf_link", "id")) },
  { name: "bpf_kallsyms", user: "bpf_get_kallsym", holds: isListOfCode(kernel) },
  { name: "runqueues", user: "idle_cpu", holds: areRunQueues(kernel) },
  {
    name: "psi_system",
    user: "psi_cpu_show",
    holds: pointsTo(kernel, "psi_group", "avgs_work.work.func", "psi_avgs_work")
  },
  { name: "clocksource_jiffies", user: "register_refined_jiffies", holds: isNamed(kernel, "clocksource", /^jiffies$/) },
  { name: "tick_next_period", user: "tick_do_update_jiffies64", holds: isNextTick(kernel) },
  { name: "sd_flag_debug", user: "sd_flags_show", holds: isNamed(kernel, "sd_flag_debug", /^SD_[A-Z_]+$/) }
]

/** The id that an object says it has; undefined where it cannot be read. */
type IdOf = ((address: bigint) => number) | undefined

const idOf = ({ btf, space }: Kernel, struct: string, member: string): IdOf => {
  const found = Either.getOrUndefined(layout(btf, struct, [member]))
  return found === undefined ? undefined : (address) => space.u32(address + BigInt(found.at[member]))
}

const programId = (kernel: Kernel): IdOf => {
  const program = Either.getOrUndefined(layout(kernel.btf, "bpf_prog", ["aux"]))
  const id = idOf(kernel, "bpf_prog_aux", "id")
  if (program === undefined || id === undefined) return undefined
  return (address) => {
    const aux = kernel.space.u64(address + BigInt(program.at.aux))
    return aux === undefined ? -1 : id(aux)
  }
}

/** An `idr` whose objects say that they have the ids under which they are in it; one without objects is marked as an idr. */
const isIdr = ({ btf, space }: Kernel, idOf: IdOf): Proof["holds"] => {
  const shape = Either.getOrUndefined(idrLayout(btf))
  const flags = Either.getOrUndefined(layout(btf, "idr", ["idr_rt.xa_flags"]))
  if (shape === undefined || flags === undefined || idOf === undefined) return () => false
  return (address) => {
    const marks = space.u32(address + BigInt(flags.at["idr_rt.xa_flags"]))
    if (marks < 0 || (marks & FLAG_BITS) !== ROOT_IS_IDR) return false
    const objects: Array<readonly [id: number, at: bigint]> = []
    const problems = walkIdr(space, shape, address, (id, page, offset) => {
      objects.push([id, kvaFrom(page, offset)])
    })
    return problems.length === 0 && objects.filter(([id, at]) => idOf(at) === id).length * 2 >= objects.length
  }
}

/** The head of a list of `bpf_ksym`, each of which is of some code; a list that nothing was ever put in points at itself. */
const isListOfCode = ({ btf, space }: Kernel): Proof["holds"] => {
  const found = Either.getOrUndefined(layout(btf, "bpf_ksym", ["start", "end", "lnode"]))
  if (found === undefined) return () => false
  const { at } = found
  return (address) => {
    const { nodes, problem } = listNodes(space, address)
    if (problem !== undefined || space.u64(address) === 0n) return false
    return nodes.every((node) => {
      const symbol = node - BigInt(at.lnode)
      const [start, end] = [space.u64(symbol + BigInt(at.start)), space.u64(symbol + BigInt(at.end))]
      return start !== undefined && end !== undefined && start < end
    })
  }
}

/** One run queue for each possible CPU: it has that CPU's number and its idle task. */
const areRunQueues = ({ btf, space, symbols }: Kernel): Proof["holds"] => {
  const queue = Either.getOrUndefined(layout(btf, "rq", ["cpu", "idle"]))
  const task = Either.getOrUndefined(layout(btf, "task_struct", ["comm"]))
  const [mask] = btf.idsByName("cpumask").flatMap((id) => btf.sizeOf(id) ?? [])
  const { offsets, problem } = perCpuOffsets(space, symbols, (mask ?? 0) * 8)
  if (queue === undefined || task === undefined || problem !== undefined || offsets.length === 0) return () => false
  const reader = new StructReader(space)
  return (address) =>
    offsets.every((offset, cpu) => {
      if (offset === undefined) return true
      const at = BigInt.asUintN(64, address + offset)
      const idle = space.u64(at + BigInt(queue.at.idle))
      return space.u32(at + BigInt(queue.at.cpu)) === cpu && idle !== undefined
        && Either.getOrUndefined(reader.text(idle + BigInt(task.at.comm), 16)) === `swapper/${cpu}`
    })
}

/** A struct with a pointer to a function. */
const pointsTo = (
  { btf, space, symbols }: Kernel,
  struct: string,
  member: string,
  target: string
): Proof["holds"] => {
  const found = Either.getOrUndefined(layout(btf, struct, [member]))
  const there = symbols.address(target)
  if (found === undefined || there === undefined) return () => false
  return (address) => space.u64(address + BigInt(found.at[member])) === there
}

/** A struct whose `name` points to such a one. */
const isNamed = ({ btf, space }: Kernel, struct: string, name: RegExp): Proof["holds"] => {
  const found = Either.getOrUndefined(layout(btf, struct, ["name"]))
  if (found === undefined) return () => false
  const reader = new StructReader(space)
  return (address) => {
    const pointer = space.u64(address + BigInt(found.at.name))
    const text = pointer === undefined ? undefined : Either.getOrUndefined(reader.text(pointer, NAME_BYTES))
    return text !== undefined && name.test(text)
  }
}

/**
 * The time of the next tick: that of the last, which the function uses too, and a tick, whose length `clocksource_jiffies`
 * has.
 */
const isNextTick = ({ btf, space, symbols }: Kernel): Proof["holds"] => {
  const found = Either.getOrUndefined(layout(btf, "clocksource", ["mult", "shift"]))
  return (address, others) => {
    const clock = symbols.address("clocksource_jiffies")
    const next = space.u64(address)
    if (found === undefined || clock === undefined || next === undefined) return false
    const [mult, shift] = [space.u32(clock + BigInt(found.at.mult)), space.u32(clock + BigInt(found.at.shift))]
    const tick = Math.round(mult / 2 ** shift)
    return tick > 0 && [...others].some((other) => {
      const last = space.u64(other)
      return last !== undefined && last > 0n && last + BigInt(tick) === next
    })
  }
}

/** Of each scheduling class the name, and the functions that its struct points to. */
export const SCHED_CLASSES = ["stop", "dl", "rt", "fair", "idle"] as const
const METHODS = ["task_tick", "prio_changed", "switched_to"] as const

/**
 * The one struct in the image's read-only data whose functions are a scheduling class's.
 * @see kernel/sched/sched.h `struct sched_class`, `DEFINE_SCHED_CLASS`, v6.1
 */
export const schedClassIn = (
  image: Buffer,
  start: bigint,
  { btf, space, symbols }: Kernel,
  name: typeof SCHED_CLASSES[number]
): ReadonlyArray<bigint> => {
  const found = Either.getOrUndefined(layout(btf, "sched_class", [...METHODS]))
  const methods = METHODS.map((method) => symbols.address(`${method}_${name}`))
  if (found === undefined || methods[0] === undefined) return []
  const pointer = new Uint8Array(BigUint64Array.of(methods[0]).buffer)
  const classes: Array<bigint> = []
  for (let at = image.indexOf(pointer); at >= 0; at = image.indexOf(pointer, at + 1)) {
    const address = start + BigInt(at - found.at[METHODS[0]])
    const isThat = METHODS.every((method, i) => space.u64(address + BigInt(found.at[method])) === methods[i])
    if (at % 8 === 0 && isThat) classes.push(address)
  }
  return classes
}
