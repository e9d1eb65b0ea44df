package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"tug/registry"
)

// userConfig is what tug takes from Docker's config.json besides credentials:
// what the user wants where no flag says otherwise.
type userConfig struct {
	PsFormat      string `json:"psFormat"`
	ImagesFormat  string `json:"imagesFormat"`
	StatsFormat   string `json:"statsFormat"`
	VolumesFormat string `json:"volumesFormat"`
	DetachKeys    string `json:"detachKeys"`
}

const maxUserConfig = 4 << 20

// userConfig reads the file. One that cannot be read is warned about, as
// with Docker, and says nothing.
func (a *app) userConfig() (c userConfig) {
	path, err := registry.ConfigPath()
	if err != nil {
		return c // no home, no wishes
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c
	}
	if err == nil {
		var b []byte
		b, err = io.ReadAll(io.LimitReader(f, maxUserConfig))
		f.Close()
		if err == nil && len(b) > 0 {
			err = json.Unmarshal(b, &c)
		}
	}
	if err != nil {
		a.warn(fmt.Sprintf("Error loading config file: %s: %v", path, err))
		return userConfig{}
	}
	return c
}

// setKeys takes the detach keys from --detach-keys, else from the user's file,
// which is not read where nobody can type them.
func (t *attachment) setKeys(flag string) (err error) {
	if flag == "" && t.ownsTerminal() {
		flag = t.app.userConfig().DetachKeys
	}
	t.keys, err = parseDetachKeys(flag)
	return err
}
