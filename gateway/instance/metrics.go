package instance

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"parley.internal/gateway/bearer"
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
		return requireToken(metrics, token)
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

// requireToken passes requests with the token in the Authorization header to h, and answers 401 to the remaining ones.
func requireToken(h http.Handler, token credential.Secret) http.Handler {
	return bearer.Require(token, h, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": map[string]string{
			"code": "token_required", "message": "The path needs its own token: Authorization: Bearer TOKEN.",
		}})
	})
}
