import * as Either from "effect/Either"
import type { Topology } from "../../kvm/spec/Topology.ts"
import type { CpuSpec } from "./Scenario.ts"

/** Why no CPUs match, and what to write instead. */
export interface NoCpus {
  readonly problem: string
  readonly fix: string
}

const range = (from: number, to: number): ReadonlyArray<number> =>
  Array.from({ length: Math.max(0, to - from) }, (_, index) => from + index)

/** CPU numbers as a list of ranges, as cpuset.cpus takes them. */
export const cpuList = (cpus: ReadonlyArray<number>): string => {
  const parts: Array<[number, number]> = []
  for (const cpu of [...new Set(cpus)].sort((a, b) => a - b)) {
    const last = parts.at(-1)
    if (last !== undefined && last[1] === cpu - 1) last[1] = cpu
    else parts.push([cpu, cpu])
  }
  return parts.map(([from, to]) => from === to ? String(from) : `${from}-${to}`).join(",")
}

/** The CPUs of a machine that a spec means: at least one, all of them there. */
export const resolveCpus = (spec: CpuSpec, topology: Topology): Either.Either<ReadonlyArray<number>, NoCpus> => {
  const { cpus, llcs, nodes } = topology
  const refuse = (problem: string, fix: string) => Either.left({ problem, fix })
  if (spec === "all") return Either.right(range(0, cpus))
  if ("llc" in spec) {
    const each = cpus / llcs
    return spec.llc < llcs
      ? Either.right(range(spec.llc * each, (spec.llc + 1) * each))
      : refuse(`no such LLC: ${spec.llc}`, `give 0 to ${llcs - 1}, or a topology of more LLCs`)
  }
  if ("node" in spec) {
    const node = nodes.at(spec.node)
    return node !== undefined && node.cpus.length > 0
      ? Either.right(node.cpus)
      : refuse(`no such NUMA node with CPUs: ${spec.node}`, "give one of the topology's nodes")
  }
  if ("fraction" in spec) {
    const [from, to] = spec.fraction.map((part) => Math.round(part * cpus))
    return to > from
      ? Either.right(range(from, to))
      : refuse(`from ${spec.fraction[0]} to ${spec.fraction[1]} of ${cpus} CPUs there is none`, "give a larger part")
  }
  const listed = spec.list.split(",").flatMap((part) => {
    const [from, to = from] = part.split("-").map(Number)
    return range(from, Math.min(to, 1023) + 1)
  })
  if (listed.length === 0) return refuse(`${spec.list} is empty`, "give the smaller number first, as in 0-3")
  const beyond = listed.find((cpu) => cpu >= cpus)
  return beyond === undefined
    ? Either.right(listed)
    : refuse(`no such CPU: ${beyond}`, `give 0 to ${cpus - 1}, or a topology of more CPUs`)
}
