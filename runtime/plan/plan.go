// Package plan is what the supervisor tells tug-init and what it answers: the
// types and the framing of their conversation. It is linked into both, so it
// imports next to nothing; it decides nothing.
//
// The conversation, on one SOCK_SEQPACKET pair per process:
//
//	supervisor                       tug-init (init or exec)
//	    |  clone, execve ------------->  makes ready what no container decides
//	    |  plan + descriptors -------->  root, mounts, user, terminal
//	    |  <----- reply + pty master --  OK, or why not
//	    |  go ------------------------>  credentials, seccomp, execve
//	    |  <------ end of file --------  the program runs
//	    |  <------ reply --------------  or why not
//
// Who starts in a pid namespace that others live in already is not made by the
// supervisor, but by a tug-init of its own, `enter`:
//
//	supervisor                       tug-init enter
//	    |  clone, execve ------------->  joins namespaces, clones the other
//	    |  <-- reply + its pidfd ------  ends; the socket is the other's now
//
// End of file at tug-init's side, at any time before execve, means that the
// supervisor died: the process exits, and nothing was started.
package plan

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"tug/spec"
	"tug/sys"
)

// Plan is one process to start. Descriptors travel beside it in the order:
// rootfs (not for exec), those of standard input, output and error that Stdio
// tells of, the trees that Mounts name, and last with Box tug-box, with OCI the
// socket that start connects to.
type Plan struct {
	Args   []string
	Env    []string
	Cwd    string   `json:",omitempty"`
	User   string   `json:",omitempty"`
	Groups []string `json:",omitempty"` // supplementary, beyond the user's
	Tty    bool     `json:",omitempty"`
	Stdio  uint8    `json:",omitempty"` // bit n: descriptor n is passed; the others are the container's /dev/null
	Init   bool     `json:",omitempty"` // run Args below `tug-init reap`
	Box    bool     `json:",omitempty"` // execute tug-box, the last descriptor that is passed, with Args

	Caps        uint64 // bit n is capability n: bounding set, and root's effective and permitted
	NoNewPrivs  bool   `json:",omitempty"`
	Seccomp     []byte `json:"-"`          // the filter, 8 bytes per instruction; empty for none
	FilterFlags uint   `json:",omitempty"` // SECCOMP_FILTER_FLAG_*
	Rlimits     []Rlimit
	OOMScoreAdj int `json:",omitempty"`
	Umask       uint32

	// Instead of User, Groups and Caps, for those who give numbers and sets.
	ID        *Identity `json:",omitempty"`
	Listen    bool      `json:",omitempty"` // the filter notifies a listener, who takes its descriptor before execve
	Exec      Labels    // of mandatory access control
	AsItIs    bool      `json:",omitempty"` // OOMScoreAdj is not to be set
	FinalCPUs []int     `json:",omitempty"` // of the program alone
	Preserve  int       `json:",omitempty"` // this many descriptors from 3 on are the program's, too

	Personality *uint64         `json:",omitempty"`
	Scheduling  *sys.Scheduling `json:",omitempty"`
	IOPriority  *[2]int         `json:",omitempty"` // class, priority

	// The rest is for containers, not for exec.
	Hostname   string   `json:",omitempty"`
	Domainname string   `json:",omitempty"`
	Privileged bool     `json:",omitempty"` // nothing masked, sysfs and cgroups writable
	Unmasked   bool     `json:",omitempty"` // nothing masked, all else as ever
	ReadOnly   bool     `json:",omitempty"` // root file system
	Mounts     []Mount  `json:",omitempty"`
	Devices    []Device `json:",omitempty"` // beyond the standard ones
	ShmSize    int64    `json:",omitempty"` // of /dev/shm; 0 is as parked
	NoShm      bool     `json:",omitempty"` // no /dev/shm
	Sysctls    []Option `json:",omitempty"`

	OCI *OCI `json:",omitempty"` // for `tug-init oci` alone
}

// Mount is a file system to put at Target, seen from the container's root.
type Mount struct {
	Target   string
	Tree     int      `json:",omitempty"` // index+1 among the passed trees; 0 makes a tmpfs
	Attr     uint64   `json:",omitempty"` // sys.Attr flags
	ReadOnly bool     `json:",omitempty"`
	Options  []Option `json:",omitempty"` // of the tmpfs

	// AsItIs says of a tree that its attributes and propagation are as they are
	// to be.
	AsItIs bool `json:",omitempty"`
}

// Option is one option of a file system.
type Option struct {
	Key, Value string
}

// SetOption adds one option of a tmpfs as mount(8) writes it, and reports
// whether there is such an option.
func (m *Mount) SetOption(o string) bool {
	attr := func(bit uint64, on bool) bool {
		m.Attr &^= bit
		if on {
			m.Attr |= bit
		}
		return true
	}
	key, value, hasValue := strings.Cut(o, "=")
	switch o {
	case "ro", "rw":
		m.ReadOnly = o == "ro"
		return true
	case "exec", "noexec":
		return attr(sys.AttrNoExec, o == "noexec")
	case "suid", "nosuid":
		return attr(sys.AttrNoSuid, o == "nosuid")
	case "dev", "nodev":
		return attr(sys.AttrNoDev, o == "nodev")
	case "noatime":
		return attr(sys.AttrNoAtime, true)
	case "nodiratime":
		return attr(sys.AttrNoDirAtime, true)
	case "relatime", "defaults", "async", "private", "rprivate":
		return true
	}
	switch key {
	case "size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge":
		if !hasValue || value == "" {
			return false
		}
		m.Options = append(m.Options, Option{key, value})
		return true
	}
	return false
}

// Rlimit is one resource limit by number.
type Rlimit struct {
	Name       string
	Resource   int
	Soft, Hard uint64
}

// Device is a node, most often below /dev.
type Device struct {
	Path         string // absolute
	Host         string `json:"-"` // where the host has it
	Kind         byte   // 'c', 'b' or, of OCI's, 'p'
	Major, Minor uint32
	Mode         uint32
	UID, GID     int
}

// Is reports whether the file is this device.
func (d *Device) Is(fi os.FileInfo) bool {
	if d.Kind == 'p' {
		return fi.Mode()&os.ModeNamedPipe != 0
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	isChar := fi.Mode()&os.ModeCharDevice != 0
	return ok && fi.Mode()&os.ModeDevice != 0 && isChar == (d.Kind == 'c') && st.Rdev == sys.DeviceNumber(d.Major, d.Minor)
}

// Reply answers a plan, or says why execve failed.
type Reply struct {
	Code     int      `json:",omitempty"` // 0 is success; else 125, 126 or 127 as Docker's
	Msg      string   `json:",omitempty"`
	Warnings []string `json:",omitempty"`

	// Of `enter`: the process that it made, whose pidfd comes along, or the
	// error number of why it could not be made.
	Pid   int           `json:",omitempty"`
	Errno syscall.Errno `json:",omitempty"`
}

// MaxMessage bounds what is sent inline. It stays below the kernel's default
// socket buffer; larger plans (environments may have megabytes) go by memfd.
const MaxMessage = 96 << 10

// maxPlan bounds a plan in a memfd.
const maxPlan = 16 << 20

// Kinds of message: the first byte.
const (
	kindInline = 'P'
	kindMemfd  = 'F' // the last descriptor holds the message
	kindGo     = 'G'
	kindReply  = 'R'
)

var errFormat = errors.New("malformed message")

// versioned is how a plan travels. A plan's meaning may change from version to
// version, and an upgrade may have replaced one of the two programs only.
type versioned struct {
	Version string
	*Plan
}

// SendPlan sends p with its descriptors.
func SendPlan(sock *os.File, p *Plan, files ...*os.File) error {
	js, err := json.Marshal(versioned{spec.Version, p})
	if err != nil {
		return err
	}
	// Kind, length of the JSON, JSON, filter: the filter is 15 kB of bytes
	// that base64 would only make larger and slower.
	msg := make([]byte, 5, 5+len(js)+len(p.Seccomp))
	msg[0] = kindInline
	binary.LittleEndian.PutUint32(msg[1:], uint32(len(js)))
	msg = append(append(msg, js...), p.Seccomp...)
	if len(msg) <= MaxMessage {
		return sys.SendMsg(sock, msg, files...)
	}
	mem, err := sys.MemFile("tug-plan", msg)
	if err != nil {
		return err
	}
	defer mem.Close()
	return sys.SendMsg(sock, []byte{kindMemfd}, append(files[:len(files):len(files)], mem)...)
}

// ReceivePlan reads what SendPlan sent. It returns io.EOF when the other side
// is gone.
func ReceivePlan(sock *os.File) (*Plan, []*os.File, error) {
	buf := make([]byte, MaxMessage)
	n, files, err := sys.RecvMsg(sock, buf)
	if err != nil {
		return nil, nil, err
	}
	msg := buf[:n]
	if n == 1 && msg[0] == kindMemfd && len(files) > 0 {
		mem := files[len(files)-1]
		files = files[:len(files)-1]
		msg, err = io.ReadAll(io.NewSectionReader(mem, 0, maxPlan))
		mem.Close()
		if err != nil {
			sys.CloseAll(files)
			return nil, nil, err
		}
	}
	p, err := parsePlan(msg)
	if err != nil {
		sys.CloseAll(files)
		return nil, nil, err
	}
	return p, files, nil
}

func parsePlan(msg []byte) (*Plan, error) {
	if len(msg) < 5 || msg[0] != kindInline {
		return nil, errFormat
	}
	n := int(binary.LittleEndian.Uint32(msg[1:]))
	if n > len(msg)-5 {
		return nil, errFormat
	}
	p := new(Plan)
	v := versioned{Plan: p}
	if err := json.Unmarshal(msg[5:5+n], &v); err != nil {
		return nil, err
	}
	if v.Version != spec.Version {
		return nil, fmt.Errorf("tug is version %s, tug-init version %s: install both of one version", v.Version, spec.Version)
	}
	p.Seccomp = msg[5+n:]
	return p, nil
}

// SendGo lets a prepared process run.
func SendGo(sock *os.File) error { return sys.SendMsg(sock, []byte{kindGo}) }

// ReceiveGo waits for SendGo; io.EOF means that it will never come.
func ReceiveGo(sock *os.File) error {
	var b [1]byte
	n, files, err := sys.RecvMsg(sock, b[:])
	sys.CloseAll(files)
	if err == nil && (n != 1 || b[0] != kindGo) {
		err = errFormat
	}
	return err
}

// SendReply sends r and perhaps the pty master.
func SendReply(sock *os.File, r *Reply, files ...*os.File) error {
	js, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return sys.SendMsg(sock, append([]byte{kindReply}, js...), files...)
}

// ReceiveReply waits for a reply; io.EOF means that the process executed its
// program or died.
func ReceiveReply(sock *os.File) (*Reply, []*os.File, error) {
	buf := make([]byte, 64<<10)
	n, files, err := sys.RecvMsg(sock, buf)
	if err != nil {
		return nil, nil, err
	}
	r := new(Reply)
	if n < 1 || buf[0] != kindReply {
		err = errFormat
	} else {
		err = json.Unmarshal(buf[1:n], r)
	}
	if err != nil {
		sys.CloseAll(files)
		return nil, nil, err
	}
	return r, files, nil
}
