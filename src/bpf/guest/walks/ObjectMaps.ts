import * as Either from "effect/Either"
import { layout } from "../../../btf/Layout.ts"
import { memoizeByBtf } from "../../../btf/MemoizeByBtf.ts"
import type { RenderedValue } from "../../../btf/render/RenderedValue.ts"
import { corrupted, type Reason } from "../../../core/Reason.ts"
import { pointerOffset, pointerPage } from "../../../memory/KernelSpace.ts"
import { OBJECT_LIMIT } from "../../../memory/structs/StructReader.ts"
import type { EntryWalk } from "../../EntryWalk.ts"
import { intOf, objectOf, recurringCodec } from "../../values/DerivedCodec.ts"
import { cgroupLayout, perfEventLayout, socketLayout } from "../objects/KernelObjects.ts"
import { ArrayWalk } from "./ArrayWalk.ts"
import type { GuestMap, MapOpener, OpenedGuestMap } from "./GuestMap.ts"
import { readHashTable, readHtab } from "./HashTable.ts"
import { HashWalk } from "./HashWalk.ts"
import { PointerSlotWalk, type Target } from "./PointerSlotWalk.ts"

const eventEntryLayout = memoizeByBtf((btf) => layout(btf, "bpf_event_entry", ["event"]))
const deviceTableLayout = memoizeByBtf((btf) => layout(btf, "bpf_dtab", ["netdev_map"]))
const deviceHashLayout = memoizeByBtf((btf) => layout(btf, "bpf_dtab", ["dev_index_head", "n_buckets"]))
const cpuTableLayout = memoizeByBtf((btf) => layout(btf, "bpf_cpu_map", ["cpu_map"]))
const cpuLayout = memoizeByBtf((btf) => layout(btf, "bpf_cpu_map_entry", ["cpu", "value", "value.qsize", "prog"]))
const xskTableLayout = memoizeByBtf((btf) => layout(btf, "xsk_map", ["xsk_map"]))
const xskLayout = memoizeByBtf((btf) => layout(btf, "xdp_sock", ["sk", "dev", "queue_id"]))
const socketTableLayout = memoizeByBtf((btf) => layout(btf, "bpf_stab", ["sks"]))
const reuseportLayout = memoizeByBtf((btf) => layout(btf, "reuseport_array", ["ptrs"]))
const socketHashLayout = memoizeByBtf((btf) => layout(btf, "bpf_shtab", ["buckets", "buckets_num"]))
const socketBucketLayout = memoizeByBtf((btf) => layout(btf, "bpf_shtab_bucket", ["head.first"]))
const socketElementLayout = memoizeByBtf((btf) => layout(btf, "bpf_shtab_elem", ["node.next", "key", "sk"]))
const deviceLayout = memoizeByBtf((btf) =>
  layout(btf, "bpf_dtab_netdev", ["dev", "idx", "val", "xdp_prog", "index_hlist.next"])
)

/**
 * Limit in pages: one allocation of a map up to this size comes from kmalloc, a larger one from an area of its own
 * (vmalloc): include/linux/mm.h `PAGE_ALLOC_COSTLY_ORDER`, kernel/bpf/syscall.c `__bpf_map_area_alloc`, v6.1 to v6.18.
 */
const KMALLOC_AREA = 1 << 3

/** A map's table of pointers to objects, in the map itself or, with `indirect`, behind a pointer. */
const slots = (
  { info: { maxEntries }, kernel, offset, page, space }: GuestMap,
  field: number,
  indirect = false
): Either.Either<() => EntryWalk, Reason | { readonly message: string }> => {
  if (indirect && !space.window(page, offset + field, 8)) return Either.left(space.faultReason)
  const tablePage = indirect ? pointerPage(space.view, space.at) : page
  const tableOffset = indirect ? pointerOffset(space.view, space.at) : offset + field
  const room = space.isDirect(tablePage) ? space.table.pageSize * KMALLOC_AREA : kernel.memory.size
  if (maxEntries * 8 > room) {
    return Either.left(corrupted(`${maxEntries} slots where there is room for ${Math.floor(room / 8)}`))
  }
  return Either.right(() => new ArrayWalk(space, tablePage, tableOffset, 8, maxEntries, undefined))
}

/**
 * The targets of `pointers`. `describe` gets the place of `target.value`, from which `words` are counted
 * (`recurringCodec`).
 */
const reading = (
  { secondCursor }: GuestMap,
  pointers: () => EntryWalk,
  target: Target,
  words: ReadonlyArray<number>,
  describe: (view: DataView, at: number) => RenderedValue
): OpenedGuestMap => ({
  walk: () => new PointerSlotWalk(pointers(), secondCursor, target),
  value: recurringCodec(words, describe)
})

/** Both halves of 64-bit fields. */
const wholes = (...fields: ReadonlyArray<number>): ReadonlyArray<number> => fields.flatMap((at) => [at, at + 4])

const readable = (size: number): number => Math.min(size, OBJECT_LIMIT)

/**
 * PROG_ARRAY: `{ id, name, type }` of each slot's program.
 * @see kernel/bpf/arraymap.c `prog_fd_array_sys_lookup_elem`, v6.12
 */
export const openPrograms: MapOpener = (map) =>
  Either.gen(function*() {
    const { aux, program } = yield* map.layouts.program
    const pointers = yield* slots(map, map.layouts.array.at.value)
    const target = { follow: [program.at.aux], size: aux.at.id + 4, value: aux.at.id, length: 4 }
    return reading(map, pointers, target, [0], (view, at) => map.objects.program(view.getUint32(at, true)))
  })

/** Targets of pointers to a `struct bpf_map`: `{ id, name, type }` of the inner map. */
const innerMaps = (map: GuestMap, pointers: () => EntryWalk): OpenedGuestMap => {
  const { id } = map.layouts.map.at
  return reading(
    map,
    pointers,
    { size: id + 4, value: id, length: 4 },
    [0],
    (view, at) => map.objects.map(view.getUint32(at, true))
  )
}

/** ARRAY_OF_MAPS; kernel/bpf/arraymap.c `array_of_map_lookup_elem`, v6.12. */
export const openArrayOfMaps: MapOpener = (map) =>
  Either.map(slots(map, map.layouts.array.at.value), (pointers) => innerMaps(map, pointers))

/** HASH_OF_MAPS: a hash map whose values are pointers; kernel/bpf/hashtab.c `htab_of_map_lookup_elem`, v6.12. */
export const openHashOfMaps: MapOpener = (map) =>
  Either.map(
    readHtab(map, 8),
    (table) => innerMaps(map, () => new HashWalk(map.space, table, undefined))
  )

/** PERF_EVENT_ARRAY: each slot's event; include/linux/bpf.h `struct bpf_event_entry`, v6.12. */
export const openPerfEvents: MapOpener = (map) =>
  Either.gen(function*() {
    const entry = yield* eventEntryLayout(map.kernel.btf)
    const event = yield* perfEventLayout(map.kernel.btf)
    const pointers = yield* slots(map, map.layouts.array.at.value)
    const target = { follow: [entry.at.event], size: readable(event.size), value: 0, length: 0 }
    const words = [event.at["attr.type"], ...wholes(event.at["attr.config"]), event.at.cpu]
    return reading(map, pointers, target, words, (view, at) => map.objects.perfEventIn(view, at))
  })

/** CGROUP_ARRAY: each slot's cgroup; kernel/bpf/arraymap.c `cgroup_fd_array_get_ptr`, v6.12. */
export const openCgroups: MapOpener = (map) =>
  Either.gen(function*() {
    const { at: { kn }, size } = yield* cgroupLayout(map.kernel.btf)
    const pointers = yield* slots(map, map.layouts.array.at.value)
    const target = { size: readable(size), value: 0, length: 0 }
    return reading(map, pointers, target, wholes(kn), (view, at) => map.objects.cgroupIn(view, at))
  })

type DeviceLayout = Either.Either.Right<ReturnType<typeof deviceLayout>>

/** `{ device, program }`; the program only where there is one. `at` is that of bpf(2)'s `struct bpf_devmap_val`. */
const deviceCodec = ({ objects }: GuestMap, device: DeviceLayout) =>
  recurringCodec(wholes(device.at.dev - device.at.val, device.at.xdp_prog - device.at.val), (view, at) => {
    const start = at - device.at.val
    const program = view.getBigUint64(start + device.at.xdp_prog, true)
    return objectOf({
      device: objects.netDevice(view.getBigUint64(start + device.at.dev, true)),
      program: program === 0n ? undefined : objects.programAt(program)
    })
  })

/** DEVMAP: each slot's network device; kernel/bpf/devmap.c `struct bpf_dtab`, `struct bpf_dtab_netdev`, v6.12. */
export const openDevices: MapOpener = (map) =>
  Either.gen(function*() {
    const { at } = yield* deviceTableLayout(map.kernel.btf)
    const device = yield* deviceLayout(map.kernel.btf)
    const pointers = yield* slots(map, at.netdev_map, true)
    const target = { size: device.size, value: device.at.val, length: map.info.valueSize }
    return { walk: () => new PointerSlotWalk(pointers(), map.secondCursor, target), value: deviceCodec(map, device) }
  })

/** DEVMAP_HASH: the same, in a hash by index. */
export const openDeviceHash: MapOpener = (map) =>
  Either.gen(function*() {
    const { at } = yield* deviceHashLayout(map.kernel.btf)
    const device = yield* deviceLayout(map.kernel.btf)
    const table = yield* readHashTable(map, {
      buckets: at.dev_index_head,
      count: at.n_buckets,
      elements: map.info.maxEntries,
      valueSize: map.info.valueSize,
      end: 0n,
      layout: {
        bucketSize: 8,
        bucketFirst: 0,
        next: device.at["index_hlist.next"],
        key: device.at.idx,
        value: device.at.val,
        elementSize: device.size
      }
    })
    return { walk: () => new HashWalk(map.space, table, undefined), value: deviceCodec(map, device) }
  })

/**
 * CPUMAP: `{ cpu, qsize, program }` of each slot's queue; the program only where there is one.
 * @see kernel/bpf/cpumap.c `struct bpf_cpu_map`, `struct bpf_cpu_map_entry`, v6.12
 */
export const openCpus: MapOpener = (map) =>
  Either.gen(function*() {
    const table = yield* cpuTableLayout(map.kernel.btf)
    const { at, size } = yield* cpuLayout(map.kernel.btf)
    const pointers = yield* slots(map, table.at.cpu_map, true)
    const target = { size, value: at.value, length: map.info.valueSize }
    const words = [at.cpu, at["value.qsize"], ...wholes(at.prog)].map((field) => field - at.value)
    return reading(map, pointers, target, words, (view, place) => {
      const start = place - at.value
      const program = view.getBigUint64(start + at.prog, true)
      return objectOf({
        cpu: intOf(view.getUint32(start + at.cpu, true)),
        qsize: intOf(view.getUint32(start + at["value.qsize"], true)),
        program: program === 0n ? undefined : map.objects.programAt(program)
      })
    })
  })

/** XSKMAP: `{ device, queue, socket }` of each slot; a socket that is not bound has no device; include/net/xdp_sock.h, v6.12. */
export const openXdpSockets: MapOpener = (map) =>
  Either.gen(function*() {
    const table = yield* xskTableLayout(map.kernel.btf)
    const { at, size } = yield* xskLayout(map.kernel.btf)
    const pointers = yield* slots(map, table.at.xsk_map)
    const socket = yield* socketLayout(map.kernel.btf)
    const words = [...wholes(at.dev), at.queue_id, ...socketWords(socket.at).map((word) => at.sk + word)]
    return reading(map, pointers, { size: readable(size), value: 0, length: 0 }, words, (view, start) =>
      objectOf({
        device: map.objects.netDevice(view.getBigUint64(start + at.dev, true)),
        queue: intOf(view.getUint16(start + at.queue_id, true)),
        socket: map.objects.socketIn(view, start + at.sk)
      }))
  })

type SocketFields = Either.Either.Right<ReturnType<typeof socketLayout>>["at"]

/** The words of a `struct sock` that `socketIn` describes it by; some have a neighbour's bytes too. */
const socketWords = (at: SocketFields): ReadonlyArray<number> => [
  ...wholes(at.sk_socket, at["__sk_common.skc_cookie"]),
  at.sk_protocol,
  at["__sk_common.skc_family"],
  at["__sk_common.skc_state"],
  at["__sk_common.skc_num"],
  at["__sk_common.skc_dport"],
  at["__sk_common.skc_rcv_saddr"],
  at["__sk_common.skc_daddr"],
  ...[at["__sk_common.skc_v6_rcv_saddr"], at["__sk_common.skc_v6_daddr"]].flatMap((address) =>
    address === undefined ? [] : wholes(address, address + 8)
  )
]

/** Targets of pointers to a `struct sock`; bpf(2) gives the cookie where a value has room for it. */
const sockets = (map: GuestMap, pointers: () => EntryWalk) =>
  Either.map(socketLayout(map.kernel.btf), ({ at, size }): OpenedGuestMap => {
    const cookie = at["__sk_common.skc_cookie"]
    const target = { size: readable(size), value: cookie, length: map.info.valueSize === 8 ? 8 : 0 }
    const words = socketWords(at).map((word) => word - cookie)
    return reading(map, pointers, target, words, (view, place) => map.objects.socketIn(view, place - cookie))
  })

/** SOCKMAP; net/core/sock_map.c `struct bpf_stab`, v6.12. */
export const openSockets: MapOpener = (map) =>
  Either.gen(function*() {
    const { at } = yield* socketTableLayout(map.kernel.btf)
    return yield* sockets(map, yield* slots(map, at.sks, true))
  })

/** REUSEPORT_SOCKARRAY; kernel/bpf/reuseport_array.c `struct reuseport_array`, v6.12. */
export const openReuseport: MapOpener = (map) =>
  Either.gen(function*() {
    const { at } = yield* reuseportLayout(map.kernel.btf)
    return yield* sockets(map, yield* slots(map, at.ptrs))
  })

/** SOCKHASH; net/core/sock_map.c `struct bpf_shtab`, `struct bpf_shtab_bucket`, `struct bpf_shtab_elem`, v6.12. */
export const openSocketHash: MapOpener = (map) =>
  Either.gen(function*() {
    const { at } = yield* socketHashLayout(map.kernel.btf)
    const bucket = yield* socketBucketLayout(map.kernel.btf)
    const element = yield* socketElementLayout(map.kernel.btf)
    const table = yield* readHashTable(map, {
      buckets: at.buckets,
      count: at.buckets_num,
      elements: map.info.maxEntries,
      valueSize: 8,
      end: 0n,
      layout: {
        bucketSize: bucket.size,
        bucketFirst: bucket.at["head.first"],
        next: element.at["node.next"],
        key: element.at.key,
        value: element.at.sk,
        elementSize: element.at.key + map.info.keySize
      }
    })
    return yield* sockets(map, () => new HashWalk(map.space, table, undefined))
  })
