import { execFileSync } from "node:child_process"

/** A struct, or a member, as `pahole` prints it: offsets from the start of the outermost struct, in bytes. */
export interface PaholeMember {
  /** Empty for an anonymous struct or union, whose own members are `members`. */
  readonly name: string
  readonly offset: number
  readonly size: number
  /** Of an array, its first dimension. */
  readonly count: number | undefined
  /** `struct NAME` or `union NAME` without anything around it, else undefined. */
  readonly struct: string | undefined
  readonly members: ReadonlyArray<PaholeMember>
}
export interface PaholeStruct {
  readonly size: number
  readonly members: ReadonlyArray<PaholeMember>
}

const run = (...args: ReadonlyArray<string>): string =>
  // pahole 1.24 complains on stderr of each DECL_TAG, which it does not know.
  execFileSync("pahole", ["-F", "btf", ...args], {
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    stdio: ["ignore", "pipe", "ignore"]
  })

/** Every struct and union of a file of BTF, by name. */
export const paholeStructs = (path: string): ReadonlyMap<string, ReadonlyArray<PaholeStruct>> => {
  const structs = new Map<string, Array<PaholeStruct>>()
  let name: string | undefined
  let size = 0
  const open: Array<Array<PaholeMember>> = []
  for (const line of run(path).split("\n")) {
    const top = /^(?:struct|union) (\w+) \{$/.exec(line)
    if (top !== null) {
      name = top[1]
      open.push([])
    } else if (name === undefined) continue
    else if (line.startsWith("}")) {
      const members = open.pop() ?? []
      structs.set(name, [...structs.get(name) ?? [], { size, members }])
      name = undefined
    } else if (/^\t+(?:struct|union) (?:\w+ )?\{/.test(line)) open.push([])
    else {
      size = Number(/\/\* size: (\d+),/.exec(line)?.[1] ?? size)
      const text = /^\t+(.*?)(?: __attribute__\(\(.*\)\))?;\s+\/\*\s*(\d+)(?:: ?\d+)?\s+(\d+) \*\/$/.exec(line)
      if (text === null) continue
      const members = text[1].startsWith("}") ? open.pop() ?? [] : []
      open.at(-1)?.push({ ...declared(text[1]), offset: Number(text[2]), size: Number(text[3]), members })
    }
  }
  return structs
}

/** `u64 cpustat[10]`, `struct list_head node`, `int (*fn)(void)`, `unsigned int inidle:1`, `} name`. */
const declared = (text: string): Pick<PaholeMember, "name" | "count" | "struct"> => {
  const called = /\(\*(?:const )?(\w+)(?:\[(\d*)\])?.*?\)\(/.exec(text) ??
    /(\w+)(?:\[(\d*)\])?(?:\[\d*\])*(?::\d+)?$/.exec(text)
  const of = /^(?:struct|union) (\w+)\s+\w+$/.exec(text)
  return {
    name: called?.[1] ?? "",
    count: called?.[2] === undefined ? undefined : Number(called[2]),
    struct: of?.[1]
  }
}

/** The member at a path such as `idr_rt.xa_head`, also of anonymous members; its offset counts from the outermost. */
export const paholeMember = (
  structs: ReadonlyMap<string, ReadonlyArray<PaholeStruct>>,
  members: ReadonlyArray<PaholeMember>,
  path: string
): PaholeMember | undefined => {
  const [first, ...rest] = path.split(".")
  for (const member of members) {
    if (member.name === first) {
      if (rest.length === 0) return member
      const inner = member.members.length > 0
        ? { members: member.members, base: 0 }
        : { members: structs.get(member.struct ?? "")?.[0]?.members ?? [], base: member.offset }
      const found = paholeMember(structs, inner.members, rest.join("."))
      return found && { ...found, offset: inner.base + found.offset }
    }
    const found = member.name === "" ? paholeMember(structs, member.members, path) : undefined
    if (found !== undefined) return found
  }
  return undefined
}

/** The numbers of an enum; undefined if there is none. */
export const paholeEnum = (path: string, name: string): { readonly [name: string]: number } | undefined => {
  let text: string
  try {
    text = run("-C", name, path)
  } catch (error) {
    if (error instanceof Error && "status" in error && error.status === 1) return undefined
    throw error
  }
  return Object.fromEntries(
    [...text.matchAll(/^\t(\w+)\s+= (-?\d+),/gm)].map(([, name, value]) => [name, Number(value)])
  )
}
