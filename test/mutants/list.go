package main

// A mutant is one mistake: old, which occurs once in file, becomes new.
type mutant struct{ name, file, old, new string }

// also has the second half of a mistake that is in two files.
var also = map[string]mutant{
	"what was decided is executed only when its batch comes as asked for": {"", core + "normal.go", "	c.adoptDecision(s)\n}", "}"},
}

// unit has the packages whose own tests must notice what the simulator cannot: there are no files in it.
var unit = map[string]string{
	"a page takes the digest of a block that it is not":             "./pkg/nfsstate",
	"what pads the data is not reckoned with":                       "./pkg/nfsstate",
	"a page takes the digest of the block before":                   "./pkg/nfsstate",
	"an operation that was altered keeps the digests of its blocks": "./pkg/pbft/internal/message",
	"an operation that is set anew keeps the digests of its blocks": "./pkg/pbft/internal/message",
	"what is hashed of a long operation is its blocks only":         "./pkg/pbft/internal/message",
}

var mutants = []mutant{
	// Certificates.
	{"prepared with 2f-1 PREPAREs", core + "log.go", "matching(s.proposal.Digest) >= 2*f", "matching(s.proposal.Digest) >= 2*f-1"},
	{"committed with 2f COMMITs", core + "log.go", "s.commits.count() >= 2*f+1", "s.commits.count() >= 2*f"},
	{"PREPAREs count whatever their digest", core + "log.go", "return s.proposal != nil && s.prepares.matching(s.proposal.Digest) >= 2*f", "return s.proposal != nil && s.prepares.count() >= 2*f"},
	{"the primary's PREPARE counts", core + "normal.go", "if p.From == p.View.Primary(c.cfg.Replicas) {", "if false {"},
	{"a COMMIT before it has prepared", core + "normal.go", "newly := !s.isPrepared && s.prepared(c.f)", "newly := !s.isPrepared && s.prepares.matching(s.proposal.Digest) >= c.f"},

	// The rule by which replies are believed.
	{"a result is believed that f vouch for", call, "v.result >= 0 && bits.OnesCount32(by.told) > f {", "v.result >= 0 && bits.OnesCount32(by.told) >= f {"},
	{"who vouches need not stand on the ground", call, "		told := y.result != untold\n		if y.committed {", "		told := y.result != untold\n		if told {\n			committed.told |= 1 << i\n			prepared.told |= 1 << i\n		}\n		if y.committed {"},
	{"2f equal replies are enough", call, "	quorum, heard := 2*f+1,", "	quorum, heard := 2*f,"},
	{"what was prepared in one view and in another is one ground", call, "if x.seq != 0 && y.seq == x.seq && y.prepared == x.prepared {", "if x.seq != 0 && y.seq == x.seq {"},
	{"what has committed and what was prepared is one ground", call, "		if y.committed {\n", "		if y.committed || y.seq != 0 {\n"},
	{"reads of different versions are counted together", call, "return v.outcome == w.outcome && v.version == w.version && v.length == w.length && (v.result", "return v.outcome == w.outcome && v.length == w.length && (v.result"},
	{"a replica's earlier ground is kept for another result", call, "if !fresh && t.Has(m.From) && old.alike(&v) {", "if !fresh && t.Has(m.From) {"},

	// Execution.
	{"a request is executed as often as it is ordered", runs, "	case r.Timestamp <= last.Timestamp:\n		return Answer{Outcome: message.Superseded", "	case r.Timestamp < 0:\n		return Answer{Outcome: message.Superseded"},
	{"the version of a read is the checkpoint", runs, "return max(changed, x.administered, x.checkpoint)", "return x.checkpoint"},
	{"the version of a read is the last batch but one", runs, "	changed := x.last\n	if x.versions != nil {\n		changed = x.versions.Observed()\n	}", "	if x.versions != nil {\n		x.versions.Observed()\n	}\n	changed := max(x.last, 1) - 1"},
	{"versions outlive a rollback", runs, "x.last, x.checkpoint, x.administered = n, n, 0", "x.last, x.administered = n, 0"},
	{"a client that was revoked is served", runs, "	account, ok := x.ledger.Account(r.Client)\n	if !ok {\n		return Answer{Outcome: message.NotEnrolled}, false\n	}\n	if a, seen", "	account, _ := x.ledger.Account(r.Client)\n	if a, seen"},

	// Proposals.
	{"a PRE-PREPARE from anyone", core + "normal.go", "if p.From != p.View.Primary(c.cfg.Replicas) {\n		return NotFromPrimary\n	}\n	if why", "if why"},
	{"a second PRE-PREPARE replaces the first", core + "normal.go", "s.proposal != nil, s.held != nil", "s.held != nil"},
	{"a PRE-PREPARE against what the NEW-VIEW chose", core + "normal.go", "case !s.chosen.IsZero() && s.chosen != p.Digest, s.proposal", "case s.proposal"},
	{"a PRE-PREPARE while the view is not active", core + "normal.go", "	case !c.active:\n		return ViewNotActive\n", ""},
	{"votes of earlier views count", core + "normal.go", "	case v < c.view:\n		return EarlierView\n	case v > c.view:", "	case v > c.view:"},
	{"votes of later views count", core + "normal.go", "	case v > c.view:\n		c.noticeLag()\n		return LaterView\n	case n <=", "	case n <="},
	{"requests need no MAC", core + "normal.go", "		if !r.Authentic && !c.queue.holds(r) && c.wait.forwards(r) < c.weak() {\n			return false", "		if r == nil {\n			return false"},
	{"one PREPARE vouches for a request", core + "normal.go", "s.prepares.matching(s.held.Digest) >= c.f && c.f > 0", "s.prepares.count() >= 1"},
	{"f FORWARDs make a request authentic", core + "waiting.go", "if c.wait.forwards(r) < c.weak() {", "if c.wait.forwards(r) < c.f {"},
	{"an unreasonable choice is accepted", core + "normal.go", "	if !ok {\n		c.log.bytes", "	if false {\n		c.log.bytes"},

	// Long operations that come apart.
	{"a vote without the operations", core + "normal.go", "	case !c.fill(&s.held.Batch):\n", "	case false:\n"},
	{"an operation is taken for another of its length", noun + "request.go", " || from.operation() != m.hash {", " {"},
	{"a batch that lacks operations is served", core + "newview.go", " && s.held.Batch.Complete():", ":"},
	{"blocks have their digests in another order", noun + "operation.go", "keep[i] = block", "keep[len(keep)-1-i] = block"},
	{"blocks are cut from the front", noun + "operation.go", "op[head+i*blockhash.Size:]", "op[i*blockhash.Size:]"},
	{"an operation that was altered keeps the digests of its blocks", noun + "request.go", "m.hash, m.blocks = Digest{}, nil }", "m.hash = Digest{} }"},
	{"an operation that is set anew keeps the digests of its blocks", noun + "request.go", "m.Op, m.hash, m.blocks, m.absent = op, d, nil, 0 }", "m.Op, m.hash, m.absent = op, d, 0 }"},
	{"a stub that is filled keeps no digests", noun + "request.go", "m.Op, m.blocks, m.absent = from.Op, from.blocks, 0", "m.Op, m.absent = from.Op, 0"},
	{"what is hashed of a long operation is its blocks only", noun + "operation.go", "	h.Write(op[:head])\n", ""},
	{"a page takes the digest of a block that it is not", file + "service.go", "fromEnd%pageSize == 0 && 0 < n", "0 < n"},
	{"a page takes the digest of the block before", file + "service.go", "return c.blocks[len(c.blocks)-n], true", "return c.blocks[max(len(c.blocks)-n-1, 0)], true"},
	{"what pads the data is not reckoned with", file + "data.go", "c.block(len(data) + a.Behind())", "c.block(len(data))"},
	{"the digest of a long operation stands for nothing", noun + "request.go", "	d := m.operation()\n", "	d := Digest{1}\n	m.operation()\n"},

	// Leaving a view.
	{"P forgets earlier views", core + "viewchange.go", "	c.carry()\n", "	clear(c.prepared)\n	c.carry()\n"},
	{"P is cleared on entering a view", core + "newview.go", "	c.active = true\n", "	c.active = true\n	clear(c.prepared)\n"},
	{"Q is cleared on entering a view", core + "newview.go", "	c.active = true\n", "	c.active = true\n	clear(c.preprepared)\n"},
	{"P keeps what prepared first", core + "viewchange.go", "			c.prepared[n] = entry\n", "			if _, ok := c.prepared[n]; !ok {\n				c.prepared[n] = entry\n			}\n"},
	{"P does not know what prepared", core + "viewchange.go", "		if s.isPrepared {\n			c.prepared[n]", "		if s.isCommitted {\n			c.prepared[n]"},
	{"Q holds only what prepared", core + "viewchange.go", "if c.isPrimary() || s.isPrepared || s.prepares.has(c.cfg.Self) {", "if s.isPrepared {"},
	{"the log outlives its view", core + "viewchange.go", "	c.log.clear()\n", ""},
	{"C lacks the stable checkpoint", core + "viewchange.go", "	if c.stable.Seq == c.log.low {\n", "	if false {\n"},
	{"C may not hold the stable checkpoint, as Fig. 23 is printed", core + "viewchange.go", "k.Seq != m.Low && !in(k.Seq)", "!in(k.Seq)"},
	{"Q may not reach above the window", core + "viewchange.go", "!in(q.Seq) && !in(q.Seq-c.cfg.LogSize)", "!in(q.Seq)"},
	{"the primary vouches for what it relays", core + "viewchange.go", "from != j && from != c.primary() && from", "from != j && from"},
	{"what was proposed is not proposed again in the next view", core + "queue.go", "		clear(l.proposed)\n", ""},
	{"views are joined only by 2f+1", core + "viewchange.go", "	if len(views) < c.weak() {\n		return 0\n	}\n	slices.Sort(views)\n	return views[len(views)-c.weak()]", "	if len(views) < c.quorum() {\n		return 0\n	}\n	slices.Sort(views)\n	return views[len(views)-c.quorum()]"},

	// The decision procedure.
	{"A1 holds with f+1", core + "newview.go", "return a1 >= d.c.quorum() && d", "return a1 >= d.c.weak() && d"},
	{"A1 does not look at views", core + "newview.go", "!has || q.View < p.View || q.View == p.View && q.Digest == p.Digest)", "!has || q.Seq > 0)"},
	{"A2 holds with one", core + "newview.go", "m.Q[i].View >= p.View\n	}) >= d.c.weak()", "m.Q[i].View >= p.View\n	}) >= 1"},
	{"A2 is not asked", core + "newview.go", " && d.witnessed(p)\n}", "\n}"},
	{"A2 takes any view", core + "newview.go", "has && m.Q[i].View >= p.View", "has && i >= 0"},
	{"A is barred for null", core + "newview.go", "		if !ok || !d.holds(p) {", "		if !ok || p.Digest == message.NullDigest || !d.holds(p) {"},
	{"B holds with f+1", core + "newview.go", "		return m.Low < n && !has\n	}) >= d.c.quorum()", "		return m.Low < n && !has\n	}) >= d.c.weak()"},
	{"B counts those who have collected n", core + "newview.go", "		return m.Low < n && !has\n", "		return !has\n"},
	{"B before A", core + "newview.go", "		digest, ok := d.candidate(n)\n		if ok {", "		digest, ok := d.candidate(n)\n		if ok && !(n%2 == 0) {"},
	{"a checkpoint that one holds", core + "newview.go", "reach >= d.c.quorum() && hold >= d.c.weak()", "reach >= d.c.quorum() && hold >= 1"},
	{"A1 counts those who have collected n", core + "newview.go", "return m.Low < p.Seq && (!has", "return (!has"},
	{"S is frozen at 2f+1", core + "newview.go", "	d := decision{c, set}\n	start", "	if len(set) > c.quorum() {\n		return\n	}\n	d := decision{c, set}\n	start"},
	{"a NEW-VIEW is believed", core + "newview.go", "	if !(decision{c, set}).justified(m) {", "	if false {"},
	{"the end of X is not checked", core + "newview.go", "			if !d.empty(n) {\n				return false\n			}\n			continue", "			continue"},
	{"null is always justified", core + "newview.go", "if !prepared && !(digest == message.NullDigest && d.empty(n)) {", "if !prepared && digest != message.NullDigest {"},
	{"relayed VIEW-CHANGEs need no acks", core + "newview.go", "if m := x.relayed[j]; m != nil && c.vouchers(j, d) >= c.f {", "if m := x.relayed[j]; m != nil {"},
	{"a view begins as if the state it begins from were here", core + "newview.go", "		c.fetchState(start)\n		return true\n	}\n	root", "		c.lastExec = start.Seq\n		return true\n	}\n	root"},
	{"who has left says of a checkpoint what his VIEW-CHANGE does not", core + "checkpoint.go", "	if c.silent() || c.active {\n		return c.active && !c.silent()\n	}", "	if c.active || !c.silent() {\n		return !c.silent()\n	}"},
	{"the new primary does not fetch what it must choose", core + "newview.go", "if x := &c.change; !c.active && c.isPrimary() && x.newView == nil {", "if x := &c.change; false {"},
	{"batches decided are not fetched", core + "catchup.go", "	c.pulling = false\n	if c.log.told", "	if c.pulling {\n		return\n	}\n	if c.log.told"},

	// Checkpoints and transfer.
	{"DECIDED from one", core + "newview.go", "	d, ok := s.decided.with(c.weak())\n	if !ok {", "	d, ok := s.decided.with(1)\n	if !ok {"},
	{"DECIDED from one, if its batch is here or can be had", core + "catchup.go", "		d, decided := s.decided.with(c.weak())\n", "		d, decided := s.decided.with(1)\n"},
	{"what is past is told under the next number", core + "catchup.go", "Decided{Seq: n, Digest: p.entry(n).digest", "Decided{Seq: n, Digest: p.entry(min(n+1, p.high)).digest"},
	{"what was proposed counts as decided when it is past", core + "log.go", "		if s.isCommitted {\n			l.past.add(n, pastBatch{s.decision, s.batch, s.batch.Bytes()})", "		if s.proposal != nil {\n			l.past.add(n, pastBatch{s.proposal.Digest, &s.proposal.Batch, s.size})"},
	{"f+1 others who have a checkpoint make it stable", core + "transfer.go", "c.claimants(k, false) >= c.quorum()", "c.claimants(k, false) >= c.weak()"},
	{"a checkpoint is stable if one says so", core + "transfer.go", "return c.claimants(k, true) >= c.weak()", "return c.claimants(k, true) >= 1"},
	{"no DECIDED is sent", core + "status.go", "if s.isCommitted && s.seq <= c.lastExec {", "if false {"},
	{"a checkpoint one claims is fetched", core + "transfer.go", "!stable && c.claimants(id, false) >= c.weak()", "!stable && c.claimants(id, false) >= 1"},
	{"execution does not wait for its turn", core + "execute.go", "		if !s.isCommitted {\n			c.executeTentatively(s)\n			return\n		}\n", "		if s.batch == nil && s.proposal == nil {\n			return\n		}\n		if s.batch == nil {\n			s.batch, s.decision = &s.proposal.Batch, s.proposal.Digest\n		}\n"},
	{"no checkpoint is taken", core + "execute.go", "	if c.isDue(s.seq, c.since) {\n		c.kept", "	if false {\n		c.kept"},
	{"bytes before a checkpoint count for the next", core + "execute.go", "		c.kept, c.since = s.seq, 0\n", "		c.kept = s.seq\n"},
	{"bytes before a fetched state count for the next checkpoint", core + "transfer.go", "c.ahead, c.kept, c.since = tentative{}, t.seq, 0 //", "c.ahead, c.kept = tentative{}, t.seq //"},
	{"checkpoints keep old slots", core + "log.go", "		s.reset(n + size)\n", "		s.seq = n + size\n"},
	{"a checkpoint is stable without our own state", core + "checkpoint.go", "	if !k.ours || k.seq <= c.log.low {", "	if k.seq <= c.log.low {"},
	{"the state fetched is not the state executed", core + "transfer.go", "	c.lastExec, c.progress = t.seq, c.tick\n", "	c.lastExec, c.progress = max(c.lastExec, t.seq-1), c.tick\n"},

	// Tentative execution.
	{"what was executed tentatively is never taken back", core + "execute.go", "	if a.digest == s.decision {\n		c.do(Effect{Verb: Confirm", "	if true {\n		c.do(Effect{Verb: Confirm"},
	{"a tentative execution is taken for a committed one", core + "execute.go", "	c.execute(s.seq, c.ahead.batch, Standing{c.view, s.seq, true})\n", "	c.execute(s.seq, c.ahead.batch, Standing{c.view, s.seq, false})\n"},
	{"an answer to a read is taken for committed", core + "execute.go", "		return Standing{c.ahead.view, version, true}\n", "		return Standing{View: c.view}\n"},
	{"a read may stand on what prepared as another batch", core + "execute.go", "	if s.isPrepared && !c.silent() && s.proposal.Digest == s.decision {", "	if s.isPrepared && !c.silent() {"},
	{"COMMITs held back outlive their view", core + "viewchange.go", "	c.held = heldCommits{}\n", ""},

	// Forgetting.
	{"the fence is not raised", core + "silence.go", "	if n > c.fence {\n", "	if false {\n"},
	{"a view does not raise the fence", core + "silence.go", "	if n <= c.fence && c.view <= c.fencedView {\n", "	if n <= c.fence {\n"},
	{"leaving a view is no promise", core + "viewchange.go", "	c.promise(max(c.lastExec, c.log.low))\n", ""},
	{"a COMMIT does not raise the fence", core + "normal.go", "		c.promise(s.seq)\n		c.sayCommit(s)", "		c.sayCommit(s)"},
	{"a NEW-VIEW does not raise the fence", core + "newview.go", "	c.promise(m.Checkpoint.Seq + message.SeqNum(len(m.Chosen))) // it", "	// it"},
	{"an execution is no promise", core + "execute.go", "	if !c.silent() {\n		c.promise(n)\n	}\n	c.do(Effect{Verb: Execute", "	c.do(Effect{Verb: Execute"},
	{"a fetched state is no promise", core + "transfer.go", "		c.promise(t.seq) // answers", "		// answers"},
	{"what was executed in a silence is no promise", core + "silence.go", "	c.promise(c.lastExec) // clients", "	// clients"},
	{"who forgot votes at once", core + "silence.go", "func (c *Core) silent() bool { return c.stable.Seq < c.cfg.Fence }", "func (c *Core) silent() bool { return false }"},
	{"a silence ends when the window has moved", core + "silence.go", "return c.stable.Seq < c.cfg.Fence }", "return c.log.low < c.cfg.Fence }"},
	{"a silent replica tells which checkpoints it holds", core + "checkpoint.go", "	if c.silent() || c.active {\n		return c.active && !c.silent()\n	}", "	if c.active {\n		return true\n	}"},
	{"a silent replica answers", core + "execute.go", "Standing: st, Mute: c.silent()})", "Standing: st})"},
	{"a silent replica reads", core + "normal.go", "	case r.ReadOnly && c.silent():\n		c.refuse(r, Silent)\n		return\n", ""},
	{"a VIEW-CHANGE of a silence is sent after it", core + "viewchange.go", "	x.own, x.last[c.cfg.Self] = nil, nil\n	if !c.silent() {", "	x.own = c.makeViewChange()\n	x.last[c.cfg.Self], x.digests[c.cfg.Self] = x.own, x.own.Digest()\n	if !c.silent() {"},
	{"who comes out of a silence leaves for a view again", core + "silence.go", "	leaves := !c.active && c.view > c.fencedView\n", "	leaves := !c.active\n"},
	{"nothing is said of what prepared in a silence", core + "normal.go", "	if s.isPrepared && !c.silent() && s.commits", "	if newly && !c.silent() && s.commits"},
	{"an idle group leaves a silence as it is", core + "silence.go", "	c.assign(message.Batch{})\n", ""},

	// Waiting: mistakes that were made, and found by the simulator.
	{"a replica ahead is left alone", core + "status.go", "	if m.View > c.view {\n		c.noticeLag()", "	if m.View > c.view {\n		return\n	}\n	if false {\n		c.noticeLag()"},
	{"the primary does not say that it waits", core + "waiting.go", "	case c.active && c.isPrimary() && c.wait.forwards(r) == 0:", "	case c.active && c.isPrimary():"},
	{"the primary of a view that has not begun does not say that it waits", core + "waiting.go", "	case c.active && c.isPrimary() && c.wait.forwards(r) == 0:", "	case c.isPrimary() && c.wait.forwards(r) == 0:"},
	{"the primary has no timer", core + "waiting.go", "	w := &c.wait\n	if w.on && c.queue", "	w := &c.wait\n	if c.isPrimary() || w.on && c.queue"},
	{"who has executed does not answer FORWARDs", core + "waiting.go", "	if c.wasDone(key, said) {", "	if false {"},
	{"what waited is proposed without FORWARDs", core + "queue.go", "			l.doubt[s] = r != nil\n", "			if l.doubt[s] = false; r != nil {\n				q.offer(l, r)\n			}\n"},
	{"P outlives a stable checkpoint", core + "checkpoint.go", "		if old <= n {\n			delete(c.prepared", "		if false {\n			delete(c.prepared"},
	{"Q outlives a stable checkpoint", core + "checkpoint.go", "		if old <= n {\n			delete(c.preprepared", "		if false {\n			delete(c.preprepared"},
	{"a primary forgets what it chose above its window", core + "newview.go", "n > c.log.low {\n			c.witness", "n > c.log.low && n <= c.log.high {\n			c.witness"},
	{"a primary forgets what it chose when the view does not begin here", core + "newview.go", "n > c.log.low {\n			c.witness", "n > c.log.high {\n			c.witness"},
	{"who votes for a checkpoint fetched from above the window cannot name it", core + "transfer.go", "		c.slide(k.Seq - c.cfg.LogSize)\n	}\n	c.sayCheckpoint", "	}\n	c.sayCheckpoint"},
	{"a view that begins far above the window does not move it", core + "newview.go", "		c.slide(start.Seq - size)\n", ""},
	{"what was executed tentatively does not wait", core + "waiting.go", "		if at := l.arrived[r.Slot]; (oldest", "		if st, _ := c.Standing(r); st.Tentative {\n			return true\n		}\n		if at := l.arrived[r.Slot]; (oldest"},
	{"what was executed again is tentative again", core + "execute.go", " && !slices.Contains(c.ahead.again, i) {", " && i >= 0 {"},
	{"who has forgotten his VIEW-CHANGE does not wait for the view", core + "waiting.go", "	n := 1 // we have", "	n := 0\n	if c.change.own != nil {\n		n = 1\n	} // we have"},
	{"what was decided is executed only when its batch comes as asked for", core + "catchup.go", "if b := c.body(d); b != nil { // it has come as something else", "if b := c.wait.bodies[d]; b != nil {"},
	{"what committed is forgotten with its view", core + "log.go", "		s.isCommitted, s.decision, s.batch, s.decided.have, s.pull = committed, decision, batch, decided, pull\n", "		_, _, _, _, _ = committed, decision, batch, decided, pull\n"},
	{"the view that was left is forgotten by a restart", core + "core.go", "		view:        cfg.FenceView,\n", ""},
	{"only certain checkpoints are fetched", core + "transfer.go", "		if k, ok := c.claimed(c.lastExec, false); ok {", "		if k, ok := c.claimed(c.lastExec, true); ok {"},
}
