package pbft

// StepDown has a primary leave its view, as it will before a proactive recovery.
func (r *Replica) StepDown() {
	r.enter()
	r.core.StepDown()
	r.leave()
}
