// Package page serves the gateway's chat page at /: an HTML file with a style and a script, all embedded. The page has
// no build step and loads nothing from other hosts. Start at [Handler].
//
// The package knows nothing of tokens and messages: page.js speaks the WebSocket protocol of package websocket.
package page

import (
	"embed"
	"net/http"
)

//go:embed index.html page.css page.js
var files embed.FS

// policy is the Content-Security-Policy of the page: only files and connections of the page's own host are allowed
// (https://www.w3.org/TR/CSP3/). 'self' also covers the WebSocket, because the socket has the same host.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the chat page at / and its files. Other paths are 404.
func Handler() http.Handler { return Serve(files) }

// Serve serves the page index.html of files at /, and the remaining files by name. The page must not have inline styles
// or scripts, and must not load anything from other hosts.
func Serve(files embed.FS) http.Handler {
	static := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache") // embedded files have no modification time for a conditional request
		static.ServeHTTP(w, r)
	})
}
