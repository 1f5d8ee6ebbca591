// SPDX-License-Identifier: Apache-2.0

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// withKeeper adds lines to the replica's file of a directory.
func withKeeper(t *testing.T, dir, lines string) string {
	t.Helper()
	file := filepath.Join(dir, "replica.toml")
	if err := os.WriteFile(file, []byte(goodReplica+lines), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A replica whose keeper has the key does not read it; the keeper does.
func TestKeeper(t *testing.T) {
	dir := write(t)
	file := withKeeper(t, dir, "keeper = \"keeper.sock\"\nkeeper_copy = \"copy\"\nmanifest = "+
		"\"m\"\nrecovery_period = \"20m\"\n")
	k, err := LoadKeeper(file)
	if err != nil {
		t.Fatal(err)
	}
	if !k.Key.Equal(testKey(2)) || k.Keeper != filepath.Join(dir, "keeper.sock") ||
		k.Own != filepath.Join(dir, "keeper") ||
		k.Copy != filepath.Join(dir, "copy") || k.Manifest != filepath.Join(dir, "m") ||
		k.Period != 20*time.Minute || k.User.Other {
		t.Errorf("got %+v", k)
	}
	if err := os.Remove(filepath.Join(dir, "identity.key")); err != nil {
		t.Fatal(err)
	}
	if r, err := LoadReplica(file); err != nil || r.Key != nil || r.Keeper != k.Keeper {
		t.Errorf("the replica: got %+v, %v", r, err)
	}
	if _, err := LoadKeeper(file); err == nil {
		t.Error("a keeper without a key")
	}
	dir = write(t)
	k, err = LoadKeeper(withKeeper(t, dir, "keeper = \"s\"\nrecovery_period = \"0s\"\n"))
	if err != nil || k.Period != 0 || k.Copy != k.Own || k.Manifest != "" {
		t.Errorf("got %+v, %v", k, err)
	}
}

func TestKeeperErrors(t *testing.T) {
	for lines, want := range map[string]string{
		"":                          ":1: keeper: empty: want the path",
		"keeper = 1\n":              ":11: keeper: got a value of type integer",
		"keeper = \"s\"\nkeper=1\n": ":12: keper: unknown key",
		"keeper = \"s\"\nkeeper_directory = \"\"\n": ":12: keeper_directory: empty",
		"keeper = \"s\"\nrecovery_period = \"1ms\"\n": ":12: recovery_period: got 1ms, " +
			"want 0 (never) or at least 1s",
		"keeper = \"s\"\nrecovery_period = \"soon\"\n": ":12: recovery_period: got \"soon\", want a duration",
		"keeper = \"s\"\nkeeper_user = \"nobody of us 49\"\n": ":12: keeper_user: got \"nobody of us " +
			"49\", want a user of this machine",
	} {
		file := withKeeper(t, write(t), lines)
		if _, err := LoadKeeper(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", lines, err, want)
		}
	}
}
