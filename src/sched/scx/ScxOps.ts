import * as Either from "effect/Either"
import type { Btf } from "../../btf/Btf.ts"
import { layout } from "../../btf/Layout.ts"
import { memoizeByBtf } from "../../btf/MemoizeByBtf.ts"
import { kvaFrom } from "../../core/Address.ts"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { StructReader } from "../../memory/structs/StructReader.ts"
import { type IdrLayout, idrLayout, walkIdr } from "../../memory/structs/Xarray.ts"

type Kernel = GuestKernelService

/** `BPF_MAP_TYPE_STRUCT_OPS`, include/uapi/linux/bpf.h, v6.1 to v7.3. */
const STRUCT_OPS = 26
/** The structs of callbacks: by CPU number, and since v7.2 also by the scheduler's own numbers of CPUs. */
const OPS = ["sched_ext_ops", "sched_ext_ops_cid"] as const
/** Maps with callbacks of sched_ext that are believed. */
const MAP_LIMIT = 1024

/**
 * A BPF program that implements a callback. `name` is whole; programs that are not compiled keep its first 15 characters.
 *
 * @since 0.1.0
 * @category models
 */
export interface OpsProgram {
  readonly id: number
  readonly name: string
}

interface Callback {
  readonly name: string
  /** Bytes from the start of the struct. */
  readonly at: number
}

/** The pointers to functions in a struct, in its order. */
const callbacksIn = (btf: Btf, struct: string): ReadonlyArray<Callback> => {
  const type = btf.idsByName(struct).map((id) => btf.type(id)).find((type) => type?.kind === "STRUCT")
  if (type?.kind !== "STRUCT") return []
  return type.members.flatMap(({ bitOffset, name, type: member }) => {
    const pointer = btf.type(btf.peel(member))
    const target = pointer?.kind === "PTR" ? btf.type(btf.peel(pointer.type)) : undefined
    return target?.kind === "FUNC_PROTO" ? [{ name, at: bitOffset / 8 }] : []
  })
}

/**
 * `value` wraps a struct of callbacks in a map: kernel/bpf/bpf_struct_ops.c `bpf_struct_ops_map`, whose `kvalue` has the
 * kernel's struct and whose `uvalue` has, in the same places, programs' ids; v6.12 to v7.3.
 */
const opsLayouts = memoizeByBtf((btf) => ({
  callbacks: {
    sched_ext_ops: callbacksIn(btf, "sched_ext_ops"),
    sched_ext_ops_cid: callbacksIn(btf, "sched_ext_ops_cid")
  },
  maps: Either.getOrUndefined(Either.gen(function*() {
    return {
      idr: yield* idrLayout(btf),
      map: yield* layout(btf, "bpf_map", ["map_type", "btf_vmlinux_value_type_id"]),
      opsMap: yield* layout(btf, "bpf_struct_ops_map", ["kvalue", "uvalue"]),
      program: yield* layout(btf, "bpf_prog", ["aux"]),
      aux: yield* layout(btf, "bpf_prog_aux", ["name"], ["ksym.name"])
    }
  })),
  values: OPS.flatMap((struct) =>
    Either.match(layout(btf, `bpf_struct_ops_${struct}`, ["data"]), {
      onLeft: () => [],
      onRight: ({ at, typeId }) => [{
        struct,
        typeId,
        data: BigInt(at.data),
        // v6.16: the ops' own way back to the scheduler
        priv: Either.getOrUndefined(layout(btf, struct, ["priv"]))?.at.priv
      }]
    })
  )
}))

/** The callbacks that the ops struct at an address has, with what each points at. */
export const callbacksAt = (
  { btf, space }: Kernel,
  address: bigint,
  struct: typeof OPS[number]
): ReadonlyArray<{ readonly name: string; readonly code: bigint }> =>
  opsLayouts(btf).callbacks[struct].flatMap(({ at, name }) => {
    const code = space.u64(address + BigInt(at))
    return code === undefined || code === 0n ? [] : [{ name, code }]
  })

/** The contents of the struct_ops maps of sched_ext. */
export interface OpsMaps {
  /** By what a callback points at: the program that it runs. */
  readonly programs: ReadonlyMap<bigint, OpsProgram>
  /** The schedulers' addresses, in the order in which their maps were made; v6.16. */
  readonly schedulers: ReadonlyArray<bigint>
}

/**
 * The struct_ops maps of sched_ext: from when a loader makes one until it lets go of it, whether its scheduler has
 * ended or not.
 */
export const readOpsMaps = (kernel: Kernel): OpsMaps => {
  const { btf, space, symbol } = kernel
  const { callbacks, maps, values } = opsLayouts(btf)
  const address = symbol("map_idr")
  const schedulers: Array<bigint> = []
  if (maps === undefined || address === undefined) return { programs: new Map(), schedulers }
  const ids = new Map<bigint, number>()
  let found = 0
  walkIdr(space, maps.idr, address, (_, page, offset) => {
    const map = kvaFrom(page, offset)
    if (space.u32(map + BigInt(maps.map.at.map_type)) !== STRUCT_OPS || found >= MAP_LIMIT) return
    const typeId = space.u32(map + BigInt(maps.map.at.btf_vmlinux_value_type_id))
    const value = values.find((each) => each.typeId === typeId)
    const given = space.u64(map + BigInt(maps.opsMap.at.uvalue))
    if (value === undefined || given === undefined) return
    found++
    const data = map + BigInt(maps.opsMap.at.kvalue) + value.data
    for (const { at } of callbacks[value.struct]) {
      const code = space.u64(data + BigInt(at))
      const id = space.u64(given + value.data + BigInt(at))
      if (code !== undefined && code !== 0n && id !== undefined && id !== 0n && id <= 0xffff_ffffn) {
        ids.set(code, Number(id))
      }
    }
    const scheduler = value.priv === undefined ? undefined : space.u64(data + BigInt(value.priv))
    if (scheduler !== undefined && scheduler !== 0n) schedulers.push(scheduler)
  })
  const names = programNames(kernel, maps, new Set(ids.values()))
  return {
    schedulers,
    programs: new Map(
      [...ids].flatMap(([code, id]) => {
        const name = names.get(id)
        return name === undefined ? [] : [[code, { id, name }]]
      })
    )
  }
}

interface ProgramLayouts {
  readonly idr: IdrLayout
  readonly program: { readonly at: { readonly aux: number } }
  readonly aux: { readonly at: { readonly name: number; readonly "ksym.name"?: number | undefined } }
}

/** Names by id. A compiled program's symbol has all of it, `bpf_prog_0123456789abcdef_NAME`. */
const programNames = (
  { space, symbol }: Kernel,
  { aux, idr, program }: ProgramLayouts,
  wanted: ReadonlySet<number>
): ReadonlyMap<number, string> => {
  const names = new Map<number, string>()
  const address = symbol("prog_idr")
  if (address === undefined || wanted.size === 0) return names
  const reader = new StructReader(space)
  walkIdr(space, idr, address, (id, page, offset) => {
    const at = wanted.has(id) ? space.u64(kvaFrom(page, offset) + BigInt(program.at.aux)) : undefined
    if (at === undefined) return
    const text = (place: number, limit: number): string =>
      Either.getOrElse(reader.text(at + BigInt(place), limit), () => "")
    const symbolAt = aux.at["ksym.name"]
    const [, whole] = /^bpf_prog_[0-9a-f]{16}_(.+)$/.exec(symbolAt === undefined ? "" : text(symbolAt, 512)) ?? []
    names.set(id, whole ?? text(aux.at.name, 16))
  })
  return names
}
