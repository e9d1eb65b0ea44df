package registry

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"tug/errs"
	"tug/spec"
)

// The registries file says how registries are reached (docs/registries.md). It
// is read when the first registry is asked and by the mirror commands, never
// by anything else.

// DefaultConfig is the registries file; $TUG_REGISTRIES names another.
const DefaultConfig = "/etc/tug/registries.toml"

// defaultCerts is Docker's directory of certificates per registry.
const defaultCerts = "/etc/docker/certs.d"

// maxConfig bounds the registries file.
const maxConfig = 1 << 20

// config is a read registries file.
type config struct {
	path string
	text []byte
	fileKeys
	plain    map[string]bool // hosts of http:// mirrors, and Options.InsecureHost
	networks []network       // the smallest first
}

// A network is a registry table that is about all addresses of a network.
type network struct {
	netip.Prefix
	insecure bool
}

type fileKeys struct {
	Certs    string                  `toml:"certs"`
	Registry map[string]registryKeys `toml:"registry"`
}

// registryKeys are the keys of one registry's table.
type registryKeys struct {
	Mirrors  []string `toml:"mirrors"`
	Insecure *bool    `toml:"insecure"`
	CA       string   `toml:"ca"`
	Cert     string   `toml:"cert"`
	Key      string   `toml:"key"`
}

// RegistriesFile is the path of the registries file, and whether the user has
// named it.
func RegistriesFile() (path string, named bool) {
	if p := os.Getenv("TUG_REGISTRIES"); p != "" {
		return p, true
	}
	return DefaultConfig, false
}

// config returns the registries file, read at first use.
func (c *Client) config() (*config, error) {
	c.confOnce.Do(func() {
		c.conf, c.confErr = readConfig()
		if h := c.options.InsecureHost; h != "" && c.confErr == nil {
			c.conf.plain[canonicalHost(h)] = true
		}
	})
	return c.conf, c.confErr
}

func readConfig() (*config, error) {
	path, named := RegistriesFile()
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return parseConfig(path, nil)
	case errors.Is(err, fs.ErrNotExist):
		return nil, errs.New(errs.Invalid, "registries file %s does not exist", path).WithHint("TUG_REGISTRIES names it: make it, or unset that")
	case err != nil:
		return nil, errs.New(errs.Denied, "read registries file: %w", err)
	case len(b) > maxConfig:
		return nil, errs.New(errs.Invalid, "registries file %s is larger than %d KiB", path, maxConfig>>10)
	}
	return parseConfig(path, b)
}

// parseConfig reads and checks the registries file text.
func parseConfig(path string, text []byte) (*config, error) {
	c := &config{path: path, text: text, plain: map[string]bool{}}
	d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := d.Decode(&c.fileKeys); err != nil {
		return nil, tomlError(path, err)
	}
	if c.Certs == "" {
		c.Certs = defaultCerts
	} else if !filepath.IsAbs(c.Certs) {
		return nil, c.wrong("certs", "%q is no absolute path", c.Certs)
	}
	canonical := map[string]registryKeys{}
	for _, name := range slices.Sorted(maps.Keys(c.Registry)) {
		if strings.Contains(name, "/") {
			if err := c.addNetwork(name, c.Registry[name]); err != nil {
				return nil, err
			}
			continue
		}
		host := canonicalHost(name)
		if !spec.IsDomain(host) {
			return nil, c.wrong("registry."+name, "%.80q is no registry's host name", name)
		}
		if _, twice := canonical[host]; twice {
			return nil, c.wrong("registry."+name, "%s is there twice", host)
		}
		keys := c.Registry[name]
		if err := c.check(name, keys); err != nil {
			return nil, err
		}
		canonical[host] = keys
	}
	c.Registry = canonical
	return c, nil
}

// addNetwork checks and notes the table of a network, which can only say
// whether its addresses are insecure.
func (c *config) addNetwork(name string, k registryKeys) error {
	key := "registry." + name
	p, err := netip.ParsePrefix(name)
	switch {
	case err != nil || p.Addr().Is4In6():
		return c.wrong(key, "%.80q is neither a registry's host name nor a network as 10.0.0.0/8 is", name)
	case p != p.Masked():
		return c.wrong(key, "%s is no network, but an address in %s", name, p.Masked())
	case k.Mirrors != nil || k.CA != "" || k.Cert != "" || k.Key != "":
		return c.wrong(key, "for a network there is only the key insecure")
	case slices.ContainsFunc(c.networks, func(n network) bool { return n.Prefix == p }):
		return c.wrong(key, "%s is there twice", p)
	case k.Insecure == nil:
		return nil
	}
	c.networks = append(c.networks, network{p, *k.Insecure})
	slices.SortFunc(c.networks, func(a, b network) int {
		return cmp.Or(cmp.Compare(b.Bits(), a.Bits()), a.Addr().Compare(b.Addr()))
	})
	return nil
}

// check checks one registry's keys and notes its plain mirrors.
func (c *config) check(name string, k registryKeys) error {
	for _, m := range k.Mirrors {
		u, err := parseMirror(m)
		if err != nil {
			return c.wrong("registry."+name+".mirrors", "%w", err)
		}
		if u.Scheme == "http" {
			c.plain[u.Host] = true
		}
	}
	for key, file := range map[string]string{"ca": k.CA, "cert": k.Cert, "key": k.Key} {
		if file != "" && !filepath.IsAbs(file) {
			return c.wrong("registry."+name+"."+key, "%q is no absolute path", file)
		}
	}
	if (k.Cert == "") != (k.Key == "") {
		return c.wrong("registry."+name, "cert and key belong together, one is missing")
	}
	return nil
}

// wrong is an error about the value of a key, by its dotted name.
func (c *config) wrong(key, format string, args ...any) error {
	at := c.path
	// The name is the file's, and may hold anything.
	if line := c.lineOf(key); line > 0 {
		at += ":" + strconv.Itoa(line)
	}
	return errs.New(errs.Invalid, "%s: %s: "+format, append([]any{at, oneLine(key)}, args...)...).WithHint("mend the file")
}

// lineOf finds the line of a key or table, 0 when it is not written plainly.
func (c *config) lineOf(key string) int {
	for _, k := range tomlKeys(c.text) {
		if strings.Join(k.path, ".") == key {
			return 1 + bytes.Count(c.text[:k.offset], []byte("\n"))
		}
	}
	return 0
}

// tomlKey is a table or key of a TOML text: where it stands, and its name.
type tomlKey struct {
	path   []string
	table  bool
	offset int // of the first part of its name
}

// tomlKeys lists what a text holds, without looking into inline tables.
func tomlKeys(text []byte) []tomlKey {
	var all []tomlKey
	var table []string
	p := unstable.Parser{}
	p.Reset(text)
	for p.NextExpression() {
		e := p.Expression()
		isTable := e.Kind == unstable.Table || e.Kind == unstable.ArrayTable
		if !isTable && e.Kind != unstable.KeyValue {
			continue
		}
		var path []string
		offset := -1
		for it := e.Key(); it.Next(); {
			if offset < 0 {
				offset = int(it.Node().Raw.Offset)
			}
			path = append(path, string(it.Node().Data))
		}
		if isTable {
			table = path
		} else {
			path = slices.Concat(table, path)
		}
		all = append(all, tomlKey{path: path, table: isTable, offset: offset})
	}
	return all
}

// tomlError is one line about what the TOML reader did not like.
func tomlError(path string, err error) error {
	var strict *toml.StrictMissingError
	var decode *toml.DecodeError
	switch {
	case errors.As(err, &strict) && len(strict.Errors) > 0:
		row, _ := strict.Errors[0].Position()
		return errs.New(errs.Invalid, "%s:%d: unknown key %q", path, row, strings.Join(strict.Errors[0].Key(), ".")).
			WithHint("the keys are mirrors, insecure, ca, cert and key of [registry.\"HOST\"], and certs")
	case errors.As(err, &decode):
		row, _ := decode.Position()
		return errs.New(errs.Invalid, "%s:%d: %s", path, row, strings.TrimPrefix(oneLine(decode.Error()), "toml: ")).WithHint("mend the file")
	}
	return errs.New(errs.Invalid, "%s: %s", path, oneLine(err.Error())).WithHint("mend the file")
}

// canonicalHost is the name that host goes by here.
func canonicalHost(host string) string {
	host = strings.ToLower(host)
	if isHub(host) {
		return "docker.io"
	}
	return host
}

// parseMirror checks the URL of a mirror: scheme, host and perhaps a path that
// goes before the names of repositories.
func parseMirror(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, errs.New(errs.Invalid, "mirror %.80q is no URL", s)
	case u.Scheme != "https" && u.Scheme != "http" || !spec.IsDomain(strings.ToLower(u.Host)):
		return nil, errs.New(errs.Invalid, "mirror %.80q is not https://HOST[:PORT][/PATH]", s)
	case u.User != nil:
		return nil, errs.New(errs.Invalid, "mirror at %s: a URL must not hold credentials", u.Host).WithHint("use: tug login %s", u.Host)
	case u.RawQuery != "" || u.Fragment != "" || u.RawPath != "" || strings.Contains(u.Path, "//") || strings.Trim(u.Path, "/") != "" && !spec.IsPath(strings.Trim(u.Path, "/")):
		return nil, errs.New(errs.Invalid, "mirror %.80q is not https://HOST[:PORT][/PATH]", s)
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// insecure reports whether host may go without TLS, or with TLS that nobody
// vouches for.
func (c *config) insecure(host string) bool {
	host = canonicalHost(host)
	if k := c.Registry[host]; k.Insecure != nil {
		return *k.Insecure
	}
	if c.plain[host] {
		return true
	}
	// A host is in a network by its spelling: were names looked up, whoever
	// answers for them could switch off TLS.
	if ip, err := netip.ParseAddr(bareHost(host)); err == nil {
		for _, n := range c.networks {
			if n.Contains(ip.Unmap()) {
				return n.insecure
			}
		}
	}
	return isLoopback(host)
}

// trust is how host is to be spoken to. Files that do not exist are told here,
// with the line that names them.
func (c *config) trust(host string) (hostTrust, error) {
	host = canonicalHost(host)
	t := hostTrust{insecure: c.insecure(host)}
	var err error
	if t.cas, t.pairs, err = certsDir(c.Certs, host); err != nil {
		return t, err
	}
	k := c.Registry[host]
	for _, f := range [][2]string{{"ca", k.CA}, {"cert", k.Cert}, {"key", k.Key}} {
		if f[1] == "" {
			continue
		}
		if _, err := os.Stat(f[1]); err != nil {
			return t, c.wrong("registry."+host+"."+f[0], "%w", err)
		}
	}
	if k.CA != "" {
		t.cas = append(t.cas, k.CA)
	}
	if k.Cert != "" {
		t.pairs = append(t.pairs, [2]string{k.Cert, k.Key})
	}
	return t, nil
}
