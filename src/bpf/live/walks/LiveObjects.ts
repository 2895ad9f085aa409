import { readdirSync, readFileSync } from "node:fs"
import type { Codec } from "../../../btf/render/Codec.ts"
import type { RenderedValue } from "../../../btf/render/RenderedValue.ts"
import { HostSymbols } from "../../../host/HostSymbols.ts"
import { derivedCodec, hexOf, intOf, objectOf, stringOf } from "../../values/DerivedCodec.ts"
import { codeAddress, type Named, namedObject } from "../../values/ObjectValue.ts"

/**
 * The kernel objects that maps point at, described as in a guest's dump, as far as this host tells: bpf(2) gives ids,
 * indices and cookies.
 */
export class LiveObjects {
  private known: HostSymbols | undefined

  constructor(
    private readonly programById: (id: number) => Named | undefined,
    private readonly mapById: (id: number) => Named | undefined
  ) {}

  get symbols(): HostSymbols {
    return this.known ??= HostSymbols.read()
  }

  /** Values that are ids of programs: `{ id, name, type }`. */
  readonly programs: Codec = derivedCodec((view, at) => this.program(view.getUint32(at, true)))

  /** Values that are ids of maps. */
  readonly maps: Codec = derivedCodec((view, at) => {
    const id = view.getUint32(at, true)
    return namedObject(id, this.mapById(id))
  })

  /** `struct bpf_devmap_val`: `{ device, program }`; include/uapi/linux/bpf.h, v6.12. */
  readonly devices: Codec = derivedCodec((view, at, length) => {
    const ifindex = view.getUint32(at, true)
    const name = interfaceName(ifindex)
    return objectOf({
      device: objectOf({ ifindex: intOf(ifindex), name: name === undefined ? undefined : stringOf(name) }),
      program: this.behind(view, at, length)
    })
  })

  /** `struct bpf_cpumap_val`: `{ cpu, qsize, program }`; the key, which is the CPU, follows the value (`KeyWalk`). */
  readonly cpus: Codec = derivedCodec((view, at, length) =>
    objectOf({
      cpu: intOf(view.getUint32(at + length, true)),
      qsize: intOf(view.getUint32(at, true)),
      program: this.behind(view, at, length)
    })
  )

  /** A socket is known by its cookie alone; 0: it was never asked for. */
  readonly sockets: Codec = derivedCodec((view, at) => objectOf({ cookie: intOf(view.getBigUint64(at, true)) }))

  /** The return addresses of a stack, from the innermost on; include/uapi/linux/bpf.h `BPF_MAP_TYPE_STACK_TRACE`. */
  readonly frames: Codec = derivedCodec((view, at, length) => {
    const elements: Array<RenderedValue> = []
    for (let place = at; place + 8 <= at + length; place += 8) {
      const address = view.getBigUint64(place, true)
      if (address === 0n) break
      elements.push(this.code(address))
    }
    return { _tag: "array", elements, omitted: 0 }
  })

  /**
   * The same as `{ buildId, offset }`, or `{ ip }` where the file could not be told.
   * @see include/uapi/linux/bpf.h `struct bpf_stack_build_id`, v6.12: status, 20 bytes of id, offset or ip
   */
  readonly buildIdFrames: Codec = derivedCodec((view, at, length) => {
    const elements: Array<RenderedValue> = []
    for (let place = at; place + 32 <= at + length; place += 32) {
      const status = view.getInt32(place, true)
      if (status === 0) break
      const where = view.getBigUint64(place + 24, true)
      elements.push(
        status === 1
          ? objectOf({ buildId: hexOf(view, place + 4, 20), offset: intOf(where) })
          : objectOf({ ip: this.code(where) })
      )
    }
    return { _tag: "array", elements, omitted: 0 }
  })

  program(id: number): RenderedValue {
    return namedObject(id, this.programById(id))
  }

  code(address: bigint): RenderedValue {
    return codeAddress(address, this.symbols.at(address))
  }

  /** The program's id behind the first four bytes, where the map has room for it. */
  private behind(view: DataView, at: number, length: number): RenderedValue | undefined {
    const id = length >= 8 ? view.getUint32(at + 4, true) : 0
    return id === 0 ? undefined : this.program(id)
  }
}

/** The name of a network device of this network namespace. */
export const interfaceName = (ifindex: number): string | undefined => {
  const base = "/sys/class/net"
  try {
    return readdirSync(base).find((name) => Number(readFileSync(`${base}/${name}/ifindex`, "latin1")) === ifindex)
  } catch {
    return undefined // gone meanwhile, or no sysfs: the index alone is shown
  }
}
