import * as Either from "effect/Either"
import type { KernelStruct } from "../../../btf/KernelStruct.ts"
import type { Layout } from "../../../btf/Layout.ts"
import { type Json, toJson } from "../../../btf/render/RenderedValue.ts"
import { combine, type Reason, toReason, unreadable, within } from "../../../core/Reason.ts"
import type { GuestKernelService } from "../../../memory/GuestKernel.ts"
import { type Read, StructReader } from "../../../memory/structs/StructReader.ts"
import { type Attached, attachment } from "../../Attachment.ts"
import { type Attachment, Link } from "../../Link.ts"
import { KernelObjects } from "../objects/KernelObjects.ts"
import type { ProgramWalk } from "../programs/ProgramWalk.ts"
import { linkLayouts } from "./LinkLayouts.ts"

/** Reads what links and attachments without a link have in common: their programs, and what those are attached to. */
export class LinkReader {
  readonly objects: KernelObjects
  readonly layouts: ReturnType<typeof linkLayouts>
  readonly reader: StructReader
  private readonly names = new Map<number, string>()

  constructor(readonly kernel: GuestKernelService, readonly programs: ProgramWalk) {
    this.objects = new KernelObjects(kernel, [], [])
    this.layouts = linkLayouts(kernel.btf)
    this.reader = new StructReader(kernel.space)
  }

  link(id: number | null, type: string, program: bigint, attached: Read<Attached>): Link {
    const programId = program === 0n ? undefined : this.programs.idOf(program)
    const unread = program !== 0n && programId === undefined
      ? [within("its program", this.kernel.space.faultReason)]
      : []
    const problems = Either.isLeft(attached) ? [...unread, attached.left] : unread
    const known = Either.getOrUndefined(attached)
    return new Link({
      id,
      type,
      programId: programId ?? null,
      programName: programId === undefined ? null : this.nameOf(programId, program),
      attachType: known?.attachType ?? null,
      target: known?.target ?? null,
      problem: combine(problems)
    }, true)
  }

  private nameOf(id: number, program: bigint): string {
    const known = this.names.get(id)
    if (known !== undefined) return known
    const name = Either.match(this.programs.read(program), { onLeft: () => "", onRight: ({ name }) => name })
    this.names.set(id, name)
    return name
  }

  /** A copy of the struct that contains the link at an address. */
  around<Required extends string, Optional extends string = never>(
    link: bigint,
    found: Either.Either<Layout<Required, Optional>, { readonly message: string }>,
    place: (layout: Layout<Required, Optional>) => number
  ): Read<KernelStruct<Required, Optional>> {
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    return this.reader.struct(found.right, link - BigInt(place(found.right)))
  }

  /** A field of the struct that a pointer leads to. */
  field<L>(
    address: bigint,
    found: Either.Either<L, { readonly message: string }>,
    field: (layout: L) => number
  ): Read<bigint> {
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    return this.reader.u64(address + BigInt(field(found.right)))
  }

  fault(): Either.Either<never, Reason> {
    return Either.left(this.kernel.space.faultReason)
  }

  typed(attachType: number | undefined): { readonly attachType?: string } {
    return attachType === undefined ? {} : { attachType: this.programs.attachName(attachType) }
  }

  /** Null for a null pointer: the cgroup is gone. */
  cgroupAt(cgroup: bigint): Read<Attachment | null> {
    if (cgroup === 0n) return Either.right(null)
    const json = toJson(this.objects.cgroup(cgroup))
    const path = field(json, "path")
    const id = field(json, "id")
    return typeof path === "string" && (typeof id === "number" || typeof id === "string")
      ? Either.right(attachment("cgroup", path, id))
      : Either.left(unreadable(`its cgroup: ${JSON.stringify(path ?? json)}`))
  }

  /** The inode number of the `struct net` at an address. */
  inodeOf(net: bigint): Read<number> {
    const found = this.layouts.network()
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    const inode = this.kernel.space.u32(net + BigInt(found.right.at["ns.inum"]))
    return inode < 0 ? this.fault() : Either.right(inode)
  }

  /** Null for a null pointer: the device is gone. */
  deviceAt(device: bigint): Read<Attachment | null> {
    const found = this.layouts.device()
    if (device === 0n) return Either.right(null)
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    return Either.flatMap(
      this.reader.struct(found.right, device),
      (netDevice) =>
        Either.map(this.inodeOf(netDevice.u64("nd_net.net")), (netns) => ({
          ...attachment("netdev", netDevice.text("name"), netDevice.int("ifindex")),
          netns
        }))
    )
  }

  mapAt(address: bigint): Read<{ readonly id: number; readonly name: string }> {
    const found = this.layouts.map()
    if (Either.isLeft(found)) return Either.left(toReason(found.left))
    return Either.map(
      this.reader.struct(found.right, address),
      (map) => ({ id: map.uint("id"), name: map.text("name") })
    )
  }
}

const field = (json: Json, name: string): Json | undefined =>
  typeof json === "object" && json !== null && !Array.isArray(json)
    ? (json as { readonly [key: string]: Json })[name]
    : undefined
