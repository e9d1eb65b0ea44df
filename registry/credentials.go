package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tug/errs"
)

// Credentials are what a registry knows a user by.
type Credentials struct {
	Username, Password string
	IdentityToken      string // OAuth2 refresh token, in place of a password
	RegistryToken      string // bearer token that is sent as it is
}

// hubKey is Docker Hub's name in config.json and for credential helpers.
const hubKey = "https://index.docker.io/v1/"

// tokenUser is the user name by which credential helpers mark a secret as an
// identity token.
const tokenUser = "<token>"

// userConfig is the part of Docker's config.json that is about credentials.
type userConfig struct {
	path    string
	Auths   map[string]authEntry `json:"auths"`
	Store   string               `json:"credsStore"`
	Helpers map[string]string    `json:"credHelpers"`
}

type authEntry struct {
	Auth          string `json:"auth,omitempty"` // base64 of user:password
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// ConfigPath is Docker's config.json of this user.
func ConfigPath() (string, error) {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return filepath.Join(dir, "config.json"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errs.New(errs.Invalid, "find config.json: %w", err).WithHint("set HOME or DOCKER_CONFIG")
	}
	return filepath.Join(home, ".docker", "config.json"), nil
}

// configPaths are the files that credentials are looked for in, in this order:
// Docker's, then Podman's and Skopeo's.
func configPaths() []string {
	var all []string
	if p, err := ConfigPath(); err == nil {
		all = append(all, p)
	}
	if p := os.Getenv("REGISTRY_AUTH_FILE"); p != "" {
		return append(all, p)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		all = append(all, filepath.Join(dir, "containers", "auth.json"))
	}
	if dir, err := os.UserConfigDir(); err == nil {
		all = append(all, filepath.Join(dir, "containers", "auth.json"))
	}
	return all
}

// readUserConfig reads path; an absent or empty file is an empty config.
func readUserConfig(path string) (*userConfig, error) {
	c := &userConfig{path: path}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, errs.New(errs.Denied, "read credentials: %w", err)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, errs.New(errs.Invalid, "%s%s: %w", path, jsonLine(b, err), err).WithHint("mend the file")
	}
	return c, nil
}

// jsonLine is ":LINE" of a JSON error in b, where it is known.
func jsonLine(b []byte, err error) string {
	var s *json.SyntaxError
	var t *json.UnmarshalTypeError
	var at int64
	switch {
	case errors.As(err, &s):
		at = s.Offset
	case errors.As(err, &t):
		at = t.Offset
	default:
		return ""
	}
	return ":" + strconv.Itoa(1+bytes.Count(b[:min(at, int64(len(b)))], []byte("\n")))
}

// findCredentials returns what is known for repository path at host; empty
// when nothing is. $DOCKER_AUTH_CONFIG goes before the files.
func findCredentials(ctx context.Context, host, path string) (Credentials, error) {
	if env := os.Getenv("DOCKER_AUTH_CONFIG"); env != "" {
		c := &userConfig{path: "$DOCKER_AUTH_CONFIG"}
		if err := json.Unmarshal([]byte(env), c); err != nil {
			return Credentials{}, errs.New(errs.Invalid, "$DOCKER_AUTH_CONFIG: %w", err)
		}
		c.Store, c.Helpers = "", nil
		if got, err := c.find(ctx, host, path); err != nil || got != (Credentials{}) {
			return got, err
		}
	}
	for _, p := range configPaths() {
		c, err := readUserConfig(p)
		if err != nil {
			return Credentials{}, err
		}
		if got, err := c.find(ctx, host, path); err != nil || got != (Credentials{}) {
			return got, err
		}
	}
	return Credentials{}, nil
}

// find looks in one file: a helper for the host, the store, the entries.
func (c *userConfig) find(ctx context.Context, host, path string) (Credentials, error) {
	key := authKey(host)
	if helper := c.helper(key); helper != "" {
		got, err := helperGet(ctx, helper, key)
		if err != nil || got != (Credentials{}) {
			return got, err
		}
	}
	e, name := c.entry(host, path)
	cred := Credentials{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	if e.Auth != "" {
		b, err := base64.StdEncoding.DecodeString(e.Auth)
		user, password, ok := strings.Cut(string(b), ":")
		if err != nil || !ok || user == "" {
			return Credentials{}, errs.New(errs.Invalid, "%s: the auth of %.80q is not base64 of user:password", c.path, name).
				WithHint("log in again, or remove the entry")
		}
		cred.Username, cred.Password = user, strings.Trim(password, "\x00")
	}
	if cred.IdentityToken != "" {
		cred.Password = ""
	}
	return cred, nil
}

// authKey is how host is called in config.json.
func authKey(host string) string {
	if isHub(host) {
		return hubKey
	}
	return host
}

func isHub(host string) bool {
	return host == "docker.io" || host == "index.docker.io" || host == "registry-1.docker.io" || host == hubKey
}

// helper is the credential helper for key, or "".
func (c *userConfig) helper(key string) string {
	if h, ok := c.Helpers[key]; ok {
		return h
	}
	if key == hubKey {
		for _, k := range []string{"docker.io", "index.docker.io"} {
			if h, ok := c.Helpers[k]; ok {
				return h
			}
		}
	}
	return c.Store
}

// entry returns the entry that fits best: the longest that is path's namespace
// (HOST/NAME, as Podman writes), else the host's, in any of the spellings that
// tools have used.
func (c *userConfig) entry(host, path string) (authEntry, string) {
	if e, ok := c.Auths[authKey(host)]; ok && path == "" {
		return e, authKey(host)
	}
	var best authEntry
	var name string
	bestLen, exact := -1, false
	for k, e := range c.Auths {
		h, p := splitKey(k)
		if h != host && !(isHub(h) && isHub(host)) {
			continue
		}
		if p != "" && p != path && !strings.HasPrefix(path, p+"/") {
			continue
		}
		// The order of the map must not count: the usual spelling wins.
		if len(p) > bestLen || len(p) == bestLen && !exact && (k == authKey(host) || k < name) {
			best, name, bestLen, exact = e, k, len(p), k == authKey(host)
		}
	}
	return best, name
}

// splitKey splits a key of auths into host and namespace.
func splitKey(k string) (host, path string) {
	k = strings.TrimPrefix(strings.TrimPrefix(k, "https://"), "http://")
	host, path, _ = strings.Cut(k, "/")
	path = strings.Trim(path, "/")
	if path == "v1" || path == "v2" {
		path = ""
	}
	return strings.ToLower(host), path
}

// helperTimeout bounds what a credential helper may take; it may ask the user
// to unlock a keyring.
const helperTimeout = 2 * time.Minute

// maxHelperAnswer bounds what a helper may print.
const maxHelperAnswer = 1 << 20

// runHelper runs docker-credential-NAME with verb and input.
func runHelper(ctx context.Context, name, verb, input string) (string, error) {
	if strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, "-") {
		return "", errs.New(errs.Invalid, "credential helper %.80q: no name of a helper", name).WithHint("mend credsStore or credHelpers in config.json")
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	program := "docker-credential-" + name
	cmd := exec.CommandContext(ctx, program, verb)
	cmd.Stdin = strings.NewReader(input)
	out := &limitedBuffer{left: maxHelperAnswer}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	text := strings.TrimSpace(out.String())
	switch {
	case err == nil:
		return text, nil
	case errors.Is(err, exec.ErrNotFound):
		return "", errs.New(errs.Invalid, "credential helper %s is not installed", program).
			WithHint("install it, or remove it from credsStore and credHelpers in config.json")
	case strings.Contains(text, "credentials not found in native keychain"):
		return "", errNoCredentials
	case text != "":
		return "", errs.New(errs.Denied, "%s %s: %s", program, verb, oneLine(text))
	}
	return "", errs.New(errs.Denied, "%s %s: %w", program, verb, err)
}

var errNoCredentials = errors.New("no credentials")

// helperGet asks helper for what it has for key.
func helperGet(ctx context.Context, helper, key string) (Credentials, error) {
	out, err := runHelper(ctx, helper, "get", key)
	if errors.Is(err, errNoCredentials) {
		return Credentials{}, nil
	}
	if err != nil {
		return Credentials{}, err
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return Credentials{}, errs.New(errs.Invalid, "docker-credential-%s get: its answer is not JSON", helper)
	}
	if got.Username == tokenUser {
		return Credentials{IdentityToken: got.Secret}, nil
	}
	return Credentials{Username: got.Username, Password: got.Secret}, nil
}

// limitedBuffer keeps the first bytes that are written to it.
type limitedBuffer struct {
	bytes.Buffer
	left int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), b.left)
	b.left -= n
	b.Buffer.Write(p[:n])
	return len(p), nil
}
