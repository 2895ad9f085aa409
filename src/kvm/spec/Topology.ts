import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { VM_DEFAULTS } from "./VmDefaults.ts"

/**
 * A cache before a node's memory, as HMAT tells of it.
 *
 * @since 0.1.0
 * @category models
 */
export interface MemorySideCache {
  readonly bytes: number
  readonly lineBytes: number
  readonly associativity: "none" | "direct" | "complex"
  readonly writePolicy: "none" | "write-back" | "write-through"
}

/**
 * The memory of a NUMA node.
 *
 * @since 0.1.0
 * @category models
 */
export interface NodeMemory {
  readonly mib: number
  /** An access from the nearest CPUs, in nanoseconds; 100, or 250 where the node has no CPUs. */
  readonly latencyNs?: number
  /** From the nearest CPUs, in MiB a second; 51200, or 20480 where the node has no CPUs. */
  readonly bandwidthMibs?: number
  readonly cache?: MemorySideCache
}

/**
 * The CPUs and nodes of a machine to build. CPUs count up by thread, core, LLC and node.
 *
 * @since 0.1.0
 * @category models
 */
export interface TopologySpec {
  /** NUMA nodes that have CPUs; each is a package too. */
  readonly nodes: number
  /** Last-level caches of the whole machine: as many in each node. */
  readonly llcs: number
  /** Cores of an LLC. */
  readonly cores: number
  /** Threads of a core. */
  readonly threads: number
  /** By node; more than `nodes` are nodes without CPUs. Not given, the VM's memory in equal shares. */
  readonly memory?: ReadonlyArray<NodeMemory>
  /** From node (row) to node (column), as SLIT has them: 10 to itself, more to others. Not given, 20 to others. */
  readonly distances?: ReadonlyArray<ReadonlyArray<number>>
}

/**
 * A NUMA node of a machine; its memory is behind that of the node before it.
 *
 * @since 0.1.0
 * @category models
 */
export interface NumaNode extends Required<Omit<NodeMemory, "cache">> {
  readonly cpus: ReadonlyArray<number>
  readonly cache: MemorySideCache | undefined
  /** The nearest node that has CPUs: itself, if it has some. */
  readonly nearest: number
}

/**
 * A machine: a `TopologySpec` with everything said and found to fit.
 *
 * @since 0.1.0
 * @category models
 */
export interface Topology {
  readonly cpus: number
  readonly memoryMib: number
  readonly llcs: number
  readonly cores: number
  readonly threads: number
  readonly nodes: ReadonlyArray<NumaNode>
  readonly distances: ReadonlyArray<ReadonlyArray<number>>
}

/**
 * The topology is not one that a machine can have.
 *
 * @since 0.1.0
 * @category errors
 */
export class TopologyError extends Schema.TaggedError<TopologyError>("ktstr/TopologyError")("TopologyError", {
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `${this.why}; ${this.hint}`
  }
}

/** An APIC id has 8 bits, and 255 is everybody. */
const MOST_APIC_ID = 254
/** Linux's MAX_NUMNODES where nothing else is configured (arch/x86/Kconfig NODES_SHIFT, v6.12). */
const MOST_NODES = 64
/** Linux 6.1 overlooks a node with less (arch/x86/include/asm/numa.h NODE_MIN_SIZE); also its largest buddy block. */
const NODE_MIB = 4
/** ACPI 6.5, 5.2.17: from the diagonal's 10 up; 255 is unreachable, which none of ours is. */
const LOCAL_DISTANCE = 10
const REMOTE_DISTANCE = 20
const MOST_DISTANCE = 254
/** An entry of HMAT: 16 bits, and 0xffff is unreachable. */
const MOST_ENTRY = 0xfffe

/** The machine of a VM's settings: `cpus` is short for one node with one LLC of single-threaded cores. */
export const resolveTopology = (spec: {
  readonly cpus?: number | undefined
  readonly memoryMib?: number | undefined
  readonly topology?: TopologySpec | undefined
}): Either.Either<Topology, TopologyError> =>
  Either.gen(function*() {
    const shape = spec.topology ?? { nodes: 1, llcs: 1, cores: spec.cpus ?? VM_DEFAULTS.cpus, threads: 1 }
    const { cores, llcs, nodes, threads } = shape
    const cpus = llcs * cores * threads
    const asked = spec.memoryMib ?? sum(shape.memory?.map(({ mib }) => mib) ?? [VM_DEFAULTS.memoryMib])
    if (spec.topology === undefined && !(isCount(cpus, MOST_APIC_ID) && isCount(asked))) {
      return yield* refuse(
        `a VM cannot have ${cpus} CPUs and ${asked} MiB of memory`,
        `give whole numbers, 1 to ${MOST_APIC_ID} CPUs`
      )
    }
    const name = `${nodes},${llcs},${cores},${threads}`
    if (![nodes, llcs, cores, threads].every((count) => isCount(count))) {
      return yield* refuse(
        `a VM cannot have the topology ${name}`,
        "give whole numbers of NUMA nodes, LLCs, cores per LLC and threads per core, 1 or more"
      )
    }
    if (llcs % nodes !== 0) {
      return yield* refuse(
        `${llcs} LLCs cannot be shared out evenly to ${nodes} NUMA nodes`,
        `give as many LLCs as nodes, or a multiple: topology ${nodes},${
          Math.ceil(llcs / nodes) * nodes
        },${cores},${threads}`
      )
    }
    if (spec.cpus !== undefined && spec.cpus !== cpus) {
      return yield* refuse(
        `${spec.cpus} CPUs and a topology of ${name}, which has ${cpus}, contradict each other`,
        "give the topology alone"
      )
    }
    const highest = nodes > MOST_NODES ? Infinity : apicIdOf(shape, cpus - 1)
    if (highest > MOST_APIC_ID) {
      return yield* refuse(
        `the ${cpus} CPUs of topology ${name} do not fit into APIC ids of 8 bits, which take each count rounded up to a power of two`,
        "give fewer CPUs, or counts that are powers of two"
      )
    }
    const memory = shape.memory ?? shares(asked, nodes)
    const all = memory.length
    if (all < nodes || all > MOST_NODES) {
      return yield* refuse(
        `memory is given for ${all} nodes, but ${nodes} have CPUs`,
        `give the memory of ${nodes} to ${MOST_NODES} nodes`
      )
    }
    for (const [node, each] of memory.entries()) {
      const wrong = memoryProblem(each, all > 1)
      if (wrong !== undefined) return yield* refuse(`node ${node}: ${wrong.why}`, wrong.hint)
    }
    const memoryMib = sum(memory.map(({ mib }) => mib))
    if (memoryMib !== asked) {
      return yield* refuse(
        `${asked} MiB of memory and nodes with ${memoryMib} MiB contradict each other`,
        "give the nodes' memory alone"
      )
    }
    const distances = shape.distances ??
      memory.map((_, from) => memory.map((_, to) => from === to ? LOCAL_DISTANCE : REMOTE_DISTANCE))
    const wrong = distanceProblem(distances, all)
    if (wrong !== undefined) return yield* refuse(wrong.why, wrong.hint)
    const perNode = cpus / nodes
    return {
      cpus,
      memoryMib,
      llcs,
      cores,
      threads,
      distances,
      nodes: memory.map((each, node) => ({
        cpus: node < nodes ? Array.from({ length: perNode }, (_, index) => node * perNode + index) : [],
        mib: each.mib,
        latencyNs: each.latencyNs ?? (node < nodes ? 100 : 250),
        bandwidthMibs: each.bandwidthMibs ?? (node < nodes ? 51_200 : 20_480),
        cache: each.cache,
        nearest: nearestOf(distances[node].slice(0, nodes))
      }))
    }
  })

/**
 * Read `NODES,LLCS,CORES,THREADS`, as in `2,4,8,2`: 4 LLCs in all, 8 cores in each, 2 threads a core; it can be.
 *
 * @since 0.1.0
 * @category parsing
 */
export const parseTopology = (text: string): Either.Either<TopologySpec, TopologyError> => {
  if (!/^\d{1,4}(,\d{1,4}){3}$/.test(text)) {
    return refuse(
      `not a topology: ${JSON.stringify(text.slice(0, 80))}`,
      "give NODES,LLCS,CORES,THREADS, as in 2,4,8,2: LLCs in all, cores per LLC, threads per core"
    )
  }
  const [nodes, llcs, cores, threads] = text.split(",").map(Number)
  const topology = { nodes, llcs, cores, threads }
  return Either.map(resolveTopology({ topology }), () => topology)
}

/** Numbers of bits that an APIC id has to its right: of the thread, and with the core's, and with the LLC's. */
export const apicShifts = (
  shape: Pick<TopologySpec, "llcs" | "cores" | "threads"> & { readonly nodes: number }
): { readonly core: number; readonly llc: number; readonly package: number } => {
  const core = bitsFor(shape.threads)
  const llc = core + bitsFor(shape.cores)
  return { core, llc, package: llc + bitsFor(shape.llcs / shape.nodes) }
}

/** The APIC ids by CPU. Each part of one is a field of whole bits, so that the guest finds its way by shifting. */
export const apicIds = (topology: Topology): ReadonlyArray<number> => {
  const shape = { ...topology, nodes: packagesOf(topology) }
  return Array.from({ length: topology.cpus }, (_, cpu) => apicIdOf(shape, cpu))
}

/** How many nodes have CPUs: they come first. */
export const packagesOf = (topology: Topology): number => topology.nodes.filter(({ cpus }) => cpus.length > 0).length

/**
 * The values in HMAT for an access from each node that has CPUs (row) to each node's memory (column). It gets slower as
 * the distance grows beyond that of the nearest CPUs. Bandwidths are multiples of `unit` MiB a second, rounded.
 */
export const memoryAccess = (topology: Topology) => {
  const { distances, nodes } = topology
  const unit = 2 ** bitsFor(Math.ceil(Math.max(...nodes.map(({ bandwidthMibs }) => bandwidthMibs)) / MOST_ENTRY))
  const rows = <A>(of: (node: NumaNode, slower: number) => A) =>
    Array.from(
      { length: packagesOf(topology) },
      (_, from) => nodes.map((node, to) => of(node, distances[from][to] / distances[node.nearest][to]))
    )
  return {
    unit,
    latencyNs: rows(({ latencyNs }, slower) => Math.min(MOST_ENTRY, Math.round(latencyNs * slower))),
    bandwidthMibs: rows(({ bandwidthMibs }, slower) => Math.max(1, Math.round(bandwidthMibs / slower / unit)) * unit)
  }
}

interface Problem {
  readonly why: string
  readonly hint: string
}

const memoryProblem = (
  { bandwidthMibs, cache, latencyNs, mib }: NodeMemory,
  several: boolean
): Problem | undefined => {
  if (!isCount(mib) || (several && mib % NODE_MIB !== 0)) {
    return {
      why: `a node's memory cannot be ${mib} MiB`,
      hint: several ? `give each node a multiple of ${NODE_MIB} MiB` : "give whole MiB"
    }
  }
  if (latencyNs !== undefined && !isCount(latencyNs, MOST_ENTRY)) {
    return { why: `a latency of ${latencyNs} ns`, hint: `give a whole number, 1 to ${MOST_ENTRY}` }
  }
  if (bandwidthMibs !== undefined && !isCount(bandwidthMibs, 2 ** 32 - 1)) {
    return { why: `a bandwidth of ${bandwidthMibs} MiB a second`, hint: "give a whole number, 1 to 4294967295" }
  }
  if (cache !== undefined && !(isCount(cache.bytes) && isCount(cache.lineBytes, 0xffff))) {
    return {
      why: `a cache of ${cache.bytes} bytes with lines of ${cache.lineBytes}`,
      hint: "give whole numbers, and lines of at most 65535 bytes"
    }
  }
  return undefined
}

const distanceProblem = (distances: ReadonlyArray<ReadonlyArray<number>>, nodes: number): Problem | undefined => {
  if (distances.length !== nodes || distances.some((row) => row.length !== nodes)) {
    return {
      why: `the distances are not a table of ${nodes} by ${nodes}`,
      hint: "give each node a row with every node"
    }
  }
  for (const [from, row] of distances.entries()) {
    for (const [to, distance] of row.entries()) {
      if (from === to && distance !== LOCAL_DISTANCE) {
        return { why: `node ${from} is ${distance} from itself`, hint: `give ${LOCAL_DISTANCE}` }
      }
      if (from !== to && !(isCount(distance, MOST_DISTANCE) && distance > LOCAL_DISTANCE)) {
        const hint = `give whole numbers, ${LOCAL_DISTANCE + 1} to ${MOST_DISTANCE}`
        return { why: `node ${from} is ${distance} from node ${to}`, hint }
      }
      if (distance !== distances[to][from]) {
        return {
          why: `node ${from} is ${distance} from node ${to}, and ${distances[to][from]} the other way`,
          hint: "give the same distance both ways"
        }
      }
    }
  }
  return undefined
}

/** Equal shares in whole `NODE_MIB`s; what is left over is the last one's. */
const shares = (mib: number, nodes: number): ReadonlyArray<NodeMemory> => {
  const share = nodes === 1 ? mib : Math.floor(mib / nodes / NODE_MIB) * NODE_MIB
  return Array.from({ length: nodes }, (_, node) => ({ mib: node < nodes - 1 ? share : mib - share * (nodes - 1) }))
}

const nearestOf = (distances: ReadonlyArray<number>): number => distances.indexOf(Math.min(...distances))

const apicIdOf = (shape: TopologySpec, cpu: number): number => {
  const shifts = apicShifts(shape)
  const core = Math.floor(cpu / shape.threads)
  const llc = Math.floor(core / shape.cores)
  const perNode = shape.llcs / shape.nodes
  // not by shifting: the numbers may be large, and are then refused
  return cpu % shape.threads + (core % shape.cores) * 2 ** shifts.core + (llc % perNode) * 2 ** shifts.llc +
    Math.floor(llc / perNode) * 2 ** shifts.package
}

/** A processor as CPUID names it. */
export interface Processor {
  readonly vendor: string
  readonly family: number
  readonly model: number
}

/**
 * Whether Linux finds the LLCs on this processor. On AMD's first Zen and on Hygon's CPUs it takes the APIC id's bits from
 * the third on for the LLC, whatever CPUID says of sharing.
 * @see arch/x86/kernel/cpu/cacheinfo.c `cacheinfo_amd_init_llc_id`, `cacheinfo_hygon_init_llc_id`, v6.1 to v6.12
 */
export const showsLlcs = (topology: Topology, { family, model, vendor }: Processor): boolean => {
  const byEights = vendor === "HygonGenuine" || (vendor === "AuthenticAMD" && family === 0x17 && model <= 0x1f)
  const { llc } = apicShifts({ ...topology, nodes: packagesOf(topology) })
  return !byEights || llc === 3 || (topology.llcs === 1 && llc < 3)
}

const bitsFor = (count: number): number => Math.ceil(Math.log2(count))
const isCount = (value: number, most = Number.MAX_SAFE_INTEGER): boolean =>
  Number.isInteger(value) && value >= 1 && value <= most
const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, each) => total + each, 0)
const refuse = (why: string, hint: string) => Either.left(new TopologyError({ why, hint }))
