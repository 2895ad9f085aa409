import * as Schema from "effect/Schema"

/**
 * The kernel's description of a map. A map is identified by `id`; names repeat and are cut after 15 bytes.
 *
 * The readers make it, `Program` and `Link` without the schema's check (`new MapInfo(fields, true)`): their fields are
 * what they say by how they were read, and the check took two thirds of the time of a list.
 * @see include/linux/bpf.h `struct bpf_map`, v6.12
 * @since 0.1.0
 * @category schemas
 */
export class MapInfo extends Schema.Class<MapInfo>("ktstr/MapInfo")({
  id: Schema.Int.annotations({ description: "the kernel's id of the map, unique while it lives" }),
  name: Schema.String.annotations({ description: "at most 15 bytes; not unique" }),
  type: Schema.String.annotations({ description: "enum bpf_map_type in bpftool's spelling, or `type N`" }),
  flags: Schema.Int.annotations({ description: "map_flags: BPF_F_* bits" }),
  keySize: Schema.Int.annotations({ description: "bytes" }),
  valueSize: Schema.Int.annotations({ description: "bytes; of one CPU's value in per-CPU maps" }),
  maxEntries: Schema.Int,
  keyTypeId: Schema.Int.annotations({ description: "type id in the map's BTF; 0: no type" }),
  valueTypeId: Schema.Int.annotations({ description: "type id in the map's BTF; 0: no type" }),
  btfId: Schema.NullOr(Schema.Int).annotations({ description: "the kernel's id of the map's BTF; null: none" })
}) {}
