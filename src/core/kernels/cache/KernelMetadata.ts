import * as Schema from "effect/Schema"

const Crc32 = Schema.String.pipe(Schema.pattern(/^[0-9a-f]{8}$/))
const Sha256 = Schema.String.pipe(Schema.pattern(/^[0-9a-f]{64}$/))
/** A name inside the entry's own directory: never a path that leads out of it. */
const FileName = Schema.String.pipe(Schema.pattern(/^[A-Za-z0-9_][A-Za-z0-9._+-]*$/))

const UtcInstant = Schema.String.pipe(Schema.pattern(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/))

const KernelFile = Schema.Struct({ name: FileName, bytes: Schema.NonNegativeInt, sha256: Sha256 })

/**
 * Where a cached kernel came from.
 *
 * @since 0.1.0
 * @category schemas
 */
export const KernelSource = Schema.Union(
  Schema.Struct({
    kind: Schema.Literal("debian"),
    package: Schema.NonEmptyString,
    version: Schema.NonEmptyString,
    /** Absent: stored before this was recorded. */
    suite: Schema.optionalWith(Schema.NonEmptyString, { exact: true })
  }),
  Schema.Struct({ kind: Schema.Literal("tarball"), version: Schema.NonEmptyString, from: Schema.NonEmptyString }),
  Schema.Struct({
    kind: Schema.Literal("git"),
    url: Schema.NonEmptyString,
    ref: Schema.NonEmptyString,
    commit: Schema.NonEmptyString
  }),
  Schema.Struct({ kind: Schema.Literal("local"), path: Schema.NonEmptyString, commit: Schema.NonEmptyString })
)
/** A file of the cache as it was stored. */
export type KernelFile = typeof KernelFile.Type

/**
 * The type that the Schema `KernelSource` decodes to.
 *
 * @since 0.1.0
 * @category models
 */
export type KernelSource = typeof KernelSource.Type

/**
 * `metadata.json` of a kernel in the cache. The files that it names lie beside it.
 *
 * @since 0.1.0
 * @category schemas
 */
export class KernelMetadata extends Schema.Class<KernelMetadata>("ktstr/KernelMetadata")({
  /** The version of this schema. */
  format: Schema.Literal(1),
  source: KernelSource,
  /** `uname -r`. */
  release: Schema.NonEmptyString,
  /** `uname -m`. */
  arch: Schema.Literal("x86_64", "aarch64"),
  /** The file that a VM boots. */
  image: KernelFile,
  /** The ELF kernel with symbols and BTF, without debug info; null where the source has none. */
  vmlinux: Schema.NullOr(KernelFile),
  /** The ELF kernel inside `image`, where `vmlinux` is not it; null where there is none. Absent: stored before this was recorded. */
  unpacked: Schema.optionalWith(Schema.NullOr(KernelFile), { exact: true }),
  /** The build's `.config`; null where it is not known. */
  config: Schema.NullOr(FileName),
  /** The directory of its modules, as in /lib/modules/RELEASE; null where the source has none, or it was not recorded. */
  modules: Schema.optionalWith(Schema.NullOr(FileName), { default: () => null }),
  /** CRC-32 of the test kconfig that it was built with; null: built by somebody else, or before this was recorded. */
  kconfigHash: Schema.NullOr(Crc32),
  /** CRC-32 of the user's extra kconfig, byte for byte; null: none. */
  extraKconfigHash: Schema.NullOr(Crc32),
  /** When it was stored, ISO 8601 in UTC with milliseconds: the order of the text is that of time. */
  storedAt: UtcInstant
}) {}

export const KernelMetadataJson = Schema.parseJson(KernelMetadata)
