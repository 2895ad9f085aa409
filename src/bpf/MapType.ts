import type { Btf } from "../btf/Btf.ts"
import { enumNames } from "../btf/EnumNames.ts"

/**
 * The map types that are read, by number.
 * @see include/uapi/linux/bpf.h `enum bpf_map_type`, v6.12
 */
export const MapType = {
  HASH: 1,
  ARRAY: 2,
  PROG_ARRAY: 3,
  PERF_EVENT_ARRAY: 4,
  PERCPU_HASH: 5,
  PERCPU_ARRAY: 6,
  STACK_TRACE: 7,
  CGROUP_ARRAY: 8,
  LRU_HASH: 9,
  LRU_PERCPU_HASH: 10,
  LPM_TRIE: 11,
  ARRAY_OF_MAPS: 12,
  HASH_OF_MAPS: 13,
  DEVMAP: 14,
  SOCKMAP: 15,
  CPUMAP: 16,
  XSKMAP: 17,
  SOCKHASH: 18,
  CGROUP_STORAGE: 19,
  REUSEPORT_SOCKARRAY: 20,
  PERCPU_CGROUP_STORAGE: 21,
  QUEUE: 22,
  STACK: 23,
  SK_STORAGE: 24,
  DEVMAP_HASH: 25,
  STRUCT_OPS: 26,
  RINGBUF: 27,
  INODE_STORAGE: 28,
  TASK_STORAGE: 29,
  BLOOM_FILTER: 30,
  USER_RINGBUF: 31,
  CGRP_STORAGE: 32,
  ARENA: 33
} as const

const PER_CPU: ReadonlySet<number> = new Set([
  MapType.PERCPU_ARRAY,
  MapType.PERCPU_HASH,
  MapType.LRU_PERCPU_HASH,
  MapType.PERCPU_CGROUP_STORAGE
])

/** Does each CPU have its own values? */
export const isPerCpu = (type: number): boolean => PER_CPU.has(type)

const INDEXED: ReadonlySet<number> = new Set([
  MapType.ARRAY,
  MapType.PERCPU_ARRAY,
  MapType.PROG_ARRAY,
  MapType.PERF_EVENT_ARRAY,
  MapType.STACK_TRACE,
  MapType.CGROUP_ARRAY,
  MapType.ARRAY_OF_MAPS,
  MapType.DEVMAP,
  MapType.DEVMAP_HASH,
  MapType.SOCKMAP,
  MapType.CPUMAP,
  MapType.XSKMAP,
  MapType.REUSEPORT_SOCKARRAY
])

/** Is a key an unsigned 32-bit index, whether the map has a type for it or not? */
export const isIndexed = (type: number): boolean => INDEXED.has(type)

/** The name that bpftool prints for a type's number, by the kernel's own BTF; `type N` for a number without one. */
export const typeNames = (btf: Btf, enumName: "bpf_map_type" | "bpf_prog_type"): (type: number) => string => {
  const names = enumNames(btf, enumName, `${enumName.toUpperCase()}_`)
  return (type) => names.get(type) ?? `type ${type}`
}
