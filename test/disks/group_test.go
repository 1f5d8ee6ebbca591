// SPDX-License-Identifier: Apache-2.0

package disks

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/pkg/bfs"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/test/apart"
	"bfs/test/cluster"
	"bfs/test/patience"
)

func TestMain(m *testing.M) { apart.Main(m, cluster.RemoveBinaries) }

// A group is four replicas and a client, and the contents that the files must have.
type group struct {
	*cluster.Group
	t     *testing.T
	files *bfs.FS
	wrote map[string][]byte
	next  int // file
}

// fileBytes is the length of each file but for the largest.
const fileBytes = 1 << 20

// startGroup starts a group with a small reserve on disk, and with journals that are
// short enough for the image to follow.
func startGroup(t *testing.T, prepare func(bundles string) error) *group {
	t.Helper()
	g := &group{t: t, wrote: map[string][]byte{}}
	g.Group = cluster.ForTest(t, cluster.Config{Prepare: func(bundles string) error {
		if err := shorten(bundles); err != nil || prepare == nil {
			return err
		}
		return prepare(bundles)
	}})
	g.mount()
	return g
}

const checkpointBytes = 4 << 20

// shorten sets the distance of checkpoints to 4 MiB in all copies of the group file. The
// reserve is twice that.
func shorten(bundles string) error {
	files, err := filepath.Glob(filepath.Join(bundles, "*", "group.toml"))
	for _, file := range append(files, filepath.Join(bundles, "group.toml")) {
		text, failed := os.ReadFile(file)
		if failed != nil {
			return failed
		}
		short := strings.Replace(string(text), `checkpoint_bytes = "32MiB"`, `checkpoint_bytes = "4MiB"`, 1)
		if short == string(text) {
			return fmt.Errorf("%s: no line checkpoint_bytes = \"32MiB\"", file)
		}
		if err := os.WriteFile(file, []byte(short), 0o644); err != nil {
			return err
		}
	}
	return err
}

// mount enrols a client and mounts the export.
func (g *group) mount() {
	g.t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	g.must(err)
	g.command("client", "add", "--timeout", patience.For(time.Minute).String(),
		"--admin", filepath.Join(g.Dir, "group", "admin"),
		"--key", "bfs-key:"+base64.StdEncoding.EncodeToString(public), "--squash", "none")
	client, err := pbft.NewClient(pbft.ClientConfig{Group: g.file(), Key: private, Transport: pbft.TransportTLS,
		Logger: slog.New(slog.DiscardHandler)})
	g.must(err)
	g.t.Cleanup(func() { _ = client.Close() })
	g.must(client.Ready(g.t.Context()))
	g.files, err = bfs.Mount(g.t.Context(), client, "/export", nfs3.Credentials{})
	g.must(err)
}

// file returns the contents of the group file.
func (g *group) file() *pbft.Group {
	g.t.Helper()
	const stateSize = 8 << 30 // init's default
	file, err := cluster.ReadGroup(filepath.Join(g.Dir, "group", "group.toml"), stateSize)
	g.must(err)
	parts := *file
	parts.Limits.CheckpointBytes = checkpointBytes
	file, err = pbft.CheckGroup(parts)
	g.must(err)
	return file
}

func (g *group) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *group) command(args ...string) string {
	g.t.Helper()
	out, err := g.Command(g.t.Context(), "bfsd", args...)
	g.must(err)
	return out
}

// write makes a file of n bytes unlike those of all others, or overwrites an older file
// of that length.
func (g *group) write(n int) {
	g.t.Helper()
	b := make([]byte, n)
	chance := rand.NewChaCha8([32]byte{byte(g.next), byte(g.next >> 8)})
	_, _ = chance.Read(b)
	name := fmt.Sprintf("file-%d-%d", n, g.next%4)
	g.next++
	g.must(g.files.WriteFile(name, b, 0o644))
	g.wrote[name] = b
}

// check reads all files and compares them with what was written.
func (g *group) check() {
	g.t.Helper()
	for name, want := range g.wrote {
		got, err := g.files.ReadFile(name)
		g.must(err)
		if !bytes.Equal(got, want) {
			g.t.Fatalf("%s has other bytes than were written", name)
		}
	}
}

// A row is a replica's line of bfsd status.
type row struct {
	Problem string
	Status  *pbft.Status
}

// status asks all replicas.
func (g *group) status() []row {
	g.t.Helper()
	raw, _ := g.Command(context.WithoutCancel(g.t.Context()), "bfsd", "status",
		"--json", "--timeout", patience.For(5*time.Second).String(),
		"--group", filepath.Join(g.Dir, "group", "group.toml")) // its exit code says no more than the rows
	var report struct{ Replicas []row }
	g.must(json.Unmarshal([]byte(raw), &report))
	return report.Replicas
}

// disk returns replica i's directory of journal and image.
func (g *group) disk(i int) string {
	return filepath.Join(g.Dir, "group", fmt.Sprintf("host%d", i), "state", "disk")
}

// agree waits until all replicas agree.
func (g *group) agree() {
	g.t.Helper()
	g.must(g.Agree(g.t.Context(), 4))
}

// image writes files until a replica's image holds a checkpoint.
func (g *group) image(i int) {
	g.t.Helper()
	patience.Until(g.t, "the image follows", func() bool {
		if g.status()[i].Status.Disk.Image > 0 {
			return true
		}
		g.write(8 * fileBytes)
		return false
	})
}

// counts fails unless the group can rely on replica i: with it, the group serves while
// another replica is down.
func (g *group) counts(i int) {
	g.t.Helper()
	other := g.Replicas[(i+1)%4]
	other.Kill()
	g.write(fileBytes)
	g.check()
	g.must(other.Restart(g.t.Context()))
	g.agree()
}
