// Command tug-init is the small program inside and around containers: process
// 1 until the container's own program takes over, the helper of exec, the
// reaper of --init, the program of the built-in hello image, and the keeper.
// Users do not call it.
package main

import (
	"fmt"
	"os"
	"path"

	"tug/runtime/boot"
	"tug/spec"
	"tug/supervisor/keeper"
)

func main() { os.Exit(run(os.Args)) }

func run(args []string) int {
	if len(args) > 0 && path.Base(args[0]) == "hello" {
		return boot.Hello(os.Stdout, "/")
	}
	if len(args) < 2 {
		return usage()
	}
	switch args[1] {
	case "init":
		return boot.Init(args[2:])
	case "enter":
		return boot.Enter(args[2:])
	case "exec":
		return boot.Exec(args[2:])
	case "oci":
		return boot.OCI(args[2:])
	case "reap":
		return boot.Reap(args[2:])
	case "keeper":
		return keeper.Main(args[2:])
	case "hello":
		return boot.Hello(os.Stdout, "/")
	case "--version":
		fmt.Println("tug-init version", spec.Version)
		return 0
	}
	return usage()
}

func usage() int {
	fmt.Fprintln(os.Stderr, "tug-init is started by tug and has no commands of its own; see tug --help")
	return 125
}
