package soak

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"parley.internal/shared/retry"
)

// network makes links and closes them at the end. Its methods are safe for concurrent use.
type network struct {
	mu    sync.Mutex // guards links
	links []*link
}

// link opens a link to an address (host:port).
func (n *network) link(to string) (*link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("link to %s: %w", to, err)
	}
	l := &link{addr: listener.Addr().String(), to: to, listener: listener, open: map[net.Conn]bool{}}
	l.running.Go(l.accept)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links = append(n.links, l)
	return l, nil
}

// close closes every link.
func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.close()
	}
}

// link forwards TCP connections from its own address to another address, and can be cut. Its methods are safe for
// concurrent use.
//
// Toxiproxy (https://github.com/Shopify/toxiproxy) is not used: adding or removing a toxic while a connection breaks can
// block forever (https://github.com/Shopify/toxiproxy/issues/558).
type link struct {
	addr     string // the link's own address, host:port
	to       string
	listener net.Listener
	running  sync.WaitGroup // accept, and every forwarded connection

	mu       sync.Mutex        // guards the fields below
	open     map[net.Conn]bool // both ends of every forwarded connection
	refusing bool              // no connection is forwarded
	closed   bool              // for good
	dropping bool              // connections stay open, and their data disappears
}

// accept forwards connections until the listener is closed.
func (l *link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.forward(client) })
	}
}

// forward connects a client to the other address, and copies in both directions until both have ended.
func (l *link) forward(client net.Conn) {
	defer l.release(client)
	if !l.keep(client) {
		return
	}
	server, err := net.DialTimeout("tcp", l.to, startTime)
	if err != nil {
		return
	}
	defer l.release(server)
	if !l.keep(server) {
		return
	}
	var directions sync.WaitGroup
	directions.Go(func() { l.copy(server, client) })
	directions.Go(func() { l.copy(client, server) })
	directions.Wait()
}

// keep remembers an end of a connection, so that a cut can close the end. It returns false if the link refuses connections.
func (l *link) keep(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refusing {
		return false
	}
	l.open[conn] = true
	return true
}

// release closes an end of a connection and forgets the end.
func (l *link) release(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn.Close()
	delete(l.open, conn)
}

// copy forwards one direction of a connection. The end of the data is forwarded too; the other direction goes on.
func (l *link) copy(to, from net.Conn) {
	if _, err := io.Copy(gate{to, l}, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	if c, ok := to.(*net.TCPConn); ok {
		c.CloseWrite() // fails if the connection is closed already
	}
}

// gate is the writing side of a connection. It drops the data while the link is cut silently.
type gate struct {
	io.Writer
	link *link
}

func (g gate) Write(p []byte) (int, error) {
	g.link.mu.Lock()
	dropping := g.link.dropping
	g.link.mu.Unlock()
	if dropping {
		return len(p), nil
	}
	return g.Writer.Write(p)
}

// interrupt closes the connections that exist, and decides whether new connections are refused.
func (l *link) interrupt(refusing bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusing, l.dropping = refusing || l.closed, false
	for conn := range l.open {
		conn.Close()
	}
}

// close ends the link and waits for its goroutines. Its address refuses connections afterwards.
func (l *link) close() {
	l.listener.Close()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.interrupt(true)
	l.running.Wait()
}

// cut interrupts the link for a while, or until ctx ends; in both cases the link works again afterwards. A silent cut
// keeps connections open and drops the data; the connections break when the cut ends, because a part of their data is
// missing. A loud cut breaks connections at once, and breaks new connections as soon as they are made.
func (l *link) cut(ctx context.Context, length time.Duration, silent bool) {
	if silent {
		l.mu.Lock()
		l.dropping = true
		l.mu.Unlock()
	} else {
		l.interrupt(true)
	}
	defer l.interrupt(false)
	_ = retry.Sleep(ctx, length) // an interrupted cut is repaired too
}
