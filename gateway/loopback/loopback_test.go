package loopback_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"parley.internal/gateway/loopback"
)

func TestOnlyLoopbackHostsAreAnswered(t *testing.T) {
	h := loopback.Only(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "chat.example", "box.example:8443", "")
	for host, want := range map[string]int{
		"localhost": 200, "localhost:8080": 200, "LocalHost:1": 200, "localhost:": 200,
		"127.0.0.1": 200, "127.0.0.1:8080": 200, "127.8.9.10:80": 200, "[::1]": 200, "[::1]:8080": 200, "[::ffff:127.0.0.1]:1": 200,
		"chat.example": 200, "CHAT.example": 200, "box.example:8443": 200,

		"": 421, "evil.example": 421, "evil.example:8080": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example:8080": 421,
		"evil.localhost": 421, "localhost.": 421, "0.0.0.0:8080": 421, "[::]:8080": 421, "192.168.1.2:8080": 421, "10.0.0.1": 421,
		"[2001:db8::1]:8080": 421, "::1": 421, "::1:8080": 421, "[127.0.0.1]": 421, "localhost:evil": 421, "localhost:80:80": 421,
		"127.0.0.1@evil.example": 421, "evil.example#localhost": 421, "127.1": 421, "2130706433": 421, "[::1%25lo]:1": 421, "[::1": 421,
		"chat.example:8080": 421, "box.example": 421,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Host = host
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != want {
			t.Errorf("Host %q: %d; want %d", host, rec.Code, want)
		}
		if want != 421 {
			continue
		}
		var body struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil || body.Error.Code != loopback.Code || body.Error.Message == "" {
			t.Errorf("Host %q: %v in %s", host, err, rec.Body)
		}
	}
}

func ExampleIsListener() {
	fmt.Println(loopback.IsListener(&net.TCPAddr{IP: net.IPv6loopback}), loopback.IsListener(&net.TCPAddr{IP: net.IPv4zero}))
	// Output: true false
}
