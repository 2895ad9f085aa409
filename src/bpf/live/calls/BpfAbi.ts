/**
 * The parts of bpf(2)'s interface that are used: numbers that the kernel never changes. A kernel that is older than a
 * field leaves it 0; one that is newer ignores what is not given.
 * @see include/uapi/linux/bpf.h `enum bpf_cmd`, `union bpf_attr`, v6.12
 */
export const Command = {
  MAP_CREATE: 0,
  MAP_LOOKUP_ELEM: 1,
  MAP_UPDATE_ELEM: 2,
  MAP_DELETE_ELEM: 3,
  MAP_GET_NEXT_KEY: 4,
  PROG_LOAD: 5,
  PROG_TEST_RUN: 10,
  PROG_GET_NEXT_ID: 11,
  MAP_GET_NEXT_ID: 12,
  PROG_GET_FD_BY_ID: 13,
  MAP_GET_FD_BY_ID: 14,
  OBJ_GET_INFO_BY_FD: 15,
  BTF_LOAD: 18,
  BTF_GET_FD_BY_ID: 19,
  MAP_FREEZE: 22,
  BTF_GET_NEXT_ID: 23,
  MAP_LOOKUP_BATCH: 24,
  LINK_GET_FD_BY_ID: 30,
  LINK_GET_NEXT_ID: 31
} as const

/** Bytes of the attributes that are passed: the kernel wants zeros behind what it knows. */
export const ATTR_BYTES = 144

/** Where the members of `union bpf_attr` lie, in bytes, by command. */
export const Attr = {
  create: {
    map_type: 0,
    key_size: 4,
    value_size: 8,
    max_entries: 12,
    map_flags: 16,
    inner_map_fd: 20,
    map_name: 28,
    btf_fd: 48,
    btf_key_type_id: 52,
    btf_value_type_id: 56,
    map_extra: 64
  },
  element: { map_fd: 0, key: 8, value: 16, flags: 24 },
  batch: { in_batch: 0, out_batch: 8, keys: 16, values: 24, count: 32, map_fd: 36, elem_flags: 40, flags: 48 },
  load: { prog_type: 0, insn_cnt: 4, insns: 8, license: 16, log_level: 24, log_size: 28, log_buf: 32, prog_flags: 44 },
  test: { prog_fd: 0, retval: 4, ctx_size_in: 40, ctx_in: 48 },
  id: { start_id: 0, next_id: 4, open_flags: 8 },
  info: { bpf_fd: 0, info_len: 4, info: 8 },
  btf: { btf: 0, btf_size: 16 }
} as const

/** Bytes of the structs that OBJ_GET_INFO_BY_FD fills. */
export const INFO_BYTES = { map: 96, program: 232, btf: 32, link: 96 } as const

/** `struct bpf_map_info` */
export const MapInfoAt = {
  type: 0,
  id: 4,
  key_size: 8,
  value_size: 12,
  max_entries: 16,
  map_flags: 20,
  name: 24,
  btf_vmlinux_value_type_id: 44,
  btf_id: 64,
  btf_key_type_id: 68,
  btf_value_type_id: 72,
  /** Since v6.9: whose type `btf_vmlinux_value_type_id` is. Before, and for 0, it is vmlinux's. */
  btf_vmlinux_id: 76,
  map_extra: 80
} as const

/** `struct bpf_prog_info` */
export const ProgramInfoAt = { type: 0, id: 4, name: 64, btf_id: 128 } as const

/** `struct bpf_btf_info` */
export const BtfInfoAt = { btf: 0, btf_size: 8, id: 12, name: 16, name_len: 24, kernel_btf: 28 } as const

/** `struct bpf_link_info` */
export const LinkInfoAt = { type: 0, id: 4, prog_id: 8 } as const

/** `map_flags` that are looked at. */
export const MapFlag = { STACK_BUILD_ID: 1 << 5 } as const

/** include/uapi/asm-generic/errno-base.h and errno.h; ENOTSUPP is of include/linux/errno.h and has no name outside. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  EINVAL: 22,
  ENOSPC: 28,
  ENOSYS: 38,
  EOPNOTSUPP: 95,
  ENOTSUPP: 524
} as const
