package spec

import "time"

// Media types of what tug reads (OCI image-spec v1.1 media-types.md; Docker
// image manifest v2 schema 2).
const (
	TypeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	TypeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	TypeOCIConfig      = "application/vnd.oci.image.config.v1+json"
	TypeOCILayer       = "application/vnd.oci.image.layer.v1.tar"
	TypeOCILayerGzip   = "application/vnd.oci.image.layer.v1.tar+gzip"
	TypeOCILayerZstd   = "application/vnd.oci.image.layer.v1.tar+zstd"
	TypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	TypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	TypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	TypeDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	TypeDockerLayerTar = "application/vnd.docker.image.rootfs.diff.tar"
)

// Descriptor points at content by digest and size (OCI descriptor.md).
type Descriptor struct {
	MediaType   string            `json:"mediaType,omitempty"`
	Digest      Digest            `json:"digest"`
	Size        int64             `json:"size"`
	URLs        []string          `json:"urls,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *Platform         `json:"platform,omitempty"`
}

// Index lists manifests, usually one per platform (OCI image-index.md; Docker's
// manifest list has the same shape).
type Index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []Descriptor `json:"manifests"`
}

// Manifest names an image's config and its layers, lowest first (OCI
// manifest.md; Docker schema 2 has the same shape).
type Manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"`
}

// ImageConfig is an image's config blob: OCI config.md plus the fields only
// Docker writes. An image's ID is the digest of these bytes.
type ImageConfig struct {
	Platform
	Created *time.Time   `json:"created,omitempty"`
	Author  string       `json:"author,omitempty"`
	Comment string       `json:"comment,omitempty"`
	Config  RunConfig    `json:"config"`
	RootFS  RootFS       `json:"rootfs"`
	History []HistoryRow `json:"history,omitempty"`

	DockerVersion string `json:"docker_version,omitempty"`
}

// RootFS lists the digests of the uncompressed layers, lowest first.
type RootFS struct {
	Type    string   `json:"type"`
	DiffIDs []Digest `json:"diff_ids"`
}

// HistoryRow tells how one layer (or none, EmptyLayer) came about.
type HistoryRow struct {
	Created    *time.Time `json:"created,omitempty"`
	CreatedBy  string     `json:"created_by,omitempty"`
	Author     string     `json:"author,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"`
}

// RunConfig is the part of an image's config that says how to run it, and, as
// Docker's container Config, the portable part of a container's.
type RunConfig struct {
	User         string              `json:",omitempty"`
	ExposedPorts map[string]struct{} `json:",omitempty"`
	Env          []string            `json:",omitempty"`
	Entrypoint   []string            `json:",omitempty"`
	Cmd          []string            `json:",omitempty"`
	Healthcheck  *Healthcheck        `json:",omitempty"`
	Volumes      map[string]struct{} `json:",omitempty"`
	WorkingDir   string              `json:",omitempty"`
	OnBuild      []string            `json:",omitempty"`
	Labels       map[string]string   `json:",omitempty"`
	StopSignal   string              `json:",omitempty"`
	StopTimeout  *int                `json:",omitempty"`
	Shell        []string            `json:",omitempty"`
	ArgsEscaped  bool                `json:",omitempty"`
}
