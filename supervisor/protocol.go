package supervisor

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"tug/errs"
	"tug/event"
	"tug/runtime"
	"tug/spec"
	"tug/sys"
)

// Commands talk to the supervisor over a unix SOCK_SEQPACKET connection. The
// first byte of a packet is its kind:
//
//	command                                  supervisor
//	  | -- R request (JSON) ------------------->|
//	  |<-- A answer (JSON) + input descriptor --|  or an error, and the end
//	  |<-- o / e output bytes ------------------|  attached only
//	  |<-- X exit (JSON) ------------------------|  the last packet
//
// A start is done once, however often it is asked for: when the supervisor dies
// before it answered, the command asks the next one with the same Token, and is
// given the process that was started.
//
// Standard input does not pass through: the answer carries the pipe's write end
// or the terminal master, on which the command also sets the window size. A command that loses the connection before X asks
// again with Resume and the offset that it has come to in each stream.
const (
	frameRequest = 'R'
	frameAnswer  = 'A'
	frameStdout  = 'o'
	frameStderr  = 'e'
	frameExit    = 'X'
)

// maxFrame bounds a packet: output chunks are the largest.
const maxFrame = chunkSize + 1

// Operations of a request.
const (
	opStart  = "start"  // start container ID, attached when Attach is set
	opAttach = "attach" // attach to the running container ID, or to Key with Resume
	opExec   = "exec"   // run Exec in container ID
	opWait   = "wait"   // until container ID is not running
	opGuard  = "guard"  // let container ID go on when the command that pauses it dies
	opSettle = "settle" // look again whether a restart of container ID is due
	opClear  = "clear"  // empty the log of container ID
	opMount  = "mount"  // the root file system of container ID, which does not run; it comes along
	opPing   = "ping"
)

type request struct {
	Op     string
	ID     string         `json:",omitempty"`
	Key    string         `json:",omitempty"` // of a session to resume
	Token  string         `json:",omitempty"` // of a start or exec, made by the client
	Again  bool           `json:",omitempty"` // it was asked for before
	Cause  event.Cause    // who asks
	Exec   *spec.ExecSpec `json:",omitempty"`
	Attach *AttachOptions `json:",omitempty"`
	Resume *[2]int64      `json:",omitempty"` // offsets in stdout and stderr to go on at
	Timing bool           `json:",omitempty"` // tell the phases of the start

	timing *Timing // the supervisor's, with Timing
}

// AttachOptions says which streams a client wants.
type AttachOptions struct {
	Stdin, Stdout, Stderr bool
	Rows, Cols            uint16 // the terminal's initial size, 0 unknown
}

type answer struct {
	Key      string   // names the session for Resume
	Tty      bool     `json:",omitempty"`
	Stdin    bool     `json:",omitempty"` // an input descriptor came along
	From     [2]int64 // offsets in stdout and stderr that output begins at
	Warnings []string `json:",omitempty"`
	Pid      int      `json:",omitempty"`
	Start    uint64   `json:",omitempty"` // field 22 of /proc/Pid/stat
	Backend  string   `json:",omitempty"` // of opPing
	Running  int      `json:",omitempty"` // of opPing
	Phases   []Phase  `json:",omitempty"`
	Error    *failure `json:",omitempty"`
}

type exitFrame struct {
	Code int
	At   time.Time `json:",omitzero"` // of the process's end
}

// failure carries an error over the socket.
type failure struct {
	Class     errs.Class
	Msg, Hint string
	StartCode int // of a runtime.StartError
}

func toFailure(err error) *failure {
	f := &failure{Class: errs.ClassOf(err), Msg: err.Error(), Hint: errs.HintOf(err)}
	if se := runtime.AsStartError(err); se != nil {
		f.StartCode, f.Msg = se.Code, se.Msg
	}
	return f
}

func (f *failure) err() error {
	if f.StartCode != 0 {
		return &runtime.StartError{Code: f.StartCode, Msg: f.Msg}
	}
	return &errs.Error{Class: f.Class, Msg: f.Msg, Hint: f.Hint}
}

// conn is one connection, framed. Writes are whole packets, so several
// goroutines may write.
type conn struct{ *net.UnixConn }

func (c conn) send(kind byte, v any, files ...*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, _, err = c.WriteMsgUnix(append([]byte{kind}, b...), sys.Rights(files...), nil)
	return err
}

// receive reads one packet into buf. io.EOF: the peer is gone.
func (c conn) receive(buf, oob []byte) (kind byte, body []byte, files []*os.File, err error) {
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return 0, nil, nil, err
	}
	if oobn > 0 {
		if files, err = sys.ParseRights(oob[:oobn]); err != nil {
			return 0, nil, nil, err
		}
	}
	if n == 0 {
		sys.CloseAll(files)
		return 0, nil, nil, io.EOF
	}
	return buf[0], buf[1:n], files, nil
}

func decode(kind, want byte, body []byte, v any) error {
	if kind != want {
		return fmt.Errorf("supervisor protocol: got packet %q, want %q", kind, want)
	}
	return json.Unmarshal(body, v)
}
