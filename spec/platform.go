package spec

import (
	"runtime"
	"strings"

	"tug/errs"
)

// Platform says what a program in an image runs on (OCI image-spec v1.1,
// image-index.md, "platform").
type Platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	OSVersion    string `json:"os.version,omitempty"`
	Variant      string `json:"variant,omitempty"`
}

// HostPlatform is the platform this program was built for.
func HostPlatform() Platform {
	return Platform{OS: "linux", Architecture: runtime.GOARCH}.Normalize()
}

// ParsePlatform parses "os", "arch", "os/arch" or "os/arch/variant"; what is
// left out is the host's.
func ParsePlatform(s string) (Platform, error) {
	p := HostPlatform()
	parts := strings.Split(s, "/")
	for _, part := range parts {
		if part == "" || strings.ContainsAny(part, " \t\n") {
			return p, errs.New(errs.Invalid, "invalid platform %q", s).WithHint("write OS/ARCH, for example linux/arm64")
		}
	}
	switch len(parts) {
	case 1:
		if isOS(strings.ToLower(parts[0])) {
			p.OS = parts[0]
			break
		}
		p.Architecture, p.Variant = parts[0], ""
		if !isArchitecture(p.Normalize().Architecture) {
			return p, errs.New(errs.Invalid, "%q: unknown operating system or architecture", s).WithHint("write OS/ARCH, for example linux/arm64")
		}
	case 2:
		p = Platform{OS: parts[0], Architecture: parts[1]}
	case 3:
		p = Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
	default:
		return p, errs.New(errs.Invalid, "invalid platform %q", s).WithHint("write OS/ARCH, for example linux/arm64")
	}
	return p.Normalize(), nil
}

func isOS(s string) bool {
	switch s {
	case "linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "dragonfly", "illumos", "solaris", "aix", "plan9", "android", "ios", "js", "wasip1":
		return true
	}
	return false
}

func isArchitecture(s string) bool {
	switch s {
	case "amd64", "386", "arm64", "arm", "riscv64", "ppc64le", "ppc64", "s390x", "loong64", "mips", "mipsle", "mips64", "mips64le", "wasm":
		return true
	}
	return false
}

// Normalize maps the architecture names in use to Go's, and default variants
// to their short form (arm64/v8 is arm64; arm is arm/v7).
func (p Platform) Normalize() Platform {
	p.OS = strings.ToLower(p.OS)
	switch a := strings.ToLower(p.Architecture); a {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "i386", "i686":
		p.Architecture = "386"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	default:
		p.Architecture = a
	}
	switch {
	case p.Architecture == "arm64" && (p.Variant == "8" || p.Variant == "v8"):
		p.Variant = ""
	case p.Architecture == "arm" && p.Variant == "":
		p.Variant = "v7"
	case p.Architecture == "amd64" && p.Variant == "v1":
		p.Variant = ""
	}
	return p
}

// Matches reports whether an image for p runs where want is asked for. An empty
// variant on either side matches any.
func (p Platform) Matches(want Platform) bool {
	a, b := p.Normalize(), want.Normalize()
	return a.OS == b.OS && a.Architecture == b.Architecture &&
		(a.Variant == b.Variant || a.Variant == "" || b.Variant == "")
}

func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}
