// Package disk is a disk that remembers every write, so that a test can have
// the disk of any moment back: what a machine finds after a power failure.
//
// It is one file in a FUSE file system, served by this process. A loop device
// over it passes on each write as it reaches the disk, and each flush as an
// fsync: the file system on top cannot tell it from a disk with a write cache.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Disk is a running disk.
type Disk struct {
	Path string // of the file that is the disk

	dir    string
	server *fuse.Server
	mu     sync.Mutex
	first  []byte // content at the start
	now    []byte
	log    []Event
}

// Event is one thing that happened to the disk, in order.
type Event struct {
	Off   int64
	Data  []byte // of a write; nil otherwise
	Flush bool   // all writes before are safe
	Mark  string // what the test noted
}

// Serve makes a disk with this content, below dir, and remembers from now on.
func Serve(dir string, content []byte) (*Disk, error) {
	d := &Disk{dir: filepath.Join(dir, "disk"), first: slices.Clone(content), now: content}
	d.Path = filepath.Join(d.dir, "image")
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		return nil, err
	}
	root := &fs.Inode{}
	options := &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "recorder", DisableXAttrs: true, MaxWrite: 128 << 10}}
	options.OnAdd = func(ctx context.Context) {
		root.AddChild("image", root.NewPersistentInode(ctx, &image{d: d}, fs.StableAttr{Mode: syscall.S_IFREG}), true)
	}
	var err error
	if d.server, err = fs.Mount(d.dir, root, options); err != nil {
		return nil, fmt.Errorf("mount the recorder: %w", err)
	}
	return d, nil
}

// Close ends the disk. Nobody may use it any more; a loop device lets go of it a
// moment after what was mounted from it is unmounted.
func (d *Disk) Close() error {
	err := unix.Unmount(d.dir, 0)
	for end := time.Now().Add(20 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
		err = unix.Unmount(d.dir, 0)
	}
	if err != nil {
		return fmt.Errorf("unmount the recorder: %w", err)
	}
	d.server.Wait()
	return os.Remove(d.dir)
}

// Mark notes something in the log.
func (d *Disk) Mark(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, Event{Mark: what})
}

// Log returns what has happened so far.
func (d *Disk) Log() []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

// After returns the disk's content after a power failure behind the first n
// events of log. Writes since the last flush are there or not as lost says, and
// of the very last one tear bytes are missing, whole sectors of 512.
func (d *Disk) After(log []Event, n int, lost func() bool, tear int) []byte {
	out := slices.Clone(d.first)
	flushed := 0
	for i, e := range log[:n] {
		if e.Flush {
			flushed = i
		}
	}
	for i, e := range log[:n] {
		b := e.Data
		if i > flushed && len(b) > 0 && lost() {
			continue
		}
		if i == n-1 {
			b = b[:max(0, len(b)-tear)/512*512]
		}
		copy(out[e.Off:], b)
	}
	return out
}

// image is the file.
type image struct {
	fs.Inode
	d *Disk
}

func (f *image) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (f *image) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode = syscall.S_IFREG | 0o600
	out.Size = uint64(len(f.d.first))
	out.Blksize = 4096
	return 0
}

// Setattr lets times be set, which nobody reads.
func (f *image) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok && size != uint64(len(f.d.first)) {
		return syscall.EPERM
	}
	return f.Getattr(ctx, h, out)
}

func (f *image) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n := copy(dest, f.d.now[min(off, int64(len(f.d.now))):])
	return fuse.ReadResultData(dest[:n]), 0
}

func (f *image) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if off+int64(len(data)) > int64(len(f.d.now)) {
		return 0, syscall.ENOSPC
	}
	copy(f.d.now[off:], data)
	f.d.log = append(f.d.log, Event{Off: off, Data: slices.Clone(data)})
	return uint32(len(data)), 0
}

func (f *image) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.log = append(f.d.log, Event{Flush: true})
	return 0
}
