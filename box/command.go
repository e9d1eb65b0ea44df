package box

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"

	"tug/sys"
)

// self is this program, also where no path leads to it.
const self = "/proc/self/exe"

// program finds what runs when somebody types args: an applet, a file in PATH,
// a file by its path. It returns the file to execute with what argv.
func program(args []string, dir string, env []string) (file string, argv []string, err error) {
	name := args[0]
	if _, ok := find(name); ok {
		return self, args, nil
	}
	if strings.Contains(name, "/") {
		if file = name; !path.IsAbs(file) {
			file = path.Join(dir, file)
		}
		err = executable(file)
	} else {
		file, err = search(name, getenv(env, "PATH"), dir)
	}
	if err != nil {
		return "", nil, err
	}
	return interpreted(file, args)
}

// interpreted gives a script its interpreter when that is an applet and is not
// there as a file: in an image without a shell, "#!/bin/sh" is ours.
func interpreted(file string, args []string) (string, []string, error) {
	f, err := os.Open(file)
	if err != nil {
		return file, args, nil // perhaps it can be executed and not read
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	line, _, _ := bytes.Cut(head[:n], []byte("\n"))
	words := strings.Fields(strings.TrimPrefix(string(line), "#!"))
	if !bytes.HasPrefix(head, []byte("#!")) || len(words) == 0 {
		return file, args, nil
	}
	if _, err := os.Stat(words[0]); err == nil {
		return file, args, nil
	}
	interpreter := words[0]
	if path.Base(words[0]) == "env" && len(words) > 1 {
		words = words[1:]
	}
	words[0] = path.Base(words[0])
	if _, ok := find(words[0]); !ok {
		return "", nil, fmt.Errorf("its interpreter %s is not there", interpreter)
	}
	return self, append(append(words, file), args[1:]...), nil
}

// search looks a name up in PATH.
func search(name, list, dir string) (string, error) {
	denied := error(nil)
	for d := range strings.SplitSeq(list, ":") {
		if d == "" {
			d = "."
		}
		if !path.IsAbs(d) {
			d = path.Join(dir, d)
		}
		file := path.Join(d, name)
		err := executable(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, syscall.EACCES) {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", os.ErrNotExist
}

func executable(file string) error {
	fi, err := os.Stat(file)
	switch {
	case err != nil:
		return err
	case fi.IsDir():
		return &os.PathError{Op: "exec", Path: file, Err: syscall.EISDIR}
	case fi.Mode()&0o111 == 0:
		return &os.PathError{Op: "exec", Path: file, Err: syscall.EACCES}
	}
	return nil
}

// getenv returns the last value of a variable.
func getenv(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// execCode is the exit code for a program that cannot be run.
func execCode(err error) int {
	if errors.Is(err, os.ErrNotExist) {
		return exitNotFound
	}
	return exitCannotExec
}

// execText says why.
func execText(name string, err error) string {
	if errors.Is(err, os.ErrNotExist) && !strings.Contains(name, "/") {
		return name + ": not found"
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return name + ": " + err.Error()
}

// child describes a process that does not outlive this one.
func child(file string, argv []string, dir string, env []string, in io.Reader, out, errs io.Writer) *exec.Cmd {
	return &exec.Cmd{
		Path: file, Args: argv, Env: env, Dir: dir, Stdin: in, Stdout: out, Stderr: errs,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
}

// start starts a process for args, with dir and env of the caller's.
func start(args []string, dir string, env []string, in io.Reader, out, errs io.Writer) (*exec.Cmd, error) {
	file, argv, err := program(args, dir, env)
	if err != nil {
		return nil, err
	}
	cmd := child(file, argv, dir, env, in, out, errs)
	err = cmd.Start()
	if errors.Is(err, syscall.ENOEXEC) { // a script without a first line
		cmd = child(self, append([]string{"sh", file}, argv[1:]...), dir, env, in, out, errs)
		err = cmd.Start()
	}
	return cmd, err
}

// wait returns how a process ended, as a shell does.
func wait(cmd *exec.Cmd) int {
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return exit.ExitCode()
	}
	if err != nil {
		return 1
	}
	return 0
}

// command runs args to the end, with the applet's output and errors.
func (c *call) command(args []string, env []string, in io.Reader) int {
	c.out.Flush()
	dir, _ := os.Getwd()
	var out io.Writer = c.out
	if c.err == io.Writer(os.Stderr) {
		out = os.Stdout // the descriptor, not a copy
	}
	cmd, err := start(args, dir, env, in, out, c.err)
	if err != nil {
		fmt.Fprintf(c.err, "%s: %s\n", c.name, printable(execText(args[0], err)))
		return execCode(err)
	}
	return wait(cmd)
}

// become replaces this process by args. It returns when that is not possible.
func become(args []string) int {
	dir, _ := os.Getwd()
	file, argv, err := program(args, dir, os.Environ())
	if err == nil {
		err = sys.Exec(file, argv, os.Environ())
	}
	if errors.Is(err, syscall.ENOEXEC) {
		err = sys.Exec(self, append([]string{"sh", file}, argv[1:]...), os.Environ())
	}
	fmt.Fprintln(os.Stderr, "tug-box: "+printable(execText(args[0], err)))
	return execCode(err)
}
