package cluster

import (
	"context"
	"fmt"
	"strings"
)

// enrol makes a relay's directory and has the administrator enrol its key.
func (g *Group) enrol(ctx context.Context, r *Relay, c Client) error {
	key, err := g.Command(ctx, "bfs-relay", "init", "--out", r.Dir, "--group", g.path("group", "group.toml"), "--export", c.Export,
		"--listen", fmt.Sprintf("127.0.0.1:%d", r.Port), "--admin-listen", fmt.Sprintf("127.0.0.1:%d", r.Port+1))
	if err != nil {
		return err
	}
	add := []string{"client", "add", "--admin", g.path("group", "admin"), "--key", strings.TrimSpace(key), "--export", c.Export}
	_, err = g.Command(ctx, "bfsd", append(add, c.Add...)...)
	return err
}
