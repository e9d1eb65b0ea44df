package container

import (
	"maps"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tug/event"
	"tug/spec"
	"tug/state"
	"tug/supervisor"
	"tug/sys"
)

// about is what events say of a container, as with Docker: its labels, image and
// name.
func about(ctr *spec.Container) map[string]string {
	m := maps.Clone(ctr.Config.Labels)
	if m == nil {
		m = map[string]string{}
	}
	m["image"], m["name"] = ctr.Image, ctr.Name
	return m
}

// tell records an event of a container with attributes of its own.
func (c *Containers) tell(ctr *spec.Container, e event.Event) {
	if c.Events == nil {
		return
	}
	if e.Cause == (event.Cause{}) {
		e.Cause = c.by
	}
	own := e.Attributes
	e.Type, e.ID, e.Attributes = event.Container, ctr.ID, about(ctr)
	maps.Copy(e.Attributes, own)
	c.Events.Add(e)
}

// did records that this command did action to a container.
func (c *Containers) did(ctr *spec.Container, action string) {
	c.tell(ctr, event.Event{Action: action})
}

// tellKill records a signal that was sent to the container id.
func (c *Containers) tellKill(id string, sig syscall.Signal) {
	if ctr, err := c.config(id); err == nil {
		c.tell(ctr, event.Event{Action: "kill", Attributes: map[string]string{"signal": strconv.Itoa(int(sig))}})
	}
}

func (c *Containers) config(id string) (*spec.Container, error) {
	ctr := &spec.Container{}
	return ctr, state.ReadJSON(c.path(id, fileConfig), ctr)
}

// began records the start of a run.
func (s *Starter) began(run supervisor.Run, at time.Time) {
	attributes := run.About
	if attributes == nil {
		ctr, err := s.config(run.ID)
		if err != nil {
			return
		}
		attributes = about(ctr)
	}
	e := event.Event{Type: event.Container, ID: run.ID, Attributes: attributes, Time: at, Cause: run.Cause}
	if run.Attached {
		e.Action = "attach"
		s.Events.Add(e)
	}
	e.Action, e.Run = "start", run.Number
	s.Events.Add(e)
}

// failed records that a run's program could not be run.
func (s *Starter) failed(run supervisor.Run, code int, why string) {
	ctr, err := s.config(run.ID)
	if err != nil {
		return
	}
	s.tell(ctr, event.Event{
		Action: "die", Run: run.Number, Cause: event.Cause{By: why},
		Attributes: map[string]string{"exitCode": strconv.Itoa(code), "execDuration": "0"},
	})
}

// ended records the end of a run, and why it ended.
func (s *Starter) ended(sum *Summary, run supervisor.Run) {
	st := &sum.State
	e := event.Event{Action: "die", Run: run.Number, Time: st.FinishedAt, Attributes: map[string]string{
		"exitCode":     strconv.Itoa(st.ExitCode),
		"execDuration": strconv.FormatInt(int64(max(st.FinishedAt.Sub(st.StartedAt), 0)/time.Second), 10),
	}}
	switch {
	case st.OOMKilled:
		s.tell(&sum.Container, event.Event{Action: "oom", Time: st.FinishedAt, Cause: event.Cause{By: "the memory limit was reached"}})
		e.Cause.By = "out of memory"
	case st.ExitCode == lostCode && st.FinishedAt.Equal(st.StartedAt):
		e.Cause.By, e.Time = "its keeper was killed or the machine went down", time.Time{}
	case st.ExitCode > 128 && sys.SignalName(syscall.Signal(st.ExitCode-128)) != "":
		e.Cause.By = "signal " + sys.SignalName(syscall.Signal(st.ExitCode-128))
	default:
		e.Cause.By = path.Base(sum.Path) + " exited with " + strconv.Itoa(st.ExitCode)
	}
	s.tell(&sum.Container, e)
}

// ExecBegan, ExecEnded and Attached record what happens in running containers.
func (s *Starter) ExecBegan(id, exec string, args []string, by event.Cause) {
	line := strings.Join(args, " ")
	for _, action := range []string{"exec_create: ", "exec_start: "} {
		s.tellExec(id, exec, event.Event{Action: action + line, Cause: by})
	}
}

func (s *Starter) ExecEnded(id, exec string, code int) {
	s.tellExec(id, exec, event.Event{
		Action: "exec_die", Cause: event.Cause{By: "it exited with " + strconv.Itoa(code)},
		Attributes: map[string]string{"exitCode": strconv.Itoa(code)},
	})
}

func (s *Starter) tellExec(id, exec string, e event.Event) {
	ctr, err := s.config(id)
	if err != nil {
		return
	}
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	e.Attributes["execID"] = execID(exec)
	s.tell(ctr, e)
}

// execID is the exec's part of its key.
func execID(key string) string {
	_, id, _ := strings.Cut(key, "#")
	return id
}

func (s *Starter) Attached(id string, by event.Cause) {
	if ctr, err := s.config(id); err == nil {
		s.tell(ctr, event.Event{Action: "attach", Cause: by})
	}
}
