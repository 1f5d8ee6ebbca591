package pbfttest

import "testing"

// remembered are seeds that found mistakes, or would have, with what these were. A schedule follows from its seed alone, so
// that these stay what they are for as long as nothing is drawn differently; a change of Draw must find them anew, with the
// mistake put back.
var remembered = []struct {
	seed uint64
	what string
}{
	{2844, "a request that backups had executed tentatively did not count as waiting there, so that nobody left the view of a" +
		" primary that had gone silent before the commit"},
	{4342, "the same, with seven replicas"},
	{1795359242436219922, "a batch that f+1 said was decided, and that came later as a proposal and not as what was asked for, was never" +
		" executed by a replica that may not vote"},
	{1795359242436221882, "a primary that held the checkpoint its view began from, fetched and far above its window, lost from Q what" +
		" it chose above twice its window"},
	{1795360721062607844, "a replica voted for a checkpoint that it had fetched from far above its window, and could not name it in its" +
		" VIEW-CHANGE, so that no checkpoint was left for a view to begin from"},
	{1795356540696269469, "a replica that had forgotten its VIEW-CHANGE did not count itself among those who wait for the view, and" +
		" never left it: with another one silent nobody could go on"},
}

func TestRememberedSeeds(t *testing.T) {
	for _, r := range remembered {
		if o := Draw(r.seed).Run(); o.Err != nil {
			t.Errorf("seed %d, which once showed that %s: %v", r.seed, r.what, o.Err)
		}
	}
}
