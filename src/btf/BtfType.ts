/**
 * The kinds of BTF types, by the numbers on disk.
 * @see include/uapi/linux/btf.h `BTF_KIND_*`, v6.1 to v7.3
 * @since 0.1.0
 * @category constants
 */
export const Kind = {
  VOID: 0,
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FWD: 7,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  FLOAT: 16,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19
} as const

/**
 * `"STRUCT"`, `"ENUM64"`, …
 *
 * @since 0.1.0
 * @category models
 */
export type KindName = keyof typeof Kind

/**
 * Kind and vlen of a type's `info` word: 7 and 24 bits. Up to v7.1 they were 5 and 16, and the kernel refused BTF that had
 * any of the other bits set, so that one reading fits all.
 * @see include/uapi/linux/btf.h `BTF_INFO_KIND`, `BTF_INFO_VLEN`, v7.3
 */
export const kindOfInfo = (info: number): number => (info >>> 24) & 0x7f
export const vlenOfInfo = (info: number): number => info & 0x00ff_ffff

/**
 * A member of a struct or union; `name` is empty for an anonymous one.
 *
 * @since 0.1.0
 * @category models
 */
export interface Member {
  readonly name: string
  readonly type: number
  /** From the start of the struct, in bits. */
  readonly bitOffset: number
  /** Width of a bit-field in bits, else 0. An old blob may describe bit-fields by `Int.bits` alone. */
  readonly bitSize: number
}

/**
 * One name of an enum; a `bigint` only beyond ±(2^53 - 1).
 *
 * @since 0.1.0
 * @category models
 */
export interface Enumerator {
  readonly name: string
  readonly value: number | bigint
}

/**
 * A parameter of a function prototype; the last one of a variadic function has no name and type 0.
 *
 * @since 0.1.0
 * @category models
 */
export interface Parameter {
  readonly name: string
  readonly type: number
}

/**
 * Where a data section (`.bss`, `.rodata`, …) holds the variable `type`, in bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface SectionVariable {
  readonly type: number
  readonly offset: number
  readonly size: number
}

/**
 * `void`, id 0.
 *
 * @since 0.1.0
 * @category models
 */
export interface VoidType {
  readonly kind: "VOID"
  readonly id: 0
}
/**
 * `BTF_KIND_INT`.
 *
 * @since 0.1.0
 * @category models
 */
export interface IntType {
  readonly kind: "INT"
  readonly id: number
  readonly name: string
  /** In bytes. */
  readonly size: number
  readonly signed: boolean
  readonly char: boolean
  readonly bool: boolean
  /** Where its `bits` begin in its bytes; other than 0 only for bit-fields of old blobs. */
  readonly bitOffset: number
  readonly bits: number
}
/**
 * A pointer to, a name for, or a qualifier of another type. `name` is empty unless it is a TYPEDEF.
 *
 * @since 0.1.0
 * @category models
 */
export interface ReferenceType {
  readonly kind: "PTR" | "TYPEDEF" | "VOLATILE" | "CONST" | "RESTRICT"
  readonly id: number
  readonly name: string
  /** Id of the other type. */
  readonly type: number
}
/**
 * An attribute of the type that a pointer points at.
 *
 * @since 0.1.0
 * @category models
 */
export interface TypeTagType {
  readonly kind: "TYPE_TAG"
  readonly id: number
  readonly name: string
  /** Id of the type that is tagged. */
  readonly type: number
  /**
   * Whether `name` is the attribute itself, `address_space(1)`; else the attribute is `btf_type_tag("name")`.
   * @see Documentation/bpf/btf.rst, v6.15: kind_flag of BTF_KIND_TYPE_TAG
   */
  readonly attribute: boolean
}
/**
 * `BTF_KIND_ARRAY`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ArrayType {
  readonly kind: "ARRAY"
  readonly id: number
  readonly type: number
  readonly indexType: number
  readonly count: number
}
/**
 * `BTF_KIND_STRUCT` and `BTF_KIND_UNION`.
 *
 * @since 0.1.0
 * @category models
 */
export interface StructType {
  readonly kind: "STRUCT" | "UNION"
  readonly id: number
  readonly name: string
  /** In bytes. */
  readonly size: number
  readonly members: ReadonlyArray<Member>
}
/**
 * `BTF_KIND_ENUM` and `BTF_KIND_ENUM64`.
 *
 * @since 0.1.0
 * @category models
 */
export interface EnumType {
  readonly kind: "ENUM" | "ENUM64"
  readonly id: number
  readonly name: string
  /** In bytes. */
  readonly size: number
  readonly signed: boolean
  readonly values: ReadonlyArray<Enumerator>
}
/**
 * `BTF_KIND_FWD`.
 *
 * @since 0.1.0
 * @category models
 */
export interface ForwardType {
  readonly kind: "FWD"
  readonly id: number
  readonly name: string
  readonly of: "struct" | "union"
}
/**
 * `BTF_KIND_FUNC`.
 *
 * @since 0.1.0
 * @category models
 */
export interface FunctionType {
  readonly kind: "FUNC"
  readonly id: number
  readonly name: string
  /** The FUNC_PROTO. */
  readonly type: number
  readonly linkage: number
}
/**
 * `BTF_KIND_FUNC_PROTO`.
 *
 * @since 0.1.0
 * @category models
 */
export interface PrototypeType {
  readonly kind: "FUNC_PROTO"
  readonly id: number
  readonly returns: number
  readonly parameters: ReadonlyArray<Parameter>
}
/**
 * `BTF_KIND_VAR`.
 *
 * @since 0.1.0
 * @category models
 */
export interface VariableType {
  readonly kind: "VAR"
  readonly id: number
  readonly name: string
  readonly type: number
  /** 0 static, 1 global, 2 extern. */
  readonly linkage: number
}
/**
 * `BTF_KIND_DATASEC`.
 *
 * @since 0.1.0
 * @category models
 */
export interface DataSectionType {
  readonly kind: "DATASEC"
  readonly id: number
  readonly name: string
  /** In bytes; 0 in an object file that no loader has laid out yet. */
  readonly size: number
  readonly variables: ReadonlyArray<SectionVariable>
}
/**
 * `BTF_KIND_FLOAT`.
 *
 * @since 0.1.0
 * @category models
 */
export interface FloatType {
  readonly kind: "FLOAT"
  readonly id: number
  readonly name: string
  /** In bytes. */
  readonly size: number
}
/**
 * An attribute of a declaration: of a struct, union, typedef, variable or function, or of one of its members or parameters.
 *
 * @since 0.1.0
 * @category models
 */
export interface DeclTagType {
  readonly kind: "DECL_TAG"
  readonly id: number
  readonly name: string
  /** Id of what is tagged. */
  readonly type: number
  /** Index of the member or parameter that is tagged, -1 for the type itself. */
  readonly component: number
  /** Whether `name` is the attribute itself; else the attribute is `btf_decl_tag("name")` (v6.15, as of type tags). */
  readonly attribute: boolean
}
/**
 * A kind newer than this reader, whose size the blob's layout section gives.
 *
 * @since 0.1.0
 * @category models
 */
export interface UnknownType {
  readonly kind: "UNKNOWN"
  readonly id: number
  readonly name: string
  /** The kind's number on disk. */
  readonly number: number
}

/**
 * A decoded type. Ids of other types are as in the blob: they may be out of range in a hostile one.
 *
 * @since 0.1.0
 * @category models
 */
export type BtfType =
  | VoidType
  | IntType
  | ReferenceType
  | ArrayType
  | StructType
  | EnumType
  | ForwardType
  | FunctionType
  | PrototypeType
  | VariableType
  | DataSectionType
  | FloatType
  | DeclTagType
  | TypeTagType
  | UnknownType
