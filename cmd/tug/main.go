// Command tug builds, stores, ships and runs OCI and Docker images.
package main

import (
	"os"

	"tug/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
