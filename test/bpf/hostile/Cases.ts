import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import { crc32 } from "node:zlib"
import * as GuestMapAccessor from "../../../src/bpf/guest/GuestMapAccessor.ts"
import { GuestMaps } from "../../../src/bpf/guest/GuestMaps.ts"
import { listLinks } from "../../../src/bpf/guest/links/Links.ts"
import { listPrograms } from "../../../src/bpf/guest/programs/ProgramWalk.ts"
import { writeMaps } from "../../../src/bpf/guest/write/MapWrite.ts"
import { openInnerMaps } from "../../../src/bpf/InnerMaps.ts"
import type { MapAccessor } from "../../../src/bpf/MapAccessor.ts"
import type { MapInfo } from "../../../src/bpf/MapInfo.ts"
import { decodeEntry, type MapEntry, type MapReader, problemOf } from "../../../src/bpf/MapReader.ts"
import { DUMP_VERSION, type Header } from "../../../src/bpf/Report.ts"
import { ndjsonRecords } from "../../../src/bpf/report/DumpWriter.ts"
import { bpfMapOffsets } from "../../../src/btf/offsets/bpf/BpfMap.ts"
import { toJson } from "../../../src/btf/render/RenderedValue.ts"
import { kvaFrom } from "../../../src/core/Address.ts"
import { X86PageTable } from "../../../src/memory/arch/X86PageTable.ts"
import { GuestKernel } from "../../../src/memory/GuestKernel.ts"
import type { KernelSpace } from "../../../src/memory/KernelSpace.ts"
import { isLocated, locateByVmcoreinfo } from "../../../src/memory/LocateKernel.ts"
import { Damage, type Look, random, WatchedMemory } from "../../support/damage.ts"

type Kernel = typeof GuestKernel.Service

/** No damaged image of these guests has more to say than this, in bytes: a map of all its memory printed as hex. */
const MOST_OUTPUT = 2 ** 30
/** Entries that are decoded to trees, beside all that are printed. */
const TREES = 64
/** Entries that are taken from a map's Stream: several of its batches. */
const STREAMED = 1024
/** Entries of each map that a dump of a whole damaged kernel prints. */
const FEW = 4

/** Something that is done with memory, whole or damaged. */
interface Task {
  readonly name: string
  /** What it reads of undamaged memory, in areas that are damaged equally often. */
  readonly areas: ReadonlyArray<ReadonlyArray<Look>>
  /** Gives what it said, in short. Only what takes turns of the event loop gives a promise. */
  readonly run: () => string | Promise<string>
}

const header: Header = {
  schema: "single",
  version: DUMP_VERSION,
  source: { kind: "image", path: "guest.mem" },
  kernel: { release: "", pageTableLevels: 5, kaslrOffset: "0x0", possibleCpus: 2 },
  freeze: null
}

/** The value of an Effect or its typed failure, each as text. What is neither is thrown. */
const said = <A>(effect: Effect.Effect<A, { readonly message: string }>): string =>
  inShort(Effect.runSyncExit(Effect.either(effect)))

const inShort = <A>(exit: Exit.Exit<Either.Either<A, { readonly message: string }>>): string => {
  if (Exit.isFailure(exit)) throw new Error(Cause.pretty(exit.cause))
  return Either.match(exit.value, { onLeft: ({ message }) => message, onRight: (value) => JSON.stringify(value) })
}

/** Print maps as `ktstr dump --inner` does. */
const print = (accessor: typeof MapAccessor.Service, maps: ReadonlyArray<MapInfo>, limit: number) =>
  Effect.gen(function*() {
    const readers = yield* Effect.forEach(maps, (info) => accessor.reader(info))
    const { problems } = yield* accessor.list
    const { items: programs } = yield* accessor.programs
    const inner = yield* openInnerMaps(accessor, readers)
    let printed = 0
    let sum = 0
    for (const piece of ndjsonRecords({ header, readers, programs, problems, limit, inner })) {
      printed += piece.length
      if (printed > MOST_OUTPUT) throw new Error(`more than ${MOST_OUTPUT} bytes were printed`)
      sum = crc32(piece, sum)
    }
    return `${printed} bytes, ${sum}`
  })

/** An entry's trees, as JSON. */
const shown = (entry: MapEntry) =>
  ("cpus" in entry ? entry.cpus : [entry.key, entry.value]).map((value) => value === undefined ? null : toJson(value))

/** The first entries of a map as trees, and what was missing: what `MapAccessor.entries` gives, without its turns. */
const firstEntries = (reader: MapReader) => {
  const walk = reader.walk?.() ?? null
  const entries: Array<unknown> = []
  while (entries.length < TREES && walk?.next() === true) {
    entries.push(shown(decodeEntry(reader, walk)))
  }
  return [entries, problemOf(reader, walk)]
}

/** Print a map, and read its first entries as the library gives them. */
const readMap = (id: number) =>
  Effect.gen(function*() {
    const accessor = yield* GuestMapAccessor.make
    const maps = (yield* accessor.list).items.filter((info) => info.id === id)
    const printed = yield* print(accessor, maps, Infinity)
    const entries = yield* Effect.forEach(maps, (info) => Effect.map(accessor.reader(info), firstEntries))
    return [printed, JSON.stringify(entries)]
  })

/** The first entries of a map as the library's Stream gives them, in batches with turns of the event loop between them. */
const streamMap = (id: number) =>
  Effect.gen(function*() {
    const accessor = yield* GuestMapAccessor.make
    const maps = (yield* accessor.list).items.filter((info) => info.id === id)
    return yield* Effect.forEach(maps, (info) => {
      let count = 0
      let sum = 0
      return accessor.entries(info).pipe(
        Stream.take(STREAMED),
        Stream.runForEach((entry) =>
          Effect.sync(() => {
            count++
            sum = crc32(JSON.stringify(shown(entry)), sum)
          })
        ),
        Effect.match({ onFailure: ({ message }) => message, onSuccess: () => null }),
        Effect.map((problem) => ({ count, sum, problem }))
      )
    })
  })

const readLists = Effect.all([listPrograms, listLinks])

/** Values that are found, checked and put together, but never written: the last is of no map. */
const refusedWrites = Effect.gen(function*() {
  const { items } = yield* (yield* GuestMapAccessor.make).list
  const first = (type: string) => items.find((info) => info.type === type && info.keySize === 4)?.id
  const assignments = ["array", "hash", "percpu_array", "percpu_hash"].map((type) => ({
    map: String(first(type)),
    key: 1,
    value: "00",
    ...(type.startsWith("percpu") ? { cpu: "all" as const } : {})
  }))
  const writes = [...assignments, { path: "runs", value: 1 }]
  return yield* Effect.forEach(writes, (one) => Effect.either(writeMaps([one, { map: "none", value: 1 }])))
})

/** Find the kernel in memory anew, and look at all that there is. */
const attachAnew = (memory: WatchedMemory) =>
  Effect.flatMap(GuestKernel.fromMemory(memory), (kernel) =>
    Effect.gen(function*() {
      const accessor = yield* GuestMapAccessor.make
      return [yield* print(accessor, (yield* accessor.list).items, FEW), yield* readLists]
    }).pipe(Effect.provideService(GuestKernel, kernel)))

/** Structs whose description decides what is read. */
const STRUCTS = [
  "bpf_map",
  "bpf_array",
  "bpf_htab",
  "htab_elem",
  "bpf_prog",
  "bpf_prog_aux",
  "bpf_link",
  "idr",
  "xa_node",
  "xarray",
  "btf"
]
/** Symbols from which all else is reached. */
const SYMBOLS = [
  "map_idr",
  "prog_idr",
  "link_idr",
  "__start_BTF",
  "__stop_BTF",
  "__per_cpu_offset",
  "nr_cpu_ids",
  "_stext"
]

/** Where a kernel describes itself: what `attachAnew` reads before it comes to BPF. */
const descriptions = (kernel: Kernel): ReadonlyArray<ReadonlyArray<Look>> => {
  const { memory, space, symbols } = kernel
  const location = locateByVmcoreinfo(memory)
  if (!isLocated(location) || location.info === undefined) throw new Error("the image does not describe itself")
  const { info } = location
  const at = (address: bigint | undefined, len: number) => address === undefined ? [] : looksAt(space, address, len)
  const table = (name: string, len: number) => at(info.symbol(name), len)
  const offsets = info.symbol("kallsyms_offsets")
  const indices = Array.from(symbols.entries(), ({ name }, index) => SYMBOLS.includes(name) ? index : -1).filter((
    index
  ) => index >= 0)
  const start = symbols.address("__start_BTF")!
  const blob = Buffer.from(space.read(start, Number(symbols.address("__stop_BTF")! - start))!)
  const strings = blob.readUInt32LE(4) + blob.readUInt32LE(16)
  // include/uapi/linux/btf.h `struct btf_type`, kind 4: its name, its number of members, 12 bytes of each behind it
  const records = STRUCTS.flatMap((name) => {
    const word = Buffer.alloc(4)
    word.writeUInt32LE(blob.indexOf(`\0${name}\0`, strings) + 1 - strings)
    for (let found = blob.indexOf(word, 24); found >= 0 && found < strings; found = blob.indexOf(word, found + 1)) {
      const kind = blob.readUInt32LE(found + 4)
      if (found % 4 === 0 && kind >>> 24 === 4) return at(start + BigInt(found), 12 + (kind & 0xffff) * 12)
    }
    return []
  })
  return [
    [{ pa: info.at, len: info.text.length }],
    [
      ...table("kallsyms_num_syms", 4),
      ...table("kallsyms_relative_base", 8),
      ...table("kallsyms_token_table", 1024),
      ...table("kallsyms_token_index", 512),
      ...table("kallsyms_names", 4096)
    ],
    indices.flatMap((index) => offsets === undefined ? [] : at(offsets + BigInt(index) * 4n, 4)),
    [
      ...at(symbols.address("__cpu_possible_mask"), 8),
      ...at(symbols.address("__per_cpu_offset"), 16),
      ...at(symbols.address("nr_cpu_ids"), 4)
    ],
    at(start, 24),
    at(start, blob.length),
    records
  ]
}

/** What a map says of itself: its type, sizes and counts; and its own BTF. */
const claims = ({ btf, space }: Kernel, map: { readonly page: number; readonly offset: number }) =>
  Either.getOrThrow(Either.map(bpfMapOffsets.resolve(btf), (layouts) => {
    const at = kvaFrom(map.page, map.offset)
    const fields = [
      "map_type",
      "map_flags",
      "key_size",
      "value_size",
      "max_entries",
      "btf_key_type_id",
      "btf_value_type_id"
    ] as const
    const counts = fields.flatMap((field) => looksAt(space, at + BigInt(layouts.map.at[field]), 4))
    const types = space.u64(at + BigInt(layouts.map.at.btf)) ?? 0n
    const data = space.u64(types + BigInt(layouts.btf.at.data))
    if (types === 0n || data === undefined) return [counts]
    return [counts, looksAt(space, data, space.u32(types + BigInt(layouts.btf.at.data_size)))]
  }))

/** The places of `len` bytes at an address, which may be of many pages. */
const looksAt = (space: KernelSpace, address: bigint, len: number): ReadonlyArray<Look> => {
  const looks: Array<Look> = []
  for (let done = 0; done < len;) {
    const pa = space.translate(address + BigInt(done))
    const part = Math.min(len - done, 4096 - pa % 4096)
    looks.push({ pa, len: part })
    done += part
  }
  return looks
}

/** Damages one image in one of many ways after the other, each a case of a number, and undoes it again. */
export class Cases {
  readonly names: ReadonlyArray<string>
  private readonly damage: Damage
  private readonly tasks: ReadonlyArray<readonly [weight: number, tasks: ReadonlyArray<Task>]>
  private readonly whole = new Map<Task, string>()

  static readonly make = async (image: Uint8Array): Promise<Cases> => {
    const memory = new WatchedMemory([{ start: 0, bytes: image }], { writable: true })
    const cases = new Cases(memory, Effect.runSync(GuestKernel.fromMemory(memory)))
    for (const task of cases.tasks.flatMap(([, tasks]) => tasks)) cases.whole.set(task, await task.run())
    return cases
  }

  private constructor(memory: WatchedMemory, private readonly kernel: Kernel) {
    this.damage = new Damage(kernel.space)
    const watched = (
      run: () => void
    ): { readonly tables: ReadonlyArray<Look>; readonly looks: ReadonlyArray<Look> } => {
      const { space, space: { table } } = kernel
      const pages = new Set<number>()
      const walk = (page: number): number => {
        pages.add(page)
        return X86PageTable.prototype.walk.call(table, page)
      }
      Object.assign(table, { walk })
      space.flush()
      const looks = memory.watch(run)
      const tables = memory.watch(() => pages.forEach((page) => walk(page)))
      Object.assign(table, { walk: X86PageTable.prototype.walk })
      return { looks, tables }
    }
    const { items: maps } = Either.getOrThrow(GuestMaps.make(kernel)).maps
    const lists = watched(() => GuestMaps.make(kernel))
    const known = new Set(lists.looks.map(({ pa }) => pa))
    const task = (name: string, run: () => string, more: ReadonlyArray<ReadonlyArray<Look>> = []): Task => {
      const { looks, tables } = watched(run)
      const own = looks.filter(({ pa }) => !known.has(pa))
      return { name, run, areas: [own, own, lists.looks, tables, ...more].filter(({ length }) => length > 0) }
    }
    const reading = <A>(effect: Effect.Effect<A, { readonly message: string }, GuestKernel>) => () =>
      said(Effect.provideService(effect, GuestKernel, kernel))
    const printing = maps.map((map) =>
      task(`${map.info.type} ${map.info.name}`, reading(readMap(map.info.id)), claims(kernel, map))
    )
    const streaming = maps.map(({ info }, index): Task => {
      const { areas, name } = printing[index]
      const entries = Effect.either(Effect.provideService(streamMap(info.id), GuestKernel, kernel))
      return { name: `${name}, as a Stream`, areas, run: async () => inShort(await Effect.runPromiseExit(entries)) }
    })
    this.tasks = [
      [6, printing],
      [2, streaming],
      [2, [task("programs and links", reading(readLists))]],
      [1, [task("writes", reading(refusedWrites))]],
      [1, [task("attach", () => said(attachAnew(memory)), descriptions(kernel))]]
    ]
    this.names = this.tasks.flatMap(([, tasks]) => tasks.map(({ name }) => name))
  }

  /** Cases, from any number on, within which each task has its turn. */
  get round(): number {
    const longest = Math.max(...this.tasks.map(([weight, tasks]) => Math.ceil(tasks.length / weight)))
    return longest * this.weights
  }

  private get weights(): number {
    return this.tasks.reduce((sum, [weight]) => sum + weight, 0)
  }

  /** The task of a case: in turn those of each kind, as often as its weight says. Only the damage is left to chance. */
  private taskOf(number: number): Task {
    const turn = Math.floor(number / this.weights)
    let at = number % this.weights
    const [weight, tasks] = this.tasks.find(([weight]) => {
      if (at < weight) return true
      at -= weight
      return false
    })!
    return tasks[(turn * weight + at) % tasks.length]
  }

  /** Try one case. `changed`: the task said something else than of undamaged memory. */
  async try(
    seed: number,
    number: number
  ): Promise<{ readonly task: string; readonly changed: boolean; readonly failure: string | null }> {
    const pick = random(crc32(`${seed} ${number}`))
    const task = this.taskOf(number)
    const done: Array<string> = []
    for (let left = 1 + pick(3); left > 0; left--) {
      done.push(this.damage.do(task.areas[pick(task.areas.length)], pick))
    }
    this.kernel.space.flush()
    try {
      return { task: task.name, changed: (await task.run()) !== this.whole.get(task), failure: null }
    } catch (error) {
      const what = error instanceof Error ? error.stack : String(error)
      return { task: task.name, changed: true, failure: `${done.join("; ")}: ${what}` }
    } finally {
      this.damage.undo()
      this.kernel.space.flush()
    }
  }

  /** Tasks that no longer say what they said of the memory before any damage. */
  async notUndone(): Promise<ReadonlyArray<string>> {
    const names: Array<string> = []
    for (const [task, whole] of this.whole) if (await task.run() !== whole) names.push(task.name)
    return names
  }
}
