package volume

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"tug/errs"
)

// checkOptions refuses what the local driver does not know, in Docker's words.
func checkOptions(name string, o *Options) error {
	if o.Driver != "" && o.Driver != Local {
		return errs.New(errs.NotFound, "create %s: error looking up volume plugin %s: plugin %q not found", name, o.Driver, o.Driver).
			WithHint("tug has no plugins; the driver is %s", Local)
	}
	_, err := parseSource(o.Options)
	if err != nil {
		return errs.New(errs.ClassOf(err), "create %s: %w", name, err)
	}
	return nil
}

// Source is what a volume with options is a mount of.
type Source struct {
	Type   string   // of the file system; "" for a bind mount
	Device string   // what is mounted, or the directory that is bound
	Flags  []string // as mount(8) knows them for every mount: ro, nosuid, noatime, ...
	Data   []string // the file system's own: "size=1m", "vers=4"

	// Of a bind mount.
	Recursive bool // with what is mounted below
}

// Source returns what the supervisor has to mount for a volume, nil for a plain
// directory.
func (v *Volumes) Source(vol *Volume) (*Source, error) { return parseSource(vol.Options) }

// mountFlags are the words of "o" that are about the mount and not the file
// system.
var mountFlags = []string{
	"ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "atime", "noatime",
	"diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
}

// propagations are those that are for each container to say.
var propagations = []string{"private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"}

// parseSource reads the options of a volume; nil when there are none.
func parseSource(o map[string]string) (*Source, error) {
	if len(o) == 0 {
		return nil, nil
	}
	for key := range o {
		if key != "type" && key != "device" && key != "o" && key != "size" {
			return nil, errs.New(errs.Invalid, "invalid option: %q", key)
		}
	}
	if _, ok := o["size"]; ok {
		return nil, errs.New(errs.Invalid, "quota size requested but no quota support").WithHint("a limited volume in memory is: -o type=tmpfs -o device=tmpfs -o o=size=SIZE")
	}
	for _, key := range []string{"type", "device"} {
		if _, ok := o[key]; !ok {
			return nil, errs.New(errs.Invalid, "missing required option: %q", key)
		}
	}
	s := &Source{Type: o["type"], Device: o["device"]}
	bind := false
	for _, word := range strings.Split(o["o"], ",") {
		switch {
		case word == "" || word == "defaults":
		case word == "bind" || word == "rbind":
			bind, s.Recursive = true, word == "rbind"
		case slices.Contains(propagations, word):
			return nil, errs.New(errs.Invalid, "option %q says how a container's mount propagates, which a volume does not know", word).
				WithHint("give it with the mount: --mount type=bind,bind-propagation=%s,...", word)
		case slices.Contains(mountFlags, word):
			s.Flags = append(s.Flags, word)
		default:
			s.Data = append(s.Data, word)
		}
	}
	if bind {
		return s, s.checkBind()
	}
	return s, s.checkType()
}

func (s *Source) checkBind() error {
	s.Type = ""
	if !filepath.IsAbs(s.Device) {
		return errs.New(errs.Invalid, "device %q of a bind mount must be an absolute path", s.Device)
	}
	if len(s.Data) > 0 {
		return errs.New(errs.Invalid, "a bind mount has no option %q", s.Data[0])
	}
	return nil
}

func (s *Source) checkType() error {
	if s.Type == "" || s.Type == "none" || s.Type == "bind" || strings.ContainsAny(s.Type, "/\x00") {
		return errs.New(errs.Invalid, "type %q needs o=bind, or the name of a file system", s.Type)
	}
	if strings.ContainsRune(s.Device, 0) {
		return errs.New(errs.Invalid, "device %q has a NUL byte", s.Device)
	}
	if s.Type == "cifs" && s.Device != "" {
		u, err := url.Parse(s.Device)
		if err != nil {
			return errs.New(errs.Invalid, "error parsing device url: %w", err)
		}
		if u.Port() != "" {
			return errs.New(errs.Invalid, "port not allowed in CIFS device URL, include 'port' in 'o='")
		}
	}
	return nil
}
