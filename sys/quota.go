package sys

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Project quotas bound what directory trees hold, on ext4 and XFS mounted with
// prjquota: every file belongs to a project, which it has from the directory it
// was made in.

// fsxattr is struct fsxattr of <linux/fs.h>.
type fsxattr struct {
	xflags, extsize, nextents, projid, cowextsize uint32
	_                                             [8]byte
}

const (
	fsIocFsGetXattr  = 0x801c581f
	fsIocFsSetXattr  = 0x401c5820
	xflagProjInherit = 0x200 // FS_XFLAG_PROJINHERIT
)

// SetProject makes a directory belong to a project, and what will be made in it.
func SetProject(dir *os.File, id uint32) error {
	var x fsxattr
	if err := ioctlPointer(dir, fsIocFsGetXattr, unsafe.Pointer(&x)); err != nil {
		return wrap("get project", dir.Name(), err)
	}
	x.projid = id
	x.xflags |= xflagProjInherit
	return wrap("set project", dir.Name(), ioctlPointer(dir, fsIocFsSetXattr, unsafe.Pointer(&x)))
}

// Project returns the project that a file or directory belongs to.
func Project(f *os.File) (uint32, error) {
	var x fsxattr
	err := ioctlPointer(f, fsIocFsGetXattr, unsafe.Pointer(&x))
	return x.projid, wrap("get project", f.Name(), err)
}

func ioctlPointer(f *os.File, op uintptr, arg unsafe.Pointer) error {
	return retry(func() error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(Fd(f)), op, uintptr(arg)); e != 0 {
			return e
		}
		return nil
	})
}

// dqblk is struct if_dqblk of <linux/quota.h>.
type dqblk struct {
	bhard, bsoft, space, ihard, isoft, inodes, btime, itime uint64
	valid                                                   uint32
	_                                                       uint32
}

const (
	quotaGet      = 0x800007   // Q_GETQUOTA
	quotaSet      = 0x800008   // Q_SETQUOTA
	quotaState    = 'X'<<8 + 8 // Q_XGETQSTATV
	projectQuota  = 2          // PRJQUOTA
	blockLimits   = 1          // QIF_BLIMITS
	dqBlock       = 1024       // QIF_DQBLKSIZE
	statvVersion  = 1
	projectsCount = 1<<4 | 1<<5 // FS_QUOTA_PDQ_ACCT, FS_QUOTA_PDQ_ENFD
)

// ProjectUse is what a project holds and may hold.
type ProjectUse struct {
	Limit, Bytes, Inodes uint64 // a limit of 0 is none
}

// ProjectQuotas reports whether the file system that f is on holds projects to
// their limits. It needs Linux 5.14.
func ProjectQuotas(f *os.File) bool {
	var state [256]byte // struct fs_quota_statv: version, padding, flags in two bytes
	state[0] = statvVersion
	if quotactl(f, quotaState, 0, unsafe.Pointer(&state)) != nil {
		return false
	}
	flags := *(*uint16)(unsafe.Pointer(&state[2]))
	return flags&projectsCount == projectsCount
}

// ProjectUsage tells of a project on the file system that f is on; one that
// was never used is all zeros.
func ProjectUsage(f *os.File, id uint32) (ProjectUse, error) {
	var d dqblk
	err := quotactl(f, quotaGet, id, unsafe.Pointer(&d))
	if errors.Is(err, unix.ENOENT) {
		return ProjectUse{}, nil
	}
	return ProjectUse{Limit: d.bhard * dqBlock, Bytes: d.space, Inodes: d.inodes}, wrap("quotactl", f.Name(), err)
}

// LimitProject sets how many bytes a project may hold; 0 is no limit.
func LimitProject(f *os.File, id uint32, limit uint64) error {
	d := dqblk{bhard: (limit + dqBlock - 1) / dqBlock, valid: blockLimits}
	return wrap("quotactl", f.Name(), quotactl(f, quotaSet, id, unsafe.Pointer(&d)))
}

func quotactl(f *os.File, cmd int, id uint32, arg unsafe.Pointer) error {
	return retry(func() error {
		_, _, e := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(Fd(f)), uintptr(cmd<<8|projectQuota), uintptr(id), uintptr(arg), 0, 0)
		if e != 0 {
			return e
		}
		return nil
	})
}
