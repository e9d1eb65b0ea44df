package image

import (
	"encoding/json"
	"strings"

	"tug/errs"
	"tug/registry"
	"tug/spec"
)

// Limits on what strangers send. Overlayfs stacks at most 500 lower layers.
const (
	maxManifest = registry.MaxManifest
	maxConfig   = 8 << 20
	maxLayers   = 500
	maxEntries  = 5000 // of an index
	maxNesting  = 3    // of indexes
)

const typeDockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"

func isIndexType(t string) bool { return t == spec.TypeOCIIndex || t == spec.TypeDockerList }
func isManifestType(t string) bool {
	return t == spec.TypeOCIManifest || t == spec.TypeDockerManifest
}

// parseManifest parses a manifest or an index, whichever it is; exactly one of
// the results is set. mediaType is what the bytes were said to be, or "". Bytes
// that can be read as both are refused: what one tool runs and another scans
// must be the same (CVE-2021-41190).
func parseManifest(b []byte, mediaType string) (*spec.Manifest, *spec.Index, error) {
	var probe struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if len(b) > maxManifest {
		return nil, nil, errs.New(errs.Invalid, "manifest is larger than %d MiB", maxManifest>>20)
	}
	if err := json.Unmarshal(b, &probe); err != nil {
		return nil, nil, errs.New(errs.Corrupt, "manifest is no valid JSON: %w", err)
	}
	if probe.SchemaVersion == 1 || probe.FSLayers != nil {
		return nil, nil, errs.New(errs.Unsupported, "manifest has Docker's schema 1, which was given up in 2023").
			WithHint("push the image again with a current tool")
	}
	if probe.SchemaVersion != 2 {
		return nil, nil, errs.New(errs.Unsupported, "manifest has schemaVersion %d, known is 2", probe.SchemaVersion)
	}
	if mediaType != "" && probe.MediaType != "" && mediaType != probe.MediaType {
		return nil, nil, errs.New(errs.Corrupt, "manifest was sent as %.100q and says it is %.100q", mediaType, probe.MediaType)
	}
	if mediaType == "" {
		mediaType = probe.MediaType
	}
	asIndex, asImage := probe.Manifests != nil, probe.Config != nil || probe.Layers != nil
	switch {
	case asIndex && asImage:
		return nil, nil, errs.New(errs.Corrupt, "manifest is an image's and an index at the same time")
	case asIndex && (mediaType == "" || isIndexType(mediaType)):
		return parseIndex(b)
	case asImage && (mediaType == "" || isManifestType(mediaType)):
		return parseImageManifest(b)
	case mediaType != "" && !isIndexType(mediaType) && !isManifestType(mediaType):
		return nil, nil, unsupportedType(mediaType)
	}
	return nil, nil, errs.New(errs.Corrupt, "manifest of type %q has neither layers nor manifests of that type", mediaType)
}

func unsupportedType(t string) error {
	return errs.New(errs.Unsupported, "unsupported media type %.100q", t).WithHint("tug reads OCI and Docker schema 2 images")
}

func parseIndex(b []byte) (*spec.Manifest, *spec.Index, error) {
	x := &spec.Index{}
	if err := json.Unmarshal(b, x); err != nil {
		return nil, nil, errs.New(errs.Corrupt, "index: %w", err)
	}
	if len(x.Manifests) > maxEntries {
		return nil, nil, errs.New(errs.Invalid, "index has %d entries, more than %d", len(x.Manifests), maxEntries)
	}
	for i := range x.Manifests {
		if err := checkDescriptor("index entry", x.Manifests[i]); err != nil {
			return nil, nil, err
		}
	}
	return nil, x, nil
}

func parseImageManifest(b []byte) (*spec.Manifest, *spec.Index, error) {
	m := &spec.Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, nil, errs.New(errs.Corrupt, "manifest: %w", err)
	}
	if err := checkDescriptor("config", m.Config); err != nil {
		return nil, nil, err
	}
	switch m.Config.MediaType {
	case spec.TypeOCIConfig, spec.TypeDockerConfig, "", "application/octet-stream":
	default:
		return nil, nil, errs.New(errs.Unsupported, "unsupported media type %.100q of the config: this is no container image", m.Config.MediaType)
	}
	if m.Config.Size > maxConfig {
		return nil, nil, errs.New(errs.Invalid, "config has %d bytes, more than %d MiB", m.Config.Size, maxConfig>>20)
	}
	if len(m.Layers) > maxLayers {
		return nil, nil, errs.New(errs.Unsupported, "image has %d layers, more than %d", len(m.Layers), maxLayers)
	}
	for _, l := range m.Layers {
		if err := checkDescriptor("layer", l); err != nil {
			return nil, nil, err
		}
		if err := checkLayerType(l); err != nil {
			return nil, nil, err
		}
	}
	return m, nil, nil
}

func checkDescriptor(what string, d spec.Descriptor) error {
	if _, err := spec.ParseDigest(string(d.Digest)); err != nil {
		return errs.New(errs.ClassOf(err), "%s: %w", what, err)
	}
	if d.Size < 0 {
		return errs.New(errs.Invalid, "%s %s: negative size %d", what, d.Digest.Short(), d.Size)
	}
	return nil
}

func checkLayerType(d spec.Descriptor) error {
	switch d.MediaType {
	case spec.TypeOCILayer, spec.TypeOCILayerGzip, spec.TypeOCILayerZstd, spec.TypeDockerLayer, spec.TypeDockerLayerTar, typeDockerLayerZstd:
		return nil
	}
	if strings.Contains(d.MediaType, "foreign") || strings.Contains(d.MediaType, "nondistributable") {
		return errs.New(errs.Unsupported, "layer %s is a foreign layer (%.100q): its bytes are not in the registry", d.Digest.Short(), d.MediaType).
			WithHint("such layers are Windows'; use an image for linux")
	}
	return errs.New(errs.Unsupported, "layer %s has the unsupported media type %.100q", d.Digest.Short(), d.MediaType).
		WithHint("tug reads tar layers, plain and compressed with gzip or zstd")
}

// parseConfig parses an image's config and checks what the rest relies on.
func parseConfig(b []byte) (*spec.ImageConfig, error) {
	if len(b) > maxConfig {
		return nil, errs.New(errs.Invalid, "image config is larger than %d MiB", maxConfig>>20)
	}
	c := &spec.ImageConfig{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, errs.New(errs.Corrupt, "image config is no valid JSON: %w", err)
	}
	if c.RootFS.Type != "layers" && c.RootFS.Type != "" {
		return nil, errs.New(errs.Unsupported, "image config: unknown rootfs type %.40q", c.RootFS.Type)
	}
	if len(c.RootFS.DiffIDs) > maxLayers {
		return nil, errs.New(errs.Unsupported, "image config: %d layers, more than %d", len(c.RootFS.DiffIDs), maxLayers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if _, err := spec.ParseDigest(string(d)); err != nil {
			return nil, errs.New(errs.ClassOf(err), "image config: diff_ids: %w", err)
		}
	}
	if c.OS != "" && !strings.EqualFold(c.OS, "linux") {
		return nil, errs.New(errs.Unsupported, "image operating system %.40q cannot be used on this platform", c.OS).
			WithHint("use an image for linux")
	}
	return c, nil
}
