import type { Btf } from "../Btf.ts"
import type { DeclTagType, PrototypeType, TypeTagType } from "../BtfType.ts"

/** Types in a row, from a pointer to what it points to and so on. */
const CHAIN_LIMIT = 64
/** Function types and bodies within one another. */
const DEPTH_LIMIT = 16
/** Types that one declaration may name: the kernel's longest function types have twenty. */
const STEP_LIMIT = 1024
/** Characters, or so, of all that is written about one type: the kernel's longest takes a fiftieth. */
const TEXT_LIMIT = 1 << 22
/** The same for each type of a blob, where it is written about many: those of a kernel take less than half. */
const TEXT_PER_TYPE = 1 << 10

/**
 * Characters, or so, that may still be written: a hostile blob can describe text without end.
 *
 * @since 0.1.0
 * @category models
 */
export class Budget {
  private constructor(private left: number) {}

  /** For all that is written about one type. */
  static readonly ofType = (): Budget => new Budget(TEXT_LIMIT)
  /** For all types of a blob together. */
  static readonly ofAll = (btf: Btf): Budget => new Budget(TEXT_LIMIT + TEXT_PER_TYPE * btf.endId)

  /** Take that many characters of it; false when they are not left. */
  spend(characters: number): boolean {
    this.left -= characters
    return this.left > 0
  }
}

/**
 * A C declaration in parts.
 *
 * @since 0.1.0
 * @category models
 */
export interface Declaration {
  /** `struct task_struct`, `const char`; for a struct, union or enum without a name its keyword alone. */
  readonly base: string
  /** The struct, union or enum without a name whose body follows `base`. */
  readonly body: number | undefined
  /** The name with what C writes around it: `*next`, `comm[16]`, `(*probe)(struct device *)`. */
  readonly declarator: string
}

/**
 * How C declares something of this type. Never fails: what a hostile blob says beyond any sense (endless chains, types
 * that do not exist) is named in a comment.
 *
 * @since 0.1.0
 * @category reading
 */
export const declarationOf = (btf: Btf, typeId: number, name: string, budget = Budget.ofType()): Declaration =>
  new Writer(btf, budget).declaration(typeId, name)

/**
 * The same in one line, bodies included: `struct { int a; } *name`. Without a name it is the type alone.
 *
 * @since 0.1.0
 * @category rendering
 */
export const oneLine = (btf: Btf, typeId: number, name = "", budget = Budget.ofType()): string =>
  new Writer(btf, budget).line(typeId, name)

/** `int probe(struct device *dev, …)`: a function of this prototype, its parameters named. */
export const prototypeLine = (btf: Btf, prototype: PrototypeType, name: string): string => {
  const writer = new Writer(btf, Budget.ofType())
  return writer.line(prototype.returns, `${name}(${writer.parameters(prototype, true)})`)
}

/** A tag as GNU C writes it: by its own name, or as an argument of `btf_type_tag` or `btf_decl_tag`. */
export const attributeText = (
  { attribute, name }: TypeTagType | DeclTagType,
  tag: "btf_type_tag" | "btf_decl_tag"
): string => `__attribute__((${attribute ? name : `${tag}("${name}")`}))`

class Writer {
  private steps = 0
  private depth = 0

  constructor(private readonly btf: Btf, private readonly budget: Budget) {}

  declaration(typeId: number, name: string): Declaration {
    let declarator = name
    /** Qualifiers met since the last pointer: they are of what comes next. */
    let qualifiers: Array<string> = []
    /** Attributes met since then: they are written after it. */
    let attributes: Array<string> = []
    const done = (base: string, body?: number): Declaration => ({
      base: [...qualifiers, base, ...(body === undefined ? attributes : [])].join(" "),
      body,
      declarator: body === undefined ? declarator : [...attributes, declarator].filter((word) => word !== "").join(" ")
    })
    const parenthesized = () => declarator.startsWith("*") ? `(${declarator})` : declarator
    for (let hops = 0; hops < CHAIN_LIMIT && this.mayGoOn(typeId); hops++) {
      const type = this.btf.type(typeId)
      if (type === undefined) return done(`/* type ${typeId} does not exist */`)
      switch (type.kind) {
        case "VOID":
          return done("void")
        case "CONST":
        case "VOLATILE":
        case "RESTRICT":
          // Those of an array are its elements'.
          if (!qualifiers.includes(type.kind.toLowerCase())) qualifiers.push(type.kind.toLowerCase())
          typeId = type.type
          break
        case "TYPE_TAG":
          attributes.unshift(attributeText(type, "btf_type_tag"))
          typeId = type.type
          break
        case "PTR":
          declarator = `*${[...qualifiers, ...attributes, declarator].filter((word) => word !== "").join(" ")}`
          qualifiers = []
          attributes = []
          typeId = type.type
          break
        case "ARRAY":
          declarator = `${parenthesized()}[${type.count}]`
          typeId = type.type
          break
        case "FUNC_PROTO":
          declarator = `${parenthesized()}(${this.parameters(type, false)})`
          typeId = type.returns
          break
        case "STRUCT":
        case "UNION":
        case "ENUM":
        case "ENUM64": {
          const keyword = type.kind === "ENUM64" ? "enum" : type.kind.toLowerCase()
          return type.name === "" ? done(keyword, type.id) : done(`${keyword} ${type.name}`)
        }
        case "FWD":
          return done(`${type.of} ${type.name}`)
        case "VAR":
        case "FUNC":
        case "DATASEC":
        case "DECL_TAG":
          return done(`/* type ${typeId} is a ${type.kind} */`)
        case "UNKNOWN":
          return done(`/* type ${typeId} is of kind ${type.number} */`)
        default:
          return done(type.name)
      }
    }
    return done("/* and so on */")
  }

  line(typeId: number, name: string): string {
    const { base, body, declarator } = this.declaration(typeId, name)
    const type = body === undefined ? base : `${base} { ${this.body(body)} }`
    return declarator === "" || declarator.startsWith("[") ? type + declarator : `${type} ${declarator}`
  }

  parameters({ parameters }: PrototypeType, named: boolean): string {
    if (parameters.length === 0) return "void"
    return this.below(() =>
      parameters.slice(0, STEP_LIMIT).map(({ name, type }, index) =>
        type === 0 && name === "" && index === parameters.length - 1
          ? "..."
          : this.line(type, named ? name : "")
      ).join(", ")
    )
  }

  private body(typeId: number): string {
    return this.below(() => {
      const type = this.btf.type(typeId)
      if (type?.kind === "ENUM" || type?.kind === "ENUM64") {
        return type.values.slice(0, STEP_LIMIT).map(({ name, value }) => `${name} = ${value}`).join(", ")
      }
      if (type?.kind !== "STRUCT" && type?.kind !== "UNION") return ""
      return type.members.slice(0, STEP_LIMIT).map(({ bitSize, name, type }) =>
        `${this.line(type, name)}${bitSize === 0 ? "" : `:${bitSize}`};`
      ).join(" ")
    })
  }

  /** The text of a nested part, unless it is too deep. */
  private below(write: () => string): string {
    if (this.depth >= DEPTH_LIMIT) return "/* and so on */"
    this.depth++
    const text = write()
    this.depth--
    return text
  }

  private mayGoOn(typeId: number): boolean {
    return this.steps++ < STEP_LIMIT && this.budget.spend(16 + this.btf.nameOf(typeId).length)
  }
}
