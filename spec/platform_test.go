package spec

import (
	"strings"
	"testing"
)

func TestParsePlatform(t *testing.T) {
	host := HostPlatform()
	for s, want := range map[string]string{
		"linux": host.String(), "LINUX": host.String(), "s390x": host.OS + "/s390x", "aarch64": host.OS + "/arm64", "armhf": host.OS + "/arm/v7",
		"linux/x86_64": "linux/amd64", "linux/arm64/v8": "linux/arm64", "linux/arm": "linux/arm/v7", "windows/amd64": "windows/amd64", "a/b/c": "a/b/c",
		"": "invalid platform", "/": "invalid platform", "linux/": "invalid platform", "a/b/c/d": "invalid platform", "linux/a b": "invalid platform",
		"bogus": "unknown operating system or architecture",
	} {
		p, err := ParsePlatform(s)
		if err != nil && strings.Contains(err.Error(), want) {
			continue
		}
		if err != nil || p.String() != want {
			t.Errorf("%q: %s, %v, want %s", s, p, err, want)
		}
	}
}
