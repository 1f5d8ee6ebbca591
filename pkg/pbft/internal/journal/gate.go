// SPDX-License-Identifier: Apache-2.0

package journal

// A Gate holds back messages that may leave only when a record is durable, in the order in which
// they came.
type Gate[T any] struct {
	held    []held[T]
	durable Position
}

type held[T any] struct {
	after Position // it leaves when the durable position is at least this
	what  T
}

// Opens reports whether a message that relies on all records below a position may leave at once:
// they are durable, and no earlier message waits.
func (g *Gate[T]) Opens(after Position) bool { return len(g.held) == 0 && after <= g.durable }

// Hold keeps a message until all records below a position are durable.
func (g *Gate[T]) Hold(after Position, what T) { g.held = append(g.held, held[T]{after, what}) }

// Release calls leave for each message whose records are durable now.
func (g *Gate[T]) Release(durable Position, leave func(T)) {
	g.durable = max(g.durable, durable)
	n := 0
	for n < len(g.held) && g.held[n].after <= g.durable {
		leave(g.held[n].what)
		n++
	}
	rest := copy(g.held, g.held[n:])
	clear(g.held[rest:])
	g.held = g.held[:rest]
}

// Len is how many messages are held.
func (g *Gate[T]) Len() int { return len(g.held) }
