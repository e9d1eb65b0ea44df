package supervisor

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"tug/sys"
)

// listening is a probe's output, and what the probe writes to.
func listening(t *testing.T) (*probeIO, *os.File) {
	t.Helper()
	r, w, err := sys.Pipe(true, false)
	if err != nil {
		t.Fatal(err)
	}
	x := &probeIO{procIO: newProcIO("h:x", note{}), said: hear(r)}
	x.out = r
	t.Cleanup(func() { w.Close(); x.close() })
	return x, w
}

func TestProbeOutput(t *testing.T) {
	for want, text := range map[string]string{
		"":                                 "",
		"a\nb":                             "a\nb",
		strings.Repeat("x", 4096):          strings.Repeat("x", 4096),
		strings.Repeat("y", 4096) + "...":  strings.Repeat("y", 4097),
		strings.Repeat("z", 4096) + "... ": strings.Repeat("z", 2<<20),
		"a\ufffdb":                         "a\xff\xfeb",
	} {
		x, w := listening(t)
		go func() {
			io.WriteString(w, text)
			w.Close()
		}()
		<-x.said.done
		if got := x.output(drainTime); got != strings.TrimSpace(want) {
			t.Errorf("%.20q (%d bytes): %.20q (%d bytes)", want, len(text), got, len(got))
		}
	}
}

// What is left behind and holds the output open, silent or not, is not waited
// for.
func TestProbeOutputHeldOpen(t *testing.T) {
	for _, flood := range []bool{false, true} {
		x, w := listening(t)
		io.WriteString(w, "said")
		for x.output(0) == "" {
			time.Sleep(time.Millisecond)
		}
		if flood {
			go func() {
				for {
					if _, err := io.WriteString(w, strings.Repeat("f", 10000)); err != nil {
						return
					}
				}
			}()
		}
		begun := time.Now()
		if got := x.output(drainTime); !strings.HasPrefix(got, "said") || len(got) > saidMax+len("...") {
			t.Errorf("flood %v: %.20q", flood, got)
		}
		if took := time.Since(begun); took > 2*time.Second {
			t.Errorf("flood %v: it took %v", flood, took)
		}
	}
}

// What floods is read slowly.
func TestProbeOutputFlood(t *testing.T) {
	x, w := listening(t)
	defer x.out.SetReadDeadline(time.Unix(1, 0))
	read := make(chan int64)
	stop := time.Now().Add(300 * time.Millisecond)
	go func() {
		var n int64
		b := make([]byte, 32<<10)
		for n < saidFast || time.Now().Before(stop) {
			m, err := w.Write(b)
			if n += int64(m); err != nil {
				break
			}
		}
		read <- n
	}()
	if n := <-read; n < saidFast || n > saidFast+8<<20 {
		t.Errorf("%d bytes were read in 300 ms", n)
	}
}
