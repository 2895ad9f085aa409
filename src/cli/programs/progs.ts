import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { listPrograms } from "../../bpf/guest/programs/ProgramWalk.ts"
import type { Program } from "../../bpf/Program.ts"
import { formatReason } from "../../core/Reason.ts"
import { GuestKernel } from "../../memory/GuestKernel.ts"
import { headerText } from "../maps/present.ts"
import { problemLines, problemRecords, writeAnswer } from "../source/answer.ts"
import type { Loss, Output, Target } from "../source/options.ts"
import { format, Live, openMaps } from "../source/snapshot.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import * as Stages from "../terminal/Stages.ts"
import { duration } from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"

/** No program has that id or name. */
export class ProgramNotFound extends Schema.TaggedError<ProgramNotFound>("ktstr/ProgramNotFound")("ProgramNotFound", {
  wanted: Schema.String,
  names: Schema.Array(Schema.String)
}) {
  override get message() {
    const known = this.names.length === 0 ? "this kernel has no BPF programs" : `there are ${this.names.join(", ")}`
    return `no program ${this.wanted}: ${known}`
  }
}

export const list = (config: Target & Output & Loss) => run(config, () => true, programTable)

export const show = (config: Target & Output & Loss & { readonly name: string }) =>
  run(config, ({ id, name }) => String(id) === config.name || name === config.name, programsText, config.name)

const run = (
  config: Target & Output & Loss,
  keep: (program: Program) => boolean,
  text: (programs: ReadonlyArray<Program>) => string,
  wanted?: string
) =>
  Effect.gen(function*() {
    const as = yield* format(config)
    const snapshot = yield* openMaps(config)
    const { header } = snapshot
    const { items, problems } = "live" in snapshot
      ? snapshot.live.programs
      : yield* Effect.provideService(listPrograms, GuestKernel, snapshot.kernel)
    const programs = items.filter(keep)
    if (wanted !== undefined && programs.length === 0) {
      return yield* new ProgramNotFound({ wanted, names: items.map(({ name }) => name) })
    }
    yield* writeAnswer(as, config, {
      document: () => ({ ...header, programs, problems }),
      records: () => [...programs.map((program) => ({ record: "program", ...program })), ...problemRecords(problems)],
      text: () => headerText(header) + text(programs) + problemLines(problems)
    })
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

const purpose = ({ attachType, target }: Program): string =>
  [attachType, target?.name].filter((word) => word !== null && word !== undefined).map(escapeLine).join(" ")

const time = (nanos: Program["runNanos"]): string =>
  nanos === null ? "" : Number(nanos) < 1e6 ? `${(Number(nanos) / 1000).toFixed(1)} µs` : duration(Number(nanos) / 1e6)

const programTable = (programs: ReadonlyArray<Program>): string =>
  programs.length === 0 ? "no programs\n" : table(
    ["ID", "NAME", "TYPE", "FOR", "INSNS", "VERIFIED", "JITED", "RUNS", "TIME", "MISSES", "MAPS"],
    programs.map((program) => [
      String(program.id),
      escapeLine(program.name),
      escapeLine(program.type),
      purpose(program),
      String(program.instructions),
      String(program.verifiedInstructions ?? ""),
      program.jitedBytes === null ? "" : `${program.jitedBytes} B`,
      String(program.runs ?? ""),
      time(program.runNanos),
      String(program.misses ?? ""),
      program.mapIds?.join(",") ?? ""
    ]),
    [0, 4, 5, 6, 7, 8, 9]
  )

const programsText = (programs: ReadonlyArray<Program>): string =>
  programs.map((program) => {
    const { loadedAt, mapIds, problem, target } = program
    const where = [
      target?.module === null || target === null ? "" : ` of module ${escapeLine(target.module)}`,
      target?.program === null || target === null ? "" : ` of program ${target.program}`
    ].join("")
    const rows: ReadonlyArray<readonly [string, string | number | null]> = [
      ["attach type", program.attachType],
      ["for", target === null ? null : `${target.kind} ${escapeLine(target.name)}${where}`],
      ["tag", program.tag],
      ["loaded", loadedAt === null ? null : `${(Number(loadedAt) / 1e9).toFixed(3)} s after boot`],
      ["by uid", program.uid],
      ["instructions", program.instructions],
      ["verified", program.verifiedInstructions],
      ["machine code", program.jitedBytes === null ? null : `${program.jitedBytes} bytes`],
      ["runs", program.runs],
      ["time", program.runNanos === null ? null : time(program.runNanos)],
      ["misses", program.misses],
      ["maps", mapIds === null ? null : mapIds.join(", ") || "none"],
      ["BTF", program.btfId],
      ["problem", problem === null ? null : escapeLine(formatReason(problem))]
    ]
    const shown = rows.flatMap(([label, value]) => value === null ? [] : [[`  ${label}`, String(value)]])
    return `program ${program.id} ${escapeLine(program.name)} (${escapeLine(program.type)})\n${
      table(["", ""], shown).replace(/^\n/, "")
    }\n`
  }).join("")
