package image

import (
	"time"

	"tug/spec"
)

// Inspected is an image as docker image inspect shows it: Docker's names, in
// Docker's order (Engine API, GET /images/{name}/json).
type Inspected struct {
	ID           string           `json:"Id"`
	RepoTags     []string         `json:"RepoTags"`
	RepoDigests  []string         `json:"RepoDigests"`
	Comment      string           `json:"Comment,omitempty"`
	Created      string           `json:"Created,omitempty"`
	Author       string           `json:"Author,omitempty"`
	Config       InspectedConfig  `json:"Config"`
	Architecture string           `json:"Architecture"`
	Variant      string           `json:"Variant,omitempty"`
	Os           string           `json:"Os"`
	OsVersion    string           `json:"OsVersion,omitempty"`
	Size         int64            `json:"Size"`
	GraphDriver  InspectedDriver  `json:"GraphDriver"`
	RootFS       InspectedRootFS  `json:"RootFS"`
	Metadata     InspectedMeta    `json:"Metadata"`
	Descriptor   *spec.Descriptor `json:"Descriptor,omitempty"`
}

// InspectedConfig is spec.RunConfig in the order that Docker shows it in.
type InspectedConfig struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	ArgsEscaped  bool                `json:"ArgsEscaped,omitempty"`
	Healthcheck  *spec.Healthcheck   `json:"Healthcheck,omitempty"`
	OnBuild      []string            `json:"OnBuild,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
}

// InspectedDriver names what stacks the layers. Which form they have on disk is
// this machine's business, and in tug info.
type InspectedDriver struct {
	Data map[string]string `json:"Data"`
	Name string            `json:"Name"`
}

// InspectedRootFS lists the layers' diffIDs, lowest first.
type InspectedRootFS struct {
	Type   string        `json:"Type"`
	Layers []spec.Digest `json:"Layers,omitempty"`
}

// InspectedMeta is what this store knows of the image and others do not.
type InspectedMeta struct {
	LastTagTime time.Time `json:"LastTagTime"`
}

// Inspect describes img for docker image inspect.
func Inspect(img *Image) Inspected {
	c := img.Config
	i := Inspected{
		ID:           string(img.ID),
		RepoTags:     append([]string{}, img.Names...),
		RepoDigests:  append([]string{}, img.Digests...),
		Comment:      c.Comment,
		Author:       c.Author,
		Architecture: c.Architecture,
		Variant:      c.Variant,
		Os:           c.OS,
		OsVersion:    c.OSVersion,
		Size:         img.Size,
		GraphDriver:  InspectedDriver{Name: "overlayfs"},
		RootFS:       InspectedRootFS{Type: "layers", Layers: c.RootFS.DiffIDs},
		Metadata:     InspectedMeta{LastTagTime: img.LastTag},
		Descriptor:   img.Target,
		Config: InspectedConfig{
			User: c.Config.User, ExposedPorts: c.Config.ExposedPorts, Env: c.Config.Env,
			Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Volumes: c.Config.Volumes,
			WorkingDir: c.Config.WorkingDir, Labels: c.Config.Labels, StopSignal: c.Config.StopSignal,
			ArgsEscaped: c.Config.ArgsEscaped, Healthcheck: c.Config.Healthcheck, OnBuild: c.Config.OnBuild, Shell: c.Config.Shell,
		},
	}
	if c.Created != nil {
		i.Created = c.Created.Format(time.RFC3339Nano)
	}
	return i
}
