package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/spf13/pflag"

	"tug/errs"
	"tug/registry"
	"tug/spec"
)

func setupManifestInspect(a *app, fs *pflag.FlagSet) func([]string) error {
	insecure := fs.Bool("insecure", false, "Allow communication with an insecure registry")
	verbose := fs.BoolP("verbose", "v", false, "Output additional info including layers and platform")
	return func(args []string) error {
		var all []*manifestInspect
		for _, name := range args {
			m, err := newManifestInspect(a, name, *insecure)
			if err != nil {
				return err
			}
			all = append(all, m)
		}
		if len(all) == 2 {
			return all[0].entry(all[1], *verbose)
		}
		m := all[0]
		desc, body, err := m.fetch()
		if err != nil {
			return err
		}
		switch {
		case isList(desc) && *verbose:
			return m.verboseList(body)
		case isList(desc):
			return m.list(body)
		case *verbose:
			v, err := m.verbose(m.ref.String(), desc, body)
			if err != nil {
				return err
			}
			return writeTabbed(a.Out, v)
		}
		return writeTabbed(a.Out, json.RawMessage(body))
	}
}

// manifestType is the type that the registry or else the manifest itself says.
func manifestType(told string, body []byte) (string, error) {
	var m struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return "", errs.New(errs.Corrupt, "the manifest is not JSON: %w", err)
	}
	switch {
	case told != "":
		return told, nil
	case m.MediaType != "":
		return m.MediaType, nil
	case m.Manifests != nil && m.Layers == nil:
		return spec.TypeOCIIndex, nil
	}
	return spec.TypeOCIManifest, nil
}

// manifestInspect shows what a registry has for ref, in the shapes of docker
// manifest inspect.
type manifestInspect struct {
	app    *app
	client *registry.Client
	ref    spec.Reference
}

func newManifestInspect(a *app, name string, insecure bool) (*manifestInspect, error) {
	ref, err := spec.ParseReference(name)
	if err != nil {
		return nil, err
	}
	var o registry.Options
	if insecure {
		o.InsecureHost = ref.Domain
	}
	return &manifestInspect{app: a, client: registry.New(o), ref: ref.WithDefaultTag()}, nil
}

// fetch gets what ref names, with its type.
func (m *manifestInspect) fetch() (spec.Descriptor, []byte, error) {
	desc, body, err := m.client.Manifest(m.app.ctx, m.ref)
	if errs.Is(err, errs.NotFound) {
		return desc, nil, errs.New(errs.NotFound, "no such manifest: %s", m.ref.Familiar()).WithHint("check the name and the tag or digest")
	}
	if err == nil {
		desc.MediaType, err = manifestType(desc.MediaType, body)
	}
	return desc, body, err
}

func isList(d spec.Descriptor) bool {
	return d.MediaType == spec.TypeOCIIndex || d.MediaType == spec.TypeDockerList
}

// entry shows the manifest of that m's list has, with the platform that the
// list says. Docker looks into the lists that docker manifest create made here;
// tug keeps none, and looks into the registry's.
func (m *manifestInspect) entry(of *manifestInspect, verbose bool) error {
	desc, body, err := m.fetch()
	if err != nil {
		return err
	}
	if !isList(desc) {
		return errs.New(errs.Invalid, "%s is no manifest list", m.ref.Familiar()).WithHint("name the image alone")
	}
	l, err := parseList(body)
	if err != nil {
		return err
	}
	digest := of.ref.Digest
	if digest == "" {
		named, _, err := of.fetch()
		if err != nil {
			return err
		}
		digest = named.Digest
	}
	for _, e := range l.Manifests {
		if e.Digest != digest {
			continue
		}
		body, err := m.member(e)
		if err != nil {
			return err
		}
		if !verbose {
			return writeTabbed(m.app.Out, json.RawMessage(body))
		}
		v, err := newVerbose(of.ref.String(), verboseDescriptor{e.MediaType, e.Digest, e.Size, e.URLs, e.Platform}, body)
		if err != nil {
			return err
		}
		return writeTabbed(m.app.Out, v)
	}
	return errs.New(errs.NotFound, "No such manifest: %s", of.ref.Familiar()).WithHint("it is not in %s", m.ref.Familiar())
}

// member gets the manifest of a list's entry.
func (m *manifestInspect) member(e listEntry) ([]byte, error) {
	if _, err := spec.ParseDigest(string(e.Digest)); err != nil {
		return nil, errs.New(errs.Corrupt, "the manifest list is malformed: %w", err)
	}
	desc, body, err := m.client.Manifest(m.app.ctx, spec.Reference{Domain: m.ref.Domain, Path: m.ref.Path, Digest: e.Digest})
	if err == nil && desc.Size != e.Size {
		err = errs.New(errs.Corrupt, "manifest %s has %d bytes, its list says %d", e.Digest.Short(), desc.Size, e.Size)
	}
	return body, err
}

// listPlatform and listEntry have the fields, and their order, of Docker's
// manifest list.
type listPlatform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
	Features     []string `json:"features,omitempty"`
}

type listEntry struct {
	MediaType string        `json:"mediaType,omitempty"`
	Size      int64         `json:"size"`
	Digest    spec.Digest   `json:"digest,omitempty"`
	URLs      []string      `json:"urls,omitempty"`
	Platform  *listPlatform `json:"platform,omitempty"`
}

type manifestList struct {
	SchemaVersion int         `json:"schemaVersion"`
	MediaType     string      `json:"mediaType,omitempty"`
	Manifests     []listEntry `json:"manifests"`
}

// list prints a list's entries.
func (m *manifestInspect) list(body []byte) error {
	l, err := parseList(body)
	if err != nil {
		return err
	}
	// Docker makes the list anew, with the type that fits what is in it.
	l.SchemaVersion, l.MediaType = 2, spec.TypeDockerList
	if len(l.Manifests) > 0 && l.Manifests[0].MediaType == spec.TypeOCIManifest {
		l.MediaType = spec.TypeOCIIndex
	}
	b, err := marshalIndent(l, "   ")
	if err != nil {
		return err
	}
	_, err = m.app.Out.Write(b)
	return err
}

func parseList(body []byte) (*manifestList, error) {
	l := &manifestList{}
	if err := json.Unmarshal(body, l); err != nil {
		return nil, errs.New(errs.Corrupt, "the manifest list is malformed: %w", err)
	}
	if len(l.Manifests) > maxListed {
		return nil, errs.New(errs.Invalid, "the manifest list names more than %d manifests", maxListed)
	}
	return l, nil
}

// maxListed bounds what one list makes -v ask for.
const maxListed = 500

// verboseManifest is docker manifest inspect -v.
type verboseManifest struct {
	Ref              string
	Descriptor       verboseDescriptor
	Raw              []byte          `json:",omitempty"` // base64 in JSON
	SchemaV2Manifest json.RawMessage `json:",omitempty"`
	OCIManifest      json.RawMessage `json:",omitempty"`
}

type verboseDescriptor struct {
	MediaType string        `json:"mediaType"`
	Digest    spec.Digest   `json:"digest"`
	Size      int64         `json:"size"`
	URLs      []string      `json:"urls,omitempty"`
	Platform  *listPlatform `json:"platform,omitempty"`
}

// verboseList fetches and shows each manifest of a list.
func (m *manifestInspect) verboseList(body []byte) error {
	l, err := parseList(body)
	if err != nil {
		return err
	}
	all := []*verboseManifest{}
	for _, e := range l.Manifests {
		body, err := m.member(e)
		if err != nil {
			return err
		}
		at := m.ref
		at.Digest = e.Digest
		v, err := newVerbose(at.String(), verboseDescriptor{e.MediaType, e.Digest, e.Size, e.URLs, e.Platform}, body)
		if err != nil {
			return err
		}
		all = append(all, v)
	}
	return writeTabbed(m.app.Out, all)
}

// verbose is one manifest with the platform that its config tells.
func (m *manifestInspect) verbose(name string, desc spec.Descriptor, body []byte) (*verboseManifest, error) {
	d := verboseDescriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	var man spec.Manifest
	if err := json.Unmarshal(body, &man); err != nil {
		return nil, errs.New(errs.Corrupt, "the manifest is malformed: %w", err)
	}
	if man.Config.Size < 0 || man.Config.Size > registry.MaxManifest {
		return nil, errs.New(errs.Invalid, "the image's config has %d bytes", man.Config.Size)
	}
	rc, err := m.client.Blob(m.app.ctx, m.ref, man.Config)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	config, err := io.ReadAll(rc)
	if err != nil {
		return nil, err
	}
	if spec.DigestOf(config) != man.Config.Digest {
		return nil, errs.New(errs.Corrupt, "the registry sent another config than %s", man.Config.Digest.Short())
	}
	p := &listPlatform{}
	var wrong *json.UnmarshalTypeError
	if err := json.Unmarshal(config, p); err != nil && !errors.As(err, &wrong) {
		return nil, errs.New(errs.Corrupt, "the image's config is not JSON: %w", err)
	}
	if p.OS != "" || p.Architecture != "" {
		d.Platform = p
	}
	return newVerbose(name, d, body)
}

func newVerbose(name string, d verboseDescriptor, body []byte) (*verboseManifest, error) {
	v := &verboseManifest{Ref: name, Descriptor: d, Raw: body}
	switch d.MediaType {
	case spec.TypeDockerManifest:
		v.SchemaV2Manifest = body
	case spec.TypeOCIManifest:
		v.OCIManifest = body
	default:
		return nil, errs.New(errs.Unsupported, "unsupported media type %.100q of manifest %s", d.MediaType, d.Digest.Short())
	}
	return v, nil
}

// writeTabbed prints v as JSON, indented as Docker does.
func writeTabbed(w io.Writer, v any) error {
	b, err := marshalIndent(v, "\t")
	if err != nil {
		return errs.New(errs.Corrupt, "the manifest is not JSON: %w", err)
	}
	_, err = w.Write(b)
	return err
}

func marshalIndent(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(v)
	return b.Bytes(), err
}
