package soak

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"parley.internal/emulator/port"
	"parley.internal/shared/retry"
)

// network makes links and closes them at the end. Its methods are safe for concurrent use.
type network struct {
	server *toxiproxy.ApiServer

	mu    sync.Mutex // guards links
	links []*link
}

// newNetwork makes a network without links.
func newNetwork() *network {
	// The proxy's own HTTP interface is never served: this process is its only user.
	return &network{server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
}

// link is a proxy between two parts. It can be cut.
type link struct {
	proxy *toxiproxy.Proxy
	addr  string // the proxy's own address, host:port
}

// portAttempts is how many free ports are tried. Between the search and the use, another process can take the port.
const portAttempts = 10

// link opens a proxy to an address.
func (n *network) link(name, to string) (*link, error) {
	var err error
	for range portAttempts {
		var addr string
		if addr, err = port.Free(); err != nil {
			break
		}
		l := &link{proxy: toxiproxy.NewProxy(n.server, name, addr, to), addr: addr}
		if err = l.proxy.Start(); err == nil {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.links = append(n.links, l)
			return l, nil
		}
	}
	return nil, fmt.Errorf("link to %s: %w", name, err)
}

// close stops every link.
func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.proxy.Stop()
	}
}

// cut interrupts the link for a while, or until ctx ends; in both cases the link works again afterwards. A silent cut
// keeps connections open and drops the data; the connections break when the cut ends. A loud cut breaks connections at
// once and refuses new connections.
func (l *link) cut(ctx context.Context, length time.Duration, silent bool) (err error) {
	if silent {
		for _, stream := range []string{"upstream", "downstream"} {
			toxic := fmt.Sprintf(`{"name": %q, "type": "timeout", "stream": %q, "attributes": {"timeout": 0}}`, stream, stream)
			if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
				return fmt.Errorf("cut %s: %w", l.proxy.Name, err)
			}
		}
		defer func() {
			for _, stream := range []string{"upstream", "downstream"} {
				err = errors.Join(err, l.proxy.Toxics.RemoveToxic(context.WithoutCancel(ctx), stream))
			}
		}()
	} else {
		l.proxy.Stop()
		defer func() { err = l.proxy.Start() }()
	}
	_ = retry.Sleep(ctx, length) // an interrupted cut is repaired too
	return nil
}
