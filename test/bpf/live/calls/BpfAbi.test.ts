import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import {
  Attr,
  BtfInfoAt,
  Command,
  Errno,
  LinkInfoAt,
  MapFlag,
  MapInfoAt,
  ProgramInfoAt
} from "../../../../src/bpf/live/calls/BpfAbi.ts"
import { UPDATE_FLAGS } from "../../../../src/bpf/live/calls/BpfCalls.ts"
import { NAME_BYTES } from "../../../../src/bpf/Program.ts"
import { scratch } from "../../../support/guest.ts"
import { HostLive } from "../support.ts"

/** Members of the attributes that are inside a named struct of the union. */
const INSIDE: Readonly<Record<string, string>> = { batch: "batch.", test: "test.", info: "info." }

const expected: Readonly<Record<string, number>> = Object.fromEntries([
  ...Object.entries(Command).map(([name, value]) => [`BPF_${name}`, value]),
  ...Object.entries(Attr).flatMap(([group, members]) =>
    Object.entries(members).map(([member, at]) => [
      `offsetof(union bpf_attr, ${INSIDE[group] ?? ""}${member})`,
      at
    ])
  ),
  ...([["map", MapInfoAt], ["prog", ProgramInfoAt], ["btf", BtfInfoAt], ["link", LinkInfoAt]] as const).flatMap((
    [struct, members]
  ) => Object.entries(members).map(([member, at]) => [`offsetof(struct bpf_${struct}_info, ${member})`, at])),
  ["BPF_OBJ_NAME_LEN", NAME_BYTES],
  ["BPF_F_STACK_BUILD_ID", MapFlag.STACK_BUILD_ID],
  ["BPF_ANY", UPDATE_FLAGS.any],
  ["BPF_NOEXIST", UPDATE_FLAGS.create],
  ["BPF_EXIST", UPDATE_FLAGS.existing],
  // The rest is not in the headers of user space.
  ...Object.entries(Errno).filter(([name]) => name !== "ENOTSUPP")
])

/** Newer than the headers of this distribution: a hole in theirs. */
const NEWER = "offsetof(struct bpf_map_info, btf_vmlinux_id)"

it.scopedLive("numbers and offsets are those that a C compiler finds in the kernel's headers", () =>
  Effect.gen(function*() {
    const directory = yield* scratch
    const source = join(directory, "abi.c")
    const words = Object.keys(expected).filter((word) => word !== NEWER)
    writeFileSync(
      source,
      `#include <errno.h>
#include <linux/bpf.h>
#include <stddef.h>
#include <stdio.h>
int main(void) {
${words.map((word) => `\tprintf("%lld\\n", (long long)(${word}));`).join("\n")}
}`
    )
    const run = promisify(execFile)
    yield* Effect.promise(() => run("gcc", [source, "-o", join(directory, "abi")]))
    const { stdout } = yield* Effect.promise(() => run(join(directory, "abi")))
    const found = stdout.trim().split("\n").map(Number)
    assert.deepStrictEqual(
      Object.fromEntries(words.map((word, index) => [word, found[index]])),
      Object.fromEntries(words.map((word) => [word, expected[word]]))
    )
    assert.strictEqual(expected[NEWER], MapInfoAt.btf_value_type_id + 4)
  }).pipe(Effect.provide(HostLive)))
