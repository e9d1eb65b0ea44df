package box

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run runs one applet in this process.
func run(t *testing.T, in io.Reader, name string, args ...string) (string, string, int) {
	t.Helper()
	var out, errs bytes.Buffer
	c := &call{name: name, args: args, in: in, out: bufio.NewWriter(&out), err: &errs}
	a, ok := find(name)
	if !ok {
		t.Fatal("no", name)
	}
	code := c.run(a)
	return out.String(), errs.String(), code
}

func TestWget(t *testing.T) {
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Test")+string(b))
		switch r.URL.Path {
		case "/missing":
			http.NotFound(w, r)
		case "/moved":
			http.Redirect(w, r, "/file", http.StatusFound)
		default:
			io.WriteString(w, "content")
		}
	}))
	defer s.Close()
	dir := t.TempDir()
	for _, tt := range []struct {
		args     []string
		out, err string
		code     int
	}{
		{[]string{"-O", "-", s.URL + "/x"}, "content", "", 0},
		{[]string{"-q", "-P", dir, s.URL + "/a/file"}, "", "", 0},
		{[]string{"-O", dir + "/m", s.URL + "/moved"}, "", "7 bytes", 0},
		{[]string{"-qO-", "--header", "X-Test: y", "--post-data", "a=b", s.URL}, "content", "", 0},
		{[]string{"-qO-", s.URL + "/missing"}, "", "404 Not Found", 1},
		{[]string{"-q", "--spider", s.URL + "/x"}, "", "", 0},
		{[]string{"-S", "-O", "/dev/null", s.URL + "/x"}, "", "200 OK", 0},
		{[]string{"--header", "nonsense", s.URL}, "", "no header", 1},
		{nil, "", "too few", 2},
	} {
		out, errs, code := run(t, nil, "wget", tt.args...)
		if out != tt.out || code != tt.code || !strings.Contains(errs, tt.err) || strings.Contains(errs, "\x1b") {
			t.Errorf("wget %v: %d %q %q", tt.args, code, out, errs)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
	if all := strings.Join(asked, ","); !strings.Contains(all, "POST / ya=b") {
		t.Error(all)
	}
}

func TestNc(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(conn)
			conn.Write(bytes.ToUpper(b))
			conn.Close()
		}
	}()
	host, port, _ := net.SplitHostPort(l.Addr().String())
	if out, errs, code := run(t, strings.NewReader("hello"), "nc", "-w", "5", host, port); out != "HELLO" || code != 0 {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if _, errs, code := run(t, strings.NewReader(""), "nc", "-zv", host, port); code != 0 || !strings.Contains(errs, "open") {
		t.Errorf("%d %q", code, errs)
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	_, port, _ = net.SplitHostPort(address)
	if _, errs, code := run(t, strings.NewReader(""), "nc", "-z", "127.0.0.1", port); code != 1 || !strings.Contains(errs, "refused") {
		t.Errorf("%d %q", code, errs)
	}
	got := make(chan string, 1)
	go func() {
		out, _, _ := run(t, strings.NewReader("answer"), "nc", "-l", "-p", port, "127.0.0.1")
		got <- out
	}()
	var conn net.Conn
	for range 100 {
		if conn, err = net.Dial("tcp", address); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "question")
	b := make([]byte, 6)
	io.ReadFull(conn, b)
	conn.Close()
	if out := <-got; out != "question" || string(b) != "answer" {
		t.Errorf("%q %q", out, b)
	}
}

// httpd shows a directory and nothing outside of it.
func TestHttpd(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("shown"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	go func() {
		c := &call{name: "httpd", args: []string{"-p", address, "-h", dir}, out: bufio.NewWriter(io.Discard), err: io.Discard}
		a, _ := find("httpd")
		c.run(a)
	}()
	get := func(path string) (string, int) {
		for range 100 {
			out, _, code := run(t, nil, "wget", "-qO-", "http://"+address+path)
			if code == 0 || path != "/f" {
				return out, code
			}
			time.Sleep(10 * time.Millisecond)
		}
		return "", -1
	}
	if out, _ := get("/f"); out != "shown" {
		t.Errorf("%q", out)
	}
	if out, code := get("/../../../../etc/passwd"); code == 0 || out != "" {
		t.Errorf("%d %q", code, out)
	}
	if _, errs, code := run(t, nil, "httpd", "-h", "/nosuch"); code != 1 || !strings.Contains(errs, "no directory") {
		t.Errorf("%d %q", code, errs)
	}
}

func TestLookups(t *testing.T) {
	if out, errs, code := run(t, nil, "nslookup", "localhost"); code != 0 || !strings.Contains(out, "127.0.0.1") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	for _, args := range [][]string{{}, {"-nosuch", "x"}} {
		if _, _, code := run(t, nil, "nslookup", args...); code != 2 {
			t.Errorf("%v: %d", args, code)
		}
	}
	if _, errs, code := run(t, nil, "dig", "localhost", "TXT", "@127.0.0.1:1"); code != 1 || errs == "" {
		t.Errorf("%d %q", code, errs)
	}
	if out, _, code := run(t, nil, "ip", "addr", "show", "lo"); code != 0 || !strings.Contains(out, "inet 127.0.0.1/8") {
		t.Errorf("%d %q", code, out)
	}
	for _, args := range [][]string{{"link"}, {"route"}, {"-4", "a"}, {"neigh"}} {
		if _, errs, code := run(t, nil, "ip", args...); code != 0 {
			t.Errorf("ip %v: %d %q", args, code, errs)
		}
	}
	if _, errs, code := run(t, nil, "ip", "link", "set", "lo", "up"); code != 2 || !strings.Contains(errs, "can be shown") {
		t.Errorf("%d %q", code, errs)
	}
	if got := socketAddress("0100007F:1F90"); got != "127.0.0.1:8080" {
		t.Error(got)
	}
	if got := address4("0101A8C0").String(); got != "192.168.1.1" {
		t.Error(got)
	}
}
