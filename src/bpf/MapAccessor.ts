import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import { formatReason, Reason } from "../core/Reason.ts"
import type { MapInfo } from "./MapInfo.ts"
import type { MapEntry, MapReader } from "./MapReader.ts"
import type { ProgramInfo } from "./Report.ts"

/**
 * No map has that id or name.
 *
 * @since 0.1.0
 * @category errors
 */
export class MapNotFound extends Schema.TaggedError<MapNotFound>("ktstr/MapNotFound")("MapNotFound", {
  wanted: Schema.String,
  names: Schema.Array(Schema.String)
}) {
  override get message() {
    return this.names.length === 0
      ? `no map ${this.wanted}: this kernel has no BPF maps`
      : `no map ${this.wanted}: there are ${this.names.slice(0, 20).join(", ")}${this.names.length > 20 ? ", …" : ""}`
  }
}

/**
 * Entries of a map are missing: `problem` says which and why. Raised after every entry that could be read.
 *
 * @since 0.1.0
 * @category errors
 */
export class MapProblem extends Schema.TaggedError<MapProblem>("ktstr/MapProblem")("MapProblem", {
  id: Schema.Int,
  name: Schema.String,
  problem: Reason
}) {
  override get message() {
    return `map ${this.id} (${this.name}): ${formatReason(this.problem)}`
  }
}

/**
 * The kernel's BPF structures cannot be found at all: `what` was looked for, `why` it is not there, `hint` says what to do.
 *
 * @since 0.1.0
 * @category errors
 */
export class BpfUnreadable extends Schema.TaggedError<BpfUnreadable>("ktstr/BpfUnreadable")("BpfUnreadable", {
  what: Schema.String,
  why: Schema.String,
  hint: Schema.String
}) {
  override get message() {
    return `${this.what}: ${this.why}; ${this.hint}`
  }
}

/**
 * A list as a source gives it: the items it could read, and a reason for each that it could not.
 *
 * @since 0.1.0
 * @category models
 */
export interface Listing<A> {
  readonly items: ReadonlyArray<A>
  readonly problems: ReadonlyArray<Reason>
}

/**
 * The service behind the tag `MapAccessor`.
 *
 * @since 0.1.0
 * @category models
 */
export interface MapAccessorService {
  /** Every map, in the order of ids. */
  readonly maps: Effect.Effect<Listing<MapInfo>, BpfUnreadable>
  /** Every program, in the order of ids. */
  readonly programs: Effect.Effect<Listing<ProgramInfo>, BpfUnreadable>
  /** The maps with this id (decimal digits), or with this name: several may share one. */
  readonly find: (idOrName: string) => Effect.Effect<ReadonlyArray<MapInfo>, MapNotFound | BpfUnreadable>
  /** Compile the map's types and get ready to walk it. Never fails: what cannot be read is said in the reader. */
  readonly reader: (map: MapInfo) => Effect.Effect<MapReader, BpfUnreadable>
  /** The map's entries, decoded. Entries that could not be read make it end with `MapProblem`, after all the others. */
  readonly entries: (map: MapInfo) => Stream.Stream<MapEntry, MapProblem | BpfUnreadable>
}

/**
 * The BPF maps and programs of one kernel at one instant. Every source gives the same shapes.
 *
 * @since 0.1.0
 * @category services
 */
export class MapAccessor extends Context.Tag("ktstr/bpf/MapAccessor")<MapAccessor, MapAccessorService>() {}
