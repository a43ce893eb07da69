package soak

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// linked starts a server that hands each connection to serve, and opens a link to the server.
func linked(t *testing.T, serve func(net.Conn)) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	server.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			server.Go(func() { defer conn.Close(); serve(conn) })
		}
	})
	n := &network{}
	t.Cleanup(func() { l.Close(); n.close(); server.Wait() })
	made, err := n.link(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// echo sends back what it receives.
func echo(conn net.Conn) { io.Copy(conn, conn) }

// dial connects to a link, with a limit for all that follows.
func dial(t *testing.T, l *link) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(startTime)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// works reports whether a line comes back over a connection.
func works(conn net.Conn) bool {
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		return false
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && line == "hello\n"
}

// await waits for a state of a link.
func await(l *link, reached func() bool) {
	for {
		l.mu.Lock()
		ok := reached()
		l.mu.Unlock()
		if ok {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestCutInterruptsTheLink(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{true, false} {
		l := linked(t, echo)
		before := dial(t, l)
		if !works(before) {
			t.Fatal("the link does not forward")
		}
		ctx, repair := context.WithCancel(t.Context())
		var cut sync.WaitGroup
		cut.Go(func() { l.cut(ctx, time.Hour, silent) })
		await(l, func() bool { return l.dropping || l.refusing }) // the cut has begun
		during := dial(t, l)
		if silent {
			await(l, func() bool { return len(l.open) == 4 }) // both ends of both connections
			// Both connections take the line, and nothing comes back until the cut ends.
			for _, conn := range []net.Conn{before, during} {
				if _, err := io.WriteString(conn, "dropped\n"); err != nil {
					t.Errorf("write during a silent cut: %v", err)
				}
			}
		} else if works(during) || works(before) {
			t.Error("a connection works during a loud cut")
		}
		repair()
		cut.Wait()
		for name, conn := range map[string]net.Conn{"before": before, "during": during} {
			if got, err := io.ReadAll(conn); len(got) != 0 {
				t.Errorf("silent %v: the connection made %s the cut received %q, %v", silent, name, got, err)
			}
		}
		if !works(dial(t, l)) {
			t.Errorf("silent %v: the link does not work after the cut", silent)
		}
	}
}

// The server breaks its connections while data arrives, at any moment of a cut.
func TestCutEndsWhileConnectionsBreak(t *testing.T) {
	t.Parallel()
	l := linked(t, func(conn net.Conn) {
		io.CopyN(io.Discard, conn, 64<<10)
		conn.(*net.TCPConn).SetLinger(0) // Close sends a reset
	})
	var clients sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				if conn, err := net.Dial("tcp", l.addr); err == nil {
					conn.Write(make([]byte, 256<<10))
					conn.Close()
				}
			}
		})
	}
	for i := range 500 {
		l.cut(ctx, 100*time.Microsecond, i%2 == 0)
	}
	stop()
	clients.Wait()
}

func TestCloseEndsConnectionsThatNobodyReads(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	defer close(ended)
	l := linked(t, func(net.Conn) { <-ended })
	conn := dial(t, l)
	go conn.Write(make([]byte, 64<<20)) // more than the buffers on the way hold; ends with the connection
	var reading sync.WaitGroup
	reading.Go(func() { io.ReadAll(conn) })           // ends with the connection
	await(l, func() bool { return len(l.open) == 2 }) // both ends of the connection
	l.close()
	reading.Wait()
	if conn, err := net.Dial("tcp", l.addr); err == nil {
		conn.Close()
		t.Error("a closed link accepts connections")
	}
}
