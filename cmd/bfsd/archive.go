// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

// openArchive opens an archive. The file stays open until the second result is called.
func openArchive(name string) (*pbft.Archive, func() error, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	var a *pbft.Archive
	if err == nil {
		a, err = pbft.OpenArchive(f, info.Size())
	}
	if err != nil {
		_ = f.Close() // it was only read
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return a, f.Close, nil
}

// parseRoot reads --root; "" is the zero root.
func parseRoot(text string) (d pbft.Digest, err error) {
	if text == "" {
		return d, nil
	}
	if d, err = config.ParseRoot(text); err != nil {
		err = fmt.Errorf("--root: %w", err)
	}
	return d, err
}
