package container

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tug/spec"
)

func TestApplyChange(t *testing.T) {
	pids, none := int64(9), int64(-1)
	for _, tt := range []struct {
		name            string
		h, change, want spec.HostConfig
		err             string
	}{
		{name: "nothing", h: spec.HostConfig{CPUShares: 5}, want: spec.HostConfig{CPUShares: 5}},
		{name: "memory below what swap has", h: spec.HostConfig{Memory: 100}, change: spec.HostConfig{Memory: 150}, want: spec.HostConfig{Memory: 150, MemorySwap: 200}},
		{name: "memory above it", h: spec.HostConfig{Memory: 100}, change: spec.HostConfig{Memory: 201}, err: "update the memoryswap at the same time"},
		{
			name: "both", h: spec.HostConfig{Memory: 100}, change: spec.HostConfig{Memory: 300, MemorySwap: 400},
			want: spec.HostConfig{Memory: 300, MemorySwap: 400},
		},
		{name: "no swap limit", h: spec.HostConfig{Memory: 100}, change: spec.HostConfig{MemorySwap: -1}, want: spec.HostConfig{Memory: 100, MemorySwap: -1}},
		{name: "swap alone", change: spec.HostConfig{MemorySwap: 10}, err: "You should always set the Memory limit"},
		{name: "swap below memory", h: spec.HostConfig{Memory: 100}, change: spec.HostConfig{MemorySwap: 99}, err: "larger than memory limit"},
		{name: "below the reservation", h: spec.HostConfig{Memory: 100, MemoryReservation: 50}, change: spec.HostConfig{Memory: 49}, err: "memory reservation limit"},
		{name: "reservation above", h: spec.HostConfig{Memory: 100}, change: spec.HostConfig{MemoryReservation: 101}, err: "memory reservation limit"},
		{name: "quota with cpus", h: spec.HostConfig{NanoCPUs: 1}, change: spec.HostConfig{CPUQuota: 1}, err: "CPU Quota cannot be updated as NanoCPUs has already been set"},
		{name: "cpus with period", h: spec.HostConfig{CPUPeriod: 1}, change: spec.HostConfig{NanoCPUs: 1}, err: "NanoCPUs cannot be updated as CPU Period has already been set"},
		{name: "pids", h: spec.HostConfig{PidsLimit: &pids}, change: spec.HostConfig{PidsLimit: &none}, want: spec.HostConfig{PidsLimit: &none}},
		{
			name: "the rest", h: spec.HostConfig{CPUQuota: 7, CpusetMems: "0"}, change: spec.HostConfig{CPUQuota: -1, CPUPeriod: 3, CpusetCpus: "1", BlkioWeight: 20},
			want: spec.HostConfig{CPUQuota: -1, CPUPeriod: 3, CpusetCpus: "1", CpusetMems: "0", BlkioWeight: 20},
		},
	} {
		err := applyChange(&tt.h, &tt.change)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		default:
			if diff := cmp.Diff(tt.want, tt.h); diff != "" {
				t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
			}
		}
	}
}
