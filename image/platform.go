package image

import (
	"strconv"
	"strings"

	"tug/errs"
	"tug/spec"
)

// choose returns the entry of x for platform want.
func choose(x *spec.Index, want spec.Platform) (spec.Descriptor, error) {
	var best *spec.Descriptor
	bestFit := noFit
	var offers []string
	for i := range x.Manifests {
		d := &x.Manifests[i]
		if !isImageEntry(*d) {
			continue
		}
		if d.Platform == nil {
			// The specification makes it optional; where all say nothing, the
			// only one is meant.
			if len(x.Manifests) == 1 {
				best = d
			}
			continue
		}
		offers = append(offers, d.Platform.String())
		if f := fit(*d.Platform, want); f < bestFit {
			best, bestFit = d, f
		}
	}
	if best == nil {
		err := errs.New(errs.NotFound, "no matching manifest for %s in the manifest list entries", want)
		if len(offers) > 0 {
			return spec.Descriptor{}, err.WithHint("choose with --platform one of %s", strings.Join(dedupe(offers), ", "))
		}
		return spec.Descriptor{}, err
	}
	return *best, nil
}

const noFit = 1000

// fit tells how well an image for platform have serves who wants want: 0 is
// exactly, noFit is not at all. Variants of a processor are levels, each of
// which runs what is for a lower one. Who names no variant may have any
// machine, and gets the lowest level there is.
func fit(have, want spec.Platform) int {
	have, want = have.Normalize(), want.Normalize()
	switch {
	case have.OS != want.OS || have.Architecture != want.Architecture:
		return noFit
	case have.Variant == want.Variant:
		return 0
	}
	h, ok := level(have)
	w, wok := level(want)
	switch {
	case ok && wok && h <= w:
		return w - h
	case want.Variant != "":
		return noFit
	case ok:
		return 100 + h
	}
	return noFit - 1
}

// level is the number of a variant; baselines have one as well.
func level(p spec.Platform) (int, bool) {
	if p.Variant == "" {
		switch p.Architecture {
		case "amd64":
			return 1, true
		case "arm64":
			return 8, true
		}
		return 0, true
	}
	digits, ok := strings.CutPrefix(p.Variant, "v")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n > 0 && n < 100
}

func fits(have, want spec.Platform) bool { return fit(have, want) < noFit }

// isImageEntry tells images from what else lies in an index: build attestations
// and artifacts.
func isImageEntry(d spec.Descriptor) bool {
	if d.MediaType != "" && !isManifestType(d.MediaType) && !isIndexType(d.MediaType) {
		return false
	}
	return d.Annotations["vnd.docker.reference.type"] == "" && (d.Platform == nil || d.Platform.OS != "unknown")
}

func dedupe(s []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, v := range s {
		if !seen[v] && len(out) < 20 {
			seen[v] = true
			out = append(out, v)
		}
	}
	return out
}
