// Package image keeps images: immutable descriptions (config, manifest, ordered
// layers) by digest, the names that point at them, and the ways in: pull from a
// registry, load from an archive, and the built-in hello. The layers' bytes are
// package layer's, running an image is package container's.
//
// # On disk
//
//	blobs/sha256/<hex>     config, manifest, index: bytes as received
//	images/ids/<hex>.json  one record per image, by its ID (the config's digest)
//	images/names/<name>    one file per tag and per repository digest
//	partial/<hex>          what there is of a layer's blob, by the blob's digest
//
// An image exists when its record does. Coming in, the order is layers, blobs,
// record, names; going out it is names, record, blobs, layers. So a crash can
// leave an image without its name, and blobs and layers that nobody needs, but
// never a name or a record that points at nothing. What is left over is
// collected by the next Remove; see Sweep. A download that was cut short goes on
// from its partial.
//
// Blobs, records and names are written under the shared reference lock (see
// package state) and removed under the exclusive one. Layers are held by their
// own lock from the time they are found or made until the record is written.
//
// Surprising: layers are shared between images by their uncompressed digest,
// so the layers that Remove reports are Docker's chain IDs, computed, while
// what is on disk is one directory per diffID.
package image

import (
	"sync"
	"time"

	"tug/event"
	"tug/layer"
	"tug/registry"
	"tug/spec"
	"tug/state"
)

// Images is the images of one store. Its methods may be called by many
// goroutines and processes at once.
type Images struct {
	Events *event.Log // may be nil

	st     *state.Store
	layers *layer.Layers
	reg    *registry.Client
	pace   pace
}

// Open returns the images of st. It reads nothing.
func Open(st *state.Store, layers *layer.Layers, reg *registry.Client) *Images {
	return &Images{st: st, layers: layers, reg: reg, pace: usualPace}
}

// Image is one image as it was when it was read.
type Image struct {
	ID       spec.Digest // digest of the config
	Config   spec.ImageConfig
	Names    []string         // familiar name:tag, sorted by the full one
	Digests  []string         // familiar name@digest, sorted by the full one
	Manifest spec.Digest      // of this platform; empty when it came without one
	Target   *spec.Descriptor // manifest or index that the name stood for; nil when it came without one
	Stack    []spec.Digest    // what to mount, lowest first: the layers, and those made for them (layer.Layers.Stack)
	Size     int64            // of all files in its layers
	Pulled   time.Time        // when it first came into the store
	LastUsed time.Time
	LastTag  time.Time // when the newest of its names was given; zero without a name
}

// Layers returns the diffIDs of the image's layers, lowest first.
func (i *Image) Layers() []spec.Digest { return i.Config.RootFS.DiffIDs }

// Progress hears how a transfer goes. Calls come one at a time. Status is one
// of Docker's words: Pulling fs layer, Waiting, Downloading, Download complete,
// Extracting, Pull complete, Already exists, Loading layer; Preparing, Pushing,
// Pushed, Layer already exists, Mounted from REPOSITORY. Total is 0 where there
// is nothing to count.
type Progress interface {
	Layer(id, status string, current, total int64)
	Message(line string)
}

// events serialises calls to a Progress and thins out those that only count.
type events struct {
	mu   sync.Mutex
	p    Progress
	last map[string]time.Time
}

const eventPeriod = 100 * time.Millisecond

func newEvents(p Progress) *events { return &events{p: p, last: map[string]time.Time{}} }

func (e *events) layer(id, status string, current, total int64) {
	if e.p == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if total > 0 && current < total {
		now := time.Now()
		if now.Sub(e.last[id]) < eventPeriod {
			return
		}
		e.last[id] = now
	}
	e.p.Layer(id, status, current, total)
}

func (e *events) message(line string) {
	if e.p == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.p.Message(line)
}
