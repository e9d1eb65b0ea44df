package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/pflag"

	"tug/errs"
	"tug/registry"
	"tug/sys"
)

type loginOptions struct {
	user, password string
	stdin          bool
}

func setupLogin(a *app, fs *pflag.FlagSet) func([]string) error {
	var o loginOptions
	fs.StringVarP(&o.user, "username", "u", "", "Username")
	fs.StringVarP(&o.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	fs.BoolVar(&o.stdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return func(args []string) error {
		if err := a.loginFlags(&o, fs); err != nil {
			return err
		}
		arg := ""
		if len(args) > 0 {
			arg = args[0]
		}
		s, err := registry.ParseServer(arg)
		if err != nil {
			return err
		}
		a.warnEnvAuth()
		return a.login(s, o)
	}
}

// loginFlags checks the flags and reads the password where they say so.
func (a *app) loginFlags(o *loginOptions, fs *pflag.FlagSet) error {
	if o.password == "-" {
		o.password, o.stdin = "", true
	} else if fs.Changed("password") && o.stdin {
		return errors.New("conflicting options: cannot specify both --password and --password-stdin")
	}
	switch {
	case o.stdin && !fs.Changed("username"):
		return errors.New("the --password-stdin option requires --username to be set")
	case fs.Changed("username") && strings.TrimSpace(o.user) == "":
		return errors.New("username is empty")
	case fs.Changed("password") && !o.stdin && o.password == "":
		return errors.New("password is empty")
	}
	if o.password != "" {
		fmt.Fprintln(a.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if o.stdin {
		p, err := registry.ReadSecret(a.In)
		if err != nil {
			return err
		}
		if strings.TrimSpace(p) == "" {
			return errors.New("password is empty")
		}
		o.password = p
	}
	o.user = strings.TrimSpace(o.user)
	return nil
}

// warnEnvAuth says why login and logout change nothing while that is set.
func (a *app) warnEnvAuth() {
	if os.Getenv("DOCKER_AUTH_CONFIG") != "" {
		a.warn("DOCKER_AUTH_CONFIG is set and takes precedence")
	}
}

// login tries what is stored for s, unless the user names somebody, and then
// what the user gives.
func (a *app) login(s registry.Server, o loginOptions) error {
	client := registry.New(registry.Options{})
	known := ""
	if o.user == "" && o.password == "" {
		cred, err := registry.Stored(a.ctx, s)
		if err != nil {
			return err
		}
		if known = cred.Username; known != "" && cred.Password != "" {
			done, err := a.loginStored(client, s, cred)
			if done || err != nil {
				return err
			}
		}
	}
	cred, err := a.askCredentials(s, o, known)
	if err != nil {
		return err
	}
	return a.loginAs(client, s, cred, true)
}

// loginStored tries credentials that are there. Ones that the registry does not
// take any more are not the end: the user can give others.
func (a *app) loginStored(client *registry.Client, s registry.Server, cred registry.Credentials) (done bool, err error) {
	fmt.Fprintf(a.Err, "Authenticating with existing credentials... [Username: %s]\n\n", oneLine(cred.Username))
	fmt.Fprint(a.Err, " Info -> To login with a different account, run 'tug logout' followed by 'tug login'\n\n\n")
	err = a.loginAs(client, s, cred, false)
	switch {
	case errs.Is(err, errs.Denied):
		fmt.Fprintln(a.Err, "Stored credentials invalid or expired")
	case err != nil:
		fmt.Fprintln(a.Err, "Login did not succeed, error:", message(err))
	}
	if err != nil && !isTerminal(a.In) {
		return true, err
	}
	return err == nil, nil
}

// loginAs verifies cred with the registry, and then stores what it gave; of new
// ones it says when they lie there in the clear.
func (a *app) loginAs(client *registry.Client, s registry.Server, cred registry.Credentials, isNew bool) error {
	store, err := client.Login(a.ctx, s, cred)
	if err != nil {
		return err
	}
	plain, err := registry.Store(a.ctx, s, store)
	if err != nil {
		return err
	}
	if isNew && plain != "" && store.Password != "" {
		fmt.Fprintf(a.Err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", oneLine(plain))
	}
	return a.printf("Login Succeeded\n")
}

// askCredentials asks at the terminal for what the flags do not give.
func (a *app) askCredentials(s registry.Server, o loginOptions, known string) (registry.Credentials, error) {
	cred := registry.Credentials{Username: o.user, Password: o.password}
	if (cred.Username == "" || cred.Password == "") && !isTerminal(a.In) {
		return cred, errs.New(errs.Invalid, "cannot perform an interactive login from a non-TTY device").
			WithHint("give --username and --password-stdin")
	}
	if cred.Username == "" {
		if s.IsHub() {
			fmt.Fprintln(a.Out, "Log in with your Docker ID or email address to push and pull images from Docker Hub. If you don't have a Docker ID, head over to https://hub.docker.com/ to create one.")
		}
		question := "Username: "
		if known != "" {
			question = "Username (" + oneLine(known) + "): "
		}
		fmt.Fprint(a.Out, question)
		line, err := readLine(a.In)
		if err != nil {
			return cred, err
		}
		if cred.Username = strings.TrimSpace(line); cred.Username == "" {
			cred.Username = known
		}
		if cred.Username == "" {
			return cred, errors.New("username is required")
		}
	}
	if cred.Password == "" {
		p, err := a.askSecret("Password: ")
		if err != nil {
			return cred, err
		}
		if cred.Password = p; p == "" {
			return cred, errors.New("password is required")
		}
	}
	return cred, nil
}

// askSecret asks for a line that the terminal does not show. A signal that ends
// the program gives the terminal back first.
func (a *app) askSecret(question string) (string, error) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, deadly()...)
	defer signal.Stop(signals)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case sig := <-signals:
			a.dieOf(sig)
		case <-done:
		}
	}()
	if err := a.silent(); err != nil {
		return "", err
	}
	defer a.restore()
	fmt.Fprint(a.Out, question)
	line, err := readLine(a.In)
	fmt.Fprintln(a.Out)
	return line, err
}

// silent keeps the terminal from showing what is typed, until restore.
func (a *app) silent() error {
	t := &a.term
	t.mu.Lock()
	defer t.mu.Unlock()
	tty := file(a.In)
	old, err := sys.MakeSilent(tty)
	if err == nil && t.old == nil {
		t.tty, t.old = tty, old
	}
	return err
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 10

// readLine reads one line and no byte more, for what follows may be somebody
// else's. The end of the input ends it too.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for len(line) < maxAnswer {
		n, err := r.Read(b)
		if n > 0 && b[0] == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		line = append(line, b[:n]...)
		if err == io.EOF {
			return string(line), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", errors.New("the answer is too long")
}

func setupLogout(a *app, _ *pflag.FlagSet) func([]string) error {
	return func(args []string) error {
		arg := ""
		if len(args) > 0 {
			arg = args[0]
		}
		s, err := registry.ParseServer(arg)
		if err != nil {
			return err
		}
		a.warnEnvAuth()
		if err := a.printf("Removing login credentials for %s\n", s.Key); err != nil {
			return err
		}
		// Not being logged in is what was wanted.
		_, err = registry.Erase(a.ctx, s)
		return err
	}
}
