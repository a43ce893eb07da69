// Package bearer reads the token of an HTTP request (RFC 6750, section 2.1), and protects a handler with a token. Start
// with [Token] and [Require]. The functions are safe for concurrent use.
package bearer

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"parley.internal/shared/credential"
)

// Token returns the token of the header "Authorization: Bearer TOKEN", which may be empty. The word Bearer may have any
// case. Without such a header, ok is false.
func Token(r *http.Request) (token string, ok bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

// Require passes requests with the token to h. For every other request it sets the header WWW-Authenticate and calls
// refuse, which answers with 401. It compares hashes in constant time, so the response time reveals neither the token nor
// its length. If token is zero, it refuses every request.
func Require(token credential.Secret, h http.Handler, refuse http.HandlerFunc) http.Handler {
	want := sha256.Sum256([]byte(token.Reveal()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, _ := Token(r)
		got := sha256.Sum256([]byte(given))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || token.IsZero() {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}
