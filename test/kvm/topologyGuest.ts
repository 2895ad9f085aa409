import assert from "node:assert"
import type { Topology } from "../../src/kvm/spec/Topology.ts"

/** Has a guest print what its kernel knows of CPUs, caches and nodes: a line a file of /sys/devices/system. */
export const script = `
  dmesg -n 1
  cd /sys/devices/system
  for cpu in cpu/cpu[0-9]*; do
    for name in thread_siblings_list core_siblings_list; do echo "sys $cpu/$name: $(cat $cpu/topology/$name)"; done
    for cache in $cpu/cache/index*; do
      echo "sys $cpu/L$(cat $cache/level) $(cat $cache/type): $(cat $cache/shared_cpu_list)"
    done
  done
  for node in node/node[0-9]*; do
    for name in cpulist distance access0/initiators/read_latency access0/initiators/read_bandwidth; do
      echo "sys $node/$name: $(cat $node/$name)"
    done
    echo "sys $node/nearest: $(basename $node/access0/initiators/node*)"
    for name in size line_size indexing write_policy; do
      [ -d $node/memory_side_cache ] && echo "sys $node/cache/$name: $(cat $node/memory_side_cache/index1/$name)"
    done
    echo "sys $node/memory: $(sed -n 's/.*MemTotal: *//p' $node/meminfo)"
  done
  dmesg | sed -n 's/.*acpi.hmat: *Initiator-Target/hmat /p'
  dmesg | grep -iE 'firmware bug|(srat|slit|hmat).*(bad|broken|invalid|ignor|unexpected)|(bad|broken|invalid).*(srat|slit|hmat)' | sed 's/^/complaint /'
  for table in APIC SRAT SLIT HMAT; do echo "table $table $(base64 -w 0 /sys/firmware/acpi/tables/$table)"; done
  echo "sys end: end"`

/** What such a guest said, by file. */
const saidBy = (lines: ReadonlyArray<string>): Map<string, string> =>
  new Map(lines.flatMap((line) => {
    const found = /^sys ([^:]+): ?(.*)$/.exec(line)
    return found === null ? [] : [[found[1], found[2].trim()]]
  }))

/** The lines about the ways from CPUs to memory: `[FROM-TO]:VALUE UNIT`. */
export const waysIn = (lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.flatMap((line) => line.startsWith("hmat ") ? [line.slice(5)] : [])

/** Of the machine in the tests that has 3 nodes with distances of their own. */
export const waysOfThree = [
  "[0-0]:90 nsec",
  "[0-1]:210 nsec",
  "[0-2]:347 nsec",
  "[1-0]:189 nsec",
  "[1-1]:100 nsec",
  "[1-2]:260 nsec",
  "[0-0]:51200 MB/s",
  "[0-1]:24381 MB/s",
  "[0-2]:15000 MB/s",
  "[1-0]:24381 MB/s",
  "[1-1]:51200 MB/s",
  "[1-2]:20000 MB/s"
]

/** The guest's ACPI table without its common head. */
export const tableIn = (lines: ReadonlyArray<string>, name: string): Uint8Array => {
  const line = lines.find((each) => each.startsWith(`table ${name} `))
  return Buffer.from(line?.split(" ")[2] ?? assert.fail(`no table ${name}`), "base64").subarray(36)
}

/** A list of CPUs as the kernel prints it. */
const list = (cpus: ReadonlyArray<number>): string => {
  const runs: Array<[number, number]> = []
  for (const cpu of cpus) {
    const last = runs.at(-1)
    if (last?.[1] === cpu - 1) last[1] = cpu
    else runs.push([cpu, cpu])
  }
  return runs.map(([first, last]) => first === last ? `${first}` : `${first}-${last}`).join(",")
}

/** How much less than its memory a node may say it has: the kernel itself, its tables, the BIOS area. */
const RESERVED_KIB = 96 * 1024

/** A guest sees the machine that was asked for. @param firstLevel who shares the first-level caches */
export const assertSees = (
  lines: ReadonlyArray<string>,
  topology: Topology,
  firstLevel: "core" | "thread"
): void => {
  const said = saidBy(lines)
  assert.deepStrictEqual(lines.filter((line) => line.startsWith("complaint ")), [])
  const all = Array.from({ length: topology.cpus }, (_, cpu) => cpu)
  const sharing = (size: number, cpu: number) =>
    list(all.filter((each) => Math.floor(each / size) === Math.floor(cpu / size)))
  const expected = new Map<string, string>([["end", "end"]])
  for (const cpu of all) {
    const at = `cpu/cpu${cpu}`
    const core = sharing(topology.threads, cpu)
    const node = topology.nodes.find(({ cpus }) => cpus.includes(cpu))
    expected.set(`${at}/thread_siblings_list`, core)
    expected.set(`${at}/core_siblings_list`, list(node?.cpus ?? []))
    for (const type of ["Data", "Instruction"]) {
      expected.set(`${at}/L1 ${type}`, firstLevel === "core" ? core : `${cpu}`)
    }
    expected.set(`${at}/L2 Unified`, core)
    expected.set(`${at}/L3 Unified`, sharing(topology.threads * topology.cores, cpu))
  }
  for (const [node, { bandwidthMibs, cache, cpus, latencyNs, mib, nearest }] of topology.nodes.entries()) {
    const at = `node/node${node}`
    expected.set(`${at}/cpulist`, list(cpus))
    expected.set(`${at}/distance`, topology.distances[node].join(" "))
    expected.set(`${at}/access0/initiators/read_latency`, `${latencyNs}`)
    expected.set(`${at}/access0/initiators/read_bandwidth`, `${bandwidthMibs}`)
    expected.set(`${at}/nearest`, `node${nearest}`)
    if (cache !== undefined) {
      expected.set(`${at}/cache/size`, `${cache.bytes}`)
      expected.set(`${at}/cache/line_size`, `${cache.lineBytes}`)
      // include/linux/node.h `enum cache_indexing`, `enum cache_write_policy`, v6.12
      expected.set(`${at}/cache/indexing`, `${["direct", "complex", "none"].indexOf(cache.associativity)}`)
      const policies = ["write-back", "write-through", "none"]
      expected.set(`${at}/cache/write_policy`, `${policies.indexOf(cache.writePolicy)}`)
    }
    const memory = /^(\d+) kB$/.exec(said.get(`${at}/memory`) ?? "")
    const kib = Number(memory?.[1])
    assert.ok(kib <= mib * 1024 && kib >= mib * 1024 - RESERVED_KIB, `${at} has ${kib} KiB, of ${mib} MiB`)
    said.delete(`${at}/memory`)
  }
  assert.deepStrictEqual(
    Object.fromEntries([...said].sort()),
    Object.fromEntries([...expected].sort())
  )
}
