package cli

import (
	"bufio"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tug/image"
)

// jsonFields lists the fields of a type's JSON as testdata/docker-fields.tsv
// does: A.B for a field of an object, A[].B in an array, A.{}.B in a map.
func jsonFields(t reflect.Type, prefix string, to map[string]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			jsonFields(f.Type, prefix, to)
			continue
		}
		switch name {
		case "":
			name = f.Name
		case "-":
			continue
		}
		jsonType(f.Type, prefix+name, to)
	}
}

func jsonType(t reflect.Type, path string, to map[string]string) {
	switch t.Kind() {
	case reflect.Pointer:
		jsonType(t.Elem(), path, to)
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			to[path] = "string"
			return
		}
		to[path] = "object"
		jsonFields(t, path+".", to)
	case reflect.Map:
		to[path] = "object"
		if t.Elem().Kind() == reflect.Struct {
			jsonFields(t.Elem(), path+".{}.", to)
		}
	case reflect.Slice, reflect.Array:
		to[path] = "array"
		if t.Elem().Kind() == reflect.Struct {
			jsonFields(t.Elem(), path+"[].", to)
		}
	case reflect.String:
		to[path] = "string"
	case reflect.Bool:
		to[path] = "boolean"
	case reflect.Interface:
		to[path] = "any"
	default:
		to[path] = "integer"
	}
}

// dockerFields reads testdata/docker-fields.tsv: fields of one message and
// their types.
func dockerFields(t *testing.T, message string) map[string]string {
	t.Helper()
	f, err := os.Open("testdata/docker-fields.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fields := map[string]string{}
	for in := bufio.NewScanner(f); in.Scan(); {
		if cols := strings.Split(in.Text(), "\t"); cols[0] == message {
			fields[cols[1]] = cols[2]
		}
	}
	if len(fields) < 10 {
		t.Fatalf("%s: only %d fields", message, len(fields))
	}
	return fields
}

// below reports whether path is one of roots or inside of one.
func below(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool {
		rest, ok := strings.CutPrefix(path, r)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func TestJSONFields(t *testing.T) {
	for _, tt := range []struct {
		message string
		of      reflect.Type
		absent  string // Docker's that tug does not show: Docker leaves them out when empty, too
		more    string // tug's that are not on the list: Docker's older ones, and tug's own
	}{
		{
			"/containers/{id}/json", reflect.TypeFor[containerJSON](),
			"ImageManifestDescriptor Storage " +
				"HostConfig.DeviceRequests[] Config.NetworkDisabled NetworkSettings.Networks.{}.IPAMConfig.IPv4Address " +
				"NetworkSettings.Networks.{}.IPAMConfig.IPv6Address NetworkSettings.Networks.{}.IPAMConfig.LinkLocalIPs",
			"NetworkSettings.Bridge NetworkSettings.HairpinMode NetworkSettings.LinkLocalIPv6Address NetworkSettings.LinkLocalIPv6PrefixLen " +
				"NetworkSettings.SecondaryIPAddresses NetworkSettings.SecondaryIPv6Addresses NetworkSettings.EndpointID NetworkSettings.Gateway " +
				"NetworkSettings.GlobalIPv6Address NetworkSettings.GlobalIPv6PrefixLen NetworkSettings.IPAddress NetworkSettings.IPPrefixLen " +
				"NetworkSettings.IPv6Gateway NetworkSettings.MacAddress HostConfig.IDMappings Config.HealthcheckOnFailureAction Mounts[].Owner HostConfig.Mounts[].Owner",
		},
		{
			"/images/{name}/json", reflect.TypeFor[image.Inspected](),
			"Manifests Identity Descriptor.platform.os.features Descriptor.artifactType Descriptor.data", "",
		},
		{
			"/info", reflect.TypeFor[infoJSON](),
			"FirewallBackend DiscoveredDevices NRI Containerd Runtimes.{}.runtimeArgs Runtimes.{}.status DefaultAddressPools[] " +
				"Swarm.RemoteManagers[] Swarm.Nodes Swarm.Managers Swarm.Cluster",
			"Root RunRoot CgroupLayout CgroupParent SupervisorPid ClientInfo",
		},
		{"/version", reflect.TypeFor[serverVersion](), "", ""},
	} {
		have := map[string]string{}
		jsonFields(tt.of, "", have)
		want := dockerFields(t, tt.message)
		absent, more := strings.Fields(tt.absent), strings.Fields(tt.more)
		for path, typ := range want {
			got, ok := have[path]
			switch {
			case ok && below(path, absent):
				t.Errorf("%s: %s is there", tt.message, path)
			case below(path, absent):
			case !ok:
				t.Errorf("%s: %s is missing", tt.message, path)
			case !sameType(got, typ):
				t.Errorf("%s: %s is %s, want %s", tt.message, path, got, typ)
			}
		}
		for path := range have {
			if _, ok := want[path]; !ok && !below(path, more) {
				t.Errorf("%s: %s is not Docker's", tt.message, path)
			}
		}
	}
}

// sameType compares a type with the list's, where the name of a type of the API
// stands for an object and for an enumeration of strings.
func sameType(got, want string) bool {
	switch want {
	case "string", "integer", "boolean", "array", "object":
		return got == want
	case "LocalNodeState", "": // one of some words
		return got == "string"
	case "GenericResources":
		return got == "array"
	}
	return got == "object" || got == "any"
}
