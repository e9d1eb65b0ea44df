package supervisor

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"tug/supervisor/keeper"
)

// HostMounts returns the mount namespace that the keeper was started from, for
// looking up the sources of mounts; nil when the keeper handed none over. No
// program that is executed gets it.
func HostMounts() *os.File {
	at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(keeper.MountsFd))
	if err != nil || !strings.HasPrefix(at, "mnt:[") {
		return nil
	}
	syscall.CloseOnExec(keeper.MountsFd)
	return os.NewFile(keeper.MountsFd, "the host's mounts")
}
