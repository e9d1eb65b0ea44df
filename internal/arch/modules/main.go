// Command modules rewrites the reviewed lists of modules that each binary
// links (make modules). The diff of those files is what a reviewer looks at.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tug/internal/arch"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "modules:", err)
		os.Exit(1)
	}
}

func run() error {
	root, err := arch.Root()
	if err != nil {
		return err
	}
	for _, binary := range arch.Binaries {
		mods, err := arch.LinkedModules(root, binary)
		if err != nil {
			return err
		}
		list := filepath.Join(root, arch.ModuleList(binary))
		if err := os.WriteFile(list, []byte(strings.Join(mods, "\n")+"\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}
