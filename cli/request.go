package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"tug/container"
	"tug/spec"
	"tug/sys"
)

// runFlags are the flags that run and create share.
type runFlags struct {
	attach, env, envFile, label, labelFile list
	capAdd, capDrop, security, tmpfs       list

	interactive, tty, init, privileged, readOnly, rm, quiet bool

	name, user, workdir, entrypoint, hostname, domainname string
	stopSignal, pull, platform, cidfile                   string
	restart, runtime                                      string
	stopTimeout                                           int

	network   networkValue
	memory    bytesValue
	cpus      cpusValue
	pidsLimit int64
	ulimits   ulimitValue
	limits    limitFlags
	kernel    kernelFlags
	host      hostFlags
	health    healthFlags
	mounts    mountFlags

	fs *pflag.FlagSet
}

func (f *runFlags) define(fs *pflag.FlagSet) {
	f.fs = fs
	f.attach = list{check: checkStream}
	f.env = list{check: checkEnv}
	f.label = list{check: checkLabel}
	fs.VarP(&f.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.Var(&f.capAdd, "cap-add", "Add Linux capabilities")
	fs.Var(&f.capDrop, "cap-drop", "Drop Linux capabilities")
	fs.StringVar(&f.cidfile, "cidfile", "", "Write the container ID to the file")
	fs.Var(&f.cpus, "cpus", "Number of CPUs")
	fs.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	fs.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.VarP(&f.env, "env", "e", "Set environment variables")
	fs.Var(&f.envFile, "env-file", "Read in a file of environment variables")
	fs.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	fs.BoolVar(&f.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.VarP(&f.label, "label", "l", "Set meta data on a container")
	fs.Var(&f.labelFile, "label-file", "Read in a line delimited file of labels")
	fs.VarP(&f.memory, "memory", "m", "Memory limit")
	fs.StringVar(&f.name, "name", "", "Assign a name to the container")
	fs.Var(&f.network, "network", "Connect a container to a network: none (default) or host")
	fs.Var(&f.network, "net", "")
	hide(fs, "net")
	fs.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.StringVar(&f.platform, "platform", "", "Set platform if the image has several")
	fs.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")
	fs.StringVar(&f.pull, "pull", "missing", `Pull image before running ("always", "missing", "never")`)
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	fs.StringVar(&f.restart, "restart", "no", "Restart policy to apply when a container exits")
	fs.BoolVar(&f.rm, "rm", false, "Automatically remove the container when it exits")
	fs.StringVar(&f.runtime, "runtime", "", "Runtime to use for this container: tug, or the name or path of an OCI runtime, as runc")
	fs.Var(&f.security, "security-opt", "Security Options: no-new-privileges, seccomp=FILE|unconfined|builtin, systempaths=unconfined")
	fs.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.Var(&f.tmpfs, "tmpfs", "Mount a tmpfs directory")
	fs.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.Var(&f.ulimits, "ulimit", "Ulimit options")
	fs.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	f.limits.define(fs)
	f.kernel.define(fs)
	f.host.define(fs)
	f.health.define(fs)
	f.mounts.define(fs)
	absentRunFlags(fs)
}

// request turns the flags and the arguments IMAGE [COMMAND] [ARG...] into what
// the engine is asked for.
func (f *runFlags) request(args []string) (*container.Request, error) {
	r := &container.Request{
		Name: f.name, Image: args[0], Cmd: args[1:],
		User: f.user, WorkingDir: f.workdir, Hostname: f.hostname, Domainname: f.domainname,
		StopSignal: f.stopSignal, Tty: f.tty, OpenStdin: f.interactive,
		Host: spec.HostConfig{
			NetworkMode: string(f.network), AutoRemove: f.rm,
			CapAdd: f.capAdd.values, CapDrop: f.capDrop.values, Privileged: f.privileged,
			ReadonlyRootfs: f.readOnly, Init: f.init, Ulimits: f.ulimits, Runtime: f.runtime,
			Memory: int64(f.memory), NanoCPUs: int64(f.cpus),
		},
	}
	if f.fs.Changed("stop-timeout") {
		r.StopTimeout = &f.stopTimeout
	}
	if f.fs.Changed("pids-limit") {
		r.Host.PidsLimit = &f.pidsLimit
	}
	if f.fs.Changed("entrypoint") {
		r.Entrypoint = &[]string{}
		if f.entrypoint != "" {
			r.Entrypoint = &[]string{f.entrypoint}
		}
	}
	policy, err := spec.ParseRestartPolicy(f.restart)
	if err != nil {
		return nil, err
	}
	r.Host.Restart = policy
	f.limits.set(&r.Host)
	if err := f.kernel.set(&r.Host); err != nil {
		return nil, err
	}
	if err := f.host.set(&r.Host); err != nil {
		return nil, err
	}
	if err := f.mounts.set(r); err != nil {
		return nil, err
	}
	if r.Healthcheck, err = f.health.check(); err != nil {
		return nil, err
	}
	if r.Host.HealthOnFailure, err = f.health.failure(&r.Host); err != nil {
		return nil, err
	}
	if err := f.check(&r.Host); err != nil {
		return nil, err
	}
	f.attachTo(r)
	return r, f.readFiles(r)
}

// check refuses values that make no sense whatever the image is.
func (f *runFlags) check(h *spec.HostConfig) error {
	switch f.pull {
	case "always", "missing", "never":
	default:
		return fmt.Errorf(`invalid pull option: '%s': must be one of "always", "missing" or "never"`, f.pull)
	}
	if f.stopSignal != "" {
		if _, err := sys.ParseSignal(f.stopSignal); err != nil {
			return err
		}
	}
	if h.AutoRemove && h.Restart.On() {
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	if h.UTSMode == "host" && (f.hostname != "" || f.domainname != "") {
		return errors.New("conflicting options: hostname and the UTS mode")
	}
	if len(f.hostname) > maxHostname {
		return fmt.Errorf("invalid hostname '%s': it has more than %d characters", f.hostname, maxHostname)
	}
	return checkLimits(h)
}

const maxHostname = 64 // sethostname(2)

// readFiles fills in what comes from files and needs parsing.
func (f *runFlags) readFiles(r *container.Request) (err error) {
	if r.Env, err = readEnv(f.envFile.values, f.env.values); err != nil {
		return err
	}
	if r.Labels, err = readLabels(f.labelFile.values, f.label.values); err != nil {
		return err
	}
	if r.Host.SecurityOpt, err = readSecurity(f.security.values); err != nil {
		return err
	}
	if r.Host.Tmpfs, err = parseTmpfs(f.tmpfs.values); err != nil {
		return err
	}
	r.Platform, err = parsePlatform(f.platform)
	return err
}

// attachTo sets which streams the container is attached to: those of -a, else
// output and errors, and input with -i.
func (f *runFlags) attachTo(r *container.Request) {
	for _, s := range f.attach.values {
		r.AttachIn = r.AttachIn || s == "stdin"
		r.AttachOut = r.AttachOut || s == "stdout"
		r.AttachErr = r.AttachErr || s == "stderr"
	}
	if len(f.attach.values) == 0 {
		r.AttachIn, r.AttachOut, r.AttachErr = f.interactive, true, true
	}
	r.StdinOnce = r.OpenStdin && r.AttachIn
}

// detached clears what attachTo set, for run -d.
func detached(r *container.Request) {
	r.AttachIn, r.AttachOut, r.AttachErr, r.StdinOnce = false, false, false, false
}

// pullMessages is where the progress of a pull goes that run and create need:
// standard error, since standard output is the container's.
func (a *app) pullMessages(quiet bool) io.Writer {
	if quiet {
		return io.Discard
	}
	return a.Err
}
