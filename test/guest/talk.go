// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// asks answers the questions of a guest's script, one line each way on a connection of its own.
type asks struct {
	listener net.Listener
	answer   Answer
}

func listenForAsks(netns, host string, answer Answer) (*asks, error) {
	l, err := listenIn(netns, net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen for the script's questions: %w", err)
	}
	a := &asks{l, answer}
	go a.serve()
	return a, nil
}

func (a *asks) port() int { return a.listener.Addr().(*net.TCPAddr).Port }

func (a *asks) close() { a.listener.Close() }

func (a *asks) serve() {
	for {
		c, err := a.listener.Accept()
		if err != nil {
			return
		}
		go a.one(c)
	}
}

func (a *asks) one(c net.Conn) {
	defer c.Close()
	question, err := bufio.NewReader(io.LimitReader(c, 4096)).ReadString('\n')
	if err != nil {
		return
	}
	reply, err := "", errors.New("nobody answers questions here")
	if a.answer != nil {
		reply, err = a.answer(strings.TrimSpace(question))
	}
	if err != nil {
		fmt.Fprintf(c, "err %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	fmt.Fprintf(c, "ok %s\n", reply)
}

// tail reads a file while another kernel appends to it. That kernel's writes raise no event here,
// so tail looks often. The times at which it looks do not matter, because stop reads to the end.
type tail struct {
	mu   sync.Mutex
	file *os.File
	all  bytes.Buffer
	to   io.Writer
	quit chan struct{}
	done chan struct{}
}

const tailEvery = 100 * time.Millisecond

func follow(path string, to io.Writer) (*tail, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	t := &tail{file: f, to: to, quit: make(chan struct{}), done: make(chan struct{})}
	go t.loop()
	return t, nil
}

func (t *tail) loop() {
	defer close(t.done)
	tick := time.NewTicker(tailEvery)
	defer tick.Stop()
	for {
		select {
		case <-t.quit:
			return
		case <-tick.C:
			t.read()
		}
	}
}

func (t *tail) read() {
	t.mu.Lock()
	defer t.mu.Unlock()
	more, _ := io.ReadAll(t.file)
	t.put(more)
}

func (t *tail) put(more []byte) {
	t.all.Write(more)
	if t.to != nil && len(more) > 0 {
		_, _ = t.to.Write(more)
	}
}

// note adds a line of this package, such as the reason of a kill, to the output.
func (t *tail) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.put([]byte(fmt.Sprintf(format+"\n", args...)))
}

// stop reads the rest of the file and returns all output.
func (t *tail) stop() string {
	close(t.quit)
	<-t.done
	t.read()
	t.file.Close()
	return t.all.String()
}
