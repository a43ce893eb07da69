package throttle_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"parley.internal/gateway/throttle"
)

func TestAddressIsTheEntryOfTheOutermostTrustedProxy(t *testing.T) {
	for _, test := range []struct {
		name      string
		remote    string
		forwarded []string
		proxies   int
		want      string
	}{
		{"no proxy", "203.0.113.1:99", nil, 0, "203.0.113.1"},
		{"no proxy, forged header", "203.0.113.1:99", []string{"198.51.100.7"}, 0, "203.0.113.1"},
		{"Cloud Run", "169.254.1.1:99", []string{"203.0.113.1"}, 1, "203.0.113.1"},
		{"Cloud Run, forged entries", "169.254.1.1:99", []string{"198.51.100.7, 127.0.0.1,203.0.113.1"}, 1, "203.0.113.1"},
		{"Cloud Run, forged second header", "169.254.1.1:99", []string{"198.51.100.7", "203.0.113.1"}, 1, "203.0.113.1"},
		{"load balancer", "169.254.1.1:99", []string{"198.51.100.7,203.0.113.1, 192.0.2.1"}, 2, "203.0.113.1"},
		{"fewer entries than proxies", "169.254.1.1:99", []string{"203.0.113.1"}, 2, "169.254.1.1"},
		{"no header", "169.254.1.1:99", nil, 1, "169.254.1.1"},
		{"no address", "169.254.1.1:99", []string{"unknown"}, 1, "169.254.1.1"},
		{"empty entry", "169.254.1.1:99", []string{"203.0.113.1,"}, 1, "169.254.1.1"},
		{"entry with port", "169.254.1.1:99", []string{"203.0.113.1:1234"}, 1, "203.0.113.1"},
		{"IPv6", "[2001:db8:1:2:3:4:5:6]:99", nil, 0, "2001:db8:1:2::/64"},
		{"IPv6 of the same network", "169.254.1.1:99", []string{"2001:db8:1:2::9"}, 1, "2001:db8:1:2::/64"},
		{"IPv6 in brackets", "169.254.1.1:99", []string{"[2001:db8:1:2::9]:1"}, 1, "2001:db8:1:2::/64"},
		{"IPv6 with zone", "[fe80::1%eth0]:99", nil, 0, "fe80::/64"},
		{"IPv4 as IPv6", "[::ffff:203.0.113.1]:99", nil, 0, "203.0.113.1"},
		{"no connection", "", nil, 0, ""},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.RemoteAddr, r.Header["X-Forwarded-For"] = test.remote, test.forwarded
		if got := throttle.Address(r, test.proxies); got != test.want {
			t.Errorf("%s: %q; want %q", test.name, got, test.want)
		}
	}
}
