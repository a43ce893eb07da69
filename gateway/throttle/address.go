package throttle

import (
	"net/http"
	"net/netip"
	"strings"
)

// Address returns the client address of a request as a key for [Throttle.Wait]: an IPv4 address, or the /64 network of an
// IPv6 address, because one client usually has a whole /64.
//
// proxies is the number of trusted proxies in front of the server. Each proxy appends the address of its own client to
// X-Forwarded-For. The outermost trusted proxy has therefore written the entry at the position proxies, counted from the
// right. All entries further left come from the client, who can write anything. With 0 proxies, or with fewer entries
// than proxies, the address is that of the connection.
//
// The front end of Cloud Run appends one entry. An external Application Load Balancer appends two, the client's address
// and its own (https://cloud.google.com/load-balancing/docs/https#x-forwarded-for_header).
func Address(r *http.Request, proxies int) string {
	if proxies > 0 {
		entries := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if i := len(entries) - proxies; i >= 0 {
			if key, ok := network(strings.TrimSpace(entries[i])); ok {
				return key
			}
		}
	}
	key, _ := network(r.RemoteAddr)
	return key
}

// network returns the key of an address with or without a port.
func network(s string) (key string, ok bool) {
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		with, err := netip.ParseAddrPort(s)
		if err != nil {
			return "", false
		}
		addr = with.Addr()
	}
	if addr = addr.Unmap().WithZone(""); addr.Is4() {
		return addr.String(), true
	}
	return netip.PrefixFrom(addr, 64).Masked().String(), true
}
