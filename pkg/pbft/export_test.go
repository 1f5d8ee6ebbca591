package pbft

// StepDown has a primary leave its view, as it will before a proactive recovery. It reports whether we were one.
func (r *Replica) StepDown() bool {
	r.enter()
	defer r.leave()
	before, _ := r.core.View()
	r.core.StepDown()
	after, _ := r.core.View()
	return after > before
}
