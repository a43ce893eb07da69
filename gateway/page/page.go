// Package page is the chat page that a gateway serves at /: one HTML file with its style and script, embedded, without
// a build step and without anything from elsewhere.
package page

import (
	"embed"
	"net/http"
)

//go:embed index.html page.css page.js
var files embed.FS

// policy lets the page load its own files and talk to its own host, and nothing else (https://www.w3.org/TR/CSP3/).
// 'self' covers the socket: it has the same host.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the page at / and its files beside it; anything else is 404.
func Handler() http.Handler { return Serve(files) }

// Serve serves another page of this kind: its index.html at /, and its other files beside it. The page can have nothing
// inline and nothing from elsewhere.
func Serve(files embed.FS) http.Handler {
	static := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache") // embedded files have no time to compare with
		static.ServeHTTP(w, r)
	})
}
