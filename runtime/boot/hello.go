package boot

import (
	"fmt"
	"io"
)

// Hello is the program of the built-in image.
func Hello(w io.Writer) int {
	fmt.Fprintln(w, "hello from tug")
	return 0
}
