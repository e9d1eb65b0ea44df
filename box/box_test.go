package box

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain is also tug-box: what the tests start from /proc/self/exe is this
// program, called by an applet's name.
func TestMain(m *testing.M) {
	if _, ok := find(filepath.Base(os.Args[0])); ok {
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// runBox runs a command line of the shell in a fresh directory.
func runBox(t *testing.T, line, input string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	c := &call{name: "sh", args: []string{"-c", line}, in: pipeOf(t, input), out: bufio.NewWriter(&o), err: &e}
	a, _ := find("sh")
	code = c.run(a)
	return o.String(), e.String(), code
}

func pipeOf(t *testing.T, text string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		io.WriteString(w, text)
		w.Close()
	}()
	t.Cleanup(func() { r.Close() })
	return r
}

// Each line is what somebody types, its input, and what it writes; errors are
// told by code and a word.
func TestApplets(t *testing.T) {
	for _, tt := range []struct {
		line, in, out string
		code          int
		err           string
	}{
		{line: "echo a b; printf '%s-%d\\n' x 7", out: "a b\nx-7\n"},
		{line: "env echo hi; env printf '%s\\n' a", out: "hi\na\n"},
		{line: "cat -n", in: "a\nb", out: "     1\ta\n     2\tb\n"},
		{line: "cat -A", in: "a\tb\x01\n", out: "a^Ib^A$\n"},
		{line: "cat /nosuch", code: 1, err: "cat: /nosuch: no such file"},
		{line: "head -2", in: "1\n2\n3\n", out: "1\n2\n"},
		{line: "head -c 3; echo", in: "abcdef", out: "abc\n"},
		{line: "head -n -1", in: "1\n2\n3\n", out: "1\n2\n"},
		{line: "tail -n 2", in: "1\n2\n3\n", out: "2\n3\n"},
		{line: "tail -n +2", in: "1\n2\n3\n", out: "2\n3\n"},
		{line: "tail -c 2", in: "abcd", out: "cd"},
		{line: "wc", in: "a b\nc\n", out: "       2       3       6\n"},
		{line: "wc -l", in: "a\nb\n", out: "2\n"},
		{line: "sort -n", in: "10\n9\n-1\n", out: "-1\n9\n10\n"},
		{line: "sort -rn -k 2", in: "a 1\nb 3\nc 2\n", out: "b 3\nc 2\na 1\n"},
		{line: "sort -t: -k2,2 -u", in: "a:2\nb:1\nc:2\n", out: "b:1\na:2\n"},
		{line: "sort -h", in: "1G\n2K\n3M\n", out: "2K\n3M\n1G\n"},
		{line: "sort | uniq -c", in: "b\na\nb\n", out: "      1 a\n      2 b\n"},
		{line: "uniq -d", in: "a\na\nb\n", out: "a\n"},
		{line: "cut -d: -f1,3-", in: "a:b:c:d\nplain\n", out: "a:c:d\nplain\n"},
		{line: "cut -c 2-3", in: "abcd\n", out: "bc\n"},
		{line: "cut", code: 2, err: "give -f"},
		{line: "tr a-z A-Z", in: "abc\n", out: "ABC\n"},
		{line: "tr -d '[:digit:]'", in: "a1b2\n", out: "ab\n"},
		{line: "tr -s ' '", in: "a   b\n", out: "a b\n"},
		{line: "tr -cd 'a\\n'", in: "abca\n", out: "aa\n"},
		{line: "tr '\\n' ,", in: "a\nb\n", out: "a,b,"},
		{line: "sed 's/a\\(.\\)/<\\1&>/g'", in: "abac\n", out: "<bab><cac>\n"},
		{line: "sed -E 's#(x+)#[\\1]#2'", in: "x xx xxx\n", out: "x [xx] xxx\n"},
		{line: "sed -n '2,3p'", in: "1\n2\n3\n4\n", out: "2\n3\n"},
		{line: "sed '/b/d;$d'", in: "a\nb\nc\n", out: "a\n"},
		{line: "sed -n '/b/,/d/p'", in: "a\nb\nc\nd\ne\n", out: "b\nc\nd\n"},
		{line: "sed '2!d;s/$/!/;q'", in: "a\nb\n", out: "b!\n"},
		{line: "sed 'y/abc/xyz/'", in: "cab\n", out: "zxy\n"},
		{line: "sed '1i top' | sed '$a end'", in: "m", out: "top\nmend\n"},
		{line: "sed 's/a/'", code: 2, err: "a / is missing"},
		{line: "sed 'p}'", code: 2, err: "unknown command }"},
		{line: "grep -n b", in: "a\nb\n", out: "2:b\n"},
		{line: "grep -vc b", in: "a\nb\nc\n", out: "2\n"},
		{line: "grep -E 'a+|c$'", in: "baa\nc\nd\n", out: "baa\nc\n"},
		{line: "grep 'a\\+b'", in: "aab\na+b\n", out: "aab\n"},
		{line: "grep -F 'a.b'", in: "axb\na.b\n", out: "a.b\n"},
		{line: "grep -io 'AB'", in: "xabAb\n", out: "ab\nAb\n"},
		{line: "grep -w cat", in: "concat\ncat\n", out: "cat\n"},
		{line: "grep -A1 -B1 c", in: "a\nb\nc\nd\ne\n", out: "b\nc\nd\n"},
		{line: "grep -q x; echo $?", in: "y\n", out: "1\n"},
		{line: "grep '['", code: 2, err: "bad pattern"},
		{line: "grep x /nosuch", code: 2, err: "no such file"},
		{line: "seq 3; seq 2 2 6; seq -s, 3 -1 1; seq -w 9 10", out: "1\n2\n3\n2\n4\n6\n3,2,1\n09\n10\n"},
		{line: "seq 0 0.5 1", out: "0.0\n0.5\n1.0\n"},
		{line: "yes no | head -2", out: "no\nno\n"},
		{line: "rev; echo x", in: "abc\n", out: "cba\nx\n"},
		{line: "tac", in: "1\n2\n", out: "2\n1\n"},
		{line: "basename /a/b.txt .txt; dirname /a/b /c x", out: "b\n/a\n/\n.\n"},
		{line: "xargs -n 2 echo", in: "a b 'c d'\n", out: "a b\nc d\n"},
		{line: "xargs -I X echo [X]", in: "a\nb c\n", out: "[a]\n[b c]\n"},
		{line: "xargs -0 echo", in: "a\x00b c\x00", out: "a b c\n"},
		{line: "xargs -r false", in: ""},
		{line: "xargs false", in: "x", code: 123},
		{line: "xargs nosuch", in: "x", code: 127, err: "not found"},
		{line: "echo -n abc | sha256sum; echo -n abc | md5sum", out: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -\n900150983cd24fb0d6963f7d28e17f72  -\n"},
		{line: "hexdump -C", in: "ab\n", out: "00000000  61 62 0a                                          |ab.|\n00000003\n"},
		{line: "od -An -tx1", in: "ab", out: " 61 62\n"},
		{line: "od -c", in: "a\n", out: "0000000   a  \\n\n0000002\n"},
		{line: "gzip | zcat", in: "hello", out: "hello"},
		{line: "zcat", in: "this is not compressed", code: 1, err: "gzip"},
		{line: "date -u -d @0 '+%Y-%m-%d %H:%M:%S %s %j %a'", out: "1970-01-01 00:00:00 0 001 Thu\n"},
		{line: "env -i A=1 env", out: "A=1\n"},
		{line: "A=2 printenv A", out: "2\n"},
		{line: "test 1 -lt 2 && env [ -d / ] && echo yes", out: "yes\n"},
		{line: "env test x = y; echo $?", out: "1\n"},
		{line: "sleep 0.01; sleep x", code: 2, err: "no time"},
		{line: "timeout 0.05 sleep 5; echo $?", out: "124\n"},
		{line: "timeout 5 true; echo $?; timeout 0 sleep 0.01; echo $?", out: "0\n0\n"},
		{line: "sh -c 'exit 3'; echo $?; sh -c 'kill -9 $$'; echo $?", out: "3\n137\n"},
		{line: "sh -c 'echo $1 $#' name a b", out: "a 2\n"},
		{line: "umask 027; umask; umask x", out: "0027\n", code: 1, err: "no mask"},
		{line: "nosuch; echo $?", out: "127\n", err: "nosuch: not found"},
		{line: "/etc; echo $?", out: "126\n", err: "is a directory"},
		{line: "which ls", out: "ls: built into tug-box\n"},
		{line: "ls --nosuch", code: 2, err: "see 'ls --help'"},
		{line: "ls --help | head -1", out: "Usage: ls [-l] [-a] [-R] [-1] ... [FILE...]\n"},
		{line: "if", code: 2, err: "if"},
		{line: "kill -0 $$ && echo alive; kill -0 99999999", out: "alive\n", code: 1, err: "99999999"},
		{line: "kill -FOO 1", code: 2, err: "FOO"},
		{line: "id -u nosuchuser", code: 1, err: "no user"},
		{line: "ps -o pid,args | head -1", out: "    PID COMMAND\n"},
		{line: "ps -o nosuch", code: 2, err: "unknown column"},
		{line: "df /nosuch", code: 1, err: "no such file"},
		{line: "nc", code: 2, err: "give a host"},
		{line: "wget http://127.0.0.1:1/", code: 1, err: "refused"},
		{line: "find /nosuch", code: 1, err: "no such file"},
		{line: "find / -maxdepth 0 -nosuch x", code: 2, err: "unknown test"},
		{line: "tar tf /nosuch", code: 1, err: "no such file"},
		{line: "mkdir", code: 2, err: "too few"},
	} {
		out, errs, code := runBox(t, tt.line, tt.in)
		if strings.HasPrefix(tt.line, "ps -o pid,args") {
			out = "    " + strings.TrimLeft(out, " ")
		}
		if out != tt.out || code != tt.code {
			t.Errorf("%s: code %d\n got %q\nwant %q, code %d\n%s", tt.line, code, out, tt.out, tt.code, errs)
		}
		if (tt.err == "") != (errs == "") || !strings.Contains(errs, tt.err) || strings.Count(errs, "\n") > 1 {
			t.Errorf("%s: says %q, want one line with %q", tt.line, errs, tt.err)
		}
	}
}

// What an applet has started goes with it, also when it is killed.
func TestChildrenGo(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd, err := start([]string{"timeout", "600", "sh", "-c", "echo started; sleep 600"}, "/", os.Environ(), nil, w, os.Stderr)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, len("started\n"))); err != nil {
		t.Error(err)
	}
	cmd.Process.Kill()
	if code := wait(cmd); code != 137 {
		t.Error(code)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("the output is still open: %v", err)
	}
}

// The programs for files, in a directory of their own.
func TestFileApplets(t *testing.T) {
	for _, tt := range []struct {
		line, out string
		code      int
		err       string
	}{
		{line: "mkdir -p a/b; touch a/b/f; ls -R a", out: "a:\nb\n\na/b:\nf\n"},
		{line: "touch .h v; ls; ls -A; ls -a | head -2", out: "v\n.h\nv\n.\n..\n"},
		{line: "echo 12 > f; chmod 640 f; ls -l f | cut -d' ' -f1,5", out: "-rw-r----- 3\n"},
		{line: "touch -d 2020-01-02 f; ls -l f | grep -c 'Jan  2  2020'", out: "1\n"},
		{line: "ln -s f l; ls -l l | grep -o 'l -> f'; readlink l; readlink -f l | xargs basename", out: "l -> f\nf\nf\n"},
		{line: "echo 1 > a; echo 2 > b; mkdir d; cp a b d; cat d/a d/b; cp a c; cat c", out: "1\n2\n1\n"},
		{line: "mkdir -p s/t; echo x > s/t/f; ln -s f s/t/l; chmod 700 s/t; cp -a s d; ls -l d/t | grep -o 'l -> f'; stat -c '%a %F' d/t", out: "l -> f\n700 directory\n"},
		{line: "mkdir s; cp s d", code: 1, err: "copy it with -r"},
		{line: "mkdir s; cp -r s s/t", code: 1, err: "into itself"},
		{line: "echo a > f; cp f f", code: 1, err: "same file"},
		{line: "echo a > f; ln -s f l; cp f l; cat f; cp -a l m; readlink m", out: "a\nf\n", err: "same file"},
		{line: "for i in 1 2 3; do head -c 600000 /dev/zero | tr '\\0' $i; echo; done > f; tail -n 2 f | wc", out: "       2       2 1200002\n"},
		{line: "mkdir d; touch d/a .b; find . -delete; ls -A"},
		{line: "echo a > f; mkdir d; mv f d; ls d; mv d/f g; cat g; mv g nosuch/x", out: "f\na\n", code: 1, err: "no such file"},
		{line: "mkdir d; touch d/f; rm d", code: 1, err: "remove it with -r"},
		{line: "mkdir d; touch d/f; rm -r d; ls; rm -f nosuch; rm nosuch", code: 1, err: "nosuch"},
		{line: "rm -rf .; rm -rf /", code: 1, err: "not removed"},
		{line: "mkdir d; rmdir d; ls; mkdir -m 711 e; stat -c %a e; rmdir x", out: "711\n", code: 1, err: "x"},
		{line: "touch f; chmod u=rwx,go=r f; stat -c %a f; chmod a-r,u+s f; stat -c %a f; chmod -x f; stat -c %a f", out: "744\n4300\n4200\n"},
		{line: "touch f; chmod go-rwx,X f", code: 2, err: "no mode"},
		{line: "mkdir -p d; touch d/f; chmod 600 d/f; chmod -R u+X,g+rX d; stat -c '%n %a' d/f", out: "d/f 640\n"},
		{line: "chown nosuchuser f", code: 1, err: "no user"},
		{line: "mkdir d; touch d/a.txt d/b.c; find d -name '*.txt'; find d -type f | sort; find d -type f -exec echo X {} ';' | sort; find d -name '*.c' -delete; ls d", out: "d/a.txt\nd/a.txt\nd/b.c\nX d/a.txt\nX d/b.c\na.txt\n"},
		{line: "mkdir -p d/x d/y; touch d/x/f d/y/f; find d -name x -prune -o -type f -print; find d -maxdepth 1 -type d | sort | tail -1; find d ! -type d -exec echo {} + | tr ' ' '\\n' | sort | wc -l; find d -empty -o \\( -name y -a -type d \\) | wc -l", out: "d/y/f\nd/y\n2\n3\n"},
		{line: "head -c 3000 /dev/zero > f; find . -size +2k -type f; find . -perm 644 -newer /etc -name f; find . -iname F -mmin -5", out: "./f\n./f\n./f\n"},
		{line: "mkdir d; echo hi > d/f; ln d/f d/g; ln -s f d/l; chmod 750 d/f; tar czf t.tgz d; tar tzf t.tgz | sort; mkdir x; tar xf t.tgz -C x; cat x/d/l; stat -c '%h %a' x/d/g", out: "d/\nd/f\nd/g\nd/l\nhi\n2 750\n"},
		{line: "mkdir d; echo 1 > d/a; echo 2 > d/b; tar cf - d --exclude a | tar tf -; tar cf t.tar d; tar xOf t.tar d/b; mkdir o; tar -xf t.tar -C o --strip-components=1; ls o; tar xf t.tar nosuch", out: "d/\nd/b\n2\na\nb\n", code: 1, err: "not found in the archive"},
		{line: "tar f x", code: 2, err: "one of c, x and t"},
		{line: "echo hello > f; gzip f; ls; gunzip f.gz; cat f; gzip -k f; gzip f", out: "f.gz\nhello\n", code: 1, err: "file exists"},
		{line: "echo a > f; sha256sum f > s; sha256sum -c s; echo b > f; sha256sum -c s", out: "f: OK\nf: FAILED\n", code: 1, err: "1 sums do not fit"},
		{line: "mkdir d; printf 'one\\ntwo\\n' > d/f; printf 'two\\0' > d/g; grep -rn two d | sort; grep -rl two d | sort | tail -1; grep -c two d/f; grep -r --include='*.x' two d; echo $?", out: "d/f:2:two\nd/g: binary file matches\nd/g\n1\n1\n"},
		{line: "echo abc > f; sed -i s/b/X/ f; cat f; sed -i.bak s/X/Y/ f; cat f f.bak", out: "aXc\naYc\naXc\n"},
		{line: "echo a | tee f g; cat f g; echo b | tee -a f > /dev/null; wc -l f g | tail -1", out: "a\na\na\n       3 total\n"},
		{line: "echo abcd > f; stat -c '%s %n %F' f; truncated() { return 0; }; du -b f | cut -f1; du -s /nosuch", out: "5 f regular file\n5\n", code: 1, err: "nosuch"},
		{line: "mkfifo p; stat -c %F p; (echo x > p &) ; cat p", out: "fifo\nx\n"},
		{line: "f=$(mktemp ./x.XXXXXX); test -f $f && echo ok; d=$(mktemp -d); test -d $d && rmdir $d; mktemp a", out: "ok\n", code: 1, err: "XXX"},
		{line: "printf '#!/bin/nosuchdir/sh\\necho script $1' > s; chmod +x s; ./s arg; printf 'echo plain' > q; chmod +x q; ./q; chmod -x q; ./q", out: "script arg\nplain\n", code: 126, err: "permission denied"},
		{line: "printf '#!/no/such/perl\\n' > s; chmod +x s; ./s", code: 126, err: "interpreter /no/such/perl"},
	} {
		dir := t.TempDir()
		out, errs, code := runBox(t, "cd "+dir+"; umask 022; "+tt.line, "")
		if out != tt.out || code != tt.code {
			t.Errorf("%s: code %d\n%s\n%s", tt.line, code, cmp.Diff(tt.out, out), errs)
		}
		if (tt.err == "") != (errs == "") || !strings.Contains(errs, tt.err) {
			t.Errorf("%s: says %q, want %q", tt.line, errs, tt.err)
		}
	}
}
