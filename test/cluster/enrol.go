// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"regexp"

	"bfs/test/patience"
)

var publicKey = regexp.MustCompile(`bfs-key:\S+`)

// enrol makes a relay's directory and has the administrator enrol its key.
func (g *Group) enrol(ctx context.Context, r *Relay, c Client) error {
	init := []string{"init", "--out", r.Dir, "--group", g.path("group", "group.toml"), "--export", c.Export,
		"--transport", g.transport, "--listen", fmt.Sprintf("127.0.0.1:%d", r.Port),
		"--admin-listen", fmt.Sprintf("127.0.0.1:%d", r.Port+1)}
	if c.InsecurePorts {
		init = append(init, "--insecure-ports")
	}
	printed, err := g.Command(ctx, "bfs-relay", init...)
	if err != nil {
		return err
	}
	add := []string{"client", "add", "--admin", g.path("group", "admin"), "--transport", g.transport,
		"--timeout", patience.For(operateWithin).String(),
		"--key", publicKey.FindString(printed), "--export", c.Export, "--squash", c.squash()}
	if c.Quota != "" {
		add = append(add, "--create-export", "--quota", c.Quota)
	}
	_, err = g.Command(ctx, "bfsd", add...)
	return err
}

func (c Client) squash() string {
	if c.Squash {
		return "root"
	}
	return "none"
}
