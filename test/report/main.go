// Command report turns the output of `go test -json` into a few lines: one per
// package, and everything that a failed test printed. It writes "PASSED FAILED"
// to the file named by -counts. Subtests are not counted, only top-level tests.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
)

// event is one line of test2json (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

type report struct {
	output         map[string][]string // by package and test, until its verdict
	tests          map[string]int      // passed tests by package
	passed, failed int
}

func main() {
	counts := flag.String("counts", "", "file for the two numbers")
	flag.Parse()

	r := &report{output: map[string][]string{}, tests: map[string]int{}}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text()) // the go command's own words
			continue
		}
		r.add(e)
	}
	if err := lines.Err(); err != nil {
		fmt.Println("report:", err)
		os.Exit(1)
	}
	if *counts != "" {
		if err := os.WriteFile(*counts, fmt.Appendf(nil, "%d %d\n", r.passed, r.failed), 0o600); err != nil {
			fmt.Println("report:", err)
			os.Exit(1)
		}
	}
}

func (r *report) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "build-output":
		fmt.Print(e.Output)
	case "pass", "skip":
		r.end(e, key)
	case "fail":
		for _, line := range r.output[key] {
			fmt.Print(line)
		}
		r.end(e, key)
	}
}

// end counts a verdict and forgets what the test printed. A package that fails
// without a failed test (it did not build, it crashed, it ran too long) counts
// as one failure.
func (r *report) end(e event, key string) {
	delete(r.output, key)
	topLevel := e.Test != "" && !strings.Contains(e.Test, "/")
	switch {
	case topLevel && e.Action == "pass":
		r.passed++
		r.tests[e.Package]++
	case topLevel && e.Action == "fail":
		r.failed++
		r.tests[e.Package] = -1 << 20
	case e.Test == "" && e.Action == "pass" && r.tests[e.Package] > 0:
		fmt.Printf("ok    %-40s %4d tests %7.1fs\n", e.Package, r.tests[e.Package], e.Elapsed)
	case e.Test == "" && e.Action == "fail":
		fmt.Printf("FAIL  %-40s %18.1fs\n", e.Package, e.Elapsed)
		if r.tests[e.Package] >= 0 {
			r.failed++
		}
	}
}
