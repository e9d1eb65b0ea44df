package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"tug/container"
	"tug/engine"
	"tug/errs"
	"tug/image"
	"tug/runtime"
	"tug/spec"
)

type explainOptions struct {
	format, typ string
	top         int
}

func setupExplain(a *app, fs *pflag.FlagSet) func([]string) error {
	o := &explainOptions{}
	fs.StringVarP(&o.format, "format", "f", "", inspectFormatUsage)
	fs.StringVar(&o.typ, "type", "", `Only explain objects of the given type ("container", "image")`)
	fs.IntVar(&o.top, "top", 5, "How many of the largest changes of each kind to list")
	return func(args []string) error { return a.explain(o, args[0]) }
}

func (a *app) explain(o *explainOptions, name string) error {
	switch {
	case o.top < 0:
		return errors.New("--top must not be negative")
	case o.typ != "" && o.typ != "container" && o.typ != "image":
		return fmt.Errorf(`unknown type: %q: must be one of "container", "image"`, o.typ)
	}
	e, err := a.engine()
	if err != nil {
		return err
	}
	ctx, stop := a.untilSignal()
	defer stop()
	if o.typ != "image" {
		x, err := e.Containers.Explain(ctx, name, o.top)
		if err == nil {
			return a.explainContainer(e, o, x)
		}
		if o.typ == "container" || !errs.Is(err, errs.NotFound) {
			return a.signalled(ctx, err)
		}
	}
	img, err := e.Images.Resolve(name)
	if o.typ == "" && (errs.Is(err, errs.NotFound) || errs.Is(err, errs.Invalid)) {
		err = errs.New(errs.NotFound, "no such object: %s", name)
	}
	if err != nil {
		return err
	}
	return a.explainImage(e, o, img)
}

func (a *app) explainContainer(e *engine.Engine, o *explainOptions, x *container.Explained) error {
	img, err := e.Images.ByID(x.ImageID)
	if err != nil {
		return err
	}
	sheets, err := e.Images.Sheets(x.Layers, img)
	if err != nil {
		return err
	}
	for i := range sheets { // itself is not "others"
		sheets[i].Containers = slices.DeleteFunc(sheets[i].Containers, func(h image.Holder) bool { return h.ID == x.ID })
	}
	if o.format != "" {
		return printOne(a.Out, o.format, toContainerPicture(x, img, sheets))
	}
	p := newPicture(a)
	p.container(x, img, sheets, time.Now())
	_, err = io.WriteString(a.Out, p.b.String())
	return err
}

func (a *app) explainImage(e *engine.Engine, o *explainOptions, img *image.Image) error {
	sheets, err := e.Images.Sheets(img.Stack, img)
	if err != nil {
		return err
	}
	holders, err := e.Images.Holders(img.ID)
	if err != nil {
		return err
	}
	used, err := e.Images.Usages([]*image.Image{img})
	if err != nil {
		return err
	}
	if o.format != "" {
		return printOne(a.Out, o.format, toImagePicture(img, sheets, holders, used[img.ID]))
	}
	p := newPicture(a)
	p.image(img, sheets, holders, used[img.ID])
	_, err = io.WriteString(a.Out, p.b.String())
	return err
}

// containerPicture is explain --format json of a container. Layers have the
// lowest first.
type containerPicture struct {
	Type       string
	ID, Name   string
	Status     string
	Image      pictureImage
	Writable   pictureWritable
	Layers     []pictureLayer
	Process    pictureProcess
	Mounts     []container.Place
	Limits     pictureLimits
	Usage      *pictureUsage `json:",omitempty"` // while it runs
	Namespaces []pictureNamespace
	IDMappings *idMapsJSON `json:",omitempty"` // of the user namespace
	Privileges picturePrivileges
}

type pictureImage struct {
	ID    spec.Digest
	Name  string   // as the user wrote it
	Names []string // that it has now
	There bool     // it was not removed
}

type pictureWritable struct {
	Size                    int64
	ReadOnly                bool // it cannot be written to
	Added, Changed, Removed pictureTally
}

type pictureTally struct {
	Files, Directories int
	Bytes              int64
	BytesInImage       int64 `json:",omitempty"` // of what was changed
	Incomplete         bool  `json:",omitempty"` // there is more
	Largest            []pictureChange
}

type pictureChange struct {
	Path string
	Type string
	Size int64
}

type pictureLayer struct {
	Layer      int
	DiffID     spec.Digest
	Size       int64 // -1: not known
	Entries    int
	Created    *time.Time `json:",omitempty"`
	CreatedBy  string
	Comment    string `json:",omitempty"`
	Made       bool   `json:",omitempty"` // by tug, for hard links into layers below
	Images     []pictureImage
	Containers []picturePeer
}

type picturePeer struct{ ID, Name string }

type pictureProcess struct {
	Path      string
	Args      []string
	User      string
	Init      bool
	Pid       int
	Count     int
	Processes []container.Task // the first ones
}

// pictureLimits has 0 for what is not limited.
type pictureLimits struct {
	Memory, MemorySwap, MemoryReservation    int64 // bytes
	NanoCPUs, CPUShares, CPUPeriod, CPUQuota int64
	CpusetCpus                               string
	PidsLimit                                int64
	Ulimits                                  []spec.Ulimit
}

func toLimits(h *spec.HostConfig) pictureLimits {
	l := pictureLimits{
		h.Memory, h.MemorySwap, h.MemoryReservation, h.NanoCPUs, h.CPUShares, h.CPUPeriod, h.CPUQuota, h.CpusetCpus, 0, notNil(h.Ulimits),
	}
	if h.PidsLimit != nil {
		l.PidsLimit = max(*h.PidsLimit, 0)
	}
	return l
}

type pictureUsage struct {
	Memory, MemoryLimit, Pids uint64
}

type pictureNamespace struct {
	Kind       string
	ID         string `json:",omitempty"`
	Host       bool
	SharedWith []picturePeer
}

type picturePrivileges struct {
	Privileged      bool
	Capabilities    []string
	SeccompFilter   bool
	NoNewPrivileges bool
}

// imagePicture is that of an image.
type imagePicture struct {
	Type           string
	ID             spec.Digest
	Names          []string
	Platform       string
	Size           int64
	Unique, Shared int64
	Layers         []pictureLayer
	Containers     []picturePeer
	Config         image.InspectedConfig
}

func toContainerPicture(x *container.Explained, img *image.Image, sheets []image.Sheet) *containerPicture {
	p := &containerPicture{
		Type: "container", ID: x.ID, Name: x.Name, Status: x.State.Word(),
		Image: pictureImage{ID: x.ImageID, Name: x.Image, Names: []string{}, There: img != nil},
		Writable: pictureWritable{
			Size: x.Written.Size, ReadOnly: x.Host.ReadonlyRootfs,
			Added: toTally(&x.Written.Added), Changed: toTally(&x.Written.Changed), Removed: toTally(&x.Written.Removed),
		},
		Layers: toLayers(sheets), Mounts: notNil(x.Places), Limits: toLimits(&x.Host), Namespaces: []pictureNamespace{},
		Process: pictureProcess{
			Path: x.Path, Args: notNil(x.Args), User: x.Config.User, Init: x.Host.Init, Pid: x.State.Pid, Count: x.Count, Processes: notNil(x.Processes),
		},
		IDMappings: toIDMapsJSON(x.Host.IDs),
		Privileges: picturePrivileges{x.Host.Privileged, notNil(runtime.CapNames(x.Caps)), x.Filtered, x.NoNewPrivs},
	}
	if img != nil {
		p.Image.Names = append(p.Image.Names, img.Names...)
	}
	if isRunning(x.Summary) {
		p.Usage = &pictureUsage{x.Usage.Memory, x.Usage.MemoryLimit, x.Usage.Pids}
	}
	for _, n := range x.Namespaces {
		ns := pictureNamespace{Kind: n.Kind, ID: n.ID, Host: n.Host, SharedWith: []picturePeer{}}
		for _, s := range n.Shared {
			ns.SharedWith = append(ns.SharedWith, picturePeer(s))
		}
		p.Namespaces = append(p.Namespaces, ns)
	}
	return p
}

func toTally(t *container.Tally) pictureTally {
	out := pictureTally{t.Files, t.Dirs, t.Bytes, t.Was, t.More, []pictureChange{}}
	for _, c := range t.Largest {
		out.Largest = append(out.Largest, pictureChange{c.Path, typeWord(c.Mode), c.Size})
	}
	return out
}

func toLayers(sheets []image.Sheet) []pictureLayer {
	out := []pictureLayer{}
	for i, s := range sheets {
		l := pictureLayer{
			Layer: i + 1, DiffID: s.Layer, Size: s.Size, Entries: s.Entries, Created: s.Created, CreatedBy: s.CreatedBy, Comment: s.Comment,
			Made: s.Made, Images: []pictureImage{}, Containers: toPeers(s.Containers),
		}
		for _, img := range s.Images {
			l.Images = append(l.Images, pictureImage{ID: img.ID, Name: imageName(img), Names: append([]string{}, img.Names...), There: true})
		}
		out = append(out, l)
	}
	return out
}

func toPeers(all []image.Holder) []picturePeer {
	out := []picturePeer{}
	for _, h := range all {
		out = append(out, picturePeer{h.ID, h.Name})
	}
	slices.SortFunc(out, func(a, b picturePeer) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// imageName is the first of an image's names, or its short ID.
func imageName(img *image.Image) string {
	if len(img.Names) > 0 {
		return img.Names[0]
	}
	return img.ID.Short()
}

func toImagePicture(img *image.Image, sheets []image.Sheet, holders []image.Holder, u image.Usage) *imagePicture {
	return &imagePicture{
		Type: "image", ID: img.ID, Names: append([]string{}, img.Names...), Platform: img.Config.Platform.String(), Size: img.Size,
		Unique: u.Unique, Shared: u.Shared, Layers: toLayers(sheets), Containers: toPeers(holders), Config: image.Inspect(img).Config,
	}
}
