package supervisor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// JournalSocket is where journald listens (systemd-journald.service(8)).
const JournalSocket = "/run/systemd/journal/socket"

// Journal says how journald is told a container's output.
type Journal struct {
	Socket string
	Fields map[string]string // of every entry
}

// A journal sends entries of a log to journald, in its native protocol: one
// datagram for each, of lines NAME=VALUE, or, for a value with newlines, NAME,
// newline, its length in 8 bytes, value, newline.
//
// Nothing that journald does keeps a container from writing for long: when it
// takes nothing for journalWait, entries are not sent to it for journalPause;
// tug's own log has them all the same. After a supervisor's death the entries
// that were not committed are sent again.
type journal struct {
	socket string
	fields []byte
	conn   *net.UnixConn
	later  time.Time // not tried before
	said   bool
	buf    []byte
}

const (
	journalWait  = 200 * time.Millisecond
	journalPause = 5 * time.Second
)

func (j *Journal) open() *journal {
	o := &journal{socket: j.Socket}
	names := make([]string, 0, len(j.Fields))
	for n := range j.Fields {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		o.fields = appendField(o.fields, n, []byte(j.Fields[n]))
	}
	return o
}

func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	}
	return append(append(b, value...), '\n')
}

// send sends whole entries of the log.
func (j *journal) send(entries []byte) {
	if time.Now().Before(j.later) {
		return
	}
	if err := j.try(entries); err != nil {
		j.close()
		j.later = time.Now().Add(journalPause)
		if !j.said {
			j.said = true
			fmt.Fprintf(os.Stderr, "supervisor: send output to journald: %v; what it does not get is in tug's own log\n", err)
		}
	}
}

func (j *journal) try(entries []byte) (err error) {
	if j.conn == nil {
		if j.conn, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: j.socket, Net: "unixgram"}); err != nil {
			return err
		}
	}
	j.conn.SetWriteDeadline(time.Now().Add(journalWait))
	for entry := range bytes.Lines(entries) {
		if err := j.sendOne(entry); err != nil {
			return err
		}
	}
	return nil
}

// Priorities of syslog(3).
const (
	priorityError = "3"
	priorityInfo  = "6"
)

func (j *journal) sendOne(entry []byte) error {
	words := bytes.SplitN(bytes.TrimSuffix(entry, []byte("\n")), []byte(" "), 4)
	if len(words) != 4 {
		return errors.New("an entry of the log has no text")
	}
	priority := priorityInfo
	if string(words[1]) == "stderr" {
		priority = priorityError
	}
	b := append(j.buf[:0], j.fields...)
	b = appendField(b, "PRIORITY", []byte(priority))
	b = appendField(b, "SYSLOG_TIMESTAMP", words[0])
	if string(words[2]) == "P" {
		b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
	}
	j.buf = appendField(b, "MESSAGE", words[3])
	_, err := j.conn.Write(j.buf)
	return err
}

func (j *journal) close() {
	if j.conn != nil {
		j.conn.Close()
		j.conn = nil
	}
}

// JournalName makes a name that journald takes: capital letters, digits and
// underscores, the first one a letter. "" cannot be made one.
func JournalName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, s)
	s = strings.TrimLeft(s, "_0123456789")
	return s[:min(len(s), 64)]
}
