package cli

import (
	"errors"

	"github.com/spf13/pflag"

	"tug/spec"
)

func setupUpdate(a *app, fs *pflag.FlagSet) func([]string) error {
	var (
		f      limitFlags
		memory bytesValue
		cpus   cpusValue
		pids   int64
		policy *spec.RestartPolicy
	)
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.rtPeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	fs.Int64Var(&f.rtRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Var(&cpus, "cpus", "Number of CPUs")
	fs.StringVar(&f.cpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.mems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.VarP(&memory, "memory", "m", "Memory limit")
	fs.Var(&f.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	fs.Int64Var(&pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	restart := fs.String("restart", "", "Restart policy to apply when a container exits")
	return func(args []string) error {
		if fs.NFlag() == 0 {
			return errors.New("you must provide one or more flags when using this command")
		}
		f.swappiness = -1
		change := &spec.HostConfig{Memory: int64(memory), NanoCPUs: int64(cpus)}
		f.set(change)
		if fs.Changed("pids-limit") {
			change.PidsLimit = &pids
		}
		if err := checkChange(*change); err != nil {
			return err
		}
		if *restart != "" {
			p, err := spec.ParseRestartPolicy(*restart)
			if err != nil {
				return err
			}
			policy = &p
		}
		return a.update(args, change, policy)
	}
}

// checkChange is checkLimits without what depends on the limits there are.
func checkChange(h spec.HostConfig) error {
	if h.Memory == 0 && h.MemorySwap > 0 {
		h.MemorySwap = 0
	}
	return checkLimits(&h)
}

func (a *app) update(names []string, change *spec.HostConfig, policy *spec.RestartPolicy) error {
	e, err := a.engine()
	if err != nil {
		return err
	}
	return a.each(names, func(name string) error {
		c, err := e.Containers.Find(name)
		if err != nil {
			return err
		}
		warnings, err := e.Containers.Update(a.ctx, c.ID, change, policy)
		if err != nil {
			return err
		}
		a.startWarnings(warnings)
		return a.printf("%s\n", name)
	})
}
