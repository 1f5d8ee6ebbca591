// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"bfs/cmd/internal/bench"
)

// soakN is the number of replicas of a soak, unless --n is given: f is 2, so that a replica may be
// faulty and another one slow.
const soakN = 7

// soak is bfsd bench attack --soak.
func soak(c *cobra.Command, s bench.Soak, asJSON bool) error {
	if !c.Flags().Changed("n") {
		s.N = soakN
	}
	w := c.OutOrStdout()
	if asJSON {
		r, err := s.Run(c.Context(), func(t bench.Turn) error { return json.NewEncoder(w).Encode(t) })
		if err != nil {
			return err
		}
		return json.NewEncoder(w).Encode(r)
	}
	if err := bench.WriteTurnHead(w); err != nil {
		return err
	}
	r, err := s.Run(c.Context(), func(t bench.Turn) error { return bench.WriteTurn(w, t) })
	if err != nil {
		return err
	}
	return bench.WriteSoaked(w, r)
}
