import * as NodeContext from "@effect/platform-node/NodeContext"
import * as FileSystem from "@effect/platform/FileSystem"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { existsSync, readFileSync } from "node:fs"
import { Btf } from "../../../src/btf/Btf.ts"
import type { Enumeration } from "../../../src/btf/Enumeration.ts"
import type { Layout } from "../../../src/btf/Layout.ts"
import type { GroupMissing } from "../../../src/btf/OffsetGroup.ts"
import { offsetGroups } from "../../../src/btf/offsets/offsetGroups.ts"
import { arm64Matrix, matrix } from "../../support/kernels.ts"
import { fromBuilt, fromImage, HOST, MORE_FILES, NOT_BUILT, SCX_6_12, WITHOUT_SCX } from "./kernels.ts"
import { paholeEnum, paholeMember, type PaholeStruct, paholeStructs } from "./pahole.ts"

/**
 * Every field of every group that this BTF has, against pahole; what it has not, pahole must not see either. `absent`
 * are the groups that this kernel is known not to have.
 */
const compare = Effect.fnUntraced(
  function*(bytes: Uint8Array, absent?: ReadonlyArray<string>) {
    const files = yield* FileSystem.FileSystem
    const path = yield* files.makeTempFileScoped()
    yield* files.writeFile(path, bytes)
    const btf = yield* Btf.parse(bytes, { subject: "vmlinux" })
    const structs = paholeStructs(path)
    assert.isAbove(structs.size, 3000)
    const missing: Array<string> = []
    let fields = 0
    for (const group of offsetGroups) {
      const found = group.resolve(btf)
      if (Either.isLeft(found)) {
        missing.push(group.name)
        lacks(structs, found.left)
        continue
      }
      const parts = Object.values(found.right).filter((part) => part !== undefined)
      for (const part of parts) {
        if ("enum" in part) sameNumbers(path, part)
        else fields += sameFields(structs, part)
      }
    }
    if (absent !== undefined) assert.deepStrictEqual(missing.toSorted(), absent.toSorted())
    assert.isAbove(fields, 90)
  },
  Effect.provide(NodeContext.layer),
  Effect.scoped
)

describe("the offsets are pahole's, and so is what is not there, in the BTF of", () => {
  // What this host's kernel was built with is not ours to say.
  if (existsSync(HOST)) it.effect("the running kernel", () => compare(new Uint8Array(readFileSync(HOST))))
  else it.skip(`the running kernel: ${HOST} does not exist here`)

  it.effect("Debian's 6.1", () =>
    Effect.flatMap(fromImage("6.1-cloud"), (bytes) => compare(bytes, [...WITHOUT_SCX, "bpf-arena"])))

  it.effect("Debian's 6.12", () => Effect.flatMap(fromImage("6.12-cloud"), (bytes) => compare(bytes, WITHOUT_SCX)))

  it.effect("Debian's 7.3", () => Effect.flatMap(fromImage("7.3-cloud"), (bytes) => compare(bytes, [])), 120_000)

  it.effect(
    "Debian's 7.3 for arm64",
    () => Effect.flatMap(fromImage("7.3-cloud-arm64"), (bytes) => compare(bytes, [])),
    120_000
  )

  for (const name of [...matrix, ...arm64Matrix]) {
    it.effect(
      `Debian's ${name}, of the matrix`,
      () => Effect.flatMap(fromImage(name), (bytes) => compare(bytes)),
      120_000
    )
  }

  for (const path of MORE_FILES) {
    it.effect(path, () => Effect.suspend(() => compare(new Uint8Array(readFileSync(path)))))
  }

  const scx = fromBuilt
  if (scx === undefined) it.skip(`a sched_ext 6.12: ${NOT_BUILT}`)
  else it.effect("a sched_ext 6.12", () => Effect.flatMap(scx, (bytes) => compare(bytes, SCX_6_12)))
})

/** All fields that were asked for; gives how many there are. */
const sameFields = (
  structs: ReadonlyMap<string, ReadonlyArray<PaholeStruct>>,
  { arrays, at, called, fields, size, sizeOf, struct }: Layout<never, string>
): number => {
  const seen = structs.get(struct)?.find((candidate) => candidate.size === size)
  assert(seen !== undefined, `pahole knows struct ${struct} of ${size} bytes`)
  let count = 0
  for (const field of fields) {
    const member = paholeMember(structs, seen.members, called[field] ?? field)
    const of = { offset: at[field], size: sizeOf[field], count: arrays[field]?.count }
    assert.deepStrictEqual(
      of,
      { offset: member?.offset, size: member?.size, count: member?.count },
      `${struct}.${field}`
    )
    if (member !== undefined) count++
  }
  return count
}

const sameNumbers = (path: string, { enum: name, valueOf }: Enumeration<string>): void => {
  const numbers = paholeEnum(path, name)
  for (const [key, value] of Object.entries(valueOf)) {
    assert.strictEqual(value, numbers?.[key] ?? numbers?.[key.replace(/^__/, "")], `${name} ${key}`)
  }
}

const lacks = (
  structs: ReadonlyMap<string, ReadonlyArray<PaholeStruct>>,
  { member, reason: { text }, struct }: GroupMissing
): void => {
  const seen = structs.get(struct) ?? []
  if (member === undefined) assert.strictEqual(seen.length, 0, text)
  else {
    assert.isAbove(seen.length, 0, text)
    assert.isUndefined(paholeMember(structs, seen[0].members, member), text)
    assert.include(text, member)
  }
  assert.include(text, struct)
}
