import * as FileSystem from "@effect/platform/FileSystem"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Btf } from "../../btf/Btf.ts"
import { headerOf, kindCounts } from "../../btf/BtfHeader.ts"
import { BtfLoader } from "../../btf/BtfLoader.ts"
import { type ComparedType, diffAll, diffTypes, isCompared } from "../../btf/c/BtfDiff.ts"
import { typeText } from "../../btf/c/TypeText.ts"
import { findTypes } from "../../btf/FindTypes.ts"
import { HostLacks } from "../../core/Errors.ts"
import { KernelResolver } from "../../core/kernels/KernelResolver.ts"
import * as NativeKoffi from "../../core/NativeKoffi.ts"
import { bold } from "../terminal/Color.ts"
import { escapeControls, escapeLine } from "../terminal/escapeControls.ts"
import { UsageError } from "../terminal/exit.ts"
import { writeText } from "../terminal/Output.ts"
import * as Stages from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"
import { changeText, overview } from "./btfDiffText.ts"
import { BtfDifference, BtfHeaderReport, BtfTypes, shownType } from "./btfReport.ts"

/** Whose BTF is meant: a kernel's, a file's, or that of the kernel that runs here. */
export interface BtfSource {
  readonly kernel: Option.Option<string>
  readonly btf: Option.Option<string>
  /** The base that a module's BTF continues. */
  readonly base?: Option.Option<string>
}

const HOST = "/sys/kernel/btf/vmlinux"

const Live = Layer.mergeAll(BtfLoader.layer, Layer.provide(KernelResolver.layer, NativeKoffi.layer), Stages.layer)

/** The BTF that the options name. */
export const btfOf = (source: BtfSource) => Effect.map(readSource(source), ({ btf }) => btf).pipe(Effect.provide(Live))

const readSource = (source: BtfSource) =>
  Effect.gen(function*() {
    const loader = yield* BtfLoader
    const base = Option.getOrUndefined(source.base ?? Option.none())
    if (Option.isSome(source.kernel) && Option.isSome(source.btf)) {
      return yield* new UsageError({ problem: "give --kernel or --btf, not both" })
    }
    if (base !== undefined && Option.isNone(source.btf)) {
      return yield* new UsageError({ problem: "--base goes with --btf, whose BTF continues it" })
    }
    if (Option.isSome(source.btf)) {
      return yield* loader.read(source.btf.value, base === undefined ? undefined : yield* loader.load(base))
    }
    if (Option.isSome(source.kernel)) return yield* loader.read(yield* kernelFile(source.kernel.value))
    if (
      yield* Effect.flatMap(FileSystem.FileSystem, (files) => Effect.orElseSucceed(files.exists(HOST), () => false))
    ) {
      return yield* loader.read(HOST)
    }
    return yield* new HostLacks({
      what: HOST,
      why: "the running kernel has no BTF",
      hint: "give --kernel ID or --btf FILE"
    })
  })

/** The kernel as an ELF, which need not be decompressed, or its image. */
const kernelFile = (id: string) =>
  Effect.map(
    Effect.flatMap(KernelResolver, (resolver) => resolver.resolve(id)),
    ({ image, unpacked, vmlinux }) => vmlinux ?? unpacked ?? image
  )

/** `struct rq` may come as one word or as two. */
const queriesOf = (words: ReadonlyArray<string>): ReadonlyArray<string> => {
  const queries: Array<string> = []
  for (let at = 0; at < words.length; at++) {
    const keyword = /^(struct|union|enum|typedef)$/.test(words[at]) && at + 1 < words.length
    queries.push(keyword ? `${words[at]} ${words[++at]}` : words[at])
  }
  return queries
}

export const show = (config: BtfSource & { readonly types: ReadonlyArray<string>; readonly json: boolean }) =>
  Effect.gen(function*() {
    const queries = queriesOf(config.types)
    if (queries.length === 0) return yield* new UsageError({ problem: "say which type to show" })
    const { btf } = yield* readSource(config)
    const ids = new Set((yield* Effect.forEach(queries, (query) => findTypes(btf, query))).flat())
    if (config.json) {
      const types = [...ids].flatMap((id) => shownType(btf, id) ?? [])
      return yield* writeText(`${JSON.stringify(yield* Schema.encode(BtfTypes)({ subject: btf.subject, types }))}\n`)
    }
    yield* writeText([...ids].map((id) => printable(typeText(btf, id))).join("\n"))
  }).pipe(Effect.provide(Live))

/** Tabs are ours: a name that holds one is not a C identifier. */
const printable = (text: string): string => text.split("\t").map(escapeControls).join("\t")

export const header = (config: BtfSource & { readonly json: boolean }) =>
  Effect.gen(function*() {
    const { btf, bytes } = yield* readSource(config)
    const report = {
      subject: btf.subject,
      bytes: bytes.length,
      ...headerOf(bytes),
      types: { first: btf.firstId, count: btf.endId - btf.firstId },
      kinds: Object.fromEntries(kindCounts(btf).map(({ count, kind }) => [kind, count])),
      base: btf.base === undefined ? null : { subject: btf.base.subject, types: btf.base.endId - 1 }
    }
    if (config.json) {
      return yield* writeText(`${JSON.stringify(yield* Schema.encode(BtfHeaderReport)(report))}\n`)
    }
    const { base, headerLength, stringLength, typeLength, types } = report
    const typesAt = headerLength + report.typeOffset
    const stringsAt = headerLength + report.stringOffset
    const facts: ReadonlyArray<readonly [string, string]> = [
      ["magic", `0x${report.magic.toString(16)}, version ${report.version}, flags ${report.flags}`],
      ["size", `${report.bytes} bytes, of them ${headerLength} of header`],
      ["types", `${types.count}, ids ${types.first} to ${btf.endId - 1}, ${typeLength} bytes at ${typesAt}`],
      ["strings", `${stringLength} bytes at ${stringsAt}`],
      ["base", base === null ? "none" : `${escapeLine(base.subject)}, ids 1 to ${base.types}`]
    ]
    yield* writeText(
      `${bold(escapeLine(report.subject))}\n`
        + facts.map(([name, fact]) => `${name.padEnd(8)} ${fact}\n`).join("")
        + `\n${table(["KIND", "TYPES"], Object.entries(report.kinds).map(([kind, count]) => [kind, `${count}`]), [1])}`
    )
  }).pipe(Effect.provide(Live))

interface DiffConfig {
  readonly before: string
  readonly after: string
  readonly types: ReadonlyArray<string>
  readonly json: boolean
}

export const diff = (config: DiffConfig) =>
  Effect.gen(function*() {
    const before = yield* loadSide(config.before)
    const after = yield* loadSide(config.after)
    const queries = queriesOf(config.types)
    const found = queries.length === 0
      ? [{ query: null, changes: diffAll(before, after) }]
      : yield* Effect.forEach(queries, (query) => asked(before, after, query))
    if (config.json) {
      const report = {
        before: before.subject,
        after: after.subject,
        types: found.flatMap(({ changes }) => changes)
      }
      return yield* writeText(`${JSON.stringify(yield* Schema.encode(BtfDifference)(report))}\n`)
    }
    yield* writeText(
      found.map(({ changes, query }) =>
        query === null
          ? overview(before.subject, after.subject, changes)
          : changes.length === 0
          ? `${bold(escapeLine(query))}: no difference\n`
          : changes.map(changeText).join("\n")
      ).join("\n")
    )
  }).pipe(Effect.provide(Live))

/** A file of this name, or the kernel with this id. */
const loadSide = (side: string) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const info = yield* Effect.option(files.stat(side))
    const path = Option.exists(info, ({ type }) => type !== "Directory") ? side : yield* kernelFile(side)
    return yield* Effect.flatMap(BtfLoader, (loader) => loader.load(path))
  })

const asked = (before: Btf, after: Btf, query: string) =>
  Effect.gen(function*() {
    const [old, now] = [compared(before, query), compared(after, query)]
    if (old.length + now.length > 0) return { query, changes: diffTypes(before, after, { before: old, after: now }) }
    yield* Effect.orElse(findTypes(after, query), () => findTypes(before, query))
    return yield* new UsageError({
      problem: `"${query}" is not a struct, union, enum or typedef: btf diff compares only those`
    })
  })

/** The types of a name that can be compared, and those behind its typedefs. */
const compared = (btf: Btf, query: string): ReadonlyArray<ComparedType> => {
  const ids = Either.getOrElse(findTypes(btf, query), () => [])
  return [...new Set(ids.flatMap((id) => [id, btf.peel(id)]))].map((id) => btf.type(id)).filter(isCompared)
    .filter(({ name }) => name !== "")
}
