/*
 * Holds one virtual machine with interrupt controllers and one without, and says so. KVM has static keys that count such
 * machines and their vCPUs: while these are there none of them changes, and the kernel does not patch its code.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int check(int result, const char *what)
{
	if (result < 0)
		perror(what);
	return result;
}

int main(void)
{
	int kvm = check(open("/dev/kvm", O_RDWR), "/dev/kvm"), irqchip;

	for (irqchip = 0; irqchip < 2; irqchip++) {
		int vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");

		if (irqchip)
			check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
		check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	}
	puts("held");
	fflush(stdout);
	pause();
	return 0;
}
