// Package keeper is the small process between the kernel and a supervisor: the
// parent and reaper of every container, the holder of their pipe and terminal
// ends, and the one that starts a new supervisor when the old one dies.
//
// It knows no container, image or log. It knows entries: a key, descriptors to
// hold, and at most one child process whose end it records in a file. So a
// supervisor can be killed at any moment: its children are the keeper's
// (CLONE_PARENT), their pipes stay open here, and the next supervisor gets
// everything back. It must stay small and change rarely, because a keeper runs
// as long as the oldest container of its store.
//
// The keeper lives in a mount namespace of its own, a slave of the one it was
// started from. Supervisors inherit it, so layer mounts made there are seen by
// nobody else and survive a supervisor's death. It keeps that other one open for
// them, see HostFd.
package keeper

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"tug/sys"
)

// The protocol runs over a SOCK_SEQPACKET pair, one JSON message a packet:
//
//	keeper                                   supervisor
//	  | -- item {key,names,child,exit} +fds -->|   once per held entry,
//	  | -- ready ------------------------------>|   at the start
//	  |<-- up ----------------------------------|   it serves
//	  |                                        |
//	  |<-- hold {key,names,child} + fds -------|   new entry, or replaces one
//	  |<-- drop {key} -------------------------|
//	  | -- exit {key,exit} -------------------->|   after the record is written
//	  |<-- quit --------------------------------|   nothing runs: end both
//
// A message that was sent is in the keeper's socket buffer, so hold needs no
// answer: the keeper reads what a dead supervisor sent before it starts the
// next one.
const (
	OpItem  = "item"
	OpReady = "ready"
	OpUp    = "up"
	OpHold  = "hold"
	OpDrop  = "drop"
	OpExit  = "exit"
	OpQuit  = "quit"
)

// Descriptors a supervisor inherits.
const (
	ControlFd = 3 // its end of the socket pair
	ListenFd  = 4 // the store's listening socket, kept open across supervisors
	MountsFd  = 5 // the mount namespace that the keeper was started from
)

// ReadyFd is where a keeper writes one byte when its socket can be connected
// to; it ends unwritten when the keeper fails.
const ReadyFd = 3

// HostFd is the keeper's descriptor of what becomes MountsFd. The sources of bind
// mounts are looked up in that namespace: the keeper's own sees later mounts of
// the host only where those are shared, and never makes one that the host sees.
const HostFd = 4

// Message is one packet.
type Message struct {
	Op    string
	Key   string   `json:",omitempty"`
	Names []string `json:",omitempty"` // one per passed descriptor
	Child *Child   `json:",omitempty"`
	Exit  *Exit    `json:",omitempty"`
	Data  string   `json:",omitempty"` // the supervisor's own note, handed back with the entry
}

// Child is a process of the keeper's and what to do when it ends.
type Child struct {
	Pid    int
	Start  uint64 // field 22 of /proc/PID/stat, against reuse of the pid; 0 when it ended too soon to look
	Record string `json:",omitempty"` // file for the Exit as JSON; empty for none
	Sync   bool   `json:",omitempty"` // fsync the record before telling anyone
	Events string `json:",omitempty"` // memory.events (v2) or memory.oom_control (v1) to look for oom_kill in
}

// is reports whether an exit is that of the child.
func (c *Child) is(e *Exit) bool { return c.Pid == e.Pid && (c.Start == e.Start || c.Start == 0) }

// Exit is how a child ended. It is also the contents of the record file.
type Exit struct {
	Pid       int
	Start     uint64
	Code      int // exit status, or 128+signal
	OOMKilled bool
	At        time.Time
}

// maxMessage bounds a packet; keys, names and paths are short.
const maxMessage = 64 << 10

// Send writes one message.
func Send(sock *os.File, m *Message, files ...*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) > maxMessage {
		return fmt.Errorf("keeper message %s %s: %d bytes are too many", m.Op, m.Key, len(b))
	}
	return sys.SendMsg(sock, b, files...)
}

// Receive reads one message. It returns io.EOF when the peer is gone.
func Receive(sock *os.File) (*Message, []*os.File, error) {
	buf := make([]byte, maxMessage)
	n, files, err := sys.RecvMsg(sock, buf)
	if err != nil {
		return nil, nil, err
	}
	m := &Message{}
	if err := json.Unmarshal(buf[:n], m); err != nil {
		sys.CloseAll(files)
		return nil, nil, fmt.Errorf("keeper message: %w", err)
	}
	return m, files, nil
}
