// SPDX-License-Identifier: Apache-2.0

// Package admin serves a process's account of itself over HTTP: /status as JSON, /livez
// and /readyz for supervisors, /metrics for Prometheus. It answers questions only;
// nothing can be changed through it.
package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Sources supply the contents of the pages. They are called from any goroutine.
type Sources struct {
	Status  func() any
	Live    func() error      // an error says why the process must be restarted; nil: it lives as long as it answers
	Health  func() error      // an error says why it is of no use just now, as /readyz and /healthz tell
	Metrics func(w io.Writer) // the process's own; those of Go and the process are added
	Help    map[string]string // an explanation of each family of metrics
}

// A Server answers until it is closed.
type Server struct {
	http   *http.Server
	listen net.Listener
	done   chan struct{}
}

// Serve listens on address and answers from s. An empty address serves nowhere.
func Serve(address string, s Sources) (*Server, error) {
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	a := &Server{
		http: &http.Server{
			Handler:           s.handler(),
			ConnState:         newCrowd(maxConnections).changed,
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       10 * time.Second,
			MaxHeaderBytes:    8 << 10,
		},
		listen: l,
		done:   make(chan struct{}),
	}
	go func() {
		defer close(a.done)
		_ = a.http.Serve(a.listen) // ends by Close only
	}()
	return a, nil
}

// Address is where it listens, "" if nowhere.
func (a *Server) Address() string {
	if a == nil {
		return ""
	}
	return a.listen.Addr().String()
}

// Close stops the server and waits for its goroutine.
func (a *Server) Close(ctx context.Context) error {
	if a == nil {
		return nil
	}
	err := a.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.http.Close())
	}
	<-a.done
	return err
}

func (s Sources) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(s.Status()) // the asker went away
	})
	mux.HandleFunc("GET /livez", answer(s.Live))
	mux.HandleFunc("GET /readyz", answer(s.Health))
	mux.HandleFunc("GET /healthz", answer(s.Health))
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		var samples bytes.Buffer
		s.Metrics(&samples)
		metrics.WriteProcessMetrics(&samples)
		metrics.WriteFDMetrics(&samples)
		writeFamilies(w, samples.Bytes(), s.Help)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "/status\n/livez\n/readyz\n/healthz\n/metrics")
	})
	return mux
}

// answer says ok, or why not.
func answer(ask func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if ask != nil {
			if err := ask(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	}
}
