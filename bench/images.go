package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tug/test/fixture"
)

// A cargo is an image that is moved about.
type cargo struct {
	name   string // in the registry: NAME:1
	what   string
	layers []*packed
}

func (c cargo) tar() (n int64) {
	for _, p := range c.layers {
		n += p.size
	}
	return n
}

func (c cargo) packed() (n int64) {
	for _, p := range c.layers {
		n += p.packed
	}
	return n
}

func (c cargo) String() string {
	return fmt.Sprintf("*%s*: %s, %.0f MB of tar in %.0f MB", c.name, c.what, float64(c.tar())/1e6, float64(c.packed())/1e6)
}

// harbour is a registry with cargoes in it, and those who fetch them.
type harbour struct {
	l       *lab
	addr    string
	cargoes []cargo
	tug     *tug
	pod     *podman
	docker  *docker // nil: not installed
}

// newHarbour packs the cargoes called wanted and puts them into a registry.
func (l *lab) newHarbour(ctx context.Context, c config, name string, wanted ...string) (*harbour, error) {
	dir := l.path(name + "-registry")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	r, err := fixture.StartRegistry(dir)
	if err != nil {
		return nil, err
	}
	l.later(func() error { r.Stop(); return nil })
	h := &harbour{l: l, addr: r.Addr, tug: l.newTug(name, "50ms")}
	if h.pod, err = l.newPodman(name + "-podman"); err != nil {
		return nil, err
	}
	if h.docker, err = l.newDocker(ctx, name+"-docker"); err != nil {
		return nil, err
	}
	for _, name := range wanted {
		g, err := l.packCargo(ctx, c, name)
		if err != nil {
			return nil, err
		}
		archive, err := l.packImage(name, name+":1", g.layers...)
		if err != nil {
			return nil, err
		}
		if _, err := (command{args: append(h.skopeo(), "--dest-tls-verify=false", "oci-archive:"+archive, "docker://"+h.ref(name))}).run(ctx); err != nil {
			return nil, err
		}
		h.cargoes = append(h.cargoes, *g)
		l.say("packed %s", g)
	}
	return h, nil
}

func (h *harbour) skopeo() []string {
	return []string{"skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests"}
}

func (h *harbour) ref(name string) string { return h.addr + "/" + name + ":1" }

func (l *lab) packCargo(ctx context.Context, c config, name string) (*cargo, error) {
	g := &cargo{name: name}
	count, files, largest, how := 1, c.files, smallFile, packGzip
	switch name {
	case "files":
		g.what = fmt.Sprintf("one gzip layer of %d files", files)
	case "zstd":
		g.what, how = fmt.Sprintf("one zstd layer of %d files", files), packZstd
	case "large":
		files, largest = c.files*7/50, largeFile
		g.what = fmt.Sprintf("one gzip layer of %d files", files)
	case "twelve":
		count, files = 12, c.files/12
		g.what = fmt.Sprintf("twelve gzip layers of %d files", files)
	}
	for i := range count {
		p, err := l.packLayer(ctx, fmt.Sprintf("%s-%d", name, i), files, largest, how)
		if err != nil {
			return nil, err
		}
		g.layers = append(g.layers, p)
	}
	return g, nil
}

// measurePull compares pulls from a registry on loopback.
func measurePull(ctx context.Context, l *lab, c config) (chapter, error) {
	h, err := l.newHarbour(ctx, c, "pull", "files", "large", "twelve", "zstd")
	if err != nil {
		return chapter{}, err
	}
	defer h.docker.stop()
	ch := chapter{
		title: "Pull", unit: "ms",
		text: "From Debian's docker-registry on loopback, into an empty store; `sync` and removal of the image come before each run. " +
			"The last rows of each image are the raw work: inflating and SHA-256 of both streams in Go, one after the other, and skopeo copying the blobs into a directory.\n",
	}
	for _, g := range h.cargoes {
		ch.text += "\n- " + g.String()
		got, err := l.interleave(ctx, c.loads, 0, h.pulls(g))
		if err != nil {
			return ch, err
		}
		ch.figures = append(ch.figures, h.pullFigures(g, got)...)
	}
	again, err := l.interleave(ctx, c.rounds, 0, h.repulls(h.cargoes[0]))
	if err != nil {
		return ch, err
	}
	for _, name := range []string{"tug pull", "podman pull", "docker pull"} {
		ch.figures = append(ch.figures, figure{what: "`" + name + "` of *files*, unchanged", s: again[name]})
	}
	return ch, nil
}

// fresh is a subject that runs without the image in the store.
func fresh(name string, remove, run command) subject {
	before := func(ctx context.Context) error {
		if _, err := remove.run(ctx); err != nil {
			return err
		}
		return syncDisks(ctx)
	}
	return subject{name, before, run.run}
}

func (h *harbour) pulls(g cargo) []subject {
	ref, dir := h.ref(g.name), h.l.path("skopeo")
	all := []subject{
		fresh("tug", h.tug.command("rmi", "-f", ref), h.tug.command("pull", "-q", ref)),
		fresh("podman", h.pod.command("rmi", "--all", "--force"), h.pod.command("pull", "-q", "--tls-verify=false", ref)),
		fresh("skopeo", command{args: []string{"rm", "-rf", dir}},
			command{args: append(h.skopeo(), "--src-tls-verify=false", "docker://"+ref, "dir:"+dir)}),
		{"inflate+hash", nil, inflate(true, g.layers...)},
	}
	if h.hasDocker(g) {
		all = append(all, fresh("docker", h.docker.command("rmi", "-f", ref), h.docker.command("pull", "-q", ref)))
	}
	return all
}

// hasDocker tells whether Docker takes part: Debian's knows no zstd.
func (h *harbour) hasDocker(g cargo) bool { return h.docker != nil && g.name != "zstd" }

func (h *harbour) pullFigures(g cargo, got map[string]series) []figure {
	of := " of *" + g.name + "*"
	toPodman, toDocker := 0.15, 0.06
	if g.name == "large" {
		toPodman, toDocker = 0.2, 0.2
	}
	budgets := []budget{
		{"1.3 × inflate and SHA-256", 1.3 * got["inflate+hash"].median()},
		{fmt.Sprintf("%.2f × podman", toPodman), toPodman * got["podman"].median()},
	}
	if h.hasDocker(g) {
		budgets = append(budgets, budget{fmt.Sprintf("%.2f × docker", toDocker), toDocker * got["docker"].median()})
	}
	return []figure{
		{what: "`tug pull`" + of, s: got["tug"], budgets: budgets},
		{what: "`podman pull`" + of, s: got["podman"]},
		{what: "`docker pull`" + of, s: got["docker"]},
		{what: "`skopeo copy`" + of + " into a directory", s: got["skopeo"]},
		{what: "inflate and SHA-256" + of, s: got["inflate+hash"]},
	}
}

func (h *harbour) repulls(g cargo) []subject {
	ref := h.ref(g.name)
	all := []subject{
		commandSubject("tug pull", h.tug.command("pull", "-q", ref)),
		commandSubject("podman pull", h.pod.command("pull", "-q", "--tls-verify=false", ref)),
	}
	if h.docker != nil {
		all = append(all, commandSubject("docker pull", h.docker.command("pull", "-q", ref)))
	}
	return all
}

// measureShip compares push, save and rmi of an image with many files.
func measureShip(ctx context.Context, l *lab, c config) (chapter, error) {
	h, err := l.newHarbour(ctx, c, "ship", "files")
	if err != nil {
		return chapter{}, err
	}
	defer h.docker.stop()
	g := h.cargoes[0]
	ref := h.ref(g.name)
	archive, copied := l.path("saved.tar"), l.path("copied.tar")
	clean := func(ctx context.Context) error {
		for _, path := range []string{archive, copied} {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		return syncDisks(ctx)
	}
	pull := map[string]command{
		"tug": h.tug.command("pull", "-q", ref), "podman": h.pod.command("pull", "-q", "--tls-verify=false", ref),
	}
	if h.docker != nil {
		pull["docker"] = h.docker.command("pull", "-q", ref)
	}
	for _, p := range pull {
		if _, err := p.run(ctx); err != nil {
			return chapter{}, err
		}
	}
	if _, err := h.tug.command("save", "-o", l.path("bytes.tar"), ref).run(ctx); err != nil {
		return chapter{}, err
	}
	subjects := []subject{
		{"tug save", clean, h.tug.command("save", "-o", archive, ref).run},
		{"cat", clean, command{args: []string{"sh", "-c", "cat " + l.path("bytes.tar") + " > " + copied}}.run},
		{"podman save", clean, h.pod.command("save", "-q", "-o", archive, ref).run},
		h.push("tug push", h.tug.command, ref, "push", "-q"),
		h.push("podman push", h.pod.command, ref, "push", "-q", "--tls-verify=false"),
		h.pushSkopeo(g),
	}
	if h.docker != nil {
		subjects = append(subjects, subject{"docker save", clean, h.docker.command("save", "-o", archive, ref).run},
			h.push("docker push", h.docker.command, ref, "push", "-q"))
	}
	got, err := l.interleave(ctx, c.loads, 0, subjects)
	if err != nil {
		return chapter{}, err
	}
	ch := chapter{
		title: "Save and push", unit: "ms",
		text: "The image " + g.String() + ". Save goes to a file on the same file system; `cat` copies the same bytes there. " +
			"Push goes to another registry on loopback that holds nothing: tug keeps layers uncompressed, and gets the compressed one from where it pulled it. " +
			"*Compressed anew* is without that registry.",
	}
	ch.figures = append(ch.figures, figure{what: "`tug save`", s: got["tug save"], budgets: []budget{{"1.3 × cat", 1.3 * got["cat"].median()}}})
	for _, name := range []string{"cat", "podman save", "docker save", "tug push", "podman push", "docker push", "skopeo copy"} {
		ch.figures = append(ch.figures, figure{what: "`" + name + "`", s: got[name]})
	}
	return ch, nil
}

// push is a subject that pushes into an empty registry of its own.
func (h *harbour) push(name string, cmd func(...string) command, ref string, flags ...string) subject {
	var to *fixture.Registry
	dir := h.l.path(strings.ReplaceAll(name, " ", "-"))
	before := func(ctx context.Context) error {
		if to != nil {
			to.Stop()
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			to, err = fixture.StartRegistry(dir)
		}
		if err != nil {
			return err
		}
		h.l.later(func() error { to.Stop(); return nil })
		if _, err := cmd("tag", ref, to.Addr+"/copy:1").run(ctx); err != nil {
			return err
		}
		return syncDisks(ctx)
	}
	return subject{name, before, func(ctx context.Context) (time.Duration, error) {
		took, err := cmd(append(flags, to.Addr+"/copy:1")...).run(ctx)
		if err == nil {
			_, err = cmd("rmi", to.Addr+"/copy:1").run(ctx)
		}
		return took, err
	}}
}

func (h *harbour) pushSkopeo(g cargo) subject {
	copying := func(args ...string) command {
		if args[0] != "push" {
			return command{args: []string{"true"}}
		}
		return command{args: append(h.skopeo(), "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+h.ref(g.name), "docker://"+args[len(args)-1])}
	}
	return h.push("skopeo copy", copying, h.ref(g.name), "push")
}

// measureMany compares lists of many images.
func measureMany(ctx context.Context, l *lab, c config) (chapter, error) {
	t := l.newTug("many", "50ms")
	pod, err := l.newPodman("podman-many")
	if err != nil {
		return chapter{}, err
	}
	d, err := l.newDocker(ctx, "many-docker")
	if err != nil {
		return chapter{}, err
	}
	defer d.stop()
	archive, err := l.manyImages(c.images)
	if err != nil {
		return chapter{}, err
	}
	if _, err := t.command("load", "-q", "-i", archive).run(ctx); err != nil {
		return chapter{}, err
	}
	subjects := []subject{
		commandSubject("tug images", t.command("images")),
		commandSubject("tug system df", t.command("system", "df")),
		commandSubject("tug inspect", t.command("image", "inspect", "many-7:1")),
	}
	if _, err := pod.command("load", "-q", "-i", archive).run(ctx); err != nil {
		return chapter{}, err
	}
	if d != nil {
		if _, err := d.command("load", "-q", "-i", archive).run(ctx); err != nil {
			return chapter{}, err
		}
		subjects = append(subjects, commandSubject("docker images", d.command("images")), commandSubject("docker system df", d.command("system", "df")))
	}
	got, err := l.interleave(ctx, c.rounds, 0, subjects)
	if err != nil {
		return chapter{}, err
	}
	// It takes seconds, so that in turn with the others it would leave them
	// cold, and take all the time.
	slow, err := l.interleave(ctx, 1, 0, []subject{commandSubject("podman images", pod.command("images"))})
	if err != nil {
		return chapter{}, err
	}
	got["podman images"] = slow["podman images"]
	ch := chapter{
		title: fmt.Sprintf("A store of %d images", c.images), unit: "ms",
		text: "Images of two small layers, one of them shared by all.",
	}
	for _, name := range []string{"tug images", "tug system df", "tug inspect", "podman images", "docker images", "docker system df"} {
		ch.figures = append(ch.figures, figure{what: "`" + name + "`", s: got[name]})
	}
	return ch, nil
}

func (l *lab) manyImages(n int) (string, error) {
	shared := fixture.NewLayer().File("shared", 0o644, "in all of them").Bytes()
	var images []*fixture.Image
	for i := range n {
		own := fixture.NewLayer().File("own", 0o644, fmt.Sprint("image ", i)).Bytes()
		images = append(images, &fixture.Image{Name: fmt.Sprintf("many-%d:1", i), Layers: [][]byte{shared, own}})
	}
	path := filepath.Join(l.dir, "many.tar")
	return path, os.WriteFile(path, fixture.DockerArchive(images...).Bytes(), 0o644)
}
