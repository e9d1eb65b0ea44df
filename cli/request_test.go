package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tug/container"
	"tug/spec"
)

// parseRun parses a command line of run up to the request.
func parseRun(t *testing.T, args ...string) (*container.Request, error) {
	t.Helper()
	fs := newFlagSet()
	f := &runFlags{}
	f.define(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if err := missingFlags(fs, "run"); err != nil {
		return nil, err
	}
	return f.request(fs.Args())
}

func write(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRequest(t *testing.T) {
	t.Setenv("FROM_HERE", "1=2")
	envFile := write(t, "\ufeffA=1\n# comment\n\n  B=x # y\nFROM_HERE\nNOT_SET_ANYWHERE\nC=\n")
	labels := write(t, "l1=v1\nl2\n")
	profile := write(t, `{"defaultAction":"SCMP_ACT_ALLOW"}`)
	base := func(change func(*container.Request)) *container.Request {
		r := &container.Request{Image: "img", AttachOut: true, AttachErr: true}
		change(r)
		return r
	}
	five, hundred, unlimited := 5, int64(100), int64(-1)
	for _, tt := range []struct {
		args string
		want *container.Request
	}{
		{"img", base(func(*container.Request) {})},
		// Flags stop at the image's name, also those that tug lacks.
		{"img -it --publish 80 --", base(func(r *container.Request) { r.Cmd = []string{"-it", "--publish", "80", "--"} })},
		{"-- img -x", base(func(r *container.Request) { r.Cmd = []string{"-x"} })},
		{"-it img sh", base(func(r *container.Request) {
			r.Tty, r.OpenStdin, r.StdinOnce, r.AttachIn, r.Cmd = true, true, true, true, []string{"sh"}
		})},
		{"-it=false img", base(func(r *container.Request) { r.OpenStdin, r.StdinOnce, r.AttachIn = true, true, true })},
		{"-i -a stdout img", base(func(r *container.Request) { r.OpenStdin, r.AttachErr = true, false })},
		{"-a STDIN -a stderr -i img", base(func(r *container.Request) {
			r.OpenStdin, r.StdinOnce, r.AttachIn, r.AttachOut = true, true, true, false
		})},
		{"--entrypoint= img", base(func(r *container.Request) { r.Entrypoint = &[]string{} })},
		{"--entrypoint /bin/x img y", base(func(r *container.Request) { r.Entrypoint, r.Cmd = &[]string{"/bin/x"}, []string{"y"} })},
		{"-e A=b=c -e FROM_HERE -e NOT_SET_ANYWHERE -e E= img", base(func(r *container.Request) {
			r.Env = []string{"A=b=c", "FROM_HERE=1=2", "NOT_SET_ANYWHERE", "E="}
		})},
		{"-e Z=1 --env-file " + envFile + " img", base(func(r *container.Request) {
			r.Env = []string{"A=1", "B=x # y", "FROM_HERE=1=2", "C=", "Z=1"}
		})},
		{"-l l1=mine --label l3 --label-file " + labels + " img", base(func(r *container.Request) {
			r.Labels = map[string]string{"l1": "mine", "l2": "", "l3": ""}
		})},
		{"-m 512m --cpus 1.5 --pids-limit 100 --ulimit nofile=10:20 --ulimit core=0 img", base(func(r *container.Request) {
			r.Host.Memory, r.Host.NanoCPUs, r.Host.PidsLimit = 512<<20, 1.5e9, &hundred
			r.Host.Ulimits = []spec.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}, {Name: "core"}}
		})},
		{"--pids-limit -1 --memory=1g img", base(func(r *container.Request) { r.Host.PidsLimit, r.Host.Memory = &unlimited, 1<<30 })},
		{"--name n -w /w -u 1:2 --hostname h --domainname d --stop-signal USR1 --stop-timeout 5 img", base(func(r *container.Request) {
			r.Name, r.WorkingDir, r.User, r.Hostname, r.Domainname, r.StopSignal, r.StopTimeout = "n", "/w", "1:2", "h", "d", "USR1", &five
		})},
		{"--memory-reservation 8m -m 16m --memory-swap -1 --memory-swappiness 0 --oom-kill-disable --oom-score-adj -5 img", base(func(r *container.Request) {
			h := &r.Host
			h.Memory, h.MemoryReservation, h.MemorySwap, h.MemorySwappiness, h.OomKillDisable, h.OomScoreAdj = 16<<20, 8<<20, -1, new(int64), true, -5
		})},
		{"-c 512 --cpu-period 50000 --cpu-quota 25000 --cpu-rt-period 9 --cpu-rt-runtime 8 --cpuset-cpus 0 --cpuset-mems 0 img", base(func(r *container.Request) {
			h := &r.Host
			h.CPUShares, h.CPUPeriod, h.CPUQuota, h.CPURealtimePeriod, h.CPURealtimeRuntime = 512, 50000, 25000, 9, 8
			h.CpusetCpus, h.CpusetMems = "0", "0"
		})},
		{"--blkio-weight 10 --blkio-weight-device /dev/a:1000 --device-read-bps /dev/a:1mb --device-write-iops /dev/a:5 --device-write-iops /dev/b:0 img", base(func(r *container.Request) {
			h := &r.Host
			h.BlkioWeight, h.BlkioWeightDevice = 10, []spec.WeightDevice{{Path: "/dev/a", Weight: 1000}}
			h.BlkioDeviceReadBps = []spec.ThrottleDevice{{Path: "/dev/a", Rate: 1 << 20}}
			h.BlkioDeviceWriteIOps = []spec.ThrottleDevice{{Path: "/dev/a", Rate: 5}, {Path: "/dev/b"}}
		})},
		{"--shm-size 8m --group-add audio --group-add 7 --sysctl net.core.somaxconn=5 --sysctl kernel.sem= --annotation a=b=c --annotation d --cgroupns host img", base(func(r *container.Request) {
			h := &r.Host
			h.ShmSize, h.GroupAdd, h.CgroupnsMode = 8<<20, []string{"audio", "7"}, "host"
			h.Sysctls, h.Annotations = map[string]string{"net.core.somaxconn": "5", "kernel.sem": ""}, map[string]string{"a": "b=c", "d": ""}
		})},
		{"--device /dev/a --device /dev/a:r --device /dev/a:/x --device /dev/a:/x:wm img", base(func(r *container.Request) {
			r.Host.Devices = []spec.DeviceMapping{
				{PathOnHost: "/dev/a", PathInContainer: "/dev/a", CgroupPermissions: "rwm"},
				{PathOnHost: "/dev/a", PathInContainer: "/dev/a", CgroupPermissions: "r"},
				{PathOnHost: "/dev/a", PathInContainer: "/x", CgroupPermissions: "rwm"},
				{PathOnHost: "/dev/a", PathInContainer: "/x", CgroupPermissions: "wm"},
			}
		})},
		{"--health-cmd x --health-interval 1m --health-timeout 1ms --health-retries 2 --health-start-period 5s --health-start-interval 2s --health-on-failure restart img", base(func(r *container.Request) {
			r.Healthcheck = &spec.Healthcheck{
				Test: []string{"CMD-SHELL", "x"}, Interval: time.Minute, Timeout: time.Millisecond, Retries: 2,
				StartPeriod: 5 * time.Second, StartInterval: 2 * time.Second,
			}
			r.Host.HealthOnFailure = "restart"
		})},
		{"--health-retries 1 --health-on-failure none img", base(func(r *container.Request) { r.Healthcheck = &spec.Healthcheck{Retries: 1} })},
		{"--health-cmd= --health-on-failure kill --rm img", base(func(r *container.Request) { r.Host.HealthOnFailure, r.Host.AutoRemove = "kill", true })},
		{"--no-healthcheck img", base(func(r *container.Request) { r.Healthcheck = &spec.Healthcheck{Test: []string{"NONE"}} })},
		{"--no-healthcheck=false img", base(func(*container.Request) {})},
		{"-h short img", base(func(r *container.Request) { r.Hostname = "short" })},
		{"--rm --init --privileged --read-only --cap-add NET_ADMIN --cap-drop ALL --network host img", base(func(r *container.Request) {
			r.Host = spec.HostConfig{
				AutoRemove: true, Init: true, Privileged: true, ReadonlyRootfs: true, NetworkMode: "host",
				CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"ALL"},
			}
		})},
		{"--net none --tmpfs /t --tmpfs /u:size=1m,mode=700 img", base(func(r *container.Request) {
			r.Host.NetworkMode, r.Host.Tmpfs = "none", map[string]string{"/t": "", "/u": "size=1m,mode=700"}
		})},
		{"--security-opt no-new-privileges --security-opt seccomp=" + profile + " img", base(func(r *container.Request) {
			r.Host.SecurityOpt = []string{"no-new-privileges", `seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`}
		})},
		{"--security-opt no-new-privileges=false --security-opt seccomp=unconfined img", base(func(r *container.Request) {
			r.Host.SecurityOpt = []string{"no-new-privileges:false", "seccomp=unconfined"}
		})},
		{"--platform linux/arm64/v8 img", base(func(r *container.Request) {
			r.Platform = &spec.Platform{OS: "linux", Architecture: "arm64"}
		})},
		// Values that ask for what tug does anyway.
		{"--restart no --ipc private --oom-kill-disable=false --disable-content-trust --log-driver= img", base(func(*container.Request) {})},
		{"--rm --restart no img", base(func(r *container.Request) { r.Host.AutoRemove = true })},
		{"--restart on-failure:3 img", base(func(r *container.Request) {
			r.Host.Restart = spec.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3}
		})},
		{"--restart unless-stopped img", base(func(r *container.Request) { r.Host.Restart.Name = "unless-stopped" })},
		{"--ipc host --uts host --userns host --pid host img", base(func(r *container.Request) {
			r.Host.IpcMode, r.Host.UTSMode, r.Host.UsernsMode, r.Host.PidMode = "host", "host", "host", "host"
		})},
		{"--ipc container:a --pid container:b img", base(func(r *container.Request) {
			r.Host.IpcMode, r.Host.PidMode = "container:a", "container:b"
		})},
	} {
		got, err := parseRun(t, strings.Fields(tt.args)...)
		if err != nil {
			t.Errorf("%s: %v", tt.args, err)
			continue
		}
		if len(got.Cmd) == 0 {
			got.Cmd = nil
		}
		if len(got.Labels) == 0 {
			got.Labels = nil
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.args, diff)
		}
	}
}

// A rule has blanks in it.
func TestDeviceRuleFlag(t *testing.T) {
	r, err := parseRun(t, "--device-cgroup-rule", "c 1:* rw", "--device-cgroup-rule", "a *:* m", "img")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"c 1:* rw", "a *:* m"}, r.Host.DeviceCgroupRules); diff != "" {
		t.Error(diff)
	}
}

func TestRequestErrors(t *testing.T) {
	bad := write(t, "A=1\nB C=2\n")
	for args, want := range map[string]string{
		"--foo img":                                        "unknown flag: --foo",
		"--name":                                           "flag needs an argument: --name",
		"-p 80 img":                                        "run --publish is not there yet",
		"--restart sometimes img":                          "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
		"--restart :3 img":                                 "invalid restart policy format: no policy provided before colon",
		"--restart on-failure:x img":                       "invalid restart policy format: maximum retry count must be an integer",
		"--restart on-failure:-1 img":                      "invalid restart policy: maximum retry count cannot be negative",
		"--restart always:3 img":                           "invalid restart policy: maximum retry count can only be used with 'on-failure'",
		"--restart no:-3 img":                              "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative",
		"--rm --restart always img":                        "conflicting options: cannot specify both --restart and --rm",
		"--network bridge img":                             `invalid argument "bridge" for "--network" flag: of networks, only none and host are there yet`,
		"-m 1q img":                                        `invalid argument "1q" for "-m, --memory" flag: invalid suffix: 'q'`,
		"--cpus x img":                                     `invalid argument "x" for "--cpus" flag: failed to parse x as a rational number`,
		"--cpus 1e99999999 img":                            `invalid argument "1e99999999" for "--cpus" flag: failed to parse 1e99999999 as a rational number`,
		"--cpus 0.0000000001 img":                          `invalid argument "0.0000000001" for "--cpus" flag: value is too precise`,
		"--memory-swap -2 img":                             `invalid argument "-2" for "--memory-swap" flag: invalid size: '-2'`,
		"-m 64m --memory-swap 32m img":                     "Minimum memoryswap limit should be larger than memory limit, see usage",
		"--memory-swap 32m img":                            "You should always set the Memory limit when using Memoryswap limit, see usage",
		"--memory-swappiness 101 img":                      "invalid value: 101. Valid memory swappiness range is 0-100",
		"--memory-reservation 1m img":                      "Minimum memory reservation allowed is 6MB",
		"-m 16m --memory-reservation 17m img":              "Minimum memory limit can not be less than memory reservation limit, see usage",
		"--oom-score-adj 1001 img":                         "Invalid value 1001, range for oom score adj is [-1000, 1000]",
		"--cpus 1 --cpu-quota 5000 img":                    "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
		"--cpus 1 --cpu-period 5000 img":                   "Conflicting options: Nano CPUs and CPU Period cannot both be set",
		"--cpu-period 999 img":                             "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
		"--cpu-quota 999 img":                              "CPU cfs quota can not be less than 1ms (i.e. 1000)",
		"--cpu-rt-period 9 --cpu-rt-runtime 10 img":        "cpu real-time runtime cannot be higher than cpu real-time period",
		"--cpuset-cpus 0-x img":                            "Invalid value 0-x for cpuset cpus",
		"--cpuset-mems 99999999 img":                       "Invalid value 99999999 for cpuset mems",
		"--blkio-weight 9 img":                             "Range of blkio weight is from 10 to 1000",
		"--blkio-weight-device /dev/a:9 img":               `invalid argument "/dev/a:9" for "--blkio-weight-device" flag: invalid weight for device: /dev/a:9`,
		"--device-read-bps foo img":                        `invalid argument "foo" for "--device-read-bps" flag: bad format: foo`,
		"--device-read-bps foo:1 img":                      `invalid argument "foo:1" for "--device-read-bps" flag: bad format for device path: foo:1`,
		"--device-write-iops /dev/a:1k img":                `invalid argument "/dev/a:1k" for "--device-write-iops" flag: invalid rate for device: /dev/a:1k. The correct format is <device-path>:<number>. Number must be a positive integer`,
		"--shm-size -1 img":                                `invalid argument "-1" for "--shm-size" flag: invalid size: '-1'`,
		"--sysctl foo img":                                 `invalid argument "foo" for "--sysctl" flag: sysctl 'foo' is not allowed`,
		"--sysctl kernel.panic=1 img":                      `invalid argument "kernel.panic=1" for "--sysctl" flag: sysctl 'kernel.panic=1' is not allowed`,
		"--network host --sysctl net.core.somaxconn=1 img": `sysctl "net.core.somaxconn" not allowed in host network namespace`,
		"--annotation =a img":                              "invalid Annotation: the empty string is not permitted as an annotation key",
		"--cgroupns foo img":                               "--cgroupns: invalid CGROUP mode",
		"--device dev img":                                 `invalid argument "dev" for "--device" flag: dev is not an absolute path`,
		"--device /dev/a:/b:x img":                         `invalid argument "/dev/a:/b:x" for "--device" flag: bad mode specified: x`,
		"--device /dev/a:rr img":                           `invalid argument "/dev/a:rr" for "--device" flag: rr is not an absolute path`,
		"--device /a:/b:r:w img":                           `invalid argument "/a:/b:r:w" for "--device" flag: bad format for path: /a:/b:r:w`,
		"--device :/b img":                                 `invalid argument ":/b" for "--device" flag: bad format for path: :/b`,
		"--device-cgroup-rule foo img":                     `invalid argument "foo" for "--device-cgroup-rule" flag: invalid device cgroup format 'foo'`,
		"--ipc foo img":                                    "invalid IPC mode: foo",
		"--ipc container: img":                             "invalid IPC mode: container:",
		"--uts foo img":                                    "--uts: invalid UTS mode",
		"--userns foo img":                                 "--userns: invalid USER mode",
		"--uts host -h x img":                              "conflicting options: hostname and the UTS mode",
		"--pid container: img":                             "--pid: invalid PID mode",
		"--no-healthcheck --health-cmd x img":              "--no-healthcheck conflicts with --health-* options",
		"--no-healthcheck --health-on-failure kill img":    "--no-healthcheck conflicts with --health-* options",
		"--health-interval -1s img":                        "--health-interval cannot be negative",
		"--health-timeout=-1s img":                         "--health-timeout cannot be negative",
		"--health-retries -1 img":                          "--health-retries cannot be negative",
		"--health-start-period -1s img":                    "--health-start-period cannot be negative",
		"--health-start-interval -1s img":                  "--health-start-interval cannot be negative",
		"--health-interval 999us img":                      "Interval in Healthcheck cannot be less than 1ms",
		"--health-timeout 1ns img":                         "Timeout in Healthcheck cannot be less than 1ms",
		"--health-start-period 1us img":                    "StartPeriod in Healthcheck cannot be less than 1ms",
		"--health-start-interval 1us img":                  "StartInterval in Healthcheck cannot be less than 1ms",
		"--health-on-failure die img":                      `invalid --health-on-failure 'die': must be one of "none", "restart", "stop" or "kill"`,
		"--health-on-failure restart --rm img":             "conflicting options: cannot specify both --health-on-failure=restart and --rm",
		"--ulimit x img":                                   `invalid argument "x" for "--ulimit" flag: invalid ulimit argument: x`,
		"-e =x img":                                        `invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x`,
		"-a foo img":                                       `invalid argument "foo" for "-a, --attach" flag: valid streams are STDIN, STDOUT and STDERR`,
		"-it=x img":                                        `invalid argument "x" for "-t, --tty" flag: strconv.ParseBool: parsing "x": invalid syntax`,
		"--pull foo img":                                   `invalid pull option: 'foo': must be one of "always", "missing" or "never"`,
		"--env-file /does/not/exist img":                   "open /does/not/exist: no such file or directory",
		"--env-file " + bad + " img":                       bad + ", line 2: variable 'B C' contains whitespaces",
		"--tmpfs t img":                                    `invalid --tmpfs "t": the mount path must be absolute`,
		"--security-opt foo img":                           `Invalid --security-opt: "foo"`,
		"--security-opt systempaths=x img":                 `invalid --security-opt: "systempaths=x": there is systempaths=unconfined`,
		"--security-opt seccomp=/nope img":                 "opening seccomp profile (/nope) failed: open /nope: no such file or directory",
		"--security-opt no-new-privileges=x img":           `invalid --security-opt: "no-new-privileges=x": want no-new-privileges, or no-new-privileges=true or false`,
		"--platform a/b/c/d img":                           `invalid platform "a/b/c/d"`,
	} {
		_, err := parseRun(t, strings.Fields(args)...)
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", args, err, want)
		}
	}
}

// Every flag of Docker 28.2.2's on a command that tug has, known to tug by the
// same name, shorthand and need of a value. testdata/docker-flags.tsv is a list
// of facts: command, flag, shorthand, type.
func TestDockerFlags(t *testing.T) {
	b, err := os.ReadFile("testdata/docker-flags.tsv")
	if err != nil {
		t.Fatal(err)
	}
	table := commands()
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || len(f) < 4 {
			continue
		}
		c, name, _ := find(table, strings.Fields(f[0]))
		if c == nil {
			t.Errorf("tug has no command %s", f[0])
			continue
		}
		fs := newFlagSet()
		c.setup(&app{name: name}, fs)
		flag := fs.Lookup(strings.TrimPrefix(f[1], "--"))
		if flag == nil {
			t.Errorf("tug %s does not know %s", f[0], f[1])
			continue
		}
		if flag.Shorthand != strings.TrimPrefix(f[2], "-") {
			t.Errorf("tug %s %s: shorthand %q, want %q", f[0], f[1], flag.Shorthand, f[2])
		}
		if (flag.NoOptDefVal != "") != (f[3] == "bool") {
			t.Errorf("tug %s %s: type %s, want %s", f[0], f[1], flag.Value.Type(), f[3])
		}
	}
}
