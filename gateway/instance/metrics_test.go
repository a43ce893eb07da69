package instance

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"parley.internal/shared/config"
	"parley.internal/shared/credential"
)

func TestMetricsAreNotPublic(t *testing.T) {
	const token = "0123456789-metrics-token"
	for _, test := range []struct {
		name  string
		token string
		open  bool
		host  string
		extra []string // a header
		want  int
	}{
		{"right token", token, false, "gateway.example", []string{"Authorization", "Bearer " + token}, 200},
		{"scheme in lower case", token, false, "gateway.example", []string{"Authorization", "bearer  " + token}, 200},
		{"no token", token, false, "gateway.example", nil, 401},
		{"no token, from this machine", token, true, "127.0.0.1:8080", nil, 401},
		{"empty token", token, false, "gateway.example", []string{"Authorization", "Bearer "}, 401},
		{"beginning of the token", token, false, "gateway.example", []string{"Authorization", "Bearer " + token[:10]}, 401},
		{"more than the token", token, false, "gateway.example", []string{"Authorization", "Bearer " + token + "x"}, 401},
		{"another scheme", token, false, "gateway.example", []string{"Authorization", "Basic " + token}, 401},
		{"token in the URL", token, false, "gateway.example", []string{"X-Token", token}, 401},
		{"none configured", "", false, "gateway.example", nil, 404},
		{"none configured, and a token sent", "", false, "gateway.example", []string{"Authorization", "Bearer "}, 404},
		{"none configured, this machine", "", false, "127.0.0.1:8080", nil, 404},
		{"emulator, this machine", "", true, "127.0.0.1:8080", nil, 200},
		{"emulator, another host", "", true, "laptop.example", nil, 404},
		{"emulator, through a proxy", "", true, "localhost:8080", []string{"X-Forwarded-For", "203.0.113.9"}, 404},
		{"emulator, through another proxy", "", true, "localhost:8080", []string{"Forwarded", "for=203.0.113.9"}, 404},
	} {
		registry := prometheus.NewRegistry()
		registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_test"}))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics?token="+token, nil)
		r.Host = test.host
		if test.extra != nil {
			r.Header.Set(test.extra[0], test.extra[1])
		}
		rec := httptest.NewRecorder()
		metricsHandler(registry, credential.NewSecret(test.token), test.open).ServeHTTP(rec, r)
		if rec.Code != test.want || strings.Contains(rec.Body.String(), "parley_test") != (test.want == 200) {
			t.Errorf("%s: %d; want %d", test.name, rec.Code, test.want)
		}
		if (rec.Header().Get("WWW-Authenticate") == "Bearer") != (test.want == 401) {
			t.Errorf("%s: WWW-Authenticate %q", test.name, rec.Header().Get("WWW-Authenticate"))
		}
	}
}

func TestMetricsTokenIsCheckedAtStart(t *testing.T) {
	for token, ok := range map[string]bool{
		"":                                   true,
		strings.Repeat("x", 24):              true,
		strings.Repeat("x", 512):             true,
		strings.Repeat("x", 23):              false,
		strings.Repeat("x", 513):             false,
		"0123456789 0123456789 0123456789":   false,
		"0123456789-0123456789-0123456789\n": false,
		"0123456789-0123456789-0123456789é":  false,
	} {
		_, err := config.Load[Config]([]string{"GOOGLE_CLOUD_PROJECT=p", "METRICS_TOKEN=" + token})
		if (err == nil) != ok {
			t.Errorf("%q: %v; want it valid: %v", token, err, ok)
		}
		if err != nil && (!strings.Contains(err.Error(), "METRICS_TOKEN: ") || strings.Contains(err.Error(), token)) {
			t.Errorf("%q: the error %q does not name the variable, or contains the token", token, err)
		}
	}
}
