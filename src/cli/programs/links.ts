import * as Effect from "effect/Effect"
import { listLinks } from "../../bpf/guest/links/Links.ts"
import type { Link } from "../../bpf/Link.ts"
import { formatReason } from "../../core/Reason.ts"
import { GuestKernel } from "../../memory/GuestKernel.ts"
import { headerText } from "../maps/present.ts"
import { problemLines, problemRecords, writeAnswer } from "../source/answer.ts"
import type { Loss, Output, Target } from "../source/options.ts"
import { format, Live, openMaps } from "../source/snapshot.ts"
import { escapeLine } from "../terminal/escapeControls.ts"
import * as Stages from "../terminal/Stages.ts"
import { table } from "../terminal/Table.ts"

/** Names of one link that are shown to people. */
const NAMES_FOR_PEOPLE = 4

export const links = (config: Target & Output & Loss) =>
  Effect.gen(function*() {
    const as = yield* format(config)
    const snapshot = yield* openMaps(config)
    const { header } = snapshot
    const { items, problems } = "live" in snapshot
      ? snapshot.live.links
      : yield* Effect.provideService(listLinks, GuestKernel, snapshot.kernel)
    yield* writeAnswer(as, config, {
      document: () => ({ ...header, links: items, problems }),
      records: () => [...items.map((link) => ({ record: "link", ...link })), ...problemRecords(problems)],
      text: () => headerText(header) + linkTable(items) + problemLines(problems)
    })
  }).pipe(Effect.scoped, Effect.provide(Live), Effect.provide(Stages.layer))

const linkTable = (items: ReadonlyArray<Link>): string =>
  items.length === 0 ? "nothing is attached\n" : table(
    ["ID", "TYPE", "ATTACH TYPE", "PROGRAM", "ATTACHED TO"],
    items.map((link) => [
      link.id === null ? "-" : String(link.id),
      escapeLine(link.type),
      escapeLine(link.attachType ?? ""),
      link.programId === null ? "" : `${link.programId} ${escapeLine(link.programName ?? "")}`,
      targetText(link)
    ]),
    [0]
  )

const targetText = ({ problem, target }: Link): string => {
  if (problem !== null) return escapeLine(formatReason(problem))
  if (target === null) return "nothing: detached"
  const { id, kind, names, netns } = target
  const shown = names.slice(0, NAMES_FOR_PEOPLE).map(escapeLine).join(", ")
  const more = names.length > NAMES_FOR_PEOPLE ? `, and ${names.length - NAMES_FOR_PEOPLE} more` : ""
  const where = netns === null
    ? kind === "function" && id !== null ? ` of program ${id}` : ""
    : ` in net:[${netns}]`
  return `${kind} ${shown}${more}${where}`
}
