package spec

// LogConfig says where a container's output is kept.
type LogConfig struct {
	Driver  string            `json:",omitempty"` // one of those below; empty is LogJSONFile
	Options map[string]string `json:",omitempty"` // as given
}

// Log drivers. The first two are tug's own log, whose format is neither; they
// differ in how large it gets.
const (
	LogJSONFile = "json-file"
	LogLocal    = "local"
	LogNone     = "none"
	LogJournald = "journald" // and tug's own, for reading
)

// Name is the driver's name.
func (l *LogConfig) Name() string {
	if l.Driver == "" {
		return LogJSONFile
	}
	return l.Driver
}
