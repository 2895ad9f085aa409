// Cold index of a BTF file, and the ids of 20 names: milliseconds, in a fresh process.
import * as Either from "effect/Either"
import { Btf } from "ktstr/btf"
import { readFileSync } from "node:fs"

const names = "task_struct rq bpf_map bpf_array bpf_htab htab_elem bucket btf xarray xa_node idr bpf_prog bpf_prog_aux "
  + "cpumask mm_struct file inode dentry sk_buff bpf_map_type"
const bytes = readFileSync(process.argv[2])
const start = performance.now()
const btf = Either.getOrThrow(Btf.parse(bytes, { subject: "vmlinux" }))
const found = names.split(" ").filter((name) => btf.idsByName(name).length > 0)
const ms = performance.now() - start
if (found.length !== 20) throw new Error(`only ${found.join(" ")} are there`)
console.log(JSON.stringify({ ms, bytes: bytes.length }))
