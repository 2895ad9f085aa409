import { readFileSync } from "node:fs"
import { memoryAccess, packagesOf, type Processor, showsLlcs, type Topology } from "../spec/Topology.ts"

/** The memory backend of a node. */
export const backendOf = (node: number): string => `ram${node}`

/**
 * An emulated CPU answers a CPUID leaf that it does not have with its last one. Of CPUs with dies that is 0x1f, and QEMU
 * ends itself when ECX has any other number than a level's, as it has where SeaBIOS looks for a hypervisor at each 256th
 * leaf from 0x40000000 on. With one leaf more the last one is all zeros.
 * @see QEMU target/i386/cpu.c `encode_topo_cpuid1f`, `cpu_x86_cpuid`, 9.1 to 10.0; SeaBIOS src/fw/xen.c `xen_preinit`
 */
const BEYOND_DIES = "level=0x20"

/**
 * QEMU's parameters for a machine: a socket a NUMA node, a die an LLC. The memory of node n is the file behind
 * descriptor `ramFd` + n.
 *
 * QEMU's emulated CPU is one of AMD's without the leaves that say who shares a core or a cache; as one of Intel's it has
 * them. On hardware the vendor is the host's, and AMD's have to be asked for. As of QEMU 7.2 threads of a core have
 * first-level caches of their own.
 * @see QEMU target/i386/cpu.c `cpu_x86_cpuid`, hw/core/numa.c, 7.2
 */
export const qemuTopology = (
  topology: Topology,
  cpuModel: string,
  by: "kvm" | "emulation",
  ramFd: number
): ReadonlyArray<string> => {
  const { distances, llcs, nodes, threads } = topology
  const sockets = packagesOf(topology)
  const { bandwidthMibs, latencyNs } = memoryAccess(topology)
  const shared = threads > 1 || llcs > sockets
  const vendor = by === "emulation"
    ? `,vendor=GenuineIntel${llcs > sockets ? `,${BEYOND_DIES}` : ""}`
    : hostProcessor().vendor === "GenuineIntel"
    ? ""
    : ",topoext=on,enforce=on"
  const between = (from: number, to: number) => `initiator=${from},target=${to},hierarchy=memory`
  return [
    ["-machine", "pc,hmat=on", "-cpu", `${cpuModel}${shared ? vendor : ""}`, "-m", `${topology.memoryMib}M`],
    [
      "-smp",
      `${topology.cpus},sockets=${sockets},dies=${llcs / sockets},cores=${topology.cores},threads=${threads}`
    ],
    ...nodes.map(({ cpus, mib, nearest }, node) => [
      "-object",
      `memory-backend-file,id=${backendOf(node)},mem-path=/proc/self/fd/${ramFd + node},share=on,size=${mib}M`,
      "-numa",
      `node,nodeid=${node},memdev=${backendOf(node)},initiator=${nearest}`,
      ...(cpus.length === 0 ? [] : ["-numa", `cpu,node-id=${node},socket-id=${node}`])
    ]),
    ...distances.flatMap((row, from) =>
      row.map((distance, to) => ["-numa", `dist,src=${from},dst=${to},val=${distance}`])
    ),
    ...latencyNs.flatMap((row, from) =>
      row.map((ns, to) => ["-numa", `hmat-lb,${between(from, to)},data-type=access-latency,latency=${ns}`])
    ),
    ...bandwidthMibs.flatMap((row, from) =>
      row.map((mibs, to) => ["-numa", `hmat-lb,${between(from, to)},data-type=access-bandwidth,bandwidth=${mibs}M`])
    ),
    ...nodes.flatMap(({ cache }, node) =>
      cache === undefined ? [] : [[
        "-numa",
        `hmat-cache,node-id=${node},size=${cache.bytes},level=1,associativity=${cache.associativity},` +
        `policy=${cache.writePolicy},line=${cache.lineBytes}`
      ]]
    )
  ].flat()
}

/** Pointers are signed by QEMU's own quick algorithm: the architecture's takes an emulated guest several times as long. */
export const ARM64_CPU = "max,pauth-impdef=on"

/** QEMU's parameters for an arm64 machine. */
export const arm64Machine = (
  { cpus, memoryMib }: Topology,
  cpuModel: string,
  ramFd: number
): ReadonlyArray<string> => [
  "-machine",
  `virt,gic-version=3,memory-backend=${backendOf(0)}`,
  "-cpu",
  cpuModel,
  "-m",
  `${memoryMib}M`,
  "-smp",
  String(cpus),
  "-object",
  `memory-backend-file,id=${backendOf(0)},mem-path=/proc/self/fd/${ramFd},share=on,size=${memoryMib}M`
]

/** Whether it is nothing but a number of CPUs. */
export const isPlain = ({ llcs, nodes, threads }: Topology): boolean =>
  llcs === 1 && nodes.length === 1 && threads === 1

/** Whether a guest sees these LLCs; emulated CPUs are none of those that cannot show them. */
export const qemuShowsLlcs = (topology: Topology, by: "kvm" | "emulation"): boolean =>
  by === "emulation" || showsLlcs(topology, hostProcessor())

/** The host's first CPU. @see arch/x86/kernel/cpu/proc.c `show_cpuinfo`, v6.12 */
const hostProcessor = (): Processor => {
  const text = readFileSync("/proc/cpuinfo", "latin1")
  const value = (name: string) => new RegExp(`^${name}\\s*: (.*)$`, "m").exec(text)?.[1] ?? ""
  return { vendor: value("vendor_id"), family: Number(value("cpu family")), model: Number(value("model")) }
}
