package instance

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"parley.internal/gateway/loopback"
	"parley.internal/shared/credential"
)

// metricsHandler returns the handler of /metrics. The metrics are not public: they tell who is connected and how busy
// Parley is. With a token, the handler requires the token. Without a token, the handler serves nothing, unless open is
// true: then it serves requests from this machine.
func metricsHandler(registry *prometheus.Registry, token credential.Secret, open bool) http.Handler {
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	switch {
	case !token.IsZero():
		return requireBearer(metrics, token)
	case open:
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			// A proxy on this machine passes requests of strangers to the loopback interface.
			if !loopback.IsHost(r.Host) || r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
				http.NotFound(w, r)
				return
			}
			metrics.ServeHTTP(w, r)
		})
	}
	return http.NotFoundHandler()
}

// requireBearer passes requests with the token in the Authorization header to h, and answers 401 to the remaining ones.
// It compares hashes in constant time, so the response time reveals neither the token nor its length.
func requireBearer(h http.Handler, token credential.Secret) http.Handler {
	want := sha256.Sum256([]byte(token.Reveal()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(given)))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeJSON(w, http.StatusUnauthorized, map[string]any{"error": map[string]string{
				"code": "token_required", "message": "The path needs its own token: Authorization: Bearer TOKEN.",
			}})
			return
		}
		h.ServeHTTP(w, r)
	})
}
