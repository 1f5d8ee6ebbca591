// SPDX-License-Identifier: Apache-2.0

package guest

// A Wire is a guest's link to this machine, made before the guest and kept when the guest
// has ended. Guests that boot on one wire, one after the other, have one address, as a
// host keeps its address over a power cut.
type Wire struct {
	link *link
	mtu  int
}

// NewWire makes a wire in our network namespace. The caller must call Remove.
func NewWire() (*Wire, error) {
	l, err := newLink("", defaultMTU, false)
	if err != nil {
		return nil, err
	}
	return &Wire{l, defaultMTU}, nil
}

// Address returns the guest's address.
func (w *Wire) Address() string { return w.link.guestAddr }

// Remove removes the wire, whose last guest must have ended.
func (w *Wire) Remove() { w.link.remove() }
