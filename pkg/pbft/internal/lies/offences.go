// SPDX-License-Identifier: Apache-2.0

package lies

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// An Offence is a way to hinder a group, for measurements. It has a name.
type Offence struct {
	Name, About string
	By          Offender
	Starves     bool // it hinders the client of the lowest number only
	habits      func() Habits
}

// An Offender is the part that has to commit an offence.
type Offender string

// The offenders.
const (
	Client  Offender = "client"
	Backup  Offender = "replica"
	Primary Offender = "primary" // as long as the group keeps its view
)

// Find returns the offence of a name.
func Find(name string) (Offence, error) {
	var names []string
	for _, o := range Offences() {
		if o.Name == name {
			return o, nil
		}
		names = append(names, o.Name)
	}
	return Offence{}, fmt.Errorf("offence: got %q, want one of %s", name, strings.Join(names, ", "))
}

// Teller returns a new Teller with the habits of the offence, off.
func (o Offence) Teller() *Teller { return New(o.habits()) }

// The other replicas that an offence picks out, in a group whose primary is replica 0.
const (
	thePrimary message.ReplicaID = 0
	oneBackup  message.ReplicaID = 2
	another    message.ReplicaID = 3
)

// Offences lists them.
func Offences() []Offence {
	all := []Offence{
		offence("bad-macs", "GETATTRs, each after fifty copies with wrong MACs for all", Client, badMACs),
		offence("bad-macs-one", "GETATTRs with a wrong MAC for one backup, f of four", Client, spoils(another)),
		offence("bad-macs-two", "GETATTRs with wrong MACs for two backups", Client, spoils(oneBackup, another)),
		offence("bad-macs-primary", "GETATTRs with a wrong MAC for the primary", Client, spoils(thePrimary)),
		offence("replays", "an old GETATTR, fifty times before each new one", Client, replay),
		offence("replica-silent", "a backup sends nothing", Backup, func() Habits {
			return Habits{Withhold: func(message.Principal, message.Message) bool { return true }}
		}),
		offence("replica-late", "a backup sends everything 100 ms late", Backup, func() Habits {
			return Habits{Late: 100 * time.Millisecond}
		}),
		offence("replica-bad-macs", "a backup sends wrong MACs only", Backup, func() Habits {
			return Habits{Spoil: func(message.Principal) bool { return true }}
		}),
		offence("replica-status", "STATUS of a replica that lacks all", Backup, floods(status)),
		offence("replica-forwards", "FORWARDs and made-up requests", Backup, forwards),
		offence("replica-fetches", "FETCHes of pages", Backup, floods(fetch)),
		offence("replica-view-changes", "VIEW-CHANGEs for ever higher views", Backup, floods(viewChange)),
		offence("replica-decided", "false DECIDEDs", Backup, floods(decided)),
		offence("replica-checkpoints", "CHECKPOINTs that are stale, or false", Backup, floods(checkpoint)),
	}
	for _, ms := range []int{20, 30, 50, 100, 200, 300} {
		all = append(all, offence(fmt.Sprintf("primary-slow-%d", ms),
			fmt.Sprintf("the primary waits %d ms before each proposal", ms), Primary,
			func() Habits { return Habits{Dawdle: time.Duration(ms) * time.Millisecond} }))
	}
	return append(all,
		Offence{"primary-starves", "the primary holds one client's requests back for 200 ms", Primary, true, starve},
		offence("primary-single", "the primary proposes one request at a time", Primary, single),
		offence("primary-withholds", "the primary keeps its proposals from one backup", Primary, func() Habits {
			return Habits{Withhold: func(to message.Principal, m message.Message) bool {
				_, proposes := m.(*message.PrePrepare)
				return proposes && to.IsReplica() && to.Replica == oneBackup
			}}
		}),
		offence("primary-bad-macs", "the primary sends one backup wrong MACs", Primary, func() Habits {
			return Habits{Spoil: func(to message.Principal) bool { return to.IsReplica() && to.Replica == oneBackup }}
		}),
	)
}

func offence(name, about string, by Offender, habits func() Habits) Offence {
	return Offence{Name: name, About: about, By: by, habits: habits}
}

// spoils makes the MACs of a client's requests wrong for some replicas.
func spoils(replicas ...message.ReplicaID) func() Habits {
	return func() Habits {
		return Habits{Ask: func(q *message.Request) []*message.Request {
			for _, i := range replicas {
				spoil(q, i)
			}
			return nil
		}}
	}
}

func spoil(q *message.Request, i message.ReplicaID) {
	if tag := q.Auth.Tag(i); tag != nil {
		tag[0] ^= 0xff
	}
}

func badMACs() Habits {
	return Habits{Ask: func(q *message.Request) []*message.Request {
		wrong := clone(q)
		for i := range len(q.Auth.Tags) / message.MACSize {
			spoil(wrong, message.ReplicaID(i))
		}
		return copies(wrong)
	}}
}

// clone copies a request whose bytes are its client's.
func clone(q *message.Request) *message.Request {
	kept := *q
	kept.Op, kept.Auth.Tags = slices.Clone(q.Op), slices.Clone(q.Auth.Tags)
	return &kept
}

// again is how often a client sends a request that costs it nothing to make.
const again = 50

func copies(q *message.Request) (all []*message.Request) {
	for range again {
		all = append(all, q)
	}
	return all
}

// replay has a client send its first request again.
func replay() Habits {
	var first *message.Request
	return Habits{Ask: func(q *message.Request) []*message.Request {
		if first == nil {
			first = clone(q)
			return nil
		}
		return copies(first)
	}}
}

// starve holds back the requests of the client that has the lowest number.
func starve() Habits {
	var starved message.ClientID
	return Habits{Hold: func(q *message.Request, later func()) bool {
		if q.Client.Signs() {
			return false
		}
		if starved == 0 || q.Client < starved {
			starved = q.Client
		}
		if q.Client == starved {
			time.AfterFunc(200*time.Millisecond, later)
		}
		return q.Client == starved
	}}
}

// Single gives the protocol the next request when the last one was proposed, or after a while, in
// which the group may have left the view.
const (
	maxHeld    = 4096
	heldAtMost = 5 * time.Millisecond
)

func single() Habits {
	held, proposed := make(chan func(), maxHeld), make(chan struct{}, 1)
	go func() {
		for later := range held {
			later()
			select {
			case <-proposed:
			case <-time.After(heldAtMost):
			}
		}
	}()
	return Habits{
		Hold: func(_ *message.Request, later func()) bool {
			select {
			case held <- later:
			default: // its client sends it again
			}
			return true
		},
		Message: func(m message.Message) message.Message {
			if _, proposes := m.(*message.PrePrepare); proposes {
				select {
				case proposed <- struct{}{}:
				default:
				}
			}
			return m
		},
	}
}
