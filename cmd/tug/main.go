// Command tug builds, stores, ships and runs OCI and Docker images.
package main

import (
	"os"
	"path"

	"tug/cli"
)

func main() {
	args := os.Args
	if len(args) > 0 && path.Base(args[0]) == cli.OCIName {
		args = append([]string{"tug", "oci"}, args[1:]...)
	}
	os.Exit(cli.Main(args[1:], cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
