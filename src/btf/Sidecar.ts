import * as FileSystem from "@effect/platform/FileSystem"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { randomUUID } from "node:crypto"
import { basename, dirname, join } from "node:path"
import { crc32 } from "node:zlib"
import { cacheRoot } from "../core/CacheDir.ts"
import type { Stamp } from "./BtfFile.ts"

/**
 * The record behind the BTF in a sidecar: a newline and this as JSON, to the end of the file. BTF's header says where
 * its sections end, and readers ignore what follows (libbpf's `btf_parse_hdr`, pahole, ours), so that the whole is BTF
 * for them, and a sidecar is one file that is replaced in one step. `crc32` is of all bytes before the newline.
 * @see tools/lib/bpf/btf.c `btf_parse_hdr`, v6.12: the file's size is only a lower bound
 */
const Record = Schema.parseJson(Schema.Struct({
  ktstr: Schema.Literal("BTF sidecar"),
  mtime: Schema.Number,
  size: Schema.Number,
  identity: Schema.String,
  crc32: Schema.Number
}))

/**
 * Where the sidecar of a file goes: beside it, under its whole name and `.btf`. None for a file that does not really
 * lie in the cache, whatever links lead to it, and none where the cache or the file cannot be found. The environment is
 * asked at each call.
 */
export const sidecarOf = (path: string): Effect.Effect<Option.Option<string>, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const real = yield* files.realPath(path)
    const root = yield* files.realPath(yield* cacheRoot)
    return real.startsWith(root === "/" ? root : `${root}/`) ? Option.some(`${real}.btf`) : Option.none()
  }).pipe(Effect.orElseSucceed(Option.none))

/**
 * The BTF that a sidecar keeps for the file of this stamp. None if there is no sidecar, or one that is older than the
 * file or of another state of it; also if it is damaged, which is logged: each time the file itself must be read.
 */
export const readSidecar = (
  sidecar: string,
  stamp: Stamp
): Effect.Effect<Option.Option<Uint8Array>, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const info = yield* Effect.option(files.stat(sidecar))
    const mtime = Option.flatMap(info, ({ mtime }) => mtime)
    if (Option.isNone(info) || !Option.exists(mtime, (time) => time.getTime() >= stamp.mtime)) return Option.none()
    if (info.value.type !== "File") return yield* damaged(sidecar, `it is a ${info.value.type}`)
    const bytes = yield* files.readFile(sidecar)
    if (bytes[0] !== 0x9f || bytes[1] !== 0xeb) return yield* damaged(sidecar, "it does not start with 9f eb")
    const end = bytes.lastIndexOf(0x0a)
    const record = yield* Effect.option(Schema.decode(Record)(new TextDecoder().decode(bytes.subarray(end + 1))))
    if (end < 0 || Option.isNone(record)) return yield* damaged(sidecar, "no record of its file ends it")
    const btf = bytes.subarray(0, end)
    if (crc32(btf) !== record.value.crc32) return yield* damaged(sidecar, "its checksum does not match")
    const { identity, mtime: recorded, size } = record.value
    return recorded === stamp.mtime && size === stamp.size && identity === stamp.identity
      ? Option.some(btf)
      : Option.none()
  }).pipe(
    Effect.catchAll((error) => damaged(sidecar, error.message))
  )

/** A line for people that says why loading takes longer. */
export const damaged = (sidecar: string, why: string): Effect.Effect<Option.Option<never>> =>
  Effect.as(
    Effect.logWarning(`${sidecar} is damaged: ${why}; the BTF is read from its kernel again, and the sidecar replaced`),
    Option.none()
  )

/** Age in milliseconds at which a temporary file is abandoned, even if another process has its writer's pid by now. */
const ABANDONED = 3_600_000

/**
 * Remove what writers of this sidecar that were killed have left: files of processes that are gone, and old ones. A writer
 * that is not seen from here (in another container) loses its file and logs that, once.
 */
const sweep = (sidecar: string): Effect.Effect<void, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const start = `${basename(sidecar)}.`
    const now = yield* Clock.currentTimeMillis
    for (const name of yield* files.readDirectory(dirname(sidecar))) {
      const [, pid] = (name.startsWith(start) && /^(\d+)\.[0-9a-f-]{36}\.tmp$/.exec(name.slice(start.length))) || []
      if (pid === undefined) continue
      const path = join(dirname(sidecar), name)
      const { mtime } = yield* files.stat(path)
      const isOld = Option.exists(mtime, (time) => now - time.getTime() > ABANDONED)
      if (isOld || !(yield* files.exists(`/proc/${pid}`))) yield* files.remove(path)
    }
  }).pipe(Effect.ignoreLogged) // another's sweep was quicker, or the directory cannot be written: the write tells that

/**
 * Keep the BTF of the file of this stamp: all or nothing, and safe against two at once. Where that does not work
 * (a directory that cannot be written, a full disk) a line is logged, and that is all.
 */
export const writeSidecar = (
  sidecar: string,
  btf: Uint8Array,
  stamp: Stamp
): Effect.Effect<void, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const record = yield* Schema.encode(Record)({ ktstr: "BTF sidecar", ...stamp, crc32: crc32(btf) })
    yield* sweep(sidecar)
    const temporary = `${sidecar}.${process.pid}.${randomUUID()}.tmp`
    yield* Effect.gen(function*() {
      const file = yield* files.open(temporary, { flag: "wx" })
      yield* file.writeAll(btf)
      yield* file.writeAll(new TextEncoder().encode(`\n${record}`))
      yield* file.sync
    }).pipe(
      Effect.scoped,
      Effect.zipRight(files.rename(temporary, sidecar)),
      Effect.onExit((exit) => exit._tag === "Success" ? Effect.void : Effect.ignore(files.remove(temporary)))
    )
  }).pipe(
    Effect.catchAll((error) =>
      Effect.logWarning(`${sidecar} cannot be written: ${error.message}; the next load extracts the BTF again`)
    )
  )
