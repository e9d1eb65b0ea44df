package image

import (
	"fmt"
	"strings"
	"testing"

	"tug/errs"
	"tug/spec"
	"tug/test/fixture"
)

const (
	someDigest  = `"digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"`
	goodConfig  = `{"mediaType":"` + spec.TypeOCIConfig + `",` + someDigest + `,"size":5}`
	goodLayer   = `{"mediaType":"` + spec.TypeOCILayerGzip + `",` + someDigest + `,"size":5}`
	goodImage   = `{"schemaVersion":2,"config":` + goodConfig + `,"layers":[` + goodLayer + `]}`
	goodEntry   = `{"mediaType":"` + spec.TypeOCIManifest + `",` + someDigest + `,"size":5}`
	goodIndex   = `{"schemaVersion":2,"manifests":[` + goodEntry + `]}`
	schema1Type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

func withLayer(layer string) string {
	return `{"schemaVersion":2,"config":` + goodConfig + `,"layers":[` + layer + `]}`
}

func TestParseManifest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ body, mediaType string }{
		{goodImage, ""},
		{goodImage, spec.TypeOCIManifest},
		{goodImage, spec.TypeDockerManifest},
		{`{"schemaVersion":2,"config":` + goodConfig + `}`, ""}, // no layers: FROM scratch
		{`{"schemaVersion":2,"mediaType":"` + spec.TypeOCIManifest + `","config":` + goodConfig + `,"layers":[],"subject":null,"artifactType":"x"}`, ""},
	} {
		m, x, err := parseManifest([]byte(c.body), c.mediaType)
		if err != nil || m == nil || x != nil {
			t.Errorf("%s as %q: %v %v %v", c.body, c.mediaType, m, x, err)
		}
	}
	for _, mediaType := range []string{"", spec.TypeOCIIndex, spec.TypeDockerList} {
		m, x, err := parseManifest([]byte(goodIndex), mediaType)
		if err != nil || m != nil || len(x.Manifests) != 1 {
			t.Errorf("index as %q: %v %v %v", mediaType, m, x, err)
		}
	}
}

func TestParseHostileManifests(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		body, mediaType string
		class           errs.Class
		word            string
	}{
		"empty":                  {"", "", errs.Corrupt, "JSON"},
		"null":                   {"null", "", errs.Unsupported, "schemaVersion 0"},
		"a list":                 {"[]", "", errs.Corrupt, "JSON"},
		"cut":                    {goodImage[:40], "", errs.Corrupt, "JSON"},
		"two values":             {goodImage + goodImage, "", errs.Corrupt, "JSON"},
		"too large":              {goodImage + strings.Repeat(" ", maxManifest), "", errs.Invalid, "larger than 4 MiB"},
		"schema 1":               {`{"schemaVersion":1,"fsLayers":[]}`, "", errs.Unsupported, "schema 1"},
		"schema 1 in disguise":   {`{"schemaVersion":2,"fsLayers":[],"config":` + goodConfig + `}`, "", errs.Unsupported, "schema 1"},
		"schema 3":               {`{"schemaVersion":3}`, "", errs.Unsupported, "schemaVersion 3"},
		"both":                   {`{"schemaVersion":2,"config":` + goodConfig + `,"layers":[],"manifests":[]}`, "", errs.Corrupt, "same time"},
		"neither":                {`{"schemaVersion":2}`, "", errs.Corrupt, "neither"},
		"sent as an index":       {goodImage, spec.TypeOCIIndex, errs.Corrupt, "neither"},
		"sent as an image":       {goodIndex, spec.TypeOCIManifest, errs.Corrupt, "neither"},
		"sent as another":        {`{"schemaVersion":2,"mediaType":"` + spec.TypeDockerManifest + `","config":` + goodConfig + `}`, spec.TypeOCIManifest, errs.Corrupt, "says it is"},
		"unknown type":           {goodImage, "application/x-thing", errs.Unsupported, `unsupported media type "application/x-thing"`},
		"unknown type inside":    {`{"schemaVersion":2,"mediaType":"x/y","config":` + goodConfig + `}`, "", errs.Unsupported, "x/y"},
		"schema 1's type":        {goodImage, schema1Type, errs.Unsupported, "unsupported media type"},
		"config without digest":  {`{"schemaVersion":2,"config":{},"layers":[]}`, "", errs.Invalid, "config"},
		"config is a helm chart": {strings.Replace(goodImage, spec.TypeOCIConfig, "application/vnd.cncf.helm.config.v1+json", 1), "", errs.Unsupported, "no container image"},
		"config negative":        {strings.Replace(goodImage, `"size":5`, `"size":-5`, 1), "", errs.Invalid, "negative size"},
		"config huge":            {strings.Replace(goodImage, `"size":5`, `"size":8388609`, 1), "", errs.Invalid, "more than 8 MiB"},
		"layer negative":         {withLayer(strings.Replace(goodLayer, `"size":5`, `"size":-1`, 1)), "", errs.Invalid, "layer aaaaaaaaaaaa: negative"},
		"layer size no number":   {withLayer(strings.Replace(goodLayer, `"size":5`, `"size":"5"`, 1)), "", errs.Corrupt, "manifest"},
		"layer size too big":     {withLayer(strings.Replace(goodLayer, `"size":5`, `"size":9223372036854775808`, 1)), "", errs.Corrupt, "manifest"},
		"layer digest short":     {withLayer(`{"mediaType":"` + spec.TypeOCILayer + `","digest":"sha256:aa","size":5}`), "", errs.Invalid, "digest"},
		"layer digest path":      {withLayer(`{"mediaType":"` + spec.TypeOCILayer + `","digest":"sha256:../../etc/passwd","size":5}`), "", errs.Invalid, "digest"},
		"layer digest upper":     {withLayer(`{"mediaType":"` + spec.TypeOCILayer + `","digest":"sha256:` + strings.Repeat("A", 64) + `","size":5}`), "", errs.Invalid, "digest"},
		"layer digest md5":       {withLayer(`{"mediaType":"` + spec.TypeOCILayer + `","digest":"md5:` + strings.Repeat("a", 32) + `","size":5}`), "", errs.Unsupported, "md5"},
		"layer of no type":       {withLayer(`{` + someDigest + `,"size":5}`), "", errs.Unsupported, "media type"},
		"layer foreign":          {withLayer(`{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",` + someDigest + `,"size":5}`), "", errs.Unsupported, "foreign"},
		"layer encrypted":        {withLayer(`{"mediaType":"` + spec.TypeOCILayerGzip + `+encrypted",` + someDigest + `,"size":5}`), "", errs.Unsupported, "encrypted"},
		"too many layers":        {withLayer(strings.Repeat(goodLayer+",", maxLayers) + goodLayer), "", errs.Unsupported, "501 layers"},
		"index entry path":       {`{"schemaVersion":2,"manifests":[{"digest":"sha256:../x","size":1}]}`, "", errs.Invalid, "index entry"},
		"index entry negative":   {`{"schemaVersion":2,"manifests":[{` + someDigest + `,"size":-1}]}`, "", errs.Invalid, "negative"},
		"index of too many":      {`{"schemaVersion":2,"manifests":[` + strings.Repeat(goodEntry+",", maxEntries) + goodEntry + `]}`, "", errs.Invalid, "5001 entries"},
		"index no list":          {`{"schemaVersion":2,"manifests":{}}`, "", errs.Corrupt, "index"},
		"deeply nested":          {strings.Repeat("[", 100_000), "", errs.Corrupt, "JSON"},
	} {
		_, _, err := parseManifest([]byte(c.body), c.mediaType)
		wantError(t, what, err, c.class, c.word)
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	i := &fixture.Image{Layers: [][]byte{{1}, {2}}, Config: map[string]any{"User": "app", "Env": []string{"A=b"}}}
	c, err := parseConfig(i.ConfigJSON())
	if err != nil || len(c.RootFS.DiffIDs) != 2 || c.Config.User != "app" || c.Architecture != "amd64" {
		t.Errorf("%+v %v", c, err)
	}
	if _, err := parseConfig([]byte("{}")); err != nil {
		t.Errorf("an empty config, which FROM scratch makes: %v", err)
	}
	for what, c := range map[string]struct {
		body  string
		class errs.Class
		word  string
	}{
		"empty":         {"", errs.Corrupt, "JSON"},
		"a tar":         {string(make([]byte, 512)), errs.Corrupt, "JSON"},
		"too large":     {"{}" + strings.Repeat(" ", maxConfig), errs.Invalid, "larger than 8 MiB"},
		"rootfs type":   {`{"rootfs":{"type":"blocks"}}`, errs.Unsupported, `"blocks"`},
		"windows":       {`{"os":"windows"}`, errs.Unsupported, `"windows" cannot be used`},
		"diffID path":   {`{"rootfs":{"diff_ids":["../../etc"]}}`, errs.Invalid, "diff_ids"},
		"diffID number": {`{"rootfs":{"diff_ids":[5]}}`, errs.Corrupt, "JSON"},
		"many layers":   {`{"rootfs":{"diff_ids":["` + strings.Repeat(`","`, maxLayers) + `"]}}`, errs.Unsupported, "501 layers"},
		"Env no list":   {`{"config":{"Env":"A=b"}}`, errs.Corrupt, "JSON"},
	} {
		_, err := parseConfig([]byte(c.body))
		wantError(t, what, err, c.class, c.word)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want, have string // platforms; the expected one is marked by a star
	}{
		{"linux/amd64", "linux/arm64 *linux/amd64 linux/s390x"},
		{"linux/amd64", "windows/amd64 *linux/amd64"},
		{"linux/amd64", "*linux/x86_64"},
		{"linux/amd64", "linux/amd64/v3 *linux/amd64 linux/amd64/v2"},
		{"linux/amd64", "linux/amd64/v4 *linux/amd64/v2 linux/amd64/v3"},
		{"linux/amd64/v3", "linux/amd64 *linux/amd64/v2 linux/amd64/v4"},
		{"linux/amd64/v3", "linux/amd64 *linux/amd64/v3 linux/amd64/v2"},
		{"linux/amd64/v2", "linux/amd64/v3 linux/arm64"},
		{"linux/amd64/v2", "*linux/amd64"},
		{"linux/arm/v7", "linux/arm/v5 linux/arm/v6 *linux/arm/v7 linux/arm/v8"},
		{"linux/arm/v7", "linux/arm/v5 *linux/arm/v6 linux/arm/v8 linux/arm64"},
		{"linux/arm/v6", "*linux/arm/v5 linux/arm/v7"},
		{"linux/arm/v5", "linux/arm/v6 linux/arm/v7"},
		{"linux/arm", "linux/arm/v6 *linux/arm/v7"},
		{"linux/arm/v7", "linux/arm/v6 *linux/arm"},
		{"linux/arm64", "linux/arm/v7 *linux/arm64/v8"},
		{"linux/arm64/v8", "*linux/arm64"},
		{"linux/arm64", "linux/arm/v7"},
		{"linux/mips64le", "linux/amd64"},
		{"linux/amd64", "*linux/amd64/strange"},
		{"linux/amd64/v2", "linux/amd64/strange"},
		{"linux/amd64", "*linux/amd64 linux/amd64"}, // the first of equals
		{"linux/amd64", "unknown/unknown *linux/amd64"},
		{"linux/amd64", "unknown/unknown"},
		{"linux/amd64", ""},
	} {
		x := &spec.Index{}
		chosen := -1
		for i, s := range strings.Fields(c.have) {
			s, star := strings.CutPrefix(s, "*")
			if star {
				chosen = i
			}
			parts := append(strings.Split(s, "/"), "")
			x.Manifests = append(x.Manifests, spec.Descriptor{
				Digest: spec.DigestOf([]byte(fmt.Sprint(i))), Platform: &spec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]},
			})
		}
		want, err := spec.ParsePlatform(c.want)
		if err != nil {
			t.Fatal(err)
		}
		d, err := choose(x, want)
		switch {
		case chosen < 0:
			wantError(t, c.want+" of "+c.have, err, errs.NotFound, "no matching manifest for "+want.String())
		case err != nil || d.Digest != x.Manifests[chosen].Digest:
			t.Errorf("%s of %s: %v %v", c.want, c.have, d.Platform, err)
		}
	}
}

func TestChooseWithoutPlatform(t *testing.T) {
	t.Parallel()
	bare := spec.Descriptor{Digest: spec.DigestOf(nil)}
	host := spec.HostPlatform()
	if d, err := choose(&spec.Index{Manifests: []spec.Descriptor{bare}}, host); err != nil || d.Digest != bare.Digest {
		t.Errorf("a lone entry without a platform: %v %v", d, err)
	}
	_, err := choose(&spec.Index{Manifests: []spec.Descriptor{bare, bare}}, host)
	wantError(t, "two entries without platforms", err, errs.NotFound, "no matching manifest")
	other := spec.Descriptor{Digest: spec.DigestOf([]byte("x")), Platform: &spec.Platform{OS: "linux", Architecture: "vax"}}
	_, err = choose(&spec.Index{Manifests: []spec.Descriptor{other, other}}, host)
	wantError(t, "another platform only", err, errs.NotFound)
	if h := errs.HintOf(err); !strings.HasSuffix(h, "one of linux/vax") {
		t.Errorf("hint %q", h)
	}
}
