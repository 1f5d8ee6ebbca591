package transport

import (
	"crypto/tls"
	"io"
)

type tlsReader struct{ io.Reader }

// seal turns what is released of out into TLS records on wire.
func (c *Conn) seal() error { return nil }

var _ = tls.VersionTLS13
