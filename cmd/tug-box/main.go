// Command tug-box is a userland in one file: a shell and the small programs
// that people look around with. It is the built-in image tug.local/box, and
// `tug debug` runs it in containers whose image has no shell.
package main

import (
	"os"

	"tug/box"
)

func main() { os.Exit(box.Main(os.Args)) }
