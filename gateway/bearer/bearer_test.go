package bearer

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"parley.internal/shared/credential"
)

func TestToken(t *testing.T) {
	for _, tt := range []struct {
		header, want string
		ok           bool
	}{
		{"", "", false}, {"Bearer", "", false}, {"Basic abc", "", false}, {"abc", "", false}, {"Bearerabc", "", false},
		{"Bearer ", "", true}, {"Bearer abc", "abc", true}, {"bearer abc", "abc", true}, {"BEARER   abc ", "abc", true},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", tt.header)
		if got, ok := Token(r); got != tt.want || ok != tt.ok {
			t.Errorf("%q has the token %q, %t; want %q, %t", tt.header, got, ok, tt.want, tt.ok)
		}
	}
}

func TestOnlyTheTokenPasses(t *testing.T) {
	passes := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	refuse := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }
	for _, tt := range []struct {
		token, header string
		want          int
	}{
		{"secret", "Bearer secret", http.StatusNoContent},
		{"secret", "bearer  secret", http.StatusNoContent},
		{"secret", "Bearer secrets", http.StatusUnauthorized},
		{"secret", "Basic secret", http.StatusUnauthorized},
		{"secret", "secret", http.StatusUnauthorized},
		{"secret", "Bearer ", http.StatusUnauthorized},
		{"secret", "", http.StatusUnauthorized},
		{"", "Bearer ", http.StatusUnauthorized},
		{"", "", http.StatusUnauthorized},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", tt.header)
		w := httptest.NewRecorder()
		Require(credential.NewSecret(tt.token), http.HandlerFunc(passes), refuse).ServeHTTP(w, r)
		if w.Code != tt.want || (w.Header().Get("WWW-Authenticate") == "Bearer") != (tt.want == http.StatusUnauthorized) {
			t.Errorf("token %q, header %q: %d %v", tt.token, tt.header, w.Code, w.Header())
		}
	}
}
