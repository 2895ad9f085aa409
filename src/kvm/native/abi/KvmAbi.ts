/**
 * KVM's numbers and layouts, x86-64. `test/kvm/native/abi/KvmAbi.test.ts` has a C compiler print each of them from the
 * kernel's headers and compares; the names are the headers' own for that.
 * @see include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h, v6.12
 */
export const API_VERSION = 12

/** Requests of ioctl(2): on /dev/kvm, on a VM's descriptor, on a vCPU's. */
export const Request = {
  KVM_GET_API_VERSION: 0xae00,
  KVM_CREATE_VM: 0xae01,
  KVM_CHECK_EXTENSION: 0xae03,
  KVM_GET_VCPU_MMAP_SIZE: 0xae04,
  KVM_GET_SUPPORTED_CPUID: 0xc008ae05,
  KVM_CREATE_VCPU: 0xae41,
  KVM_SET_USER_MEMORY_REGION: 0x4020ae46,
  KVM_SET_TSS_ADDR: 0xae47,
  KVM_CREATE_IRQCHIP: 0xae60,
  KVM_IRQ_LINE: 0x4008ae61,
  KVM_REGISTER_COALESCED_MMIO: 0x4010ae67,
  KVM_CREATE_PIT2: 0x4040ae77,
  KVM_SET_CLOCK: 0x4030ae7b,
  KVM_GET_CLOCK: 0x8030ae7c,
  KVM_RUN: 0xae80,
  KVM_GET_REGS: 0x8090ae81,
  KVM_SET_REGS: 0x4090ae82,
  KVM_GET_SREGS: 0x8138ae83,
  KVM_SET_SREGS: 0x4138ae84,
  KVM_GET_MSRS: 0xc008ae88,
  KVM_SET_MSRS: 0x4008ae89,
  KVM_SET_SIGNAL_MASK: 0x4004ae8b,
  KVM_SET_FPU: 0x41a0ae8d,
  KVM_GET_LAPIC: 0x8400ae8e,
  KVM_SET_LAPIC: 0x4400ae8f,
  KVM_SET_CPUID2: 0x4008ae90,
  KVM_GET_MP_STATE: 0x8004ae98,
  KVM_SET_GUEST_DEBUG: 0x4048ae9b,
  KVM_GET_VCPU_EVENTS: 0x8040ae9f,
  KVM_SET_VCPU_EVENTS: 0x4040aea0,
  KVM_GET_DEBUGREGS: 0x8080aea1,
  KVM_SET_DEBUGREGS: 0x4080aea2,
  KVM_GET_TSC_KHZ: 0xaea3,
  KVM_SET_DEVICE_ATTR: 0x4018aee1,
  KVM_GET_DEVICE_ATTR: 0x4018aee2,
  KVM_HAS_DEVICE_ATTR: 0x4018aee3
} as const

export type RequestName = keyof typeof Request

/** The capabilities that KVM_CHECK_EXTENSION is asked about. */
export const Capability = {
  KVM_CAP_IRQCHIP: 0,
  KVM_CAP_USER_MEMORY: 3,
  KVM_CAP_SET_TSS_ADDR: 4,
  KVM_CAP_EXT_CPUID: 7,
  KVM_CAP_PIT2: 33,
  KVM_CAP_ADJUST_CLOCK: 39,
  KVM_CAP_MAX_VCPUS: 66,
  KVM_CAP_COALESCED_PIO: 162,
  KVM_CAP_TSC_DEADLINE_TIMER: 72
} as const

export type CapabilityName = keyof typeof Capability

/** `kvm_run.exit_reason`. */
export const Exit = {
  KVM_EXIT_IO: 2,
  KVM_EXIT_DEBUG: 4,
  KVM_EXIT_HLT: 5,
  KVM_EXIT_MMIO: 6,
  KVM_EXIT_IRQ_WINDOW_OPEN: 7,
  KVM_EXIT_SHUTDOWN: 8,
  KVM_EXIT_FAIL_ENTRY: 9,
  KVM_EXIT_INTR: 10,
  KVM_EXIT_INTERNAL_ERROR: 17
} as const

/** Other constants of the headers. */
export const Constant = {
  KVM_EXIT_IO_OUT: 1,
  KVM_GUESTDBG_ENABLE: 1,
  KVM_GUESTDBG_USE_HW_BP: 0x20000,
  KVM_PIT_SPEAKER_DUMMY: 1,
  KVM_CPUID_FLAG_SIGNIFCANT_INDEX: 1,
  KVM_MP_STATE_UNINITIALIZED: 1,
  KVM_MP_STATE_HALTED: 3,
  KVM_COALESCED_MMIO_PAGE_OFFSET: 2,
  KVM_CLOCK_REALTIME: 4,
  KVM_CLOCK_HOST_TSC: 8,
  KVM_VCPU_TSC_CTRL: 0,
  KVM_VCPU_TSC_OFFSET: 0
} as const

/** Sizes and byte offsets of the members in use. `size` of a structure with a flexible array is that of its head. */
export const Struct = {
  kvm_userspace_memory_region: {
    size: 32,
    fields: { slot: 0, flags: 4, guest_phys_addr: 8, memory_size: 16, userspace_addr: 24 }
  },
  kvm_coalesced_mmio_zone: { size: 16, fields: { addr: 0, size: 8, pio: 12 } },
  kvm_coalesced_mmio_ring: { size: 8, fields: { first: 0, last: 4, coalesced_mmio: 8 } },
  kvm_coalesced_mmio: { size: 24, fields: { phys_addr: 0, len: 8, pio: 12, data: 16 } },
  kvm_irq_level: { size: 8, fields: { irq: 0, level: 4 } },
  kvm_pit_config: { size: 64, fields: { flags: 0 } },
  kvm_clock_data: { size: 48, fields: { clock: 0, flags: 8, realtime: 16, host_tsc: 24 } },
  kvm_device_attr: { size: 24, fields: { flags: 0, group: 4, attr: 8, addr: 16 } },
  kvm_mp_state: { size: 4, fields: { mp_state: 0 } },
  kvm_vcpu_events: {
    size: 64,
    fields: {
      "exception.injected": 0,
      "exception.nr": 1,
      "exception.has_error_code": 2,
      "nmi.pending": 13,
      "smi.pending": 25,
      "smi.latched_init": 27
    }
  },
  kvm_guest_debug: { size: 72, fields: { control: 0, "arch.debugreg": 8 } },
  kvm_debugregs: { size: 128, fields: { dr6: 32 } },
  kvm_signal_mask: { size: 4, fields: { len: 0, sigset: 4 } },
  kvm_cpuid2: { size: 8, fields: { nent: 0, entries: 8 } },
  kvm_cpuid_entry2: { size: 40, fields: { function: 0, index: 4, flags: 8, eax: 12, ebx: 16, ecx: 20, edx: 24 } },
  kvm_msrs: { size: 8, fields: { nmsrs: 0, entries: 8 } },
  kvm_msr_entry: { size: 16, fields: { index: 0, data: 8 } },
  kvm_lapic_state: { size: 1024, fields: { regs: 0 } },
  kvm_fpu: { size: 416, fields: { fcw: 128, mxcsr: 408 } },
  kvm_regs: {
    size: 144,
    fields: {
      rax: 0,
      rbx: 8,
      rcx: 16,
      rdx: 24,
      rsi: 32,
      rdi: 40,
      rsp: 48,
      rbp: 56,
      r8: 64,
      r9: 72,
      r10: 80,
      r11: 88,
      r12: 96,
      r13: 104,
      r14: 112,
      r15: 120,
      rip: 128,
      rflags: 136
    }
  },
  kvm_segment: {
    size: 24,
    fields: { base: 0, limit: 8, selector: 12, type: 14, present: 15, dpl: 16, db: 17, s: 18, l: 19, g: 20, avl: 21 }
  },
  kvm_dtable: { size: 16, fields: { base: 0, limit: 8 } },
  kvm_sregs: {
    size: 312,
    fields: {
      cs: 0,
      ds: 24,
      es: 48,
      fs: 72,
      gs: 96,
      ss: 120,
      tr: 144,
      ldt: 168,
      gdt: 192,
      idt: 208,
      cr0: 224,
      cr2: 232,
      cr3: 240,
      cr4: 248,
      cr8: 256,
      efer: 264,
      apic_base: 272
    }
  },
  kvm_run: {
    size: 2352,
    fields: {
      exit_reason: 8,
      "io.direction": 32,
      "io.size": 33,
      "io.port": 34,
      "io.count": 36,
      "io.data_offset": 40,
      "mmio.phys_addr": 32,
      "mmio.data": 40,
      "mmio.len": 48,
      "mmio.is_write": 52,
      "debug.arch.dr6": 48,
      "fail_entry.hardware_entry_failure_reason": 32,
      "internal.suberror": 32
    }
  }
} as const
