package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"tug/sys"
)

// BenchmarkLog pumps 100 MB of lines from another process's pipe into a log.
// cpu-ms/GB is what this process took for it.
func BenchmarkLog(b *testing.B) {
	for _, size := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("line=%d", size), func(b *testing.B) {
			file := b.TempDir() + "/lines"
			line := append(bytes.Repeat([]byte("x"), size-1), '\n')
			if err := os.WriteFile(file, bytes.Repeat(line, 100_000_000/size), 0o600); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(100_000_000)
			var before, after syscall.Rusage
			syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			for range b.N {
				pumpFile(b, file)
			}
			syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			ms := func(t syscall.Timeval) float64 { return float64(t.Nano()) / 1e6 }
			n := float64(b.N) * 0.1
			b.ReportMetric((ms(after.Utime)-ms(before.Utime))/n, "user-ms/GB")
			b.ReportMetric((ms(after.Stime)-ms(before.Stime))/n, "sys-ms/GB")
		})
	}
}

func pumpFile(b *testing.B, file string) {
	r, w, err := sys.Pipe(true, false)
	if err != nil {
		b.Fatal(err)
	}
	s, err := makeSpool("stdout", r, false)
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	log, err := openLog(b.TempDir(), LogLimits{}, logMark{})
	if err != nil {
		b.Fatal(err)
	}
	defer log.close()
	cat := exec.Command("cat", file)
	cat.Stdout = w
	if err := cat.Start(); err != nil {
		b.Fatal(err)
	}
	w.Close()
	s.pump(log, make(chan struct{}))
	if err := cat.Wait(); err != nil {
		b.Fatal(err)
	}
}
