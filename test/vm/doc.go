// Package vm boots Debian's cloud kernels in virtual machines, in software, and
// runs the core of the end-to-end suite in them: 6.12, which mounts EROFS from
// files, and 6.1, which does not know its 512-byte blocks. Both have all
// controllers in cgroup v2, which the machine that runs the tests may not.
//
// The tests need no root and no KVM. Build tag: vm.
package vm
