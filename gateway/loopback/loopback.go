// Package loopback protects HTTP servers on a person's own machine. Such a server listens on the loopback interface, but
// every page in the person's browser can still reach it: a foreign page lets its own host name resolve to 127.0.0.1, and
// is then of the same origin as the server (DNS rebinding). The browser still sends the foreign name in the Host header.
// Start at [Only].
package loopback

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Code is the error code in the body of a refused request.
const Code = "host_refused"

// Only passes requests to h if the Host header is a loopback host (see [IsHost]) or equals one of the other hosts, which
// are of the form HOST or HOST:PORT. Only answers 421 (Misdirected Request) to the remaining requests, with the body
// {"error":{"code":"host_refused","message":…}}.
func Only(h http.Handler, others ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if IsHost(r.Host) || slices.ContainsFunc(others, func(o string) bool { return o != "" && strings.EqualFold(o, r.Host) }) {
			h.ServeHTTP(w, r)
			return
		}
		header := w.Header()
		header.Set("Content-Type", "application/json")
		header.Set("Cache-Control", "no-store")
		header.Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusMisdirectedRequest)
		json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{ // fails only if the client has disconnected
			"code":    Code,
			"message": "This server answers only for this machine: use localhost or a loopback address as the host.",
		}})
	})
}

// IsHost reports whether a Host header is localhost or a loopback address, with or without a port.
func IsHost(host string) bool {
	if name, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil && port != "" {
			return false
		}
		if strings.Contains(name, ":") && host[0] != '[' {
			return false
		}
		return isName(name)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return ok && strings.Contains(inner, ":") && isName(inner)
	}
	return !strings.Contains(host, ":") && isName(host)
}

func isName(name string) bool {
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}

// IsListener reports whether a listener accepts connections from this machine only.
func IsListener(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
