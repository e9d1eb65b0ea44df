// Package vm boots Debian's cloud kernels in virtual machines, in software, and
// runs what depends on the kernel in them: the root tests of runtime and layer
// and the core of the end-to-end suite. 6.12 mounts EROFS from files,
// 6.1 only over loop devices, and its overlayfs knows the old options only. Both
// have all controllers in cgroup v2, which the machine that runs the tests may
// not.
//
// The tests need no root and no KVM. Build tag: vm.
package vm
