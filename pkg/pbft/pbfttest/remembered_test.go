package pbfttest

import "testing"

// remembered are seeds that found mistakes, with what they were. A schedule follows from its seed alone, so that these stay
// what they are for as long as nothing is drawn differently.
var remembered = []struct {
	seed uint64
	what string
}{
	{1795352314506119766, "a request that backups had executed tentatively did not count as waiting there, so that nobody left the" +
		" view of a primary that had gone silent before the commit"},
	{1795352314506120049, "the same, with the primary's twins apart"},
	{1795352271066759443, "the same, before anything was stable"},
}

func TestRememberedSeeds(t *testing.T) {
	for _, r := range remembered {
		if o := Draw(r.seed).Run(); o.Err != nil {
			t.Errorf("seed %d, which once showed that %s: %v", r.seed, r.what, o.Err)
		}
	}
}
