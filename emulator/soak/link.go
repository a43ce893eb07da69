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
)

// network makes links, which can be cut.
type network struct {
	server *toxiproxy.ApiServer

	mu    sync.Mutex // guards what follows
	links []*link
}

func newNetwork() *network {
	// its own HTTP interface is never served: this process is its only user
	return &network{server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
}

// link is the network between two parts.
type link struct {
	proxy *toxiproxy.Proxy
	addr  string
}

// link leads to an address from one of its own.
func (n *network) link(name, to string) (*link, error) {
	var err error
	for range 10 { // somebody else may be quicker to take the address
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

func (n *network) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		l.proxy.Stop()
	}
}

// cut keeps anything from coming through for a while. If it is silent, connections stay and what is sent disappears;
// they break when the cut ends. Otherwise they break at once, and new ones are refused.
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
	wait(ctx, length) // a cut that is broken off is mended, too
	return nil
}
