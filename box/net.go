package box

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"
)

func netApplets() []applet {
	return []applet{
		{"dig", "[@SERVER] NAME [TYPE]", nslookup},
		{"httpd", "[-p [ADDRESS:]PORT] [-h DIRECTORY]", httpd},
		{"ip", "addr | link | route | neigh", ip},
		{"nc", "[-l] [-p PORT] [-u] [-v] [-w SECONDS] [-z] [HOST] [PORT]", nc},
		{"netstat", "[-t] [-u] [-l] [-n] [-a]", sockets},
		{"nslookup", "[-type=TYPE] NAME [SERVER]", nslookup},
		{"ss", "[-t] [-u] [-l] [-n] [-a]", sockets},
		{"wget", "[-O FILE] [-q] [-S] [-T SECONDS] [--header LINE] [--post-data TEXT] URL...", wget},
	}
}

// fetching is one run of wget.
type fetching struct {
	c            *call
	out          string
	quiet, shown bool
	post         string
	headers      []string
	dir          string
	client       *http.Client
}

func wget(c *call) int {
	fs := c.flags()
	f := &fetching{c: c}
	fs.StringVarP(&f.out, "output-document", "O", "", "write to this file; - is the output")
	fs.StringVarP(&f.dir, "directory-prefix", "P", "", "write files into this directory")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "no messages")
	fs.BoolVarP(&f.shown, "server-response", "S", false, "show the answer's headers")
	fs.StringVar(&f.post, "post-data", "", "send this by POST")
	fs.StringArrayVar(&f.headers, "header", nil, "a header of the request, NAME: VALUE")
	spider := fs.Bool("spider", false, "ask, and write nothing")
	seconds := fs.IntP("timeout", "T", 900, "how long to wait")
	insecure := fs.Bool("no-check-certificate", false, "do not ask who answers")
	rest, code, ok := c.parse(fs, 1, -1)
	if !ok {
		return code
	}
	if *spider {
		f.out = os.DevNull
	}
	f.client = &http.Client{Timeout: time.Duration(*seconds) * time.Second, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{InsecureSkipVerify: *insecure}, //nolint:gosec // it is asked for
	}}
	for _, u := range rest {
		if err := f.get(u); err != nil {
			c.fail(err)
		}
	}
	return c.code
}

func (f *fetching) get(text string) error {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	method, body := http.MethodGet, io.Reader(nil)
	if f.post != "" {
		method, body = http.MethodPost, strings.NewReader(f.post)
	}
	req, err := http.NewRequest(method, text, body)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "tug-box")
	if f.post != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return fmt.Errorf("%s is no header", h)
		}
		if name = strings.TrimSpace(name); strings.EqualFold(name, "host") {
			req.Host = strings.TrimSpace(value)
			continue
		}
		req.Header.Set(name, strings.TrimSpace(value))
	}
	resp, err := f.client.Do(req)
	if err != nil {
		var certificate *tls.CertificateVerificationError
		if errors.As(err, &certificate) {
			return fmt.Errorf("%w; --no-check-certificate does not ask", err)
		}
		return err
	}
	defer resp.Body.Close()
	if f.shown {
		fmt.Fprintf(f.c.err, "  %s %s\n", resp.Proto, printable(resp.Status))
		for name, values := range resp.Header {
			for _, v := range values {
				fmt.Fprintf(f.c.err, "  %s: %s\n", printable(name), printable(v))
			}
		}
	}
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s: the server said: %s", text, resp.Status)
	}
	return f.save(resp, u)
}

func (f *fetching) save(resp *http.Response, u *url.URL) error {
	if f.out == "-" {
		_, err := io.Copy(f.c.out, resp.Body)
		return err
	}
	name := f.out
	if name == "" {
		if name = path.Base(u.Path); name == "/" || name == "." {
			name = "index.html"
		}
		name = path.Join(f.dir, name)
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, resp.Body)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil && !f.quiet {
		fmt.Fprintf(f.c.err, "%s: %d bytes\n", printable(name), n)
	}
	return err
}

func httpd(c *call) int {
	fs := c.flags()
	p, dir := fs.StringP("port", "p", "80", "[ADDRESS:]PORT"), fs.StringP("home", "h", ".", "the directory that is shown")
	_, v := flag(fs, "f", "foreground", "always so"), flag(fs, "v", "verbose", "say who asks for what")
	if _, code, ok := c.parse(fs, 0, 0); !ok {
		return code
	}
	address := *p
	if !strings.Contains(address, ":") {
		address = ":" + address
	}
	if fi, err := os.Stat(*dir); err != nil || !fi.IsDir() {
		c.failf("%s is no directory", *dir)
		return 1
	}
	files := http.FileServer(http.Dir(*dir))
	s := &http.Server{Addr: address, ReadHeaderTimeout: 30 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if *v {
			fmt.Fprintf(c.err, "%s %s %s\n", r.RemoteAddr, r.Method, printable(r.URL.Path))
		}
		files.ServeHTTP(w, r)
	})}
	c.fail(s.ListenAndServe())
	return 1
}

// talking is one run of nc.
type talking struct {
	c       *call
	verbose bool
	wait    time.Duration
}

func nc(c *call) int {
	fs := c.flags()
	t := &talking{c: c}
	l, p, u := flag(fs, "l", "listen", "wait for somebody"), fs.StringP("port", "p", "", "the port to wait at"), flag(fs, "u", "udp", "UDP")
	k, z, unix := flag(fs, "k", "keep-open", "wait for the next one"), flag(fs, "z", "zero", "only find out whether it answers"), flag(fs, "U", "unix", "a Unix socket, by its path")
	w := fs.IntP("wait", "w", 0, "seconds to wait")
	_ = flag(fs, "n", "numeric", "changes nothing")
	fs.BoolVarP(&t.verbose, "verbose", "v", false, "say what happens")
	rest, code, ok := c.parse(fs, 0, 2)
	if !ok {
		return code
	}
	t.wait = time.Duration(*w) * time.Second
	network := "tcp"
	if *u {
		network = "udp"
	}
	address := ""
	switch {
	case *unix && len(rest) == 1:
		network, address = "unix", rest[0]
	case *l && *p == "" && len(rest) == 1:
		address = ":" + rest[0]
	case *l:
		if *p == "" && len(rest) == 2 {
			*p, rest = rest[1], rest[:1]
		}
		address = net.JoinHostPort(strings.Join(rest, ""), *p)
	case len(rest) == 2:
		address = net.JoinHostPort(rest[0], rest[1])
	default:
		return c.misuse(errors.New("give a host and a port"))
	}
	var err error
	switch {
	case *l:
		err = t.listen(network, address, *k)
	default:
		err = t.dial(network, address, *z)
	}
	if err != nil {
		c.fail(err)
	}
	return c.code
}

func (t *talking) say(format string, args ...any) {
	if t.verbose {
		fmt.Fprintf(t.c.err, format+"\n", args...)
	}
}

func (t *talking) dial(network, address string, onlyLook bool) error {
	d := net.Dialer{Timeout: t.wait}
	conn, err := d.Dial(network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	t.say("%s: open", address)
	if onlyLook {
		return nil
	}
	return t.talk(conn)
}

func (t *talking) listen(network, address string, again bool) error {
	if network == "udp" {
		pc, err := net.ListenPacket(network, address)
		if err != nil {
			return err
		}
		defer pc.Close()
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return err
			}
			t.say("from %s", from)
			t.c.out.Write(buf[:n])
			t.c.out.Flush()
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	defer l.Close()
	t.say("listening on %s", l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		t.say("from %s", conn.RemoteAddr())
		err = t.talk(conn)
		conn.Close()
		if !again || err != nil {
			return err
		}
	}
}

// talk copies both ways until the other side is done; the end of the input is
// passed on.
func (t *talking) talk(conn net.Conn) error {
	go func() {
		_, _ = io.Copy(conn, t.c.in)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	_, err := io.Copy(flushing{t.c.out}, &idle{conn, t.wait})
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return nil
	}
	return err
}

// idle is a connection that ends when nothing has come for a while.
type idle struct {
	net.Conn
	wait time.Duration
}

func (i *idle) Read(p []byte) (int, error) {
	if i.wait > 0 {
		_ = i.SetReadDeadline(time.Now().Add(i.wait))
	}
	return i.Conn.Read(p)
}

// question is what nslookup and dig ask.
type question struct {
	name, server, kind string
}

func parseQuestion(c *call) (q question, err error) {
	for _, a := range c.args {
		upper := strings.ToUpper(a)
		switch {
		case strings.HasPrefix(a, "@"):
			q.server = a[1:]
		case strings.HasPrefix(a, "-type=") || strings.HasPrefix(a, "-query="):
			_, q.kind, _ = strings.Cut(upper, "=")
		case strings.HasPrefix(a, "+"):
		case strings.HasPrefix(a, "-"):
			return q, fmt.Errorf("unknown option %s", a)
		case c.name == "dig" && q.name != "" && strings.Contains(" A AAAA CNAME MX NS TXT PTR ", " "+upper+" "):
			q.kind = upper
		case q.name == "":
			q.name = a
		default:
			q.server = a
		}
	}
	if q.name == "" {
		err = errors.New("give a name")
	}
	return q, err
}

func nslookup(c *call) int {
	if len(c.args) > 0 && c.args[0] == "--help" {
		c.help(c.flags())
		return 0
	}
	q, err := parseQuestion(c)
	if err != nil {
		return c.misuse(err)
	}
	r := &net.Resolver{PreferGo: true}
	if q.server != "" {
		server := q.server
		if _, _, err := net.SplitHostPort(server); err != nil {
			server = net.JoinHostPort(server, "53")
		}
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, server)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	answers, err := q.ask(ctx, r)
	for _, a := range answers {
		c.printf("%s\n", printable(a))
	}
	if err != nil {
		c.fail(err)
	}
	return c.code
}

func (q *question) ask(ctx context.Context, r *net.Resolver) (out []string, err error) {
	say := func(kind, value string) { out = append(out, fmt.Sprintf("%s\t%s\t%s", q.name, kind, value)) }
	if net.ParseIP(q.name) != nil && q.kind == "" {
		q.kind = "PTR"
	}
	switch q.kind {
	case "", "A", "AAAA":
		network := map[string]string{"": "ip", "A": "ip4", "AAAA": "ip6"}[q.kind]
		var ips []net.IP
		if ips, err = r.LookupIP(ctx, network, q.name); err != nil {
			return nil, err
		}
		for _, ip := range ips {
			kind := "AAAA"
			if ip.To4() != nil {
				kind = "A"
			}
			say(kind, ip.String())
		}
	case "CNAME":
		var name string
		if name, err = r.LookupCNAME(ctx, q.name); err == nil {
			say("CNAME", name)
		}
	case "MX":
		all, merr := r.LookupMX(ctx, q.name)
		for _, m := range all {
			say("MX", fmt.Sprintf("%d %s", m.Pref, m.Host))
		}
		err = merr
	case "NS":
		all, nerr := r.LookupNS(ctx, q.name)
		for _, n := range all {
			say("NS", n.Host)
		}
		err = nerr
	case "TXT":
		all, terr := r.LookupTXT(ctx, q.name)
		for _, t := range all {
			say("TXT", fmt.Sprintf("%q", t))
		}
		err = terr
	case "PTR":
		all, perr := r.LookupAddr(ctx, q.name)
		for _, n := range all {
			say("PTR", n)
		}
		err = perr
	default:
		err = fmt.Errorf("unknown type %s", q.kind)
	}
	return out, err
}
