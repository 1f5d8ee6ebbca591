// SPDX-License-Identifier: Apache-2.0

package pbfttest

import "bfs/pkg/pbft/internal/lies"

// Lie makes each replica that this process starts from now on lie to the others and to clients,
// for good: it votes for batches that nobody proposed, sends checkpoints of states that no
// replica has, and changes results, all with the right MACs. told counts the lies of each kind.
//
// Lie is for demonstrations and tests of a whole group that survives one liar. A process
// that serves files never calls it.
func Lie() (told func() (votes, checkpoints, results uint64)) {
	b := &lies.Byzantine{}
	t := lies.New(b.Habits())
	t.Switch(true)
	lies.Install(t)
	return func() (uint64, uint64, uint64) { return b.Votes.Load(), b.Checkpoints.Load(), b.Results.Load() }
}

// An Offence is a way in which a replica or client hinders its group.
type Offence struct {
	Name, About string
	By          Offender
	Starves     bool // it hinders the client of the lowest number only
}

// An Offender is the part that has to commit an offence.
type Offender = lies.Offender

// The offenders.
const (
	ByClient  = lies.Client
	ByBackup  = lies.Backup
	ByPrimary = lies.Primary // as long as the group keeps its view
)

// Offences lists the offences of replicas and clients.
func Offences() (all []Offence) {
	for _, o := range lies.Offences() {
		all = append(all, Offence{o.Name, o.About, o.By, o.Starves})
	}
	return all
}

// Offend makes each replica and client that this process starts from now on commit an offence
// while it is switched on. It is for measurements, as Lie is for demonstrations.
func Offend(name string) (turn func(on bool), err error) {
	o, err := lies.Find(name)
	if err != nil {
		return nil, err
	}
	t := o.Teller()
	lies.Install(t)
	return t.Switch, nil
}
