import * as Either from "effect/Either"
import type { GuestKernelService } from "../../memory/GuestKernel.ts"
import { StructReader } from "../../memory/structs/StructReader.ts"
import { schedLayouts } from "../SchedLayouts.ts"

/** `CGROUP_MAX…`: cgroup.max.depth is unlimited by default, paths are below PATH_MAX. */
const DEPTH_LIMIT = 2048
const NAME_LIMIT = 256

/** Paths in the default hierarchy, by the address of a `struct css_set` or `struct cgroup`. Each is read once. */
export class CgroupPaths {
  readonly #known = new Map<bigint, string | undefined>()
  readonly #reader: StructReader
  readonly #kernel: GuestKernelService

  constructor(kernel: GuestKernelService) {
    this.#kernel = kernel
    this.#reader = new StructReader(kernel.space)
  }

  /** The path of `css_set.dfl_cgrp`: what `/proc/PID/cgroup` has behind `0::`. */
  ofCssSet(address: bigint): string | undefined {
    if (this.#known.has(address)) return this.#known.get(address)
    const { cssSet } = schedLayouts(this.#kernel.btf)
    const at = cssSet?.at("dfl_cgrp")
    const cgroup = at === undefined || address === 0n ? undefined : this.#kernel.space.u64(address + BigInt(at))
    const path = cgroup === undefined ? undefined : this.ofCgroup(cgroup)
    this.#known.set(address, path)
    return path
  }

  ofCgroup(address: bigint): string | undefined {
    const at = schedLayouts(this.#kernel.btf).cgroup?.at("kn")
    const node = at === undefined ? undefined : this.#kernel.space.u64(address + BigInt(at))
    return node === undefined ? undefined : this.#path(node)
  }

  /** From a node up to the root, whose name is empty. `parent` became `__parent` in v6.15. */
  #path(start: bigint): string | undefined {
    const { kernfs } = schedLayouts(this.#kernel.btf)
    const nameAt = kernfs?.at("name")
    const parentAt = kernfs?.at("__parent") ?? kernfs?.at("parent")
    if (nameAt === undefined || parentAt === undefined) return undefined
    const names: Array<string> = []
    for (let node = start, depth = 0; depth < DEPTH_LIMIT; depth++) {
      const parent = this.#kernel.space.u64(node + BigInt(parentAt))
      if (parent === undefined) return undefined
      if (parent === 0n) return `/${names.reverse().join("/")}`
      const at = this.#kernel.space.u64(node + BigInt(nameAt))
      const name = at === undefined ? undefined : Either.getOrUndefined(this.#reader.text(at, NAME_LIMIT))
      if (name === undefined) return undefined
      names.push(name)
      node = parent
    }
    return undefined
  }
}
