// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"errors"
	"fmt"
	"os"

	"bfs/cmd/internal/manifest"
	"bfs/cmd/internal/trust"
)

// errExecutable is the refusal to start an executable.
var errExecutable = errors.New("not started")

// openChecked opens the program if it may be started: the administrator's manifest allows
// it, and the manifest is not older than one that was taken before.
func (w *Watch) openChecked() (*os.File, error) {
	f, err := w.judge()
	w.account.checked(w.Config.Manifest, err)
	return f, err
}

func (w *Watch) judge() (*os.File, error) {
	if w.Config.Manifest == "" {
		return os.Open(w.Program)
	}
	m, err := w.takeManifest()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errExecutable, err)
	}
	f, err := trust.OpenOwned(w.Program) // no other user may change it between here and its start
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errExecutable, err)
	}
	d, err := manifest.Of(f)
	if err == nil && !m.Allows(d) {
		err = fmt.Errorf("%w: %s has digest %x, which manifest %s (serial %d) does not allow. If this "+
			"program is an upgrade, put there a manifest that names it: bfsd manifest sign. If not, put back "+
			"the program that the manifest names, and look for an intruder", errExecutable, w.Program, d,
			w.Config.Manifest, m.Serial)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// takeManifest reads the manifest. Its serial number is remembered before anything is
// started by it.
func (w *Watch) takeManifest() (*manifest.Manifest, error) {
	c := w.Config
	m, err := manifest.Read(c.Manifest, c.Group.Administrator, c.Group.Digest())
	if err != nil {
		return nil, err
	}
	if err := w.TakeSerial(m.Serial); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", c.Manifest, err)
	}
	return m, nil
}
